"""What is wrong with a run, and which rate it is told to try."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.data.report import Floor, Prior
from lsf.runs.comparability import TOO_FEW, Fault, fault_of, gain
from lsf.runs.result import Metrics, RunResult, RunState, SearchTrial

FLOOR = Floor(1.6, 0.25, Prior("label frequencies", 1.6, 0.25))


def result(
    loss: float = 0.5, exact: float = 0.9, general: float | None = 3.7, state: Any = RunState.SUCCEEDED, **more: Any
) -> Any:
    before, after = Metrics(9.2, None, 0.0, 0.0, 3.6, 60), Metrics(loss, None, 0.0, exact, general, 60)
    return RunResult(
        state, before=before, after=after, **{"floor": FLOOR, "default_rate": 5e-4, "learning_rate": 5e-4} | more
    )


def test_a_good_run_has_no_fault_and_its_gain_is_from_the_floor_and_not_from_the_base() -> None:
    assert fault_of(result()) is None
    assert gain(result()) == pytest.approx(1.1)
    assert fault_of(None) is None


@pytest.mark.parametrize(
    ("found", "words", "rate"),
    [
        (result(general=18.5, learning_rate=3e-3), "forgot 14.9 nats", 5e-4),  # the default is offered
        (result(general=18.5), "forgot 14.9 nats", 1.7e-4),  # it was the default: a third of it
        (result(loss=2.0, exact=0.1, general=3.65), "below the floor", 1.5e-3),  # hardly moved: three times it
        (result(loss=2.0, exact=0.1, general=5.0), "below the floor, forgot 1.4 nats", 1.7e-4),
        (result(loss=2.0, exact=0.1, learning_rate=1e-6), "below the floor", 5e-4),
        (result(general=6.6, learning_rate=1e-4), "forgot 3.0 nats", 3.3e-5),  # the default is the wrong way
        (result(loss=2.0, exact=0.1, general=3.65, learning_rate=0.1), "below the floor", 0.3),  # hardly moved
        (result(loss=2.0, exact=0.1, general=None, learning_rate=0.1), "below the floor", 5e-4),  # nobody knows
    ],
)
def test_what_is_wrong_is_said_with_the_rate_to_try(found: Any, words: str, rate: float) -> None:
    fault = fault_of(found)
    assert fault is not None
    assert (fault.words, fault.rate_to_try) == (words, pytest.approx(rate))


def test_a_run_that_was_on_its_way_to_the_floor_needs_steps_and_no_other_rate() -> None:
    found = result(loss=4.7, exact=0.1, general=3.9)  # the base model had 9.2, the floor is 1.6
    assert fault_of(found) == Fault(TOO_FEW, None)
    worse = fault_of(result(loss=9.5, exact=0.1, general=3.9))
    assert worse is not None and (worse.words, worse.rate_to_try) == ("below the floor", pytest.approx(1.7e-4))


def test_an_answer_that_is_more_often_right_than_the_floor_s_is_not_below_it_however_sure_it_is_where_it_is_wrong() -> (
    None
):
    assert fault_of(result(loss=2.0, exact=0.8)) is None


def test_a_run_that_diverged_says_so_and_an_old_result_has_the_base_as_its_floor() -> None:
    lost = RunResult(RunState.FAILED, failure="DivergedError", learning_rate=1.0, default_rate=5e-4)
    found = fault_of(lost)
    assert found is not None and (found.words, found.rate_to_try) == ("diverged", 5e-4)
    lower = fault_of(replace(lost, learning_rate=1e-4, default_rate=5.5e-3))
    assert lower is not None and lower.rate_to_try == 3.3e-5  # the default is the wrong way
    trials = tuple(SearchTrial(rate, None, 5) for rate in (1.7e-4, 5e-4, 1.5e-3))
    searched = fault_of(replace(lost, failure="NoRateError", learning_rate=None, search=trials))
    assert searched is not None and searched.rate_to_try == 1.7e-5  # the default was tried and lost
    assert fault_of(result(loss=9.0, exact=0.0, floor=None, default_rate=None)) is None
    worse = fault_of(result(loss=9.5, exact=0.0, floor=None, default_rate=None))
    assert worse is not None and worse.words == "below the floor"
