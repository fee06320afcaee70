"""In which settings runs differ."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lsf.plans.plan import Plan, full_plan
from lsf.runs.comparability import find_warnings
from lsf.runs.controls import control_spec
from lsf.runs.differences import apart, differences
from lsf.runs.result import RunResult, RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run

SPEC = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (6, 7), criterion="deviation", policy="top_k"))


def ended(spec: RunSpec | None, **known: Any) -> Run:
    result = RunResult(RunState.SUCCEEDED, **known)
    return Run(Path("r"), "r", spec, result.state, result, None)


def told(*runs: Run) -> dict[str, tuple[str, ...]]:
    return {one.setting: one.values for one in differences(runs)}


def test_equal_runs_differ_in_nothing_whatever_their_results() -> None:
    assert differences([ended(SPEC, steps=3, seconds=1.0), ended(SPEC, steps=9, seconds=7.0)]) == ()


def test_rates_are_told_with_whence_they_came() -> None:
    tried = replace(SPEC, plan=replace(SPEC.plan, rates={"full": 0.002}))
    runs = [ended(tried, learning_rate=0.002), ended(SPEC, learning_rate=0.004)]
    assert told(*runs)["learning rate"] == ("0.002 (tried)", "0.004 (default)")


def test_a_rate_tried_on_the_choice_is_said_to_favour_it_over_controls() -> None:
    tried = replace(SPEC, plan=Plan("bundled", 8, (3,), rates={"full": 0.002}), role="manual")
    control, whole = control_spec(tried, "random"), control_spec(tried, "full")
    said = [
        any("Controls took the rate that was tried" in one for one in find_warnings(pair, [True, True]))
        for pair in ([ended(tried), ended(control)], [ended(tried), ended(whole)], [ended(SPEC), ended(whole)])
    ]
    assert said == [True, False, False]
    assert told(ended(tried), ended(SPEC))["chosen by"] == ("trying", "deviation, top_k")


def test_only_what_differs_is_listed_with_every_runs_value() -> None:
    full = replace(SPEC, role="full", plan=full_plan("bundled", 8), seed=1)
    assert told(ended(SPEC), ended(full)) == {
        "stands for": ("choice", "full"),
        "blocks": ("6-7", "0-7"),
        "beside the blocks": ("nothing", "embedding, final norm, head"),
        "chosen by": ("deviation, top_k", "no choice"),
        "seed": ("0", "1"),
    }


def test_options_of_a_method_have_a_dash_where_another_method_was_used() -> None:
    lora = replace(SPEC, method="lora", options={"r": 4}, learning_rate=1e-2)
    found = told(ended(SPEC), ended(lora))
    assert found["method"] == ("full", "lora")
    assert found["lora: r"] == ("-", "4")
    assert found["learning rate"] == ("default", "0.01")


def test_a_searched_rate_is_told_as_it_was_found() -> None:
    searched = replace(SPEC, learning_rate=None)
    assert told(ended(SPEC, learning_rate=0.003), ended(searched, learning_rate=0.01))["learning rate"] == (
        "0.003 (default)",
        "0.01 (searched)",
    )


def test_versions_and_devices_are_listed_where_they_differ_and_are_known() -> None:
    one, other = ended(SPEC, environment={"device": "cpu", "gpu": None}), ended(SPEC, environment={"device": "cuda:0"})
    assert told(one, other, ended(SPEC)) == {"device found": ("cpu", "cuda:0", "-")}
    assert told(one, ended(SPEC)) == {}


def test_texts_that_forgetting_was_read_on_are_listed_where_they_differ() -> None:
    one, other = ended(SPEC, general_text="1f2e3d4c"), ended(SPEC, general_text="aabbccdd")
    assert told(one, other, ended(SPEC)) == {"text that forgetting was read on": ("1f2e3d4c", "aabbccdd", "-")}


def test_a_run_whose_spec_cannot_be_read_has_dashes() -> None:
    assert told(ended(SPEC), ended(None))["blocks"] == ("6-7", "-")


def test_a_run_of_so_many_passes_is_told_by_them_and_not_by_steps_it_does_not_make() -> None:
    runs = [ended(SPEC), *(ended(replace(SPEC, epochs=count)) for count in (1.0, 2.5))]
    assert apart(runs) == ["100 steps", "1 epoch", "2.5 epochs"]
    assert apart([ended(replace(SPEC, steps=9)), runs[1]]) == ["9 steps", "1 epoch"]
    assert told(*runs) == {"steps": ("100", "-", "-"), "epochs": ("-", "1", "2.5")}
    assert "The runs differ in steps asked for (100, 1 epoch, 2.5 epochs);" in find_warnings(runs, [True] * 3)[0]


def test_what_is_not_done_is_off_and_no_default() -> None:
    runs = [ended(SPEC), ended(replace(SPEC, reweight_tau=0.2))]
    assert apart(runs) == ["reweight tau off", "reweight tau 0.2"]
    assert told(*runs) == {"reweight tau": ("off", "0.2")}
