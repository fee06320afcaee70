"""A comparison as a text table, CSV or JSON."""

import json
from dataclasses import asdict

import pandas as pd

from lsf.compare.seeds import summarise
from lsf.compare.table import Comparison, Row
from lsf.errors import UnknownNameError
from lsf.files import finite

FORMATS = ("table", "csv", "json")
SHOWN = {
    "plan": "plan",
    "method": "method",
    "role": "role",
    "seed": "seed",
    "state": "state",
    "fault": "fault",
    "learning_rate": "rate",
    "rate_to_try": "try rate",
    "exact_match_before": "exact before",
    "exact_match_after": "exact after",
    "loss_after": "loss after",
    "forgetting": "forgetting",
    "trainable_params": "params",
    "steps": "steps",
    "tuning_seconds": "seconds",
    "peak_memory_bytes": "memory MB",
    "stored_bytes": "stored kB",
    "latency_ratio": "x latency",
    "x_params": "x params",
    "x_time": "x step time",
    "x_memory": "x memory",
    "x_quality": "x quality",
}
"""Columns of the text table and their headings; CSV and JSON have all of them."""
_PERCENT = ("exact_match_before", "exact_match_after")
_RATIOS = ("latency_ratio", "x_params", "x_time", "x_memory", "x_quality")


def to_frame(comparison: Comparison) -> pd.DataFrame:
    """Return every row and column as a data frame; unknown cells are missing values."""
    return pd.DataFrame([asdict(row) for row in comparison.rows], columns=list(Row.__dataclass_fields__))


def render(comparison: Comparison, form: str = "table") -> str:
    """Write a comparison as text.

    Args:
        comparison: from `compare`.
        form: `table` for people (chosen columns, means over seeds, warnings), `csv` or `json` for programs (all
            columns; JSON also has the means and the warnings).

    Raises:
        UnknownNameError: another format.
    """
    if form == "csv":
        return to_frame(comparison).to_csv(index=False)
    if form == "json":
        summaries = [{**asdict(summary), "note": summary.note} for summary in summarise(comparison.rows)]
        rows = [asdict(row) for row in comparison.rows]
        whole = {"schema_version": 1, "rows": rows, "summary": summaries, "warnings": comparison.warnings}
        return json.dumps(finite(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if form != "table":
        raise UnknownNameError("format", form, FORMATS)
    return _text(comparison)


def _text(comparison: Comparison) -> str:
    cells = [{head: _shown(row, name) for name, head in SHOWN.items()} for row in comparison.rows]
    parts = [pd.DataFrame(cells, columns=list(SHOWN.values())).to_string(index=False)]
    parts += [
        f"{summary.plan}{_by(summary.method)} ({summary.role}): exact match "
        + cell("exact_match_after", summary.mean["exact_match_after"])
        + _plus_minus(summary.spread["exact_match_after"])
        + f", {summary.note}"
        for summary in summarise(comparison.rows)
    ]
    parts += [f"Note: {warning}" for warning in comparison.warnings]
    return "\n".join(parts) + "\n"


def _shown(row: Row, name: str) -> str:
    text = cell(name, getattr(row, name))
    if name != "latency_ratio" or row.latency_low is None or row.latency_high is None:
        return text
    return f"{text} ({row.latency_low:.2f}-{row.latency_high:.2f})"


def cell(name: str, value: object) -> str:
    """Return one cell as people read it; a dash where it is unknown."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float)
    if name in _PERCENT:
        return f"{100 * value:.1f} %"
    if name in _RATIOS:
        return f"{value:.2f}"
    if name == "peak_memory_bytes":
        return f"{value / 1e6:.1f}"
    if name == "stored_bytes":
        return f"{value / 1e3:,.1f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _by(method: str | None) -> str:
    return "" if method in (None, "full") else f" by {method}"


def _plus_minus(spread: float | None) -> str:
    return "" if spread is None else f" ± {100 * spread:.1f}"
