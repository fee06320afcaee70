"""Which learning rate is tried next, outwards from the best so far; no torch."""

from collections.abc import Mapping, Sequence
from typing import Any


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
