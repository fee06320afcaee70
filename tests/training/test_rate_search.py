from dataclasses import replace

from lsf.data.task import Task
from lsf.training.rate_search import RATES, trial_steps
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
