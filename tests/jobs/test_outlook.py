"""The queue as one, and jobs that give way to all others."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lsf.jobs.job import JobState, Report
from lsf.jobs.worker import Worker
from lsf.progress import Phase
from tests.jobs.test_worker import Gate


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close()


def planned_for(seconds: float) -> tuple[threading.Event, threading.Event, Callable[[Report], None]]:
    """What lets a job go on, what tells that it has planned so many seconds, and the job."""
    go_on, planned = threading.Event(), threading.Event()

    def running(report: Report) -> None:
        report.plan((Phase("training", seconds),))
        report.phase("training")
        planned.set()
        go_on.wait(10)

    return go_on, planned, running


def test_a_queue_is_left_by_what_was_expected_of_its_jobs_scaled_by_what_the_first_took(worker: Worker) -> None:
    go_on, planned, running = planned_for(40.0)
    worker.submit("tune", "first", running, expected_seconds=20.0)
    worker.submit("tune", "second", lambda report: None, expected_seconds=10.0)
    worker.submit("tune", "unknown", lambda report: None)
    assert planned.wait(5)
    found = worker.outlook()
    assert found is not None
    assert (found.n_jobs, found.n_ended) == (3, 0)
    assert found.eta_seconds == pytest.approx(
        40 + 2 * 10 + (40 + 20) / 2, rel=0.1
    )  # the first takes twice what was said
    go_on.set()


def test_a_job_of_which_nothing_was_expected_takes_what_others_take_for_what_they_compute(worker: Worker) -> None:
    go_on, planned, running = planned_for(30.0)
    worker.submit("tune", "two blocks of thirty", running, cost=12.0)
    worker.submit("tune", "the whole model", lambda report: None, cost=40.0)
    assert planned.wait(5)
    found = worker.outlook()
    assert found is not None
    assert found.eta_seconds == pytest.approx(30 + 30 * 40 / 12, rel=0.1)
    go_on.set()


def test_where_nothing_is_known_of_any_job_the_queue_has_no_eta_and_counts(worker: Worker) -> None:
    gate = Gate()
    worker.submit("tune", "first", gate)
    last = worker.submit("tune", "second", lambda report: None)
    assert gate.started.wait(5)
    found = worker.outlook()
    assert found is not None
    assert (found.fraction, found.eta_seconds) == (0.0, None)
    gate.open.set()
    worker.wait(last, 5)
    assert worker.outlook() is None


def test_the_bar_of_a_queue_does_not_fall_while_no_job_joins_it(worker: Worker) -> None:
    seen, steps, told = list[float](), threading.Semaphore(0), threading.Semaphore(0)

    def slower_and_slower(report) -> None:
        report.plan((Phase("training", 1.0),))
        report.phase("training")
        for seconds in (0.05, 0.05, 200.0):
            report.plan((Phase("training", seconds),))
            told.release()
            steps.acquire(timeout=10)

    job = worker.submit("tune", "first", slower_and_slower, expected_seconds=1.0)
    worker.submit("tune", "second", lambda report: None, expected_seconds=1.0)
    for _ in range(3):
        assert told.acquire(timeout=5)
        time.sleep(0.02)
        found = worker.outlook()
        assert found is not None
        seen.append(found.fraction)
        steps.release()
    worker.wait(job, 5)
    assert seen == sorted(seen)
    assert seen[0] > 0


def test_jobs_that_give_way_are_dropped_from_the_queue_and_stopped_where_they_run(worker: Worker) -> None:
    gate = Gate()
    running = worker.submit("forecast", "running", gate, gives_way=True)
    waiting = worker.submit("forecast", "waiting", gate, gives_way=True)
    assert gate.started.wait(5)
    start = worker.submit("tune", "start", lambda report: "started")
    assert worker.wait(start, 5).result == "started"
    assert worker.view(running).state is JobState.CANCELLED
    assert worker.view(waiting).state is JobState.CANCELLED
    assert worker.view(waiting).seconds is None


def test_a_job_that_gives_way_waits_behind_others_and_is_no_part_of_their_queue(worker: Worker) -> None:
    gate = Gate()
    first = worker.submit("tune", "first", gate)
    polite = worker.submit("forecast", "polite", lambda report: "foreseen", gives_way=True)
    assert gate.started.wait(5)
    assert worker.view(polite).position == 1
    found = worker.outlook()
    assert found is not None
    assert found.n_jobs == 1
    gate.open.set()
    worker.wait(first, 5)
    assert worker.wait(polite, 5).result == "foreseen"
