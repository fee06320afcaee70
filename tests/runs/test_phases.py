from collections.abc import Callable

import pytest

from lsf.runs.result import PHASES, Stopwatch, phase


@pytest.fixture
def clock() -> Callable[[], float]:
    """One second passes between two looks."""
    seconds = iter(range(100))
    return lambda: float(next(seconds))


def test_what_an_inner_phase_takes_is_not_the_outer_ones_and_all_add_up(clock):
    with Stopwatch(clock=clock).running() as stopwatch:  # 0
        with phase("steps"), phase("validation"):  # 1, 2
            pass  # 3, 4
        seconds = stopwatch.seconds  # 5
    assert seconds == {"steps": 2.0, "validation": 1.0, "other": 2.0}


def test_inside_a_whole_phase_others_are_not_told_apart(clock):
    with Stopwatch(clock=clock).running() as stopwatch, phase("search", whole=True), phase("steps"):
        pass
    assert stopwatch.seconds == {"search": 1.0, "other": 2.0}


def test_whoever_listens_is_told_each_change_also_after_an_error():
    told: list[str] = []
    with Stopwatch(told.append).running(), pytest.raises(ZeroDivisionError), phase("steps"), phase("test"):
        raise ZeroDivisionError
    assert told == ["steps", "test", "steps", "other"]


def test_without_a_stopwatch_a_phase_changes_nothing_and_an_unknown_one_is_refused():
    with phase("steps"):
        pass
    assert "lunch" not in PHASES
    with Stopwatch().running(), pytest.raises(AssertionError, match="lunch"), phase("lunch"):
        pass
