"""The recommended choice of blocks: which rule the study of evidence left standing, and the plan it makes."""

from collections.abc import Sequence

import numpy as np
import scipy

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.plans.cost import predict
from lsf.plans.plan import Plan
from lsf.plans.policies import check_budget, known_scores, window


def both_ends(n_blocks: int, budget: int) -> tuple[int, ...]:
    """Return so many blocks from both ends, the odd one from the deeper: 0 and L-1; 0, L-2 and L-1; and so on.

    Args:
        n_blocks: L of the model.
        budget: 1 .. L.
    """
    return tuple(range(budget // 2)) + tuple(range(n_blocks - (budget - budget // 2), n_blocks))


RECOMMENDED: tuple[str, ...] = ("alignment",)
"""Criterion of the recommendation, or several whose ranks are averaged; chosen by `benchmarks/evidence.py --report`."""
RECOMMENDED_POLICY = "window"
"""How its scores become blocks: the study measured runs of neighbours."""
ENDS_FROM: int | None = None
"""From so many blocks on, both ends of the model are recommended; None: the criterion decides for every budget."""


def rank_average(parts: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean rank of each block over several criteria; higher = tune it first, ties share their rank."""
    return [float(value) for value in np.mean([scipy.stats.rankdata(part) for part in parts], axis=0)]


def lacking(analysis: Analysis, criteria: tuple[str, ...] = RECOMMENDED) -> tuple[str, ...]:
    """Return the criteria that the recommendation needs and this analysis did not measure."""
    return tuple(name for name in criteria if name not in analysis.criteria)


def recommended_plan(analysis: Analysis, budget: int, criteria: tuple[str, ...] = RECOMMENDED) -> Plan:
    """Return the plan that is recommended for a number of blocks.

    Args:
        analysis: has the scores.
        budget: number of blocks.
        criteria: others where sweeps of the user's own say so (`lsf.evidence.own.standing_rule`).

    Raises:
        PlanError: the budget is out of range, or a criterion that is needed was not measured in this analysis.
    """
    n_blocks = analysis.model.n_blocks
    check_budget(budget, n_blocks)
    if criteria == RECOMMENDED and ENDS_FROM is not None and budget >= ENDS_FROM:
        blocks = both_ends(n_blocks, budget)
        reasons = {str(block): "both ends of the model: recommended from two blocks on" for block in blocks}
    else:
        parts = [known_scores(analysis, name) for name in criteria]
        blocks = window(parts[0] if len(parts) == 1 else rank_average(parts), budget)
        labels = " and ".join(CRITERIA[name].label for name in criteria)
        reasons = {str(block): f"recommended by {labels}" for block in blocks}
    return Plan(
        model=analysis.model.name,
        n_blocks=n_blocks,
        blocks=blocks,
        budget={"blocks": budget},
        reasons=reasons,
        predicted=predict(analysis, blocks),
    )
