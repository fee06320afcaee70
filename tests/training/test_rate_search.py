from dataclasses import replace

import pytest

from lsf.data.task import Task
from lsf.training.catalogue import CATALOGUE
from lsf.training.rate_search import LADDER, RATES, first_rates, trial_steps
from tests.training.conftest import tuned


def test_the_rate_found_is_the_best_on_validation_whatever_the_test_split_says(loaded, task, spec, folder):
    spec = replace(spec, learning_rate=None, steps=5)
    result = tuned(loaded, task, spec, folder(spec))
    assert set(RATES) <= {trial.learning_rate for trial in result.search}
    best = min(result.search, key=lambda trial: trial.validation_loss)
    assert result.learning_rate == best.learning_rate
    assert result.search_steps == sum(trial.steps for trial in result.search) == 5 * len(result.search)
    assert result.search_seconds > 0
    assert result.steps == 5
    other = tuned(loaded, Task("toy", task.train, task.validation, task.test[:1]), spec, folder(spec))
    assert other.search == result.search
    assert other.before != result.before


def test_a_trial_is_a_quarter_of_the_run_within_limits():
    assert [trial_steps(steps) for steps in (4, 20, 100, 1000)] == [4, 10, 25, 100]


@pytest.mark.parametrize("method", [name for name in CATALOGUE if name != "full"])
def test_every_method_begins_around_its_own_default_and_may_go_further_on_both_sides(method):
    low, own, high = first_rates(method)
    assert low < own < high and own == CATALOGUE[method].learning_rate
    assert LADDER[0] < low and high < LADDER[-1]
