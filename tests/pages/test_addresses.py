"""What an address, another tab or a quick hand can do to a page: no run's name, another model, a tour left behind."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.app.choose import brush, toggle
from lsf.app.panels import task_words, unmarked
from lsf.app.runtime import runtime
from lsf.app.state import Session, look_at, source_here, take_up_plan
from lsf.app.work import Analysed, Request, Source, load_work, source_of
from lsf.criteria.result import AnalysisSettings
from lsf.errors import DataError, LsfError
from lsf.jobs.job import Report
from lsf.jobs.queue import queue_runs
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, list_runs, load_run
from tests.pages.conftest import SECONDS, Driver, as_read
from tests.runs.test_comparison import FULL, make

OTHER = "20990101-000000-other-ffff"


def write_run(runs: Path, plan: Plan) -> Path:
    """Make the folder of a run on the bundled model that has not begun."""
    folder = runs / OTHER
    folder.mkdir(parents=True)
    RunSpec("bundled", "lesson:facts", plan).save(folder / "spec.json")
    return folder


@pytest.mark.parametrize("name", ["uploads", "x" * 300, "a/b", "..", "[x](http://e)", "*x* $y$"])
def test_an_address_that_names_no_run_says_so_as_text(app: Driver, runs: Path, name: str) -> None:
    (runs / "uploads").mkdir(parents=True)  # as an upload makes it
    app.at.query_params["run"] = app.at.query_params["grid"] = name
    at = app.at.run()
    assert not at.exception
    (said,) = [str(warning.value) for warning in at.warning]
    assert as_read(said).startswith(f"There is no run {name!r} ")
    assert "](" not in said
    assert not {"run", "grid"} & set(at.query_params)


def test_after_a_reload_the_first_page_asks_again_for_what_is_looked_at(
    app: Driver, runs: Path, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tmp_path / "own.csv"
    data.write_text("q,a\n" + "".join(f"the cat {word},mat\n" for word in ("sat", "ran", "is") * 4))
    model = str(tiny("llama"))
    spec = RunSpec(
        model, str(data), Plan(model, 4, (1,)), prompt_template="Say: {q}", completion_template=" {a}",
        dtype="float32", device="cpu", pairs="raw", max_rows=5,
    )  # fmt: skip
    folder = write_run(runs, spec.plan)
    spec.save(folder / "spec.json")
    app.at.query_params["run"] = folder.name
    at = app.go("model")
    assert not at.exception and not at.error
    assert at.text_input(key="model-name").value == model
    assert at.text_input(key="data-path").value == str(data)
    here = at.session_state["lsf"]
    assert here.request.source == source_here(here) == source_of(spec)
    at.session_state["data-kind"] = "Lesson"  # and what is asked for after that stays
    app.go("tune")
    assert app.go("model").session_state["lsf"].request.source.data == "lesson:facts"
    data.rename(elsewhere := tmp_path / "away.csv")
    late = Driver()
    late.at.query_params["run"] = folder.name
    assert len(late.go("model").error) == 1
    assert "on own.csv now" in late.go("trajectories").button(key="analyse-now").label
    elsewhere.rename(data)
    late.go("model")
    assert not late.at.error
    assert late.at.session_state["lsf"].request.source == source_of(spec)


def test_an_analysis_that_waits_is_asked_for_again_with_its_settings(
    app: Driver, tiny: Callable[[str], Path], cats: Path
) -> None:
    source = Source(str(tiny("llama")), str(cats))
    settings = AnalysisSettings(criteria=("deviation", "fisher"), limit=5, positions="all")
    gate, here = threading.Event(), app.at.session_state["lsf"]
    request = Request(source, settings)
    runtime().worker.submit("load", "something else", lambda report: gate.wait(SECONDS))
    job = runtime().worker.submit(
        "analyze", request.title, lambda report: gate.wait(SECONDS), here.owner, about=request
    )
    app.at.query_params["analysis"] = job
    at = app.go("model")
    assert not at.exception and not at.error
    assert at.session_state["lsf"].request == request
    runtime().worker.stop(job, here.owner)
    gate.set()
    assert f"on {cats.name} again" in app.go("trajectories").button(key="analyse-again").label


def test_a_run_deleted_while_it_is_looked_at_is_told_once_on_every_page(app: Driver, runs: Path) -> None:
    folder = write_run(runs, Plan("bundled", 8, (6, 7)))
    app.at.query_params["run"] = folder.name
    assert not app.go("tune").exception
    shutil.rmtree(folder)
    assert source_here(app.at.session_state["lsf"]) == Source()  # the line above looks again by itself
    at = app.go("compare")
    assert not at.exception
    assert [as_read(warning.value) for warning in at.warning] == [
        f"There is no run {OTHER!r} any more; it was deleted, or its folder was moved."
    ]
    at = app.go("choose")
    assert not at.exception
    assert not at.warning


def test_the_plan_of_a_run_is_not_taken_for_the_blocks_of_another_model(
    app: Driver, runs: Path, known: Callable[..., Analysed]
) -> None:
    app.look_at(known(), "start")
    write_run(runs, Plan("bundled", 8, (6, 7)))
    app.at.query_params["run"] = OTHER
    app.go("tune")
    assert "No plan yet" in app.shown()
    assert "of 8" not in app.shown()


def test_the_plan_of_a_run_is_not_taken_where_the_analysis_is_of_other_data_or_still_runs(
    app: Driver, runs: Path, known: Callable[..., Analysed]
) -> None:
    found, gate = known(), threading.Event()
    source = found.request.source
    plan = Plan(source.model, found.analysis.model.n_blocks, (0,))
    spec = RunSpec(source.model, source.data, plan, role="manual")
    folder = runs / OTHER
    folder.mkdir(parents=True)
    replace(spec, data="lesson:facts").save(folder / "spec.json")
    app.at.query_params["run"] = OTHER
    app.look_at(found, "choose")
    here = app.at.session_state["lsf"]
    assert (here.run, here.by_hand) == (OTHER, None)
    assert not take_up_plan(here, replace(spec, data="lesson:facts"))  # as *Show curves* does
    assert not take_up_plan(here, replace(spec, prompt_template="{prompt}!"))
    assert take_up_plan(here, spec)

    def work(report: Report) -> Analysed:
        report.partial(found)
        gate.wait(SECONDS)
        return found

    waiting = [runtime().worker.submit("analyze", found.request.title, work) for _ in range(2)]
    for job in waiting:  # one that runs, and one that does not tell yet what it is of
        late = Session("me", analysis_job=job)
        assert not take_up_plan(late, RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (2,)), role="manual"))
        assert late.plan is None
    gate.set()


def test_an_address_of_another_analysis_drops_what_was_chosen_on_the_first(
    app: Driver, known: Callable[..., Analysed]
) -> None:
    app.look_at(known(), "choose")
    app.brush(0, 0)
    assert "chosen by hand" in app.shown()
    app.look_at(known("fisher"), "choose")
    assert "chosen by hand" not in app.shown()


def end_others(runs: Path) -> None:
    """Two runs of another model that ended, as somebody else's."""
    for name, one in (("20990101-000000-a-aaaa", make("c")), ("20990101-000000-b-bbbb", FULL)):
        (runs / name).mkdir(parents=True)
        one.spec.save(runs / name / "spec.json")
        one.result.save(runs / name / "result.json")


def test_compare_has_the_runs_of_what_is_named_above_and_offers_others_by_one_click(
    app: Driver, runs: Path, known: Callable[..., Analysed]
) -> None:
    end_others(runs)
    found = known()
    app.look_at(found, "compare")
    assert f"No run of {found.request.title} has ended yet" in app.shown()
    assert "Runs of **m** on **d**" not in app.shown() and not app.at.metric
    app.click("Compare 2 runs of m on d")
    assert "Runs of **m** on **d**, not of the model and data above." in app.shown()
    assert app.at.query_params["run"] == "20990101-000000-b-bbbb"
    app.click(f"Back to the runs of {unmarked(found.request.title)}")
    assert f"No run of {found.request.title} has ended yet" in app.shown()
    assert "run" not in app.at.query_params


def test_an_analysis_of_another_model_leaves_the_run_that_was_looked_at(
    app: Driver, runs: Path, known: Callable[..., Analysed]
) -> None:
    folder = write_run(runs, Plan("bundled", 8, (2,)))
    assert FULL.result is not None
    FULL.result.save(folder / "result.json")
    app.at.query_params["run"] = OTHER
    app.go("compare")
    assert f"Runs of {as_read(task_words('bundled', 'lesson:facts'))}." in app.shown()
    found, here = known(), app.at.session_state["lsf"]
    job = runtime().worker.submit("analyze", found.request.title, lambda report: found, about=found.request)
    runtime().worker.wait(job, SECONDS)
    look_at(here, job)  # as *Analyse* does
    assert here.run is None
    del app.at.query_params["run"]
    at = app.go("compare")
    assert "run" not in at.query_params
    assert f"No run of {found.request.title} has ended yet" in app.shown()
    app.at.query_params["run"] = OTHER  # which is asked for by name
    app.go("compare")
    assert "not of the model and data above" in app.shown()


def test_runs_of_another_model_are_not_shown_as_ones_own_on_fine_tune(
    app: Driver, runs: Path, known: Callable[..., Analysed]
) -> None:
    end_others(runs)
    app.look_at(known(), "compare")
    gate = threading.Event()
    job = runtime().worker.submit(
        "tune", "theirs", lambda report: gate.wait(SECONDS), "x", runs / "20990101-000000-a-aaaa"
    )
    at = app.go("tune")
    assert "theirs" in " ".join([app.shown(), *(one.proto.text for one in at.get("progress"))])
    assert not [frame for frame in at.dataframe if "in all" in list(frame.value)]
    gate.set()
    runtime().worker.wait(job, SECONDS)
    at.query_params["run"] = "20990101-000000-a-aaaa"
    at = app.go("tune")
    assert [frame for frame in at.dataframe if "in all" in list(frame.value)]
    assert "Runs of **m** on **d**, not of the model and data above." in app.shown()


def test_compare_says_that_the_run_looked_at_has_not_ended_and_takes_it_once_it_has(app: Driver, runs: Path) -> None:
    end_others(runs)
    folder, gate = write_run(runs, Plan("bundled", 8, (2,))), threading.Event()

    def work(report: Report) -> None:
        gate.wait(SECONDS)
        assert FULL.result is not None
        FULL.result.save(folder / "result.json")

    job = runtime().worker.submit("tune", "block 2", work, "me", folder)
    app.at.query_params["run"] = OTHER
    at = app.go("compare")
    assert not at.exception
    assert "The run you look at, choice: block 2, has not ended yet. Runs are added here as they end." in app.shown()
    assert "No run of bundled on Capitals that moved has ended yet" in app.shown()
    assert "Runs of **m** on **d**" not in app.shown()
    gate.set()
    runtime().worker.wait(job, SECONDS)
    at.run()
    assert not at.exception
    assert "has not ended" not in app.shown()
    assert f"Runs of {as_read(task_words('bundled', 'lesson:facts'))}." in app.shown()


def test_the_plan_of_one_run_is_not_taken_for_another_model_whose_run_is_looked_at_next(
    app: Driver, runs: Path
) -> None:
    end_others(runs)
    write_run(runs, Plan("bundled", 8, (6, 7)))
    app.at.query_params["run"] = OTHER
    app.go("tune")
    assert "Tune **blocks 6-7** of 8" in app.shown()
    app.at.query_params["run"] = "20990101-000000-b-bbbb"  # the whole model m on d
    app.go("tune")
    assert "Tune **blocks 6-7**" not in app.shown() and "No plan yet" in app.shown()
    assert app.at.session_state["lsf"].plan is None
    app.at.query_params["run"] = OTHER
    app.go("tune")
    app.go("compare")
    app.click("Compare 2 runs of m on d")
    assert app.at.session_state["lsf"].plan is None


def test_how_many_runs_are_awaited_is_said_in_the_right_number(app: Driver, runs: Path) -> None:
    gate = threading.Event()
    for words in ("1 is queued or running; it appears here", "2 are queued or running; they appear here"):
        runtime().worker.submit("tune", "a run", lambda report: gate.wait(SECONDS), "x")
        app.go("compare")
        assert words in app.shown()
    gate.set()


def test_an_address_that_names_a_job_which_is_no_analysis_has_none(app: Driver) -> None:
    job = runtime().worker.submit("load", "loading", lambda report: "done")
    runtime().worker.wait(job, SECONDS)
    app.at.query_params["analysis"] = job
    assert not app.go("trajectories").exception
    assert "No analysis yet" in app.shown()
    assert "The analysis of this address is gone" in app.shown()
    app.at.run()
    assert "is gone" not in app.shown()  # said once


def test_another_analysis_ends_the_tour_and_is_not_tuned(
    app: Driver, runs: Path, tiny: Callable[[str], Path], cats: Path
) -> None:
    app.click("Show me in 60 seconds")
    app.go("model")
    app.use(tiny("llama"), cats)
    app.click("Analyse")
    app.wait("analyze")
    at = app.go("trajectories")
    assert not at.exception
    assert "1 of 4" not in app.shown()
    assert not list_runs(runs)


def test_a_job_can_be_stopped_where_the_click_comes_with_a_run_of_the_whole_script(app: Driver) -> None:
    begun, gate, here = threading.Event(), threading.Event(), app.at.session_state["lsf"]

    def wait(_report: Report) -> None:
        begun.set()
        gate.wait(SECONDS)

    job = runtime().worker.submit("tune", "a run", wait, here.owner)
    assert begun.wait(SECONDS)
    app.go("tune")
    at = app.click("Stop and keep")
    assert not at.exception
    assert runtime().worker.view(job).stopping
    gate.set()


def test_what_is_discarded_is_said_before_it_is_as_where_runs_are_deleted(app: Driver) -> None:
    begun, gate, here = threading.Event(), threading.Event(), app.at.session_state["lsf"]
    asked = list[str | None]()

    def wait(report: Report) -> None:
        begun.set()
        gate.wait(SECONDS)
        asked.append(report.stop)

    job = runtime().worker.submit("tune", "a run", wait, here.owner)
    assert begun.wait(SECONDS)
    at = app.go("tune")
    assert "Stop and discard" not in [button.label for button in at.button], "it asks, and does nothing yet"
    told = "Stop a run and discard it? Its curves stay; checkpoints and tuned weights are removed from the disk"
    assert app.shown().count(told) == 2, "on the page, and above it"
    assert at.button(key=f"stop-above-{job}-False").label == "Discard it"
    at.button(key=f"stop-{job}-False").click().run()
    assert not at.exception
    gate.set()
    runtime().worker.wait(job, SECONDS)
    assert asked == ["discard"]


def test_a_run_that_was_refused_in_the_queue_says_why_and_is_removed_by_one_click(app: Driver, runs: Path) -> None:
    def gone() -> Any:
        raise DataError("There is no file rows.csv any more.")

    specs = [RunSpec("bundled", "rows.csv", Plan("bundled", 8, (block,))) for block in (2, 3)]
    queued = queue_runs(runtime().worker, runs, specs, lambda: None, gone)
    for one in queued:
        runtime().worker.wait(one.job, SECONDS)
    app.at.query_params["run"] = queued[0].folder.name
    at = app.go("tune")
    assert "choice: block 2: There is no file rows.csv any more." in app.errors()
    at.button(key=f"remove-{queued[0].folder.name}").click().run()
    assert not at.exception
    assert not queued[0].folder.exists() and queued[1].folder.is_dir()
    assert at.query_params["run"] == queued[1].folder.name, "the other one is looked at"
    (queued[1].folder / "metrics.jsonl").write_text('{"step": 0}\n')  # it had begun: the list of runs deletes it
    at = app.go("tune")
    assert f"remove-{queued[1].folder.name}" not in [button.key for button in at.button]


def test_every_job_of_ones_own_can_be_stopped_above_any_page_and_says_what_that_leaves(app: Driver) -> None:
    gate, here = threading.Event(), app.at.session_state["lsf"]
    jobs = [
        runtime().worker.submit(kind, f"a {kind}", lambda report: gate.wait(SECONDS), owner)
        for kind, owner in (("measure", here.owner), ("sweep", here.owner), ("ask", "somebody else"))
    ]
    at = app.go("start")
    above = {button.key: button for button in at.button if str(button.key).startswith("stop-above")}
    assert {key: button.label for key, button in above.items()} == {
        f"stop-above-{jobs[0]}-True": "Stop",
        f"stop-above-{jobs[1]}-True": "Remove from the queue",
    }
    stop = above[f"stop-above-{jobs[0]}-True"]
    assert stop.help == "The run stays as it was kept, without a test."
    stop.click().run()
    assert not at.exception
    assert runtime().worker.view(jobs[0]).stopping
    gate.set()


def test_a_model_is_not_loaded_where_a_stop_was_asked_for_while_it_was_fetched(
    app: Driver, tiny: Callable[[str], Path]
) -> None:
    source, report = Source(str(tiny("llama"))), Report()
    report.ask_to_stop("keep")
    with pytest.raises(LsfError, match="stopped"):
        load_work(runtime(), source)(report)
    assert runtime().loaded() is None


def test_the_second_of_two_quick_clicks_does_not_undo_the_first() -> None:
    here = Session("me", plan=Plan("bundled", 8, (3,)))
    brush(here, 1, 1)
    brush(here, 2, 2)
    assert here.by_hand == (1, 2, 3)
    here = replace(here, by_hand=None)
    toggle(here, 1)
    toggle(here, 2)
    assert here.by_hand == (1, 2, 3)


def test_what_was_predicted_and_picked_is_there_when_the_page_is_opened_again(app: Driver, runs: Path) -> None:
    app.go("lessons")
    app.at.session_state["lesson-budget-facts"] = 2
    app.at.run()
    app.at.session_state["prediction-facts-2"] = (3, 4)
    app.at.run()
    app.click("Lock in my prediction")
    app.go("start")
    app.go("lessons")
    assert "Predict again" in [button.label for button in app.at.button]
    assert app.at.session_state["prediction-facts-2"] == (3, 4)


def test_a_run_that_was_selected_is_not_confused_with_one_that_came_after_it(app: Driver, runs: Path) -> None:
    folder = write_run(runs, Plan("bundled", 8, (6, 7)))
    app.go("tune")
    (store,) = [str(frame.key) for frame in app.at.dataframe if str(frame.key).startswith("run-store")]
    app.at.session_state[store] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.at.run()
    assert not app.at.button(key="store-look").disabled
    shutil.copytree(folder, runs / "20990102-000000-newer-eeee")
    app.at.run()
    assert app.at.button(key="store-look").disabled
    assert "store-delete" not in [button.key for button in app.at.button]


def test_the_list_of_runs_says_what_each_is_and_of_a_selected_one_where_it_lies_and_why_it_has_not_ended(
    app: Driver, runs: Path
) -> None:
    ended = write_run(runs, Plan("bundled", 8, (6, 7)))
    result = make(ended.name, exact=0.5).result
    result.save(ended / "result.json")
    spec = RunSpec("models/mine", "rows.jsonl", Plan("mine", 8, (3,)), method="lora", epochs=3.0, seed=2)
    waits = create_run(runs, spec)
    renamed = waits.rename(runs / "a-name-of-my-own")
    app.go("tune")
    listed = next(frame for frame in app.at.dataframe if str(frame.key).startswith("run-store"))
    rows = {row["made"]: row for row in listed.value.to_dict("records")}
    assert set(rows) == {"2099-01-01 00:00", renamed.name}
    assert rows["2099-01-01 00:00"]["state"] == f"succeeded, {result.steps} steps"
    own = rows[renamed.name]
    assert (own["tuned"], own["model and data"]) == ("choice: block 3, lora, seed 2", "mine on rows.jsonl")
    assert own["state"] == "interrupted, 3 epochs asked for"
    place = list(rows).index(renamed.name)
    app.at.session_state[str(listed.key)] = {"selection": {"rows": [place], "columns": [], "cells": []}}
    app.at.run()
    assert f"{renamed.name}: {load_run(renamed).problem}" in app.shown()


def test_runs_are_deleted_after_it_was_said_how_many_and_how_much_that_is(app: Driver, runs: Path) -> None:
    folder = write_run(runs, Plan("bundled", 8, (6, 7)))
    other = shutil.copytree(folder, runs / "20990102-000000-newer-eeee")
    (other / "weights").mkdir()
    (other / "weights" / "tuned.safetensors").write_bytes(bytes(3_000_000))
    app.at.query_params["run"] = other.name
    app.go("tune")
    (store,) = [str(frame.key) for frame in app.at.dataframe if str(frame.key).startswith("run-store")]
    app.at.session_state[store] = {"selection": {"rows": [0, 1], "columns": [], "cells": []}}
    app.at.run()
    assert folder.is_dir() and other.is_dir()
    assert "Delete these 2 runs, 3.0 MB?" in app.shown()
    assert app.at.button(key="store-delete").label == "Delete 2 runs, 3.0 MB"
    app.at.session_state[store] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.at.run()
    assert f"Delete this run ({other.name}), 3.0 MB?" in app.shown()
    assert not app.click("Delete 1 run, 3.0 MB").exception
    assert folder.is_dir() and not other.exists()
    assert "run" not in app.at.query_params


def test_why_one_model_could_not_be_loaded_is_not_said_of_another(app: Driver) -> None:
    app.to_the_input()
    app.at.session_state["model-kind"] = "Your own"
    app.at.run()
    app.at.text_input(key="model-name").set_value("nobody/nothing").run()
    app.click("Fetch and load")
    app.wait("load")
    app.at.run()
    assert len(app.errors()) == 1
    app.at.text_input(key="model-name").set_value("somebody/something").run()
    assert not app.errors()
