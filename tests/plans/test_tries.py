"""What is tried, for how long, and which of the tries is taken."""

from dataclasses import replace

import pytest

from lsf.errors import PlanError
from lsf.plans.tries import Tries, Try, neighbours_at, short_words, tried_sets, tried_steps

TRIES = Tries(
    "a model", 8, "data", 5, 10, 32, 2.0, (Try((0,), 0.1, 1.5), Try((4,), 0.1, 1.0), Try((7,), 0.1, None)), 1.0
)


def test_depths_go_from_the_first_blocks_to_the_last_and_each_set_is_tried_once() -> None:
    assert [neighbours_at(depth, 2, 12) for depth in (0.0, 0.5, 1.0)] == [(0, 1), (5, 6), (10, 11)]
    assert [blocks[0] for blocks in tried_sets(30, 1)] == [0, 7, 15, 22, 29]
    assert [blocks[0] for blocks in tried_sets(30, 8)] == [0, 6, 11, 17, 22]
    assert tried_sets(3, 2) == ((0, 1), (1, 2))
    assert tried_sets(3, 3) == ((0, 1, 2),)
    for budget in (0, 4):
        with pytest.raises(PlanError, match="allows 1 to 3"):
            tried_sets(3, budget)


def test_a_try_takes_half_of_the_steps() -> None:
    assert [tried_steps(steps) for steps in (1, 2, 5, 36, 60, 1000)] == [1, 1, 3, 18, 30, 500]


def test_tries_of_fewer_steps_than_were_measured_say_so() -> None:
    assert short_words(18) is None
    assert (short_words(10) or "").startswith("A try of 10 steps says little")
    assert "for runs of 36" in (short_words(1) or "")


def test_the_least_loss_is_taken_of_equal_ones_the_deepest_and_none_where_all_diverged() -> None:
    plan = TRIES.plan
    assert plan is not None
    assert (plan.blocks, plan.budget, TRIES.gained) == ((4,), {"blocks": 1}, True)
    assert plan.reasons["4"] == (
        "tried: validation loss 1.000 after 5 steps, the least of 3 depths (0 1.500, 7 diverged)"
    )
    assert plan.rates == {"full": 0.1}
    level = replace(TRIES, tries=(Try((0,), 0.1, 3.0), Try((7,), 0.1, 3.0)))
    assert level.best == Try((7,), 0.1, 3.0)
    assert not level.gained
    lost = replace(TRIES, tries=(Try((0,), 0.1, None),))
    assert (lost.best, lost.plan, lost.gained) == (None, None, False)


def test_a_better_rate_of_the_best_depth_is_taken_and_goes_with_the_plan() -> None:
    more = replace(TRIES, rates=(Try((4,), 0.05, 0.9), Try((4,), 0.2, 0.9)), method="lora")
    assert more.best == Try((4,), 0.05, 0.9)  # of equal ones the lowest
    plan = more.plan
    assert plan is not None
    assert plan.rates == {"lora": 0.05}
    assert plan.reasons["4"] == (
        "tried: validation loss 1.000 after 5 steps, the least of 3 depths (0 1.500, 7 diverged); at the rate 0.05 "
        "0.900, the least of 3 rates (0.1 1.000, 0.2 0.900)"
    )
    kept = replace(TRIES, rates=(Try((4,), 0.05, 1.2), Try((4,), 0.2, None))).plan
    assert kept is not None
    assert kept.rates == {"full": 0.1}
    assert kept.reasons["4"].endswith("; at the rate 0.1 1.000, the least of 3 rates (0.05 1.200, 0.2 diverged)")


def test_the_record_is_read_back_as_it_was_written(tmp_path) -> None:
    TRIES.save(tmp_path / "tries.json")
    assert Tries.load(tmp_path / "tries.json") == TRIES
