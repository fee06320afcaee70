"""What a sweep's seeds can tell: which plans of a budget differ by more than chance makes of them."""

import math
from functools import cache

import numpy as np
from scipy import stats

from lsf.analysis.agreement import CHANCE
from lsf.compare.regret import Blocks, Truth, regret


def decided(truth: Truth, budget: int) -> bool | None:
    """Say whether the plans of a budget differ by more than chance makes of their seeds.

    Returns:
        False ("not decided") where the greatest difference of two plans' means is within `least_difference`; None where
        that is unknown.
    """
    least = least_difference(truth, budget)
    means = [truth.mean(blocks) for blocks in truth.plans(budget)]
    return None if least is None else max(means) - min(means) > least


def level_with_best(truth: Truth, budget: int) -> tuple[Blocks, ...]:
    """Return the other plans of a budget that are not apart from the best by more than `least_difference`.

    Returns:
        Best first; none where the difference is unknown.
    """
    least = least_difference(truth, budget)
    ranked = sorted(truth.plans(budget), key=lambda blocks: (-truth.mean(blocks), blocks))
    if least is None:
        return ()
    return tuple(blocks for blocks in ranked[1:] if truth.mean(ranked[0]) - truth.mean(blocks) <= least)


def within_chance(truth: Truth, choice: Blocks) -> bool | None:
    """Say whether what a choice loses against the best of its budget may be chance.

    Returns:
        None where `least_difference` is unknown.
    """
    least = least_difference(truth, len(choice))
    return None if least is None else regret(truth, choice).regret <= least


def least_difference(truth: Truth, budget: int) -> float | None:
    """Return how far two plans' means must lie apart to differ beyond chance: Tukey's honest significant difference.

    Studentized range at 5 %, over all plans of the budget, with the spread over seeds pooled over those that have one:
    a plan that learns nothing scores the same under every seed, which says nothing about the others. It takes the
    seeds of different plans for independent and of one spread, which is rough for two or three seeds.

    Returns:
        None below two seeds or two plans, and where no plan's seeds differ.
    """
    plans = truth.plans(budget)
    spreads = [truth.spread(blocks) for blocks in plans]
    varied = [spread for spread in spreads if spread]
    if None in spreads or len(plans) < 2 or not varied:
        return None
    seeds = min(len(truth.scores[blocks]) for blocks in plans)
    pooled = math.sqrt(float(np.mean(np.square(varied))))
    return _studentized_range(len(plans), len(varied) * (seeds - 1)) * pooled / math.sqrt(seeds)


@cache
def _studentized_range(groups: int, freedom: int) -> float:
    return float(stats.studentized_range.ppf(1 - CHANCE, groups, freedom))
