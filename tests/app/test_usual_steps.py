"""How many steps a form of a run starts with."""

import pytest

from lsf.app.run_form import DEFAULT_STEPS, usual_steps
from lsf.data.lessons import LESSONS


@pytest.mark.parametrize("name", LESSONS)
def test_every_form_starts_a_lesson_with_its_own_steps_and_each_has_a_widget_of_its_own(name: str) -> None:
    assert usual_steps(f"lesson:{name}", "tune") == (LESSONS[name].steps, f"tune-steps-{name}")


@pytest.mark.parametrize("data", ["rows.csv", "hub:org/facts", "lesson:nothing", "facts"])
def test_other_data_has_the_same_default(data: str) -> None:
    assert usual_steps(data, "grid") == (DEFAULT_STEPS, "grid-steps")
