import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from lsf.errors import BadInputError
from lsf.jobs.job import JobState
from lsf.jobs.queue import queue_runs
from lsf.jobs.worker import Worker
from lsf.runs.controls import with_controls
from lsf.runs.result import RunState
from lsf.runs.store import FullQuotaError, bytes_of, create_run, list_runs, load_run
from lsf.training.proof import fingerprint


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.close()


def test_a_choice_and_its_controls_run_one_after_another_and_leave_the_model_alone(
    worker, loaded, task, spec, tmp_path
):
    before = fingerprint(loaded.model)
    specs = with_controls(replace(spec, steps=3), ("full", "first"))
    loads = threading.Event()
    queued = queue_runs(worker, tmp_path, specs, lambda: loads.wait(60) and loaded, lambda: task, owner="me")
    assert {load_run(one.folder).state for one in queued[1:]} == {RunState.QUEUED}
    with pytest.raises(BadInputError, match="Only the person who started"):
        worker.stop(queued[2].job, owner="you")
    loads.set()
    views = [worker.wait(one.job, 60) for one in queued]
    assert [view.state for view in views] == [JobState.SUCCEEDED] * 3
    assert [view.run for view in views] == [one.folder for one in queued]
    found: list[Any] = list_runs(tmp_path)
    runs = {run.spec.role: run for run in found}
    assert set(runs) == {"choice", "full", "first"}
    assert len({run.result.tokens for run in runs.values()}) == 1  # `before`: see test_run.py
    assert views[0].result == runs["choice"].result
    assert views[0].partial["step"] == 3
    assert fingerprint(loaded.model) == before


def test_where_the_folder_of_runs_gets_full_none_of_several_is_queued(
    worker, loaded, task, spec, tmp_path, monkeypatch
):
    create_run(tmp_path, spec)
    monkeypatch.setenv("LSF_RUNS_QUOTA", str(bytes_of(tmp_path) + 1))  # one more has room
    with pytest.raises(FullQuotaError):
        queue_runs(worker, tmp_path, (spec, spec, spec), lambda: loaded, lambda: task)
    assert worker.views() == ()
    assert len(list_runs(tmp_path)) == 1


def test_a_queued_run_that_is_stopped_is_cancelled_at_once_and_the_running_one_keeps_what_it_has(
    worker, loaded, task, spec, tmp_path
):
    long = replace(spec, steps=2_000, data="/app/uploads/15cf/rows.csv")
    queued = queue_runs(worker, tmp_path, (long, long), lambda: loaded, lambda: task)
    worker.stop(queued[1].job)
    assert worker.view(queued[1].job).title == f"{spec.plan.label} on rows.csv"
    assert worker.view(queued[1].job).state is JobState.CANCELLED
    assert load_run(queued[1].folder).state is RunState.CANCELLED
    while (worker.view(queued[0].job).partial or {"step": 0})["step"] < 2:
        assert worker.view(queued[0].job).active
        time.sleep(0.01)
    worker.stop(queued[0].job, keep=True)
    view = worker.wait(queued[0].job, 60)
    assert view.state is JobState.CANCELLED
    assert view.result.steps >= 2
    assert view.result.unmeasured
    test = next(job for job in worker.views() if job.kind == "measure")
    ended = worker.wait(test.id, 60)
    assert ended.state is JobState.SUCCEEDED
    result = load_run(queued[0].folder).result
    assert result is not None
    assert ended.result == result.after
    assert (queued[0].folder / "weights" / "tuned.safetensors").exists()
    assert load_run(queued[0].folder).state is RunState.CANCELLED
