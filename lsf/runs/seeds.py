"""Over seeds: means with the intervals that so few of them allow, and the runs of one choice summarised."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import scipy

from lsf.runs.comparison import CONTROLS, Row, columns_apart, rate_words, words_apart
from lsf.runs.controls import control_name
from lsf.runs.result import RunState

CONFIDENCE = 0.95
"""Of every interval over seeds."""
ONE_SEED = "1 seed"
"""In the place of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or one mean over another."""

    mean: float
    """Of one number per seed, or mean over mean of two."""
    low: float | None
    """Lower end of its 95 % interval (Student's t; of a ratio Fieller's); None below two seeds, and of a ratio where
    the interval of what it is over holds zero."""
    high: float | None
    """Upper end."""
    n: int
    """Seeds where it is known."""
    lacking: int = 0
    """Further seeds, where it is not: nothing to be set against, or not measured."""

    def words(self, write: Callable[[float], str]) -> str:
        """Return the interval in words: `0.80 to 1.10, 3 seeds`, `0.80 to 1.10, 2 of 3 seeds` or `1 seed`."""
        seeds = ONE_SEED if self.n == 1 else f"{self.n} seeds"
        if self.lacking:
            seeds = f"{self.n} of {self.n + self.lacking} seeds"
        if self.low is None or self.high is None:
            return seeds if self.n < 2 else f"no interval, {seeds}"
        return f"{write(self.low)} to {write(self.high)}, {seeds}"


def estimate(values: Sequence[float], least: float = 0.0) -> Estimate | None:
    """Return mean and interval of one number per seed; None of none.

    Args:
        values: one per seed.
        least: smallest half-width of the interval, where the numbers have steps of their own.
    """
    if not values:
        return None
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Estimate(mean, None, None, n)
    margin = max(least, _quantile(n) * statistics.stdev(values) / math.sqrt(n))
    return Estimate(mean, mean - margin, mean + margin, n)


def ratio_of_means(pairs: Sequence[tuple[float, float]], least: float = 0.0) -> Estimate | None:
    """Return one mean over another, with Fieller's interval; None of no pair, or where the lower mean is not positive.

    The mean of each seed's own ratio would be ruled by the seed whose lower number is nearest to zero. The interval is
    all ratios r at which the mean of `upper - r lower` cannot be told from zero by Student's t over seeds. Where the
    interval of the lower mean holds zero, so that this is no finite interval, the ratio has none.

    Args:
        pairs: upper and lower number of each seed.
        least: difference of `upper - r lower` from zero that tells nothing, where the numbers have steps of their own.

    Source: Fieller (1954), Some problems in interval estimation, J. R. Stat. Soc. B 16, 175-185.
    """
    upper, lower, n = [pair[0] for pair in pairs], [pair[1] for pair in pairs], len(pairs)
    if not n or (below := statistics.fmean(lower)) <= 0:
        return None
    ratio = statistics.fmean(upper) / below
    if n < 2:
        return Estimate(ratio, None, None, n)
    uu, ll, ul = (statistics.covariance(*both) / n for both in ((upper, upper), (lower, lower), (upper, lower)))
    scale = (_quantile(n) / below) ** 2
    if scale * ll >= 1:
        return Estimate(ratio, None, None, n)
    square = uu - 2 * ratio * ul + ratio**2 * ll - scale * (uu * ll - ul**2)
    margin = math.sqrt(scale * max(0.0, square))
    low, high = ((ratio - scale * ul + side * margin) / (1 - scale * ll) for side in (-1, 1))
    return Estimate(ratio, min(low, ratio - least / below), max(high, ratio + least / below), n)


def one_answer(pairs: Sequence[tuple[Row, Row]]) -> float:
    """Return the step of exact match, one answer of the fewest read; 0 where runs are set against themselves alone."""
    return max((1 / row.n_test for row, full in pairs if row.run != full.run and row.n_test), default=0.0)


def _quantile(n: int) -> float:
    """Return Student's t of a two-sided interval over so many seeds."""
    return float(scipy.special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2))


SUMMARISED = (
    "exact_match_before", "exact_match_after", "generated_match_before", "generated_match_after", "loss_before",
    "loss_after", "accuracy_after", "forgetting", "trainable_params", "seconds", "tuning_seconds",
    "step_seconds_median", "peak_memory_bytes", "x_params", "x_time", "x_memory", "x_quality",
    "byte_perplexity_before", "byte_perplexity_after", "gain", "x_gain",
)  # fmt: skip
"""Columns that are averaged."""
OVER_FULL = {"x_quality": "exact_match_after", "x_gain": "gain"}
"""Column that is over the full run's -> of what; its mean is mean over mean."""


@dataclass(frozen=True)
class Summary:
    """One choice over its seeds."""

    role: str | None
    """One of `lsf.runs.spec.ROLES`."""
    plan: str
    """Label of the plan; of a control `control_name`, since each seed draws other random blocks."""
    method: str | None
    """How it was tuned."""
    runs: tuple[str, ...]
    """Ids of the runs."""
    n_seeds: int
    """Different seeds among them."""
    mean: dict[str, float | None]
    """Column -> mean over the seeds where it is known, each the mean of its runs; None where it never is."""
    spread: dict[str, float | None]
    """Column -> sample standard deviation over those seeds; None below two, and of `over_full`."""
    known: dict[str, int]
    """Column -> how many seeds those are."""
    over_full: dict[str, Estimate | None]
    """Column of `OVER_FULL` -> mean over the full runs' mean, with its interval."""

    @property
    def note(self) -> str:
        """How far the means can be trusted, in words."""
        return "1 seed, no interval" if self.n_seeds < 2 else f"{self.n_seeds} seeds, mean ± standard deviation"


def summarise(rows: Sequence[Row]) -> tuple[Summary, ...]:
    """Group succeeded runs that differ only in their seed (and in the rate a search found), in order of appearance.

    Args:
        rows: of one comparison; what is over a full run is known where that is among them.
    """
    by_id = {row.run: row for row in rows}
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.state == RunState.SUCCEEDED:
            rate = None if row.rate_searched else row.learning_rate
            asked = (row.model, row.data, row.settings)
            groups.setdefault((*asked, row.role, _label(row), row.method, rate), []).append(row)
    ended = [row for group in groups.values() for row in group]
    several = columns_apart(ended)
    names = [(group[0].role, group[0].method, _label(group[0], several)) for group in groups.values()]
    return tuple(
        _summary(name[-1] if names.count(name) == 1 else f"{name[-1]}, {rate_words(group[0])}", group, by_id)
        for name, group in zip(names, groups.values(), strict=True)
    )


def by_seed(rows: Sequence[Row], name: str) -> list[float]:
    """Return one number per seed, the mean over its runs: a run made twice counts once. Unknown cells are left out."""
    found: dict[int | None, list[float]] = {}
    for row in rows:
        if (value := getattr(row, name)) is not None:
            found.setdefault(row.seed, []).append(float(value))
    return [statistics.fmean(values) for values in found.values()]


def _summary(label: str, group: Sequence[Row], by_id: Mapping[str, Row]) -> Summary:
    seeds = len({row.seed for row in group})
    values = {name: by_seed(group, name) for name in SUMMARISED}
    over = {name: _over_full(group, by_id, column, seeds) for name, column in OVER_FULL.items()}
    mean = {name: statistics.fmean(found) if found else None for name, found in values.items()}
    mean |= {name: None if found is None else found.mean for name, found in over.items()}
    spread = {n: statistics.stdev(found) if len(found) > 1 and n not in over else None for n, found in values.items()}
    known = {name: len(found) for name, found in values.items()}
    known |= {name: 0 if found is None else found.n for name, found in over.items()}
    runs = tuple(row.run for row in group)
    return Summary(group[0].role, label, group[0].method, runs, seeds, mean, spread, known, over)


def _over_full(group: Sequence[Row], by_id: Mapping[str, Row], column: str, seeds: int) -> Estimate | None:
    pairs = [(row, by_id[row.reference]) for row in group if row.reference is not None and row.reference in by_id]
    both = [(row, full) for row, full in pairs if None not in (getattr(row, column), getattr(full, column))]
    own, whole = (by_seed([pair[place] for pair in both], column) for place in (0, 1))
    least = one_answer(both) if column == "exact_match_after" else 0.0
    found = ratio_of_means(list(zip(own, whole, strict=True)), least)
    return None if found is None else replace(found, lacking=seeds - found.n)


def _label(row: Row, several: Sequence[str] = ()) -> str:
    name = row.plan or "unknown"
    if row.role in CONTROLS and row.n_blocks:
        name = control_name(row.role, row.n_blocks, row.beside or "")
    if row.general_share is not None:
        name += f" with {100 * row.general_share:.0f} % general data"
    return ", ".join([name, *words_apart(row, several)])
