from dataclasses import replace

import pytest

from lsf.data.task import Task
from lsf.training.rate_search import BEYOND, RATES, next_rate, trial_steps
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


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({1e-4: 3.0, 1e-3: 2.0, 1e-2: 3.0}, None),
        ({1e-4: 1.0, 1e-3: 2.0, 1e-2: 3.0}, BEYOND[0][-1]),
        ({1e-4: 3.0, 1e-3: 2.0, 1e-2: 1.0}, BEYOND[1][0]),
        ({1e-4: 3.0, 1e-2: 2.0, 3e-2: 1.0}, BEYOND[1][1]),
        ({1e-4: 3.0, 1e-2: 2.0, 3e-2: 1.5, 1e-1: 1.0}, None),
    ],
)
def test_the_grid_grows_outwards_while_the_best_rate_is_at_its_edge(losses, wanted):
    assert next_rate(losses) == wanted
