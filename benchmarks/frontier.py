"""Regret beside cost: what a choice saves, and how much of the measured front of quality and cost it reaches."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lsf.errors import BadInputError
from lsf.evidence.regret import Blocks, Truth

Point = tuple[float, float]
"""(Cost, lower is better; quality, higher is better)."""


def time_saved(truth: Truth, costs: Mapping[Blocks, float], choices: Iterable[Blocks], allowed: float) -> float | None:
    """Return the greatest share of full fine-tuning's cost that a choice saves while it loses little against it.

    Args:
        truth: the sweep.
        costs: tuned blocks -> cost over full fine-tuning's.
        choices: plans to look among: a criterion's at several budgets, or all of the sweep.
        allowed: greatest loss against full fine-tuning, as a share of what that gains over the floor.

    Returns:
        1 - cost of the cheapest such choice; None where every one loses more, or full tuning gains nothing.
    """
    gained = truth.full_mean - truth.floor
    if gained <= 0:
        return None
    least = truth.full_mean - allowed * gained
    good = [costs[blocks] for blocks in choices if truth.mean(blocks) >= least]
    return 1 - min(good) if good else None


def hypervolume(points: Sequence[Point], most_cost: float = 1.0, least_quality: float = 0.0) -> float:
    """Return the area that points dominate: cheaper than `most_cost` and better than `least_quality`.

    Args:
        points: in any order; those beyond the reference dominate nothing.
        most_cost: reference, such as full fine-tuning's cost of 1.
        least_quality: reference, such as the floor.

    Raises:
        BadInputError: a point is not finite.
    """
    if not np.isfinite(points).all():
        raise BadInputError("The points of a front must be finite numbers; leave out what was not measured.")
    inside = sorted((cost, quality) for cost, quality in points if cost < most_cost and quality > least_quality)
    area, reached = 0.0, least_quality
    for cost, quality in inside:  # ascending cost: each point adds what lies above all cheaper ones
        if quality > reached:
            area += (most_cost - cost) * (quality - reached)
            reached = quality
    return area


def front_share(truth: Truth, costs: Mapping[Blocks, float], choices: Iterable[Blocks]) -> float | None:
    """Return the choices' hypervolume over that of all plans of the sweep, in [0, 1]; None where the latter is 0."""

    def area(plans: Iterable[Blocks]) -> float:
        return hypervolume([(costs[blocks], truth.mean(blocks)) for blocks in plans], least_quality=truth.floor)

    whole = area(truth.scores)
    return area(choices) / whole if whole > 0 else None
