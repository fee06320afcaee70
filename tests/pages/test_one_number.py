"""What a run needs and took is the same number on every page, and a start is seen."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.app.panels import memory_words, unmarked
from lsf.app.run_form import EARLIER
from lsf.app.runtime import runtime
from lsf.app.state import looked_at, predicted_of
from lsf.app.tower import measured_tower
from lsf.app.work import Analysed
from lsf.progress import duration
from lsf.runs.lock import SPEC
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs
from tests.pages.conftest import SECONDS, Driver


@pytest.fixture
def form(app: Driver, known: Callable[..., Analysed]) -> Driver:
    """The Fine-tune page with one short run, what it needs being known."""
    app.look_at(known(), "choose")
    for key, value in {"tune-steps": 3, "tune-batch_size": 4, "tune-roles": []}.items():
        app.at.session_state[key] = value
    app.go("tune")
    app.wait("forecast")
    app.at.run()
    return app


def start(form: Driver) -> str:
    next(button for button in form.at.button if button.label.startswith("Start ")).click().run()
    form.wait("tune")
    form.at.run()
    assert not form.at.exception
    return str(form.at.query_params["run"])


def frame_with(form: Driver, column: str) -> Any:
    return next(frame.value for frame in form.at.dataframe if column in list(frame.value))


def test_choose_fine_tune_and_compare_tell_the_same_memory_and_time_and_a_second_start_is_looked_at(
    form: Driver, runs: Path
) -> None:
    foreseen = form.at.session_state["lsf"].foreseen
    predicted, full = foreseen.choice.predicted, foreseen.full.predicted
    told = memory_words(predicted)
    assert any(told in element.value for element in form.at.subheader)
    assert f"about {duration(predicted.wall_seconds)} from start to end" in form.shown()
    form.go("choose")
    assert {metric.label: metric.value for metric in form.at.metric}["Memory"] == told
    share = next(metric.delta for metric in form.at.metric if metric.label == "Memory")
    assert share == f"{100 * predicted.memory_bytes / full.memory_bytes:.0f} % of full"
    assert "the one above the line is the memory shown above, activations included" in form.shown()
    form.go("tune")
    first = start(form)
    (run,) = list_runs(runs)
    assert run.result is not None
    assert run.result.total_seconds is not None
    row = frame_with(form, "in all").iloc[0]
    assert row["in all"] == duration(run.result.total_seconds)
    course = frame_with(form, "micro-batch").iloc[0]
    form.go("compare")
    cost = frame_with(form, "memory expected").iloc[0]
    assert cost["memory expected"] == told
    assert cost["time expected"] == pytest.approx(predicted.wall_seconds)
    assert cost["time measured"] == run.result.total_seconds
    assert course["training"] == duration(frame_with(form, "x quality").iloc[0]["seconds"])
    form.go("tune")
    second = start(form)  # though the address names the first
    assert first == run.id != second
    assert form.at.session_state["lsf"].run == second


def test_a_forecast_on_other_data_is_not_shown_and_one_of_other_settings_is_not_said_to_be_worked_out_again(
    form: Driver,
) -> None:
    here, gate = form.at.session_state["lsf"], threading.Event()
    foreseen = here.foreseen
    assert predicted_of(here, here.plan)[0] == foreseen.choice.predicted
    elsewhere = [
        replace(foreseen, spec=replace(foreseen.spec, **changes))
        for changes in ({"data": "lesson:sums"}, {"completion_template": " {completion}"})
    ]
    for other in elsewhere:
        assert predicted_of(replace(here, foreseen=other), here.plan) == (here.plan.predicted, None)
    runtime().worker.submit("tune", "another run", lambda report: gate.wait(SECONDS))
    form.at.number_input(key="tune-steps").set_value(5).run()
    assert "worked out once the queue is empty" in form.shown()
    assert EARLIER in form.shown()
    assert "Being worked out again" not in form.shown()
    form.at.session_state["lsf"].foreseen = elsewhere[0]
    form.at.run()
    assert EARLIER not in form.shown()
    gate.set()


def test_an_address_opens_with_the_blocks_of_its_run_and_says_why_and_what_is_frozen(form: Driver) -> None:
    form.go("choose")
    form.at.slider(key="budget-4").set_value(3).run()
    form.go("tune")
    start(form)
    label = form.at.session_state["lsf"].plan.label
    other = Driver()
    for name in ("analysis", "run"):
        other.at.query_params[name] = str(form.at.query_params[name])
    other.go("choose")
    assert [head.value for head in other.at.subheader if "The plan" in head.value] == [f"The plan: tune {label}"]
    other.go("compare")
    assert not other.at.exception
    assert "Chosen by Gradient alignment (tune the consecutive blocks of the greatest sum). Frozen: " in other.shown()
    assert "frozen tensors did not move." in other.shown()


def test_pages_name_model_and_data_as_the_line_above_them_does_and_the_tower_what_an_analysis_lacks(
    analysed: Driver, cats: Path
) -> None:
    for page in ("trajectories", "choose", "tune", "dimension", "blocks_by_methods"):
        analysed.go(page)
        if page != "choose":
            assert f"**{unmarked(cats.name)}**" in analysed.shown(), page
        assert str(cats) not in analysed.shown(), page
    here = analysed.at.session_state["lsf"]
    measured = looked_at(here)
    assert measured is not None
    assert not any("did not measure" in note for note in measured_tower(here, measured.analysis)[1])
    here.plan = replace(here.plan, criterion="fisher")
    assert "fisher" not in measured.analysis.criteria
    assert measured_tower(here, measured.analysis)[1][0].startswith("Chosen by Fisher, which this analysis did not")


def test_a_run_on_the_same_file_by_other_templates_is_no_run_on_this_data(form: Driver, runs: Path) -> None:
    folder = runs / start(form)
    form.go("choose")
    table = frame_with(form, "quality")
    assert table["run"].dropna().str.endswith("3 steps, seed 0").tolist() == [True]
    assert "diamond choice" in form.shown()
    spec = RunSpec.load(folder / SPEC)
    replace(spec, prompt_template="{prompt}, said she:").save(folder / SPEC)
    form.go("choose")
    assert not any("quality" in frame.value for frame in form.at.dataframe)


def test_what_was_forecast_of_another_method_says_so_and_stays_out_of_the_curves_of_all_weights(form: Driver) -> None:
    form.at.selectbox(key="tune-method").set_value("lora").run()
    form.wait("forecast")
    form.at.run()
    foreseen = form.at.session_state["lsf"].foreseen
    assert foreseen.spec.method == "lora"
    assert foreseen.choice.predicted.trainable_params < foreseen.spec.plan.predicted.trainable_params
    form.go("choose")
    assert "What it is predicted to cost by LoRA" in form.shown()
    assert form.tower()["notes"][0].endswith("x the compute of a full step by LoRA")
    plan = frame_with(form, "compute").iloc[-1]
    assert plan["compute"] == pytest.approx(foreseen.spec.plan.predicted.flops_ratio)
    assert plan["tried_bytes"] is None
    assert "activations included" not in form.shown()
