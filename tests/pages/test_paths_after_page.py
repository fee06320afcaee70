"""Trajectories: the paths after tuning laid over those before."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lsf.app.paths import LAID
from lsf.app.runtime import runtime
from lsf.app.work import Analysed, Request, paths_work
from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import load_lesson
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, list_runs
from lsf.training.run import tune
from tests.pages.conftest import Driver


@pytest.mark.slow
def test_a_run_of_the_same_model_and_data_is_laid_over_the_paths_and_others_are_not_offered(
    app: Driver, runs: Path
) -> None:
    loaded, settings = load_model("bundled"), AnalysisSettings(criteria=("deviation",), limit=16)
    found = Analysed(Request(settings=settings), analyze(loaded, load_lesson("facts"), settings, Silent()))
    app.look_at(found)
    assert not [box for box in app.at.selectbox if box.key == "laid-over"]
    for lesson in ("facts", "labels"):
        plan = Plan("bundled", 8, (6,))
        spec = RunSpec("bundled", f"lesson:{lesson}", plan, steps=4, learning_rate=1e-3, eval_limit=8)
        tune(loaded, load_lesson(lesson), spec, create_run(runs, spec), Silent())
    at = app.go("trajectories")
    (box,) = [box for box in at.selectbox if box.key == "laid-over"]
    assert [option.partition(": ")[2] for option in box.options] == ["block 6"]  # the one on labels is of other rows
    worker, reached = runtime().worker, threading.Event()
    facts = next(run for run in list_runs(runs) if run.spec is not None and run.spec.data == "lesson:facts")
    other = replace(found.analysis, data=replace(found.analysis.data, fingerprint="of other rows"))
    changed = paths_work(runtime(), Analysed(found.request, other), facts.folder)
    assert worker.wait(worker.submit(LAID, "of changed data", changed, about=(found.request, facts.id))).error
    box.select(box.options[0]).run()
    assert "has changed since it was analysed; analyse it again" in app.shown()
    runtime().worker.submit("load", "something before it", lambda report: reached.wait())
    app.click("Read it again")
    waiting = runtime().jobs(LAID)[-1]
    runtime().worker.stop(waiting.id, waiting.owner, keep=False)
    reached.set()
    app.wait("load", LAID)
    at.run()
    app.click("Read it again")
    assert app.wait(LAID).error is None
    at.run()
    assert not at.exception and not at.error
    assert "Green squares: the same after tuning" in app.shown()
    at.run()
    assert len(runtime().jobs(LAID)) == 3, "it is read once"
