"""Runs to take away: a comparison as text, CSV or JSON, and one zip that repeats a run."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lsf.data.contents import options_in
from lsf.data.formats import example_line
from lsf.data.reading import check_found
from lsf.data.sources import load_task
from lsf.errors import BadInputError, RunError, RunStateError, UnknownNameError
from lsf.files import finite, write_bytes
from lsf.runs.comparison import Comparison, Row
from lsf.runs.lock import METRICS, RESULT, SPEC
from lsf.runs.seeds import summarise
from lsf.runs.store import Run
from lsf.runs.verdict import EXACT, LOSS, told_by, verdicts

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "json")
SHOWN = {
    "model": "model",
    "data": "data",
    "plan": "plan",
    "method": "method",
    "role": "role",
    "seed": "seed",
    "state": "state",
    "fault": "fault",
    "learning_rate": "rate",
    "rate_to_try": "try rate",
    "general_share": "general",
    "general_token_share": "of tokens",
    "exact_match_before": "exact before",
    "exact_match_after": "exact after",
    "generated_match_before": "right before",
    "generated_match_after": "right after",
    "loss_after": "loss after",
    "byte_perplexity_before": "byte ppl before",
    "byte_perplexity_after": "byte ppl after",
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
_SHARES = ("general_share", "general_token_share", "generated_match_before", "generated_match_after")
_WHERE_KNOWN = (*_SHARES, "byte_perplexity_before", "byte_perplexity_after")
"""Columns that are left out of it where no run has them."""
_WHERE_THEY_DIFFER = ("model", "data")
"""Columns that are left out of it where all runs have the same."""
_PERCENT = ("exact_match_before", "exact_match_after", *_SHARES)
_RATIOS = ("latency_ratio", "x_params", "x_time", "x_memory", "x_quality")


def to_frame(comparison: Comparison) -> "pd.DataFrame":
    """Return every row and column as a data frame; unknown cells are missing values."""
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and most commands need none of it

    return pd.DataFrame([asdict(row) for row in comparison.rows], columns=list(Row.__dataclass_fields__))


def render(comparison: Comparison, form: str = "table") -> str:
    """Write a comparison as text.

    Args:
        comparison: from `compare`.
        form: `table` for people (chosen columns, means over seeds, verdicts, warnings), `csv` or `json` for programs
            (all columns; JSON also has verdicts, means and warnings).

    Raises:
        UnknownNameError: another format.
    """
    if form == "csv":
        return to_frame(comparison).to_csv(index=False)
    if form == "json":
        summaries = [{**asdict(summary), "note": summary.note} for summary in summarise(comparison.rows)]
        rows = [asdict(row) for row in comparison.rows]
        told = [asdict(verdict) for verdict in verdicts(comparison)]
        whole = {"schema_version": 1, "verdicts": told, "rows": rows, "summary": summaries}
        whole["warnings"] = comparison.warnings
        return json.dumps(finite(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if form != "table":
        raise UnknownNameError("format", form, FORMATS)
    return _text(comparison)


def _text(comparison: Comparison) -> str:
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and most commands need none of it

    rows = comparison.rows
    known = [name for name in _WHERE_KNOWN if any(getattr(row, name) is not None for row in rows)]
    known += [name for name in _WHERE_THEY_DIFFER if len({getattr(row, name) for row in rows}) > 1]
    sometimes = (*_WHERE_KNOWN, *_WHERE_THEY_DIFFER)
    shown = {name: head for name, head in SHOWN.items() if name not in sometimes or name in known}
    cells = [{head: _shown(row, name) for name, head in shown.items()} for row in rows]
    score = told_by(rows)
    measure = {EXACT: "exact_match_after", LOSS: "loss_after"}[score]
    parts = [pd.DataFrame(cells, columns=list(shown.values())).to_string(index=False)]
    parts += [
        f"{summary.plan}{_by(summary.method)} ({summary.role}): {score} "
        + cell(measure, summary.mean[measure])
        + _plus_minus(measure, summary.spread[measure])
        + f", {summary.note}"
        for summary in summarise(rows)
    ]
    for verdict in verdicts(comparison):
        parts += [f"Verdict: {verdict.sentence} {verdict.onward}", *(f"  {words}" for words in verdict.warnings)]
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


def _plus_minus(name: str, spread: float | None) -> str:
    return "" if spread is None else f" ± {100 * spread:.1f}" if name in _PERCENT else f" ± {spread:.2g}"


DATA, GENERAL = "data.jsonl", "general.jsonl"
PLAN = "plan.json"
NOTE = "README.txt"
COMMAND = "python -m lsf tune --spec {name}/spec.json --runs runs"


def bundle_runs(runs: Sequence[Run]) -> bytes:
    """Return a zip with a folder per run: spec, plan, rows, metrics, result, and the command that repeats it.

    The rows lie in the bundle with their splits, so that it does not depend on a file that may change. Weights do not:
    they are what the command makes again.

    Raises:
        RunError: a run has no spec or result, or its data is no longer what it was.
        DataError: its data cannot be read any more.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in runs:
            for name, text in _contents(run).items():
                archive.writestr(f"{run.id}/{name}", text)
    return buffer.getvalue()


def zip_folder(folder: Path) -> bytes:
    """Return a zip of a folder's files, under the folder's name; weights do not get smaller, so nothing is packed.

    Raises:
        RunError: a file cannot be read any more.
    """
    buffer = io.BytesIO()
    try:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(path, Path(folder.name, path.relative_to(folder)))
    except OSError as error:
        raise RunError(f"Cannot read {folder}: {error.strerror or error}.") from error
    return buffer.getvalue()


def save_bundle(run: Run, path: Path) -> None:
    """Write a run's bundle to a file, whole or not at all; raises as `bundle_runs` does.

    Raises:
        BadInputError: the file would lie in the run's own folder, where it may replace what is bundled.
    """
    if path.absolute().is_relative_to(run.folder.absolute()):
        raise BadInputError(f"Cannot write {path}: that is the folder of the run {run.id} itself; name another place.")
    write_bytes(path, bundle_runs([run]))


def _contents(run: Run) -> dict[str, str]:
    if run.spec is None or run.result is None:
        raise RunStateError(f"The run {run.id} is {run.state}; only a run that has ended can be bundled.")
    templates = run.spec.prompt_template, run.spec.completion_template
    for name in filter(None, (run.spec.data, run.spec.general)):
        check_found(name)
    task = load_task(run.spec.data, *templates, options=options_in(run.spec), general=run.spec.general)
    known = run.result.general and run.result.general.fingerprint
    for name, old, new in (
        (run.spec.data, run.result.data_fingerprint, task.fingerprint),
        (run.spec.general, known, task.general_fingerprint),
    ):
        if old not in (None, new):
            raise RunStateError(f"The data of {run.id} ({name}) has changed since the run; it cannot be repeated.")
    spec = replace(run.spec, data=DATA, prompt_template=None, completion_template=None, format="auto")
    spec = replace(spec, pairs="raw", general=GENERAL if task.general else None)  # what is no pair of texts says so
    command = COMMAND.format(name=run.id)
    files = {
        SPEC: _json(spec.to_json()),
        PLAN: _json(spec.plan.to_json()),
        DATA: "".join(example_line(one, split) for split in SPLITS for one in getattr(task, split)),
        **({GENERAL: "".join(example_line(one) for one in task.general)} if task.general else {}),
        RESULT: _json(run.result.to_json()),
        NOTE: f"Unpack, then, with the model {spec.model} at hand:\n\n    {command}\n\n"
        f"{RESULT} and {METRICS} are what the first run came to; on the same machine the numbers are the same.\n",
    }
    metrics = run.folder / METRICS
    if metrics.exists():
        files[METRICS] = metrics.read_text(encoding="utf-8")
    return files


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


SPLITS = ("train", "validation", "test")
