import threading
import time
from types import SimpleNamespace

import pytest

from lsf.errors import BadInputError, DataError, RunPausedError
from lsf.jobs.job import JobState, Report
from lsf.jobs.worker import KEPT_JOBS, Worker
from lsf.plans.plan import Plan
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import append_metrics, can_resume, create_run, load_run

SPEC = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (6, 7)))


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.close()


class Gate:
    """A job that says when it started and goes on when it is let."""

    def __init__(self):
        self.started, self.open = threading.Event(), threading.Event()

    def __call__(self, report):
        self.started.set()
        while not self.open.wait(0.005):
            if report.stop is not None:
                return report.stop
        return "done"


def test_jobs_run_in_the_order_they_came_and_know_how_many_are_ahead(worker):
    gate, order = Gate(), []
    first = worker.submit("load", "first", gate)
    assert gate.started.wait(5)
    others = [worker.submit("tune", str(n), lambda report, n=n: order.append(n)) for n in range(3)]
    assert [worker.view(job).position for job in (first, *others)] == [0, 1, 2, 3]
    assert worker.view(first).state is JobState.RUNNING
    assert {worker.view(job).state for job in others} == {JobState.QUEUED}
    gate.open.set()
    assert worker.wait(others[-1], 5).state is JobState.SUCCEEDED
    assert order == [0, 1, 2]
    assert worker.view(first).result == "done"


def test_progress_and_partial_results_are_seen_while_the_job_runs(worker):
    seen, go_on = threading.Event(), threading.Event()

    def work(report):
        report.progress(0, 4, "starting")
        report.progress(1, 4, "one of four")
        report.partial({"step": 1})
        seen.set()
        go_on.wait(5)
        return 7

    job = worker.submit("analyze", "a", work)
    assert seen.wait(5)
    view = worker.view(job)
    assert (view.done, view.total, view.message, view.partial) == (1, 4, "one of four", {"step": 1})
    assert view.seconds > 0
    go_on.set()
    ended = worker.wait(job, 5)
    assert (ended.result, ended.partial, ended.eta_seconds) == (7, {"step": 1}, None)
    assert worker.view(job).seconds == ended.seconds


def test_only_the_owner_may_stop_a_job(worker):
    gate = Gate()
    job = worker.submit("tune", "mine", gate, owner="ann")
    gate.started.wait(5)
    with pytest.raises(BadInputError, match="Only the person who started 'mine' can stop it"):
        worker.stop(job, owner="bob")
    assert not worker.view(job).stopping
    worker.stop(job, owner="ann", keep=False)
    ended = worker.wait(job, 5)
    assert (ended.state, ended.result) == (JobState.CANCELLED, "discard")


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(worker):
    gate, ran = Gate(), []
    worker.submit("tune", "first", gate)
    waiting = worker.submit("tune", "second", lambda report: ran.append(1))
    last = worker.submit("tune", "third", lambda report: None)
    worker.stop(waiting)
    assert worker.view(waiting).state is JobState.CANCELLED
    assert worker.view(last).position == 1
    gate.open.set()
    worker.wait(last, 5)
    assert ran == []


def test_a_wish_to_discard_is_not_taken_back():
    report = Report()
    report.ask_to_stop("keep")
    report.ask_to_stop("discard")
    report.ask_to_stop("keep")
    assert report.stop == "discard"


def test_a_failing_job_is_one_sentence_and_the_worker_goes_on(worker):
    def known(report):
        raise DataError("Row 3 has no completion.")

    def unknown(report):
        raise ZeroDivisionError("by zero\nand a second line")

    jobs = [worker.submit("tune", "t", work) for work in (known, unknown, lambda report: 5)]
    ended = [worker.wait(job, 5) for job in jobs]
    assert [view.state for view in ended] == [JobState.FAILED, JobState.FAILED, JobState.SUCCEEDED]
    assert ended[0].error == "Row 3 has no completion."
    assert "unexpected ZeroDivisionError" in ended[1].error
    assert "\n" not in ended[1].error


def test_a_library_that_exits_ends_its_job_and_not_the_worker(worker):
    def leave(report):
        raise SystemExit(3)

    view = worker.wait(worker.submit("load", "l", leave), 5)
    assert (view.state, "unexpected SystemExit" in view.error) == (JobState.FAILED, True)
    assert worker.wait(worker.submit("load", "l", lambda report: 5), 5).result == 5


def test_two_workers_work_side_by_side(worker):
    other = Worker("other")
    meet = threading.Barrier(2)
    jobs = [(w, w.submit("tune", "t", lambda report: meet.wait(5))) for w in (worker, other)]
    assert {w.wait(job, 10).state for w, job in jobs} == {JobState.SUCCEEDED}
    other.close()


def test_a_job_lets_go_of_what_it_worked_with_and_a_forgotten_one_of_its_result(worker):
    import weakref  # noqa: PLC0415

    class Model:
        pass

    kept, used = Model(), Model()
    kept_reference, used_reference = weakref.ref(kept), weakref.ref(used)
    job = worker.submit("load", "l", lambda report, kept=kept, used=used: kept)
    del kept, used
    worker.wait(job, 5)
    assert used_reference() is None
    assert kept_reference() is worker.view(job).result
    worker.forget(job)
    worker.wait(worker.submit("load", "another", lambda report: None), 5)
    assert kept_reference() is None
    with pytest.raises(BadInputError, match="There is no job"):
        worker.view(job)


def test_what_is_left_is_told_from_the_pace_so_far(monkeypatch):
    clock = 10.0
    monkeypatch.setattr("lsf.jobs.job.time", SimpleNamespace(monotonic=lambda: clock))
    report = Report()
    report.progress(0, 4, "starting")
    clock = 10.15
    report.progress(1, 4, "one of four")
    assert report.snapshot()["eta_seconds"] == pytest.approx(0.45)


def test_old_jobs_are_forgotten_and_a_running_one_cannot_be(worker):
    gate = Gate()
    jobs = [worker.submit("load", "l", lambda report: None) for _ in range(KEPT_JOBS + 8)]
    worker.wait(jobs[-1], 10)
    running = worker.submit("load", "l", gate)
    assert gate.started.wait(5)
    assert len(worker.views()) <= KEPT_JOBS + 1
    with pytest.raises(BadInputError, match="stop it first"):
        worker.forget(running)
    gate.open.set()


def test_a_job_that_is_looked_at_outlives_later_ones(worker):
    looked_at, *_ = [worker.submit("analyze", "a", lambda report: "kept") for _ in range(8)]
    for _ in range(2 * KEPT_JOBS):
        worker.wait(worker.submit("tune", "t", lambda report: None), 10)
        assert worker.view(looked_at).result == "kept"
    assert len(worker.views()) <= KEPT_JOBS + 1


def test_a_closed_worker_cancels_what_waits_stops_what_runs_and_takes_no_more():
    worker, gate = Worker("short"), Gate()
    running = worker.submit("tune", "r", gate, owner="ann")
    waiting = worker.submit("tune", "w", gate, owner="ann")
    assert gate.started.wait(5)
    worker.close()
    assert (worker.view(running).state, worker.view(running).result) == (JobState.CANCELLED, "keep")
    assert worker.view(waiting).state is JobState.CANCELLED
    with pytest.raises(BadInputError, match="takes no more jobs"):
        worker.submit("tune", "t", gate)


def test_a_closed_worker_leaves_its_runs_interrupted_so_that_they_can_be_resumed(tmp_path):
    worker, gate = Worker("short"), Gate()
    folders = [create_run(tmp_path, SPEC) for _ in range(2)]

    def paused(report):
        gate(report)
        raise RunPausedError(f"asked to {report.stop}")

    running, waiting = (worker.submit("tune", "r", paused, run=folder) for folder in folders)
    assert gate.started.wait(5)
    worker.close()
    assert (worker.view(running).state, worker.view(running).error) == (JobState.CANCELLED, "asked to pause")
    assert worker.view(waiting).state is JobState.CANCELLED
    for folder in folders:
        run = load_run(folder)
        assert run.state is RunState.INTERRUPTED
        assert can_resume(run)


def test_a_closed_worker_waits_for_a_run_that_pauses_however_long_and_for_other_jobs_so_long_as_it_is_told(tmp_path):
    for folder, paused in ((create_run(tmp_path, SPEC), True), (None, False)):
        worker, gate, written = Worker("short"), Gate(), threading.Event()

        def save(report, gate=gate, written=written):
            gate(report)
            time.sleep(0.5)  # a checkpoint that takes its time
            written.set()
            raise RunPausedError("Paused.")

        worker.submit("tune", "r", save, run=folder)
        assert gate.started.wait(5)
        worker.close(timeout=0.05)
        assert written.is_set() is paused


def test_a_run_that_waits_to_be_resumed_and_is_taken_out_of_the_queue_can_still_be(worker, tmp_path):
    gate = Gate()
    worker.submit("load", "busy", gate)
    assert gate.started.wait(5)
    new, begun = (create_run(tmp_path, SPEC) for _ in range(2))
    append_metrics(begun, {"step": 1, "loss": 2.0})
    for folder in (new, begun):
        worker.stop(worker.submit("tune", "waits", gate, run=folder))
    gate.open.set()
    assert load_run(new).state is RunState.CANCELLED
    assert load_run(begun).state is RunState.INTERRUPTED
    assert can_resume(load_run(begun))
