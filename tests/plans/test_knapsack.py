"""The knapsack against brute force over every set of blocks, with the cost model of the method."""

from itertools import combinations

import numpy as np
import pytest

from lsf.criteria.result import Analysis
from lsf.errors import PlanError
from lsf.plans.cost import full_flops, training_bytes, training_flops
from lsf.plans.policies import best_load, make_knapsack_plan
from tests.criteria.factory import analysis_of


def every_set(n: int) -> list[tuple[int, ...]]:
    return [chosen for size in range(1, n + 1) for chosen in combinations(range(n), size)]


def uneven(n: int, seed: int) -> Analysis:
    """Return an analysis whose blocks differ in size and score, some scores below zero."""
    rng = np.random.default_rng(seed)
    analysis = analysis_of(rng.normal(0.3, 1.0, size=n).tolist(), mean_tokens=20.0)
    for block, size in zip(analysis.blocks, rng.integers(500, 5000, size=n).tolist(), strict=True):
        object.__setattr__(block, "n_params", size)
    return analysis


@pytest.mark.parametrize("seed", range(12))
def test_no_set_of_blocks_within_the_flops_beats_the_knapsack(seed: int) -> None:
    n = 3 + seed % 8
    analysis, rng = uneven(n, seed), np.random.default_rng(100 + seed)
    scores = [score or 0.0 for score in analysis.scores("deviation")]
    whole = full_flops(analysis)
    costs = {chosen: training_flops(analysis, chosen) / whole for chosen in every_set(n)}
    budget = float(rng.uniform(min(costs.values()), 1.0))
    plan = make_knapsack_plan(analysis, "deviation", flops=budget)
    best = max(sum(scores[b] for b in chosen) for chosen, cost in costs.items() if cost <= budget)
    assert sum(scores[b] for b in plan.blocks) == pytest.approx(best)
    assert costs[plan.blocks] <= budget * (1 + 1e-9)
    assert plan.predicted.flops_ratio == pytest.approx(costs[plan.blocks])


@pytest.mark.parametrize("seed", range(6))
def test_no_set_of_blocks_within_the_memory_beats_the_knapsack(seed: int) -> None:
    analysis = uneven(7, seed)
    scores = [score or 0.0 for score in analysis.scores("deviation")]
    sizes = [block.n_params for block in analysis.blocks]
    costs = {chosen: training_bytes(analysis, sum(sizes[b] for b in chosen)) for chosen in every_set(7)}
    budget = float(np.median(list(costs.values())))
    plan = make_knapsack_plan(analysis, "deviation", memory=budget)
    best = max(sum(scores[b] for b in chosen) for chosen, cost in costs.items() if cost <= budget)
    assert sum(scores[b] for b in plan.blocks) == pytest.approx(best)


def test_a_deep_block_is_preferred_where_scores_tie_and_reach_is_paid_for() -> None:
    assert best_load([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [3.0, 2.0, 1.0], 2.0) == (2,)
    assert best_load([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [3.0, 2.0, 1.0], 4.0) == (1, 2)
    assert best_load([1.5, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], 1.0) == (0,)
    assert best_load([-1.0, -2.0], [1.0, 1.0], [0.0, 0.0], 2.0) == (0,)
    assert best_load([1.0], [1.0], [1.0], 1.0) == ()


def test_a_block_of_score_zero_is_tuned_only_where_nothing_else_fits() -> None:
    n = 8
    items, reach = [1 / 24] * n, [(8 + (8 - block)) / 24 for block in range(n)]
    assert best_load([0.0] * 6 + [1.0, 1.0], items, reach, 1.0) == (6, 7)
    assert best_load([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], items, reach, 1.0) == (1, 3)
    assert best_load([0.0] * n, items, reach, 1.0) == (7,)
    assert best_load([1.0] + [0.0] * 7, items, reach, 0.5) == (7,)  # block 0 is not paid for
    assert best_load([1.0, 1.0], [1.0, 2.0], [0.0, 0.0], 2.0) == (1,)  # a tie goes to the deeper block, as always


@pytest.mark.parametrize("seed", range(6))
def test_no_set_within_the_memory_that_is_worth_as_much_leaves_out_a_block_of_score_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(np.maximum(rng.normal(0.3, 1.0, size=7), 0.0), 1).tolist()
    chosen = best_load(scores, [1.0] * 7, [0.0] * 7, 5.0)
    assert all(scores[block] > 0 for block in chosen) or len(chosen) == 1


def test_of_many_blocks_as_many_are_chosen_as_the_budget_buys() -> None:
    analysis = analysis_of(np.random.default_rng(0).random(96).tolist())
    plan = make_knapsack_plan(analysis, "deviation", flops=0.7)
    assert 0 < len(plan.blocks) < 96
    assert plan.predicted is not None
    assert plan.predicted.flops_ratio is not None
    assert 0.69 < plan.predicted.flops_ratio <= 0.7


def test_a_plan_by_a_criterion_that_is_never_positive_says_why_it_has_one_block() -> None:
    plan = make_knapsack_plan(analysis_of([-0.2, 0.0, -0.1]), "deviation", flops=1.0)
    assert plan.blocks == (1,)
    assert plan.reasons["1"].endswith("; one block at any budget, since no score is above 0")
    some = make_knapsack_plan(analysis_of([-0.2, 0.1, -0.1]), "deviation", flops=1.0)
    assert some.reasons["1"].endswith("0.1, in the best set the budget pays for")


def test_a_budget_that_buys_nothing_names_the_least_that_would() -> None:
    analysis = analysis_of([0.1, 0.2])
    with pytest.raises(PlanError, match=r"the least is 0\.6667"):
        make_knapsack_plan(analysis, "deviation", flops=0.1)
    for budget, sentence in (
        ({"flops": 0.0}, "must lie above 0"),
        ({"flops": 1.5}, "must lie above 0"),
        ({}, "takes one budget"),
        ({"flops": 0.5, "memory": 1e6}, "takes one budget"),
    ):
        with pytest.raises(PlanError, match=sentence):
            make_knapsack_plan(analysis, "deviation", **budget)


@pytest.mark.parametrize("seed", range(20))
def test_of_sets_that_are_worth_the_same_the_deeper_is_taken_whatever_it_costs_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert best_load([2.0, 1.0, 1.0], [2.0, 2.0, 3.0], [0.0, 0.0, 0.0], 6.0) == (0, 2)
    scores, items = (rng.integers(1, 4, 7).astype(float).tolist() for _ in range(2))
    reach = sorted(rng.integers(0, 6, 7).astype(float).tolist(), reverse=True)
    paid = [one for one in every_set(7) if reach[one[0]] + sum(items[b] for b in one) <= 11.0]
    deepest = max(paid, key=lambda one: (sum(scores[b] for b in one), one[::-1]), default=())
    assert best_load(scores, items, reach, 11.0) == deepest
