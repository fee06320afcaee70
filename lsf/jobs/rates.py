"""Which learning rate is tried next, outwards from the best so far; no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LADDER = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Rates in half decades: what is tried in sweeps and studies, so that their numbers can be put side by side."""


def around(rate: float, ladder: Sequence[float] = LADDER) -> tuple[float, float, float]:
    """Return the rung nearest to a rate and its neighbours, ascending; at an end of the ladder the last three."""
    place = min(range(len(ladder)), key=lambda rung: abs(math.log(ladder[rung] / rate)))
    start = min(max(0, place - 1), len(ladder) - 3)
    low, middle, high = ladder[start : start + 3]
    return low, middle, high


def outwards(tried: Mapping[float, Any], ladder: Sequence[float]) -> float | None:
    """Return the next rate where the best so far is the lowest or the highest tried; None where it is inside, or last.

    Args:
        tried: rate -> how bad it was on validation, anything with an order: a loss, infinite where lost. Of equals the
            lowest rate is taken for the best, so that a search in which every loss was lost goes down.
        ladder: rates that may be tried.
    """
    best = min(sorted(tried), key=lambda rate: tried[rate])
    if best == min(tried):
        return max((rate for rate in ladder if rate < best), default=None)
    if best == max(tried):
        return min((rate for rate in ladder if rate > best), default=None)
    return None
