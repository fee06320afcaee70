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
    "tuning_seconds",
    "step_seconds_median",
    "peak_memory_bytes",
    "x_params",
    "x_time",
    "x_memory",
    "x_quality",
    "gain",
    "x_gain",
)
"""Columns that are averaged."""


@dataclass(frozen=True)
class Summary:
    """One choice over its seeds."""

    role: str | None
    """One of `lsf.jobs.spec.ROLES`."""
    plan: str
    """Label of the plan; for the random control the number of blocks, since each seed draws others."""
    method: str | None
    """How it was tuned."""
    runs: tuple[str, ...]
    """Ids of the runs."""
    n_seeds: int
    """Different seeds among them."""
    mean: dict[str, float | None]
    """Column -> mean over the seeds where it is known, each the mean of its runs; None where it never is."""
    spread: dict[str, float | None]
    """Column -> sample standard deviation over those seeds; None below two."""

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
            asked = (row.model, row.data, row.settings)
            groups.setdefault((*asked, row.role, _label(row), row.method, row.steps, rate), []).append(row)
    ended = [row for group in groups.values() for row in group]
    several = [name for name in ("model", "data") if len({getattr(row, name) for row in ended}) > 1]
    return tuple(_summary(_label(group[0], several), group) for group in groups.values())


def by_seed(rows: Sequence[Row], name: str) -> list[float]:
    """Return one number per seed, the mean over its runs: a run made twice counts once. Unknown cells are left out."""
    found: dict[int | None, list[float]] = {}
    for row in rows:
        if (value := getattr(row, name)) is not None:
            found.setdefault(row.seed, []).append(float(value))
    return [statistics.fmean(values) for values in found.values()]


def _summary(label: str, group: Sequence[Row]) -> Summary:
    seeds = len({row.seed for row in group})
    values = {name: by_seed(group, name) for name in SUMMARISED}
    mean = {name: statistics.fmean(known) if known else None for name, known in values.items()}
    spread = {name: statistics.stdev(known) if len(known) > 1 else None for name, known in values.items()}
    return Summary(group[0].role, label, group[0].method, tuple(row.run for row in group), seeds, mean, spread)


def _label(row: Row, several: Sequence[str] = ()) -> str:
    name = row.plan or "unknown"
    if row.role == "random" and row.n_blocks:
        name = f"random {row.n_blocks} block{'s' if row.n_blocks > 1 else ''}"
    return ", ".join([name, *(str(getattr(row, column)) for column in several)])
