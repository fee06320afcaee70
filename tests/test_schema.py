"""What does not fit a record's annotations is said in a sentence: where, what was found, what would be accepted."""

from typing import Any

import pytest

from lsf.errors import LsfError
from lsf.plans.plan import Plan
from lsf.runs.result import RunResult, RunState
from lsf.runs.spec import RunSpec
from lsf.schema import JsonRecord

SPEC = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (6, 7)))
RESULT = RunResult(RunState.SUCCEEDED, phases={"steps": 1.0})


@pytest.mark.parametrize(
    ("record", "path", "value", "sentence"),
    [
        (SPEC, "steps", True, "F: steps is True; a whole number was expected."),
        (SPEC, "learning_rate", "fast", "F: learning_rate is 'fast'; accepted are: a number, default."),
        (SPEC, "max_length", "long", "F: max_length is 'long'; a whole number or null was expected."),
        (SPEC, "plan.schema_version", 2, "F: plan.schema_version is 2; accepted are: 1."),
        (
            SPEC,
            "plan.predicted.cost",
            1,
            "F is not a whole run's spec: plan.predicted has the field 'cost'; known are: ",
        ),
        (SPEC, "schema_version", 2, "F has schema_version 2; a run's spec of schema_version 1 was expected."),
        (SPEC, "steps", 0, "steps is 0; it must lie between 1 and 1000000."),
        (RESULT, "state", "lost", "F: state is 'lost'; accepted are: queued, running, succeeded, failed, cancelled, "),
        (RESULT, "phases.steps", "long", "F: phases[...] is text; a number was expected."),
        (RESULT, "metrics.after", {"loss": []}, "F: after.loss is []; a number or null was expected."),
    ],
)
def test_a_field_that_does_not_fit(record: JsonRecord, path: str, value: Any, sentence: str) -> None:
    plain = record.to_json()
    inner, last = plain, path.split(".")[-1]
    for name in path.split(".")[:-1]:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(LsfError) as caught:
        type(record).from_json(plain, "F")
    assert str(caught.value).startswith(sentence)


def test_a_whole_number_stays_one_where_any_number_may_stand() -> None:
    plan = Plan("toy", 5, (1,), budget={"blocks": 3})
    assert repr(Plan.from_json(plan.to_json(), "F").budget["blocks"]) == "3"
