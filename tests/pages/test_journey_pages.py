"""The pages after the first: empty, after an analysis, after runs, and when the ground moves under them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lsf.app.panels import unmarked
from lsf.app.work import Analysed
from lsf.jobs.queue import queue_runs
from lsf.jobs.worker import Worker
from lsf.models.loading import load_model
from lsf.plans.policies import make_plan
from lsf.runs.comparison import compare
from lsf.runs.controls import with_controls
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs
from lsf.runs.verdict import verdicts
from tests.pages.conftest import SECONDS, Driver, as_read

EMPTY = {
    "trajectories": ("No analysis yet", "Go to Model and data"),
    "criteria": ("Nothing to compare criteria on yet", "Go to Model and data"),
    "choose": ("Nothing to choose from yet", "Go to Model and data"),
    "tune": ("No plan yet", "Go to Model and data"),
    "blocks_by_methods": ("No plan yet", "Go to Model and data"),
    "compare": ("Nothing to compare yet", "Go to Model and data"),
}


def test_an_empty_page_says_what_to_do_next(app: Driver) -> None:
    for page, (title, button) in EMPTY.items():
        at = app.go(page)
        assert not at.exception
        assert title in app.shown()
        assert button in [element.label for element in at.button]


def test_an_empty_page_leads_to_the_page_where_the_next_step_is_taken(analysed: Driver) -> None:
    for page, button in (("tune", "Go to Choose"), ("compare", "Go to Choose"), ("choose", "Fine-tune")):
        at = analysed.go(page)
        assert not at.exception
        assert button in [element.label for element in at.button]
    analysed.go("compare")
    assert "Go to Fine-tune" in [element.label for element in analysed.at.button]


def test_a_finished_analysis_shows_its_facts_and_the_same_line_and_tower_on_every_page(
    app: Driver, tiny: Callable[[str], Path], cats: Path
) -> None:
    app.analyse(tiny("llama"), cats)
    shows_its_facts_and_pictures(app)
    before = app.tower()
    assert not any(block["tuned"] for block in before["blocks"])
    app.go("choose")
    chosen = app.tower()
    assert chosen["score"] == "Gradient alignment"
    assert all(0 <= block["shade"] <= 1 for block in chosen["blocks"])
    one_line_names_model_data_and_device(app)
    for page in ("start", "model", "criteria", "compare", "tune", "dimension"):
        app.go(page)
        assert app.tower() == {**chosen, "editable": False}
        if page not in ("tune", "dimension"):  # from there on the worker works out what a run needs
            one_line_names_model_data_and_device(app)
    app.go("criteria")
    app.at.selectbox(key="criterion").set_value("last").run()
    assert [block["shade"] for block in app.tower()["blocks"]] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def shows_its_facts_and_pictures(app: Driver) -> None:
    at = app.at
    assert not at.exception
    assert at.title[0].value == "Trajectories"
    assert "24 examples (train)" in app.shown()  # of 30: test rows do not choose what is tuned and tested on them
    titles = [element.value for element in at.subheader]
    assert any(title.startswith("Mean of the first 24 positions") for title in titles)
    assert any(title.startswith("Deviation is greatest at state") for title in titles)
    assert any("puts the target first" in title for title in titles)
    files = {getattr(element, "label", "") for element in at.get("download_button")}
    assert files >= {"Report (HTML)", "Notebook (Jupyter)", "CSV", "JSON"}


def one_line_names_model_data_and_device(app: Driver) -> None:
    (line,) = [
        element.proto.body
        for element in app.at.get("html")
        if "lsf-bar" in element.proto.body and "<div" in element.proto.body
    ]
    assert "</small> llama0</span>" in line
    assert "</small> data.csv</span>" in line
    assert "</small> cpu, float32</span>" in line
    assert '<span class="idle">idle</span>' in line


def test_what_the_template_did_to_rows_is_said_of_the_analysis_as_of_the_data(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "the zebra"}]
    row = {"messages": turns, "tools": [{"type": "function", "function": {"name": "look_up"}}]}
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(row)}\n" * 12)
    app.use(tiny("llama"), tmp_path / "chats.jsonl")
    told = "note: The chat template leaves out the descriptions of tools (line "
    assert told in "\n".join(str(one.value) for one in app.at.text)
    unknown = "stand for words that the model does not know"
    assert unknown in app.shown()
    app.click("Analyse")
    app.wait("analyze")
    app.at.run()
    app.click("Skip to the result")
    assert app.at.title[0].value == "Trajectories"
    assert told in "\n".join(str(one.value) for one in app.at.text)
    assert unknown in app.shown()


def test_the_record_is_replayed_layer_by_layer_and_the_tower_grows_with_it(analysed: Driver) -> None:
    analysed.click("Replay")
    assert "Replay of what was recorded: example 1, states 0 to 0 of 4." in analysed.shown()
    for state in range(1, 5):
        analysed.at.run()
        assert f"example 1, states 0 to {state} of 4." in analysed.shown()
        shades = [block["shade"] for block in analysed.tower()["blocks"]]
        assert [shade is not None for shade in shades] == [block < state - 1 for block in range(4)]  # one look behind
    for count in (2, 4, 8, 16, 24):
        analysed.at.run()
        assert f"recorded: {count} positions." in analysed.shown()
    analysed.at.run()
    analysed.at.run()
    assert "Replay of what was recorded" not in analysed.shown()
    analysed.click("Replay")
    analysed.go("choose")  # there all of it is shown
    assert None not in [block["shade"] for block in analysed.tower()["blocks"]]


def test_an_example_can_be_picked_and_is_seen_through_the_lens_in_every_way(analysed: Driver) -> None:
    at = analysed.at
    at.selectbox(key="example-choice").set_value(1).run()
    titles = [element.value for element in at.subheader]
    assert any(title.startswith("Example 1") for title in titles)
    assert any(title.startswith("Logit lens of") for title in titles)
    at.select_slider(key="lens-state").set_value(2).run()
    assert not at.exception
    assert "State 2: the target" in analysed.shown()
    table = next(frame.value for frame in at.dataframe if "place before" in list(frame.value))
    assert table["place"].tolist()[:5] == [1, 2, 3, 4, 5]
    assert set(table["change"].tolist()) - {"="}
    for view, words in (("rank", "Colour: the target's rank"), ("probability", "Colour: the probability the target")):
        at.session_state["lens-view"] = view
        at.run()
        assert not at.exception
        assert words in analysed.shown()


def test_the_plan_follows_the_budget_the_criterion_and_a_share_of_compute(analysed: Driver) -> None:
    at = analysed.go("choose")
    assert not at.exception
    assert "The plan: tune block" in analysed.shown()
    assert "our own reading" in analysed.shown()
    at.selectbox(key="criterion").set_value("last").run()
    at.slider(key="budget-4").set_value(3).run()
    assert "The plan: tune blocks 1-3" in analysed.shown()
    at.session_state["budget-unit"] = "Compute"
    at.run()
    at.slider(key="budget-Compute").set_value(100).run()
    assert "4 blocks fit this share" in analysed.shown()
    at.slider(key="budget-Compute").set_value(5).run()
    assert "Not even one block fits" in analysed.shown()
    assert "No block that the rule names fits this share" in analysed.shown()
    at.selectbox(key="policy").set_value("suffix").run()
    at.slider(key="budget-Compute").set_value(100).run()
    assert "1 block fits this share" in analysed.shown()  # the last one has the greatest score
    assert "Tune blocks 0-3." in analysed.shown()  # the recommendation fits the share by itself


def test_blocks_chosen_by_hand_overrule_the_criterion_until_taken_back(analysed: Driver) -> None:
    at = analysed.go("choose")
    at.slider(key="budget-4").set_value(4).run()
    assert all(block["tuned"] for block in analysed.tower()["blocks"])
    analysed.brush(1, 1)
    analysed.brush(3, 3)
    assert "The plan: tune blocks 0, 2" in analysed.shown()
    assert "chosen by hand" in analysed.shown()
    tower = analysed.tower()
    assert [block["tuned"] for block in tower["blocks"]] == [True, False, True, False]
    assert tower["reach"] == 0
    assert tower["editable"]
    analysed.brush(2, 0)
    assert any("tunes nothing" in error for error in analysed.errors())
    analysed.click("Back to the criterion")
    assert "chosen by hand" not in analysed.shown()


@pytest.mark.slow
def test_one_click_tunes_choice_full_and_controls_and_compares_them(analysed: Driver, runs: Path) -> None:
    analysed.go("choose")
    analysed.go("tune")
    analysed.at.number_input(key="tune-steps").set_value(4)
    analysed.at.number_input(key="tune-batch_size").set_value(4)
    analysed.at.run()
    next(button for button in analysed.at.button if button.label.startswith("Start ")).click().run()
    analysed.wait("tune")
    analysed.at.run()
    assert not analysed.at.exception
    found = list_runs(runs)
    assert {run.spec.role for run in found if run.spec} >= {"choice", "full", "first"}
    assert {str(run.state) for run in found} == {"succeeded"}
    at = analysed.go("compare")
    assert not at.exception
    table = next(frame.value for frame in at.dataframe if "x parameters" in list(frame.value))
    assert max(table["x parameters"].tolist()) == 1.0
    assert [metric.label for metric in at.metric] == ["Gain kept", "Time", "Memory", "Forgetting"]
    (verdict,) = verdicts(compare(found))
    assert at.subheader[0].value == unmarked(verdict.sentence)
    assert verdict.onward in analysed.shown()
    assert "1 seed, no interval." in analysed.shown()
    assert [button.label for button in at.button if str(button.key).startswith("to-")] == ["Tune more runs"]
    proof = next(frame.value for frame in at.dataframe if "unchanged" in list(frame.value))
    assert set(proof["unchanged"].tolist()) == {"yes"}


@pytest.fixture(scope="module")
def made(
    known: Callable[..., Analysed], tiny: Callable[[str], Path], cats: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A choice and the whole model, tuned by the app's own queue."""
    folder, worker, found = tmp_path_factory.mktemp("tuned"), Worker("made"), known()
    plan = make_plan(found.analysis, "last", "top_k", 1)
    spec = RunSpec(str(tiny("llama")), str(cats), plan, steps=2, batch_size=4)
    loaded, task = load_model(spec.model), found.request.source.load_task()
    queued = queue_runs(worker, folder, with_controls(spec, ["full"]), lambda: loaded, lambda: task)
    worker.wait(queued[-1].job, SECONDS)
    worker.close()
    return folder


@pytest.fixture
def tuned(runs: Path, made: Path) -> Path:
    """Copies of those runs where the app looks."""
    return shutil.copytree(made, runs)


def test_what_is_to_be_said_of_several_runs_is_said_once(tuned: Path, analysed: Driver) -> None:
    first, second = list_runs(tuned)
    for run, words in ((first, ["Of both.", "Of one."]), (second, ["Of both."])):
        told = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
        (run.folder / "result.json").write_text(json.dumps(told | {"warnings": words}), encoding="utf-8")
    analysed.at.query_params["run"] = first.id
    said = [as_read(one.value) for one in analysed.go("tune").warning]
    assert said.count("All runs: Of both.") == 1
    assert sum(one.endswith(": Of one.") for one in said) == 1
    assert sum("Of both." in one for one in said) == 1


def test_a_run_deleted_or_half_written_while_the_page_is_open_stops_nothing(tuned: Path, analysed: Driver) -> None:
    first, second = list_runs(tuned)
    analysed.at.query_params["run"] = first.id
    assert not analysed.go("tune").exception
    shutil.rmtree(first.folder)
    (second.folder / "result.json").write_text('{"schema_version": 1, "sta', encoding="utf-8")
    at = analysed.at.run()
    assert not at.exception
    for page in ("compare", "tune"):
        assert not analysed.go(page).exception
    assert any(second.id in as_read(one.value) and "result.json" in as_read(one.value) for one in at.caption)


def test_a_new_session_finds_a_run_by_its_address(tuned: Path, app: Driver) -> None:
    run = next(run for run in list_runs(tuned) if run.spec and run.spec.role == "choice")
    app.at.query_params["run"] = run.id
    at = app.go("tune")
    assert not at.exception
    assert "No plan yet" not in app.shown()
    assert run.spec is not None
    assert run.spec.plan.label in app.shown()


def test_an_address_of_a_run_that_is_gone_says_so(app: Driver) -> None:
    app.at.query_params["run"] = "20260101-000000-gone-0000"
    at = app.at.run()
    assert not at.exception
    assert any("no run" in str(warning.value) for warning in at.warning)
