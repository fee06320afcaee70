"""Sets that are not neighbours on the sweep of a real model: what trying them lost, and beside windows."""

from itertools import combinations

import numpy as np
import pytest

from benchmarks.real_plans import Cell, Scored, depth_plans, plans_of
from benchmarks.real_sets import EVEN, SETS, UNTRIED, WINDOWS, expected_of_tried, scattered, sets_lost
from benchmarks.real_truth import truth_of
from lsf.plans.plan import format_blocks

RATE = 1e-3
SCORED = [Scored("text", "lens", False, {"alignment": tuple(float(block) for block in range(30))}, 1.0)]


def cells(loss: dict[str, float], half: dict[str, float] | None = None, stopped: tuple[str, ...] = ()) -> list[Cell]:
    """Return a whole task by the loss: base 5, the whole model 1, every other plan 3 but where another is given."""
    found = [Cell("text", "base", 0, None, 5.0, 0.0, 5.0, None, 4.0, (6.0, 0.0), 1.0)]
    for plan in plans_of(SCORED, 30):
        end = {"full": 1.0, **loss}.get(plan, 3.0)
        shown = None if plan in stopped else end
        between = (half or {}).get(plan, end + 1)
        found.append(Cell("text", plan, 0, RATE, shown, 0.0, shown, between, 4.5, None, 1.0, plan in stopped))
    return found


def test_the_mean_over_draws_is_that_of_every_draw_and_a_stopped_plan_is_taken_last() -> None:
    rng = np.random.default_rng(3)
    plans = [str(number) for number in range(8)]
    lost, read = ({plan: float(rng.random()) for plan in plans} for _ in range(2))
    read["5"] = 0.0  # the least of all, but it was stopped
    order = {plan: (plan == "5", read[plan]) for plan in plans}
    taken = [lost[min(draw, key=order.__getitem__)] for draw in combinations(plans, 3)]
    assert expected_of_tried(plans, lost, read, ("5",), 3) == pytest.approx(np.mean(taken))
    assert expected_of_tried(plans[4:6], lost, read, ("5",), 2) == lost["4"]


def test_trying_sets_is_judged_by_their_readings_half_way_and_says_nothing_until_all_are_measured() -> None:
    plans = {name: format_blocks(blocks) for name, blocks in depth_plans(30).items()}
    loss = {plans[f"random {number}"]: 2.0 + number / 19 for number in range(20)}
    own = cells(loss, half={plans["random 19"]: 0.5})  # the worst set is the one that reads best half-way
    truth = truth_of("text", own, SCORED, 30)
    assert truth is not None
    lost = sets_lost(truth, own, SCORED)
    others = expected_of_tried(
        [*map(str, range(19))], {str(n): n / 19 for n in range(19)}, {str(n): n for n in range(19)}, (), 5
    )
    assert lost[SETS] == pytest.approx((0.25 * 1.0 + 0.75 * others) / 4)  # it is in a quarter of the draws
    assert lost[UNTRIED] == pytest.approx(0.5 / 4) and lost[EVEN] == lost[WINDOWS] == pytest.approx(1 / 4)
    half = [cell for cell in own if cell.plan != plans["evenly spaced"]]
    truth = truth_of("text", half, SCORED, 30)
    assert truth is not None and sets_lost(truth, half, SCORED) == {}


def test_scattered_sets_are_compared_with_windows_over_the_gain_of_the_whole_model() -> None:
    plans = {name: format_blocks(blocks) for name, blocks in depth_plans(30).items()}
    loss = {plan: 2.0 for name, plan in plans.items() if name.startswith("random")}
    truth = truth_of("text", cells(loss), SCORED, 30, exact=())
    assert truth is not None
    told = "\n".join(scattered([truth], SCORED))
    assert "| text | 2.000 | 3.000 | 25.0% | 25.0% |" in told  # of 5 - 1
    assert "25.0% (one task)" in told
