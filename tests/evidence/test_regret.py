"""Regret against a sweep: cases worked by hand, invariants, and what is refused."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.frontier import front_share, hypervolume, time_saved
from lsf.errors import BadInputError
from lsf.evidence.regret import (
    DIGITS,
    Truth,
    choose,
    cliff,
    complete_seeds,
    contributions,
    full_regret,
    random_regret,
    rank_agreement,
    regret,
    seed_agreement,
    truth_of,
)
from lsf.evidence.study import decided, least_difference, level_with_best, within_chance
from lsf.evidence.sweep import Cell, Score, Sweep, SweepSpec, empty_cells, plans_over

TRUTH = Truth(
    n_blocks=4,
    base=0.1,
    full=(0.85, 0.95),
    scores={
        (0,): (0.2, 0.2),
        (1,): (0.4, 0.4),
        (2,): (0.5, 0.7),
        (3,): (0.55, 0.45),
        (0, 1): (0.5, 0.5),
        (1, 2): (0.8, 0.8),
        (2, 3): (0.9, 0.9),
        (1, 2, 3): (0.86, 0.86),
        (0, 1, 2, 3): (0.9, 0.9),
    },
    missing={},
)
"""Full tuning gains 0.8; means of single blocks are 0.2, 0.4, 0.6, 0.5."""
APART = replace(TRUTH, scores={**TRUTH.scores, (0,): (0.15, 0.25), (1,): (0.35, 0.45)})
"""The same means, and every single block's seeds differ."""


def measured(plan_scores: dict[str, list[float | None]], n_blocks: int = 2, over: str = "single") -> Sweep:
    """Return a sweep with the given exact matches, in the order of seeds; None is missing."""
    seeds = len(plan_scores["full"])
    cells = []
    for cell in empty_cells(plans_over(over, n_blocks), n_blocks, seeds):
        value = plan_scores[cell.plan][cell.seed]
        done = {"after": Score(value, 1 - value), "reason": None} if value is not None else {"reason": "no memory"}
        cells.append(replace(cell, **done))
    return Sweep(SweepSpec("m", "d", over, seeds=seeds), n_blocks, "w", "f", tuple(cells), {})


def test_regret_is_what_the_best_plan_of_the_budget_has_more() -> None:
    found = regret(TRUTH, (1,))
    assert (found.best, found.regret, found.relative) == ((2,), pytest.approx(0.2), pytest.approx(0.2 / 0.8))
    assert regret(TRUTH, (3,)).regret == pytest.approx(0.1)
    assert regret(TRUTH, (0, 1)).relative == pytest.approx(0.5)
    assert regret(TRUTH, (2,)).regret == 0


def test_the_unit_is_what_the_best_of_all_plans_gains_over_the_better_of_base_and_prior() -> None:
    hurt = replace(TRUTH, full=(0.05, 0.15))  # full tuning may end where the base model is, and below
    assert regret(hurt, (1,)).relative == pytest.approx(0.2 / (0.9 - 0.1))
    known = replace(TRUTH, prior=0.5)
    assert known.floor == 0.5
    assert regret(known, (1,)).relative == pytest.approx(0.2 / (0.9 - 0.5))
    assert replace(TRUTH, prior=0.05).floor == TRUTH.base
    learned_nothing = replace(TRUTH, prior=0.9)
    assert regret(learned_nothing, (1,)).relative is None
    assert contributions(known) == contributions(TRUTH)  # of published single-layer work, over the base model
    assert contributions(TRUTH) == pytest.approx((0.1 / 0.8, 0.3 / 0.8, 0.5 / 0.8, 0.4 / 0.8))


def test_a_sweep_hands_its_prior_on_by_either_metric() -> None:
    sweep = measured({"base": [0.1], "full": [0.8], "0": [0.4], "1": [0.6]})
    assert truth_of(sweep, "exact_match").prior is None
    kept = Sweep.from_json(replace(sweep, prior=Score(0.3, 0.7)).to_json(), "s.json")
    assert (truth_of(kept, "exact_match").prior, truth_of(kept, "loss").prior) == (0.3, -0.7)
    old = {name: value for name, value in sweep.to_json().items() if name != "prior"}
    assert Sweep.from_json(old, "s.json").prior is None


def test_of_equal_plans_the_deepest_is_the_best() -> None:
    flat = replace(TRUTH, scores={(block,): (0.5, 0.5) for block in range(4)})
    assert regret(flat, (0,)).best == (3,)
    assert regret(flat, (0,)).regret == 0


def test_no_plan_of_a_sweep_has_negative_regret_and_one_has_none() -> None:
    lot = np.random.default_rng(0)
    for _ in range(20):
        scores = {plan: tuple(lot.normal(size=3).tolist()) for plan in plans_over("single,window:2", 5)}
        truth = Truth(5, -3.0, (3.0, 3.0, 3.0), scores, {})
        for budget in (1, 2):
            lost = [regret(truth, plan).regret for plan in truth.plans(budget)]
            assert min(lost) == 0
            assert random_regret(truth, budget) == pytest.approx(np.mean(lost))


def test_regret_does_not_change_when_all_scores_move_and_its_relative_form_not_when_they_are_stretched() -> None:
    moved = Truth(4, TRUTH.base + 1, (1.85, 1.95), {p: tuple(v + 1 for v in s) for p, s in TRUTH.scores.items()}, {})
    wide = Truth(4, TRUTH.base * 3, (2.55, 2.85), {p: tuple(v * 3 for v in s) for p, s in TRUTH.scores.items()}, {})
    for plan in TRUTH.scores:
        assert regret(moved, plan).regret == pytest.approx(regret(TRUTH, plan).regret)
        assert regret(wide, plan).relative == pytest.approx(regret(TRUTH, plan).relative)


def test_relative_regret_is_unknown_where_no_plan_gains_anything() -> None:
    found = regret(replace(TRUTH, base=0.9), (1,))
    assert found.regret == pytest.approx(0.2)
    assert found.relative is None


def test_a_gain_of_one_bit_of_a_float_is_no_unit_of_regret() -> None:
    assert np.mean([0.1] * 3) > 0.1  # which is why means are exact
    same = Truth(2, 0.1, (0.1,) * 3, {(0,): (0.1,) * 3, (1,): (0.08,) * 3}, {}, 0.0)
    assert (same.mean((0,)), same.full_mean, same.range) == (0.1, 0.1, 0.0)
    assert (same.gains, regret(same, (1,)).relative) == (False, None)
    assert random_regret(replace(same, scores={(0,): (0.1,) * 3, (1,): (0.1,) * 3}), 1) == 0.0
    tenths = replace(same, full=(0.1, 0.2, 0.3), base=0.2)  # an exact mean of rounded numbers can be off too
    assert not replace(tenths, scores={(0,): (0.3 - 0.1,) * 3}).gains
    assert replace(same, full=(0.11,) * 3).gains
    assert not replace(same, scores={(0,): (0.2,), (1,): (0.3 - 0.1,)}).differ([(0,), (1,)])


def test_one_seed_has_no_spread_and_nothing_is_decided_by_it() -> None:
    single = replace(TRUTH, full=(0.9,), scores={plan: seeds[:1] for plan, seeds in TRUTH.scores.items()})
    assert single.spread((2,)) is None
    assert within_chance(single, (1,)) is None
    assert decided(single, 1) is None
    assert cliff(single) is None
    assert contributions(single) is None


def test_the_least_difference_is_tukeys() -> None:
    spread = math.sqrt((0.005 + 0.005 + 0.02 + 0.005) / 4)
    assert least_difference(APART, 1) == pytest.approx(5.757 * spread / math.sqrt(2), rel=1e-3)  # q(4, 4) of the tables
    assert least_difference(APART, 4) is None  # one plan


def test_plans_whose_seeds_agree_say_nothing_of_the_spread_of_others() -> None:
    spread = math.sqrt((0.02 + 0.005) / 2)
    assert least_difference(TRUTH, 1) == pytest.approx(9.798 * spread / math.sqrt(2), rel=1e-3)  # q(4, 2) of the tables
    assert decided(TRUTH, 1) is False
    assert decided(TRUTH, 2) is None  # no plan's seeds differ
    useless = {(block,): (0.0, 0.0, 0.0) for block in range(6)}
    few = replace(TRUTH, scores={**useless, (6,): (0.4, 0.5, 0.6), (7,): (0.6, 0.7, 0.8)})
    assert within_chance(few, (6,)) is True  # Welch's test of the two alone: p = 0.07


@pytest.mark.parametrize("stuck", [0.0, 0.4, 0.7, 0.1 + 0.2])
def test_seeds_that_agree_are_no_spread_whatever_their_score(stuck: float) -> None:
    same = {(block,): (stuck, stuck, stuck) for block in range(6)}
    truth = Truth(8, 0.0, (0.9,) * 3, {**same, (6,): (0.60, 0.66, 0.72), (7,): (0.84, 0.90, 0.96)}, {})
    assert truth.spread((0,)) == 0.0  # np.std([0.4] * 3, ddof=1) is 6.8e-17
    pooled = 0.06  # of both plans that have one, and 2 x 2 degrees of freedom
    assert least_difference(truth, 1) == pytest.approx(7.346 * pooled / math.sqrt(3), rel=1e-3)  # q(8, 4) of the tables
    assert decided(replace(truth, scores={**same, (6,): (0.85,) * 3}), 1) is None


def test_packing_gives_no_plan_a_spread_and_takes_none() -> None:
    raw = {(0,): (1 / 3, 0.1 + 0.2 + 1 / 30), (1,): (-2.7182818, -2.7182842), (2,): (0.66666, 0.66668)}
    for scores in (raw, {plan: tuple(round(one, DIGITS) for one in own) for plan, own in raw.items()}):
        truth = replace(TRUTH, scores=scores)
        assert [truth.spread((block,)) for block in range(3)] == [0.0, 0.0, pytest.approx(1.414e-5, rel=1e-3)]


def test_of_plans_that_do_not_differ_few_are_taken_for_decided() -> None:
    rng = np.random.default_rng(0)
    drawn = [replace(TRUTH, scores={(b,): tuple(rng.normal(size=3)) for b in range(8)}) for _ in range(400)]
    assert 0.02 < np.mean([bool(decided(truth, 1)) for truth in drawn]) < 0.09


def test_plans_that_differ_no_more_than_chance_makes_of_their_seeds_are_not_decided() -> None:
    assert decided(APART, 1) is True
    assert level_with_best(APART, 1) == ((3,), (1,))
    assert level_with_best(APART, 2) == ()
    assert [within_chance(APART, (block,)) for block in range(4)] == [False, True, True, True]
    noisy = replace(TRUTH, scores={(block,): (0.2 + 0.01 * block, 0.8) for block in range(4)})
    assert decided(noisy, 1) is False


def test_controls_full_tuning_may_be_better_or_worse_than_the_best_plan() -> None:
    assert full_regret(TRUTH, 1) == pytest.approx(0.6 - 0.9)
    assert full_regret(replace(TRUTH, full=(0.3, 0.3)), 1) == pytest.approx(0.3)
    assert random_regret(TRUTH, 1) == pytest.approx(0.6 - 1.7 / 4)


def test_the_cliff_is_the_largest_frozen_prefix_within_one_deviation_of_full_tuning() -> None:
    assert cliff(TRUTH) == 2  # floor 0.9 - 0.0707; of the suffixes 2-3 and 1-3 reach it, 3 does not
    assert cliff(replace(TRUTH, full=(1.4, 1.5))) == 0
    assert cliff(replace(TRUTH, scores={(1,): (0.9, 0.9)})) is None


def test_a_criterion_that_ranks_as_the_truth_has_full_agreement_and_its_opposite_none() -> None:
    right = [0.2, 0.4, 0.6, 0.5]
    assert rank_agreement(TRUTH, right) == (pytest.approx(1.0), pytest.approx(1.0))
    assert rank_agreement(TRUTH, [-score for score in right])[0] == pytest.approx(-1.0)
    assert rank_agreement(TRUTH, [1.0] * 4) == (None, None)


def test_a_swap_at_the_top_costs_weighted_tau_more_than_one_at_the_bottom() -> None:
    top, bottom = rank_agreement(TRUTH, [1, 2, 3, 4])[1], rank_agreement(TRUTH, [2, 1, 4, 3])[1]
    assert top is not None
    assert bottom is not None
    assert top < bottom


def test_weighted_tau_agrees_with_a_sum_over_pairs() -> None:
    truth, scores = [0.2, 0.4, 0.6, 0.5], [3.0, 1.0, 2.0, 4.0]

    def one_way(first: list[float], second: list[float]) -> float:
        order = sorted(range(4), key=lambda block: (-first[block], -second[block]))
        rank = {block: place for place, block in enumerate(order)}
        top = bottom = 0.0
        for a, b in itertools.combinations(range(4), 2):
            weight = 1 / (rank[a] + 1) + 1 / (rank[b] + 1)
            top += weight * math.copysign(1, (first[a] - first[b]) * (second[a] - second[b]))
            bottom += weight
        return top / bottom

    expected = (one_way(truth, scores) + one_way(scores, truth)) / 2
    assert rank_agreement(TRUTH, scores)[1] == pytest.approx(expected)


def test_seeds_that_rank_alike_agree() -> None:
    assert seed_agreement(replace(TRUTH, scores={(b,): (b, 2.0 * b) for b in range(4)})) == pytest.approx(1.0)
    assert seed_agreement(replace(TRUTH, scores={(b,): (b, -1.0 * b) for b in range(4)})) == pytest.approx(-1.0)
    assert seed_agreement(replace(TRUTH, scores={(b,): (float(b),) for b in range(4)})) is None


def test_a_choice_is_the_best_block_or_the_best_run_of_neighbours() -> None:
    assert choose([0.1, 0.9, 0.2, 0.8], 1) == (1,)
    assert choose([0.1, 0.9, 0.2, 0.8], 2) == (1, 2)
    assert choose([0.5, 0.5, 0.5], 1) == (2,)  # ties go to the deeper block


def test_a_sweep_is_read_by_exact_match_or_by_loss_turned_round() -> None:
    sweep = measured({"base": [0.1], "full": [0.9, 0.8], "0": [0.2, 0.4], "1": [0.7, 0.5]})
    truth = truth_of(sweep, "exact_match")
    assert (truth.base, truth.full, truth.mean((0,))) == (0.1, (0.9, 0.8), pytest.approx(0.3))
    assert regret(truth_of(sweep, "loss"), (0,)).regret == pytest.approx(regret(truth, (0,)).regret)
    with pytest.raises(BadInputError, match="accepted are: exact_match, loss"):
        truth_of(sweep, "speed")


def test_a_missing_run_is_never_filled_in_and_stands_in_the_way_of_its_budget() -> None:
    scores: dict[str, Any] = {"base": [0.1], "full": [0.9, 0.8], "0": [0.2, 0.3], "1": [0.7, None], "0-1": [0.5, 0.5]}
    sweep = measured(scores, over="single,window:2")
    truth = truth_of(sweep, "exact_match")
    assert truth.missing == {(1,): "no memory"}
    assert truth.budgets == ()
    with pytest.raises(BadInputError, match="The sweep lacks blocks 1: no memory"):
        truth.mean((1,))
    with pytest.raises(BadInputError, match=r"lacks blocks 1 \(no memory\), one of 1 missing plans of 1 blocks"):
        regret(truth, (0,))
    assert complete_seeds(sweep) == 1
    assert regret(truth_of(sweep, "exact_match", n_seeds=1), (0,)).regret == pytest.approx(0.5)


def test_budgets_that_are_not_in_the_sweep_are_answered_with_those_that_are() -> None:
    with pytest.raises(BadInputError, match="holds no plan of 5 blocks; it holds plans of 1, 2, 3, 4 blocks"):
        TRUTH.plans(5)
    with pytest.raises(BadInputError, match="Blocks 0, 3 were not part of the sweep"):
        TRUTH.mean((0, 3))
    assert TRUTH.budgets == (1, 2)


@pytest.mark.parametrize("name", ["base", "full"])
def test_without_the_base_or_the_whole_model_there_is_no_regret(name: str) -> None:
    scores: dict[str, Any] = {"base": [0.1], "full": [0.9], "0": [0.2], "1": [0.7]} | {name: [None]}
    with pytest.raises(BadInputError, match=f"lacks the {name} model"):
        truth_of(measured(scores), "exact_match")


COSTS = {plan: (4 - plan[0] + len(plan)) / 8 for plan in TRUTH.scores}


def test_time_saved_is_that_of_the_cheapest_choice_that_loses_little() -> None:
    assert time_saved(TRUTH, COSTS, TRUTH.scores, 0.0) == pytest.approx(1 - COSTS[2, 3])
    assert time_saved(TRUTH, COSTS, [(2,), (3,)], 0.4) == pytest.approx(1 - COSTS[2,])
    assert time_saved(TRUTH, COSTS, [(0,)], 0.4) is None
    assert time_saved(replace(TRUTH, base=0.9), COSTS, TRUTH.scores, 1.0) is None
    assert time_saved(replace(TRUTH, prior=0.9), COSTS, TRUTH.scores, 1.0) is None
    assert time_saved(replace(TRUTH, prior=0.8), COSTS, [(2,)], 0.4) is None  # 0.6 is below what is known without rows


def test_the_area_of_a_front_by_hand() -> None:
    assert hypervolume([(0.5, 0.4)]) == pytest.approx(0.2)
    assert hypervolume([(0.5, 0.4), (0.75, 1.0)]) == pytest.approx(0.5 * 0.4 + 0.25 * 0.6)
    assert hypervolume([(0.5, 0.4), (0.6, 0.3)]) == pytest.approx(0.2)  # a dominated point adds nothing
    assert hypervolume([(1.5, 9.0), (0.5, -1.0)]) == 0
    with pytest.raises(BadInputError, match="must be finite"):
        hypervolume([(math.nan, 1.0)])


def test_all_plans_reach_the_whole_front_and_fewer_never_more() -> None:
    assert front_share(TRUTH, COSTS, TRUTH.scores) == pytest.approx(1.0)
    shares = [front_share(TRUTH, COSTS, [plan]) for plan in TRUTH.scores]
    assert all(share is not None and 0 <= share <= 1 for share in shares)
    assert front_share(replace(TRUTH, base=1.0), COSTS, TRUTH.scores) is None
    assert front_share(replace(TRUTH, prior=1.0), COSTS, TRUTH.scores) is None


def test_cells_keep_their_order_of_seeds() -> None:
    cells = (Cell("base", (), 0, after=Score(0.0, 1.0), reason=None),)
    full = tuple(Cell("full", (0, 1), s, after=Score(s / 10, 1.0), reason=None) for s in range(3))
    plan = tuple(Cell("0", (0,), s, after=Score(s / 5, 1.0), reason=None) for s in range(3))
    sweep = Sweep(SweepSpec("m", "d", seeds=3), 2, "w", "f", cells + full + plan, {})
    assert truth_of(sweep, "exact_match").scores[0,] == (0.0, 0.2, 0.4)
    assert truth_of(sweep, "exact_match", 2).full == (0.0, 0.1)
