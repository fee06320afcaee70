"""The recommended plan, and blocks of both ends."""

from dataclasses import replace

import pytest

from lsf.criteria.result import Analysis, BlockRow
from lsf.errors import PlanError
from lsf.plans.recommend import RECOMMENDED, both_ends, lacking, rank_average, recommended_plan
from tests.criteria.factory import analysis_of

SCORES = [0.4, 0.1, 0.2, 0.35]


@pytest.fixture
def analysis() -> Analysis:
    blocks = tuple(BlockRow(block, 1000, dict.fromkeys(RECOMMENDED, score)) for block, score in enumerate(SCORES))
    return replace(analysis_of(SCORES), blocks=blocks)


@pytest.mark.parametrize(("budget", "blocks"), [(1, (3,)), (2, (0, 3)), (3, (0, 2, 3)), (4, (0, 1, 2, 3))])
def test_both_ends_take_the_odd_block_from_the_deeper(budget: int, blocks: tuple[int, ...]) -> None:
    assert both_ends(4, budget) == blocks


def test_the_recommended_plan_follows_the_scores_and_says_so(analysis: Analysis) -> None:
    assert lacking(analysis) == ()
    plan = recommended_plan(analysis, 1)
    assert plan.blocks == (0,)
    assert "recommended by" in plan.reasons["0"]
    assert recommended_plan(analysis, 2).blocks == (2, 3)  # neighbours: 0.55 against 0.5 and 0.3
    assert plan.predicted.trainable_params is not None


def test_an_analysis_without_the_criterion_is_told_what_it_lacks() -> None:
    analysis = analysis_of(SCORES)
    assert lacking(analysis) == RECOMMENDED
    with pytest.raises(PlanError, match="This analysis has no scores for"):
        recommended_plan(analysis, 1)
    with pytest.raises(PlanError, match="this model allows 1 to 4"):
        recommended_plan(analysis, 5)


def test_a_rank_average_shares_the_ranks_of_ties() -> None:
    assert rank_average([[1.0, 2.0, 2.0], [3.0, 1.0, 2.0]]) == [2.0, 1.75, 2.25]
