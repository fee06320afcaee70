"""A search of d_90 step by step: which d is measured next, and which learning rate is tried at it; no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lsf.jobs.rates import LADDER, around, outwards

AROUND = (0.16, 0.4, 1.0, 2.5, 6.3)
"""Rates that may be tried at one d, as multiples of the method's default there."""
FULL_RATES = tuple(rate for rate in LADDER if 1e-5 <= rate <= 3e-2)
"""Rates that may be tried for full fine-tuning."""
ROUNDING = 1e-9
"""Shares of examples that differ by less are equal."""
LOST = (math.inf, math.inf)
"""How bad a rate is whose loss was lost."""


@dataclass(frozen=True)
class Try:
    """What tuning at one rate came to; shares of exact match, in [0, 1]; None throughout where the loss was lost."""

    validation: float | None
    """On the validation split."""
    validation_loss: float | None
    """There, in nats per token."""
    test: float | None
    """On the test split."""
    train: float | None
    """On examples it was trained on."""
    seconds: float
    """Wall time."""

    @property
    def badness(self) -> tuple[float, float]:
        """What is compared: exact match on validation, then the loss there; the lower, the better."""
        if self.validation is None or self.validation_loss is None:
            return LOST
        return -self.validation, self.validation_loss


def smallest(values: Mapping[int, float], target: float) -> int | None:
    """Return the smallest d whose value reaches the target; None where none does.

    A share of examples reaches the target by counting: 63 of 75 are 90 % of 70 of 75, whatever their rounding says.
    """
    return min((d for d, value in values.items() if value >= target - ROUNDING), default=None)


def next_d(values: Mapping[int, float], target: float, grid: tuple[int, ...], bisections: int) -> int | None:
    """Return the d to be measured next; None where the search has ended.

    The grid from its smallest d upwards until the target is reached, then the middle (of logarithms) between the
    smallest d that reaches it and the largest below that does not.

    Args:
        values: d -> metric, measured so far.
        target: to be reached.
        grid: ascending.
        bisections: middles measured at most.
    """
    found = smallest(values, target)
    if found is None:
        return next((d for d in grid if d not in values), None)
    below = max((d for d in values if d < found), default=None)
    if below is None or len([d for d in values if d not in grid]) >= bisections:
        return None
    middle = round(math.sqrt(below * found))
    return middle if below < middle < found else None


def full_first(own: float) -> tuple[float, float]:
    """Return the rates that are tried first for full fine-tuning: the rung above its default's, and that itself."""
    _, middle, high = around(own, FULL_RATES)
    return high, middle


def rates_at(own: float) -> tuple[float, ...]:
    """Return the rates that may be tried at one d, ascending: `AROUND` times the default there, none above 1."""
    return tuple(sorted({min(1.0, float(f"{own * times:.2g}")) for times in AROUND}))


def first_at(own: float) -> tuple[float, float]:
    """Return the rates that are tried first at one d: the method's default there, and 0.4 times it."""
    one, other = (min(1.0, float(f"{own * times:.2g}")) for times in (1.0, 0.4))
    return one, other


def next_rate(tried: Mapping[float, Try], first: Sequence[float], ladder: Sequence[float], count: int) -> float | None:
    """Return the rate to be tried next at one d; None where that search has ended.

    The first ones, then outwards while the best on validation is at an edge of those tried, `count` in all; more only
    while every loss was lost, downwards.

    Args:
        tried: rate -> what it came to.
        first: in the order in which they are tried.
        ladder: all rates that may be tried.
        count: tried at most, 1 or more.
    """
    left = [rate for rate in first[:count] if rate not in tried]
    if left:
        return left[0]
    badness = {rate: one.badness for rate, one in tried.items()}
    if len(tried) >= count and min(badness.values()) < LOST:
        return None
    return outwards(badness, ladder)


def best_rate(tried: Mapping[float, Try]) -> float | None:
    """Return the rate that is best on validation, the lowest of equals; None where every loss was lost."""
    best = min(sorted(tried), key=lambda rate: tried[rate].badness)
    return best if tried[best].badness < LOST else None


def bound(d: int, n_train: int) -> float:
    """Return sqrt(d / m), which the generalisation gap is bounded by up to a factor and a logarithm.

    Source: Arora et al. 2018, arXiv 1802.05296, as used by Aghajanyan et al. 2020.
    """
    return math.sqrt(d / n_train)
