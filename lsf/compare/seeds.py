"""The same choice under several seeds: mean and spread, or the plain words that there is no spread to tell."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lsf.compare.table import Row
from lsf.jobs.result import RunState

SUMMARISED = (
    "exact_match_before",
    "exact_match_after",
    "loss_before",
    "loss_after",
    "accuracy_after",
    "forgetting",
    "trainable_params",
    "seconds",
    "step_seconds_median",
    "peak_memory_bytes",
    "x_params",
    "x_time",
    "x_memory",
    "x_quality",
    "x_loss_drop",
)
"""Columns that are averaged."""


@dataclass(frozen=True)
class Summary:
    """One choice over its seeds."""

    role: str | None
    """choice, full, first, last, random, manual."""
    plan: str
    """Label of the plan; for the random control the number of blocks, since each seed draws others."""
    method: str | None
    """How it was tuned."""
    runs: tuple[str, ...]
    """Ids of the runs."""
    n_seeds: int
    """Different seeds among them."""
    mean: dict[str, float | None]
    """Column -> mean over the runs where it is known; None where it never is."""
    spread: dict[str, float | None]
    """Column -> sample standard deviation over runs; None below two seeds."""

    @property
    def note(self) -> str:
        """How far the means can be trusted, in words."""
        return "1 seed, no interval" if self.n_seeds < 2 else f"{self.n_seeds} seeds, mean ± standard deviation"


def summarise(rows: Sequence[Row]) -> tuple[Summary, ...]:
    """Group succeeded runs that differ only in their seed (and in the rate a search found), in order of appearance."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.state == RunState.SUCCEEDED:
            rate = None if row.rate_searched else row.learning_rate
            groups.setdefault((row.role, _label(row), row.method, row.steps, row.rate_searched, rate), []).append(row)
    return tuple(_summary(label, group) for (_, label, *_rest), group in groups.items())


def _summary(label: object, group: Sequence[Row]) -> Summary:
    seeds = len({row.seed for row in group})
    mean: dict[str, float | None] = {}
    spread: dict[str, float | None] = {}
    for name in SUMMARISED:
        values = [float(value) for row in group if (value := getattr(row, name)) is not None]
        mean[name] = statistics.fmean(values) if values else None
        spread[name] = statistics.stdev(values) if seeds > 1 and len(values) > 1 else None
    return Summary(group[0].role, str(label), group[0].method, tuple(row.run for row in group), seeds, mean, spread)


def _label(row: Row) -> str:
    if row.role == "random" and row.n_blocks:
        return f"random {row.n_blocks} block{'s' if row.n_blocks > 1 else ''}"
    return row.plan or "unknown"
