"""Means over seeds, with the intervals that so few of them allow."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import scipy

CONFIDENCE = 0.95
"""Of every interval over seeds."""
ONE_SEED = "1 seed"
"""In the place of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    """Of one number per seed."""
    low: float | None
    """Lower end of its 95 % interval (Student's t); None below two seeds."""
    high: float | None
    """Upper end."""
    n: int
    """Seeds."""

    def words(self, write: Callable[[float], str]) -> str:
        """Return the interval in words: `0.80 to 1.10, 3 seeds` or `1 seed`."""
        if self.low is None or self.high is None:
            return ONE_SEED
        return f"{write(self.low)} to {write(self.high)}, {self.n} seeds"


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


def _quantile(n: int) -> float:
    """Return Student's t of a two-sided interval over so many seeds."""
    return float(scipy.special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2))
