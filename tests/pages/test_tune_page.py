"""The form of a run: what it will need is shown before it starts, and what cannot be is not started."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsf.app.work import Analysed, source_of
from lsf.data.lessons import load_lesson
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.comparison import LEAST_GROWTH
from lsf.runs.memory_forecast import RUN_SHARE
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, list_runs, load_run
from lsf.training.rate_search import TOO_SHORT
from lsf.training.run import tune
from tests.pages.conftest import Driver, as_read
from tests.toy import Stopper

FORM = {"tune-steps": 3, "tune-batch_size": 4}


@pytest.fixture
def form(app: Driver, known: Callable[..., Analysed]) -> Driver:
    """The Fine-tune page after an analysis of a tiny model, before anything is known of what a run needs."""
    app.look_at(known(), "choose")
    for key, value in FORM.items():
        app.at.session_state[key] = value
    app.at.session_state["tune-roles"] = ["full"]
    app.go("tune")
    return app


def settle(form: Driver) -> Driver:
    """Wait until what the run needs is known, and look again."""
    form.wait("forecast", "warm-up")
    form.at.run()
    assert not form.at.exception
    return form


def start_button(form: Driver) -> Any:
    return next(button for button in form.at.button if button.label.startswith("Start "))


def test_what_a_run_needs_is_worked_out_anew_for_another_setting_and_not_for_one_without_effect(form: Driver) -> None:
    settle(form)
    titles = [as_read(element.value) for element in form.at.subheader]
    assert any(title.startswith("Memory: ") and "for full fine-tuning" in title for title in titles)
    before = form.shown()
    assert "from start to end" in before
    assert "it fits." in before
    assert not start_button(form).disabled
    form.at.number_input(key="tune-seed").set_value(5).run()
    assert "Working out" not in form.shown()
    form.at.number_input(key="tune-micro_batch").set_value(1).run()
    settle(form)
    assert form.shown() != before
    assert "it fits." in form.shown()
    form.at.number_input(key="tune-micro_batch").set_value(3).run()
    assert "micro_batch is 3; it must divide the batch of 4." in form.errors()


def test_a_method_the_model_cannot_have_is_refused_before_the_start(form: Driver) -> None:
    settle(form)
    form.at.selectbox(key="tune-method").set_value("bitfit").run()
    settle(form)
    assert any("bias" in error for error in form.errors())
    assert start_button(form).disabled
    assert "Check again" in [button.label for button in form.at.button]


def test_what_does_not_fit_cannot_start_and_one_click_takes_what_does(
    form: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(form)
    form.at.session_state["tune-roles"] = []
    needed = form.at.session_state["lsf"].foreseen.choice.parts.total
    monkeypatch.setattr("lsf.training.forecast._free_now", lambda loaded: int(0.99 * needed / RUN_SHARE))
    form.at.number_input(key="tune-steps").set_value(4).run()  # asks anew
    settle(form)
    assert start_button(form).disabled
    assert any("does not fit" in error for error in form.errors())
    offer = next(button for button in form.at.button if button.label.startswith("Use what fits: "))
    assert offer.label == "Use what fits: one example at a time, activations computed again"
    offer.click().run()
    settle(form)
    assert form.at.number_input(key="tune-micro_batch").value == 1
    assert form.at.selectbox(key="tune-activation_checkpointing").value == "non_reentrant"
    assert form.errors() == []
    assert not start_button(form).disabled


def test_full_fine_tuning_that_does_not_fit_can_be_left_out(form: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(form)
    needed = form.at.session_state["lsf"].foreseen.choice.parts.total
    monkeypatch.setattr("lsf.training.forecast._free_now", lambda loaded: int(1.3 * needed))
    form.at.number_input(key="tune-steps").set_value(4).run()
    settle(form)
    assert start_button(form).disabled
    assert any(error.startswith("Full fine-tuning beside it: it needs") for error in form.errors())
    form.click("Leave out full fine-tuning")
    assert start_button(form).label == "Start 1 run"
    assert not start_button(form).disabled


@pytest.mark.slow
def test_options_reach_the_run_and_its_proof_and_course_are_shown(form: Driver, runs: Path) -> None:
    settle(form)
    form.at.selectbox(key="tune-method").set_value("lora").run()
    form.at.number_input(key="tune-lora-r").set_value(2).run()
    form.at.selectbox(key="tune-cache").set_value("memory").run()
    settle(form)
    start_button(form).click().run()
    form.wait("tune")
    form.at.run()
    assert not form.at.exception
    specs = {run.spec.role: run.spec for run in list_runs(runs) if run.spec}
    assert (specs["choice"].method, specs["choice"].options, specs["choice"].cache) == ("lora", {"r": 2}, "memory")
    assert (specs["full"].method, specs["full"].options) == ("full", {})
    frames = [frame.value for frame in form.at.dataframe]
    proof = next(frame for frame in frames if "unchanged" in list(frame))
    assert proof["as planned"].tolist() == ["yes", "yes"]
    course = next(frame for frame in frames if "prefix cache" in list(frame))
    assert course["prefix cache"].tolist() == ["memory", "off"]
    assert course["examples computed"].tolist()[0] > 0
    assert set(course["rate from"]) <= {"default", "search", TOO_SHORT}
    assert not {"hash of the frozen", "resumed at step"} & {*proof, *course}  # known of none of them
    at = form.go("compare")
    assert not at.exception
    frames = [frame.value for frame in at.dataframe]
    different = next(frame for frame in frames if "setting" in list(frame)).set_index("setting")
    assert different.loc["method"].tolist() == ["lora", "full"]
    assert "seed" not in different.index
    cost = next(frame for frame in frames if "step expected" in list(frame))
    assert min(cost["step expected"].tolist()) > 0
    results = [json.loads(path.read_text()) for path in runs.glob("*/result.json")]
    told = [one["predicted"]["memory_bytes"] >= LEAST_GROWTH for one in results]  # below, a process cannot tell
    assert [value is not None for value in cost["measured / expected"].tolist()] == told
    assert all(result["predicted"]["memory_bytes"] > 0 for result in results)


def test_a_run_that_was_paused_in_its_test_is_offered_that_alone(app: Driver, runs: Path) -> None:
    spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (7,)), steps=2, learning_rate=1e-3, eval_limit=8)
    folder = create_run(runs, spec)
    paused = tune(load_model("bundled"), load_lesson("facts"), spec, folder, Stopper(2, "pause"))
    assert (paused.state, paused.steps, paused.after) == (RunState.CANCELLED, 2, None)
    app.at.query_params["run"] = folder.name
    app.go("tune")
    app.click("Run its test")
    app.wait("tune")
    result = load_run(folder).result
    assert result is not None and result.after is not None
    assert (result.state, result.steps, result.seconds) == (RunState.SUCCEEDED, 2, paused.seconds)
    app.at.run()
    assert "Run its test" not in [button.label for button in app.at.button]


def test_why_a_stopped_run_could_not_go_on_is_said(
    app: Driver, runs: Path, tiny: Callable[[str], Path], cats: Path, tmp_path: Path
) -> None:
    data = tmp_path / "cats.csv"
    shutil.copy(cats, data)
    model = str(tiny("llama"))
    spec = RunSpec(model, str(data), Plan(model, 4, (1,)), steps=4, learning_rate=1e-3, checkpoint_steps=1)
    folder = create_run(runs, spec)
    tune(load_model(model), source_of(spec).load_task(), spec, folder, Stopper(2, "keep"))
    with data.open("a", encoding="utf-8") as file:
        file.write("the cat ran, far\n")
    app.at.query_params["run"] = folder.name
    app.go("tune")
    app.click(next(button.label for button in app.at.button if button.label.startswith("Resume from")))
    app.wait("tune")
    app.at.run()
    assert any(error.endswith("start it again instead of resuming it.") for error in app.errors()), app.errors()
    assert load_run(folder).state is RunState.CANCELLED  # what it came to is still there
