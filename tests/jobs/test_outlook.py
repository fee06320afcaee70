"""The queue as one, and jobs that give way to all others."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lsf.app.panels import queue_words
from lsf.jobs.job import JobState, JobView, Report, queue_outlook
from lsf.jobs.queue import queue_runs
from lsf.jobs.worker import Worker
from lsf.progress import Pace, Phase, took_in_all
from lsf.runs.controls import with_controls
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
    assert found.awaits_run
    gate.open.set()
    worker.wait(last, 5)
    assert worker.outlook() is None


@pytest.mark.parametrize(
    ("kinds", "awaits"),
    [
        (("tune", "tune"), True),
        (("analyze", "tune", "tune"), True),  # which is over when the first run begins
        (("tune", "merge"), False),
        (("analyze", "merge"), False),
    ],
)
def test_a_queue_says_where_its_time_is_known_once_its_first_run_has_begun(
    worker: Worker, kinds: tuple[str, ...], awaits: bool
) -> None:
    gate = Gate()
    first, *_ = [worker.submit(kind, kind, gate) for kind in kinds]
    assert gate.started.wait(5)
    found = worker.outlook()
    assert found is not None
    assert (found.eta_seconds, found.awaits_run) == (None, awaits)
    assert ("first run" in queue_words(found)) == awaits
    gate.open.set()
    worker.wait(first, 5)


def test_a_queue_whose_first_run_has_begun_tells_its_time(worker: Worker) -> None:
    go_on, planned, running = planned_for(40.0)
    worker.submit("tune", "first", running)
    worker.submit("tune", "second", lambda report: None)
    assert planned.wait(5)
    found = worker.outlook()
    assert found is not None
    assert not found.awaits_run
    assert "about 1 min 20 s left in total" in queue_words(found)
    go_on.set()


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


def test_a_job_is_foreseen_by_what_its_phases_took_in_the_jobs_of_its_kind_before(worker: Worker) -> None:
    go_on, planned, running = planned_for(100.0)
    go_on.set()  # it is over at once
    worker.submit("tune", "first", running)
    waits, begun, second = planned_for(100.0)
    worker.submit("tune", "second", second)
    assert begun.wait(5)
    found = next(view for view in worker.views() if view.title == "second")
    assert planned.is_set()
    assert found.eta_seconds is not None
    assert found.eta_seconds < 20  # an eighth of what was predicted, and a tenth of that counts as true
    waits.set()


def test_runs_of_which_nothing_is_foreseen_are_counted_by_the_first_that_begins(
    worker: Worker, loaded: Any, task: Any, spec: Any, tmp_path: Any
) -> None:
    specs = with_controls(replace(spec, steps=3), ("full",))
    queued = queue_runs(worker, tmp_path, specs, lambda: loaded, lambda: task)
    choice, full = (worker.wait(one.job, 60) for one in queued)
    assert choice.expected_seconds is not None
    assert full.expected_seconds is not None
    (again,) = queue_runs(worker, tmp_path, specs[:1], lambda: loaded, lambda: task)
    assert worker.wait(again.job, 60).expected_seconds is None  # alone, its own forecast says the same


@dataclass(frozen=True)
class Recorded:
    """A run as it was carried out."""

    cost: float
    """What it computes, in steps of full fine-tuning."""
    expected: float
    """Seconds by counting, after the runs before."""
    predicted: tuple[float, ...]
    """Seconds of each phase of `NAMES`, foreseen at its start."""
    took: tuple[float, ...]
    """Seconds of each."""
    steps: int
    """Of its training."""
    ready: float
    """Seconds of its training before the first step: a prefix filled, memory freed."""

    def events(self) -> Iterator[tuple[float, Callable[[Pace, float], None]]]:
        """Yield when what was reported, from its start on."""
        phases = tuple(Phase(name, seconds) for name, seconds in zip(NAMES, self.predicted, strict=True))
        yield 0.0, lambda pace, now: pace.plan((Phase(NAMES[0], 0.0), Phase("the run")), now)
        at, units = 0.0, {"training": self.steps, "testing": 6, "measuring forgetting": 4}
        for name, seconds in zip(NAMES, self.took, strict=True):
            yield at, lambda pace, now, name=name: pace.enter(name, now)
            ready = self.ready if name == "training" else 0.0
            count = units.get(name, 0)
            for unit in range(1, count + 1):
                told = at + ready + (seconds - ready) * unit / count
                yield told, lambda pace, now, unit=unit, count=count: pace.tell(unit, count, "", now)
            at += seconds
            if name in ("reading", "trial"):
                yield at, lambda pace, now: pace.plan(phases, now)


NAMES = ("reading", "base", "search", "trial", "training", "saving", "testing", "measuring forgetting", "answers")
SMOLLM2 = (  # three runs of 30 steps on TREC, one after another; seconds of benchmarks/real_runs.jsonl
    Recorded(10.2, 117.0, (0, 34.0, 10.0, 0.4, 54.7, 0.3, 6.2, 8.7, 2.7),
             (1.7, 44.1, 0.1, 0.7, 53.7, 0.2, 5.7, 6.4, 1.3), 30, 0.4),
    Recorded(30.0, 148.2, (0, 0, 20.3, 0.5, 107.2, 2.7, 6.2, 8.7, 2.7),
             (1.2, 0.3, 0.1, 11.5, 104.7, 1.0, 5.8, 7.9, 1.4), 30, 0.7),
    Recorded(14.4, 94.7, (0, 0, 11.9, 0.4, 64.2, 0.6, 6.2, 8.7, 2.7),
             (1.0, 0.3, 0.1, 0.7, 54.9, 0.3, 6.7, 6.9, 1.2), 30, 0.4),
)  # fmt: skip
BUNDLED = (  # one queue of 60 steps on facts, CPU seconds of 2026-12-01
    Recorded(30.0, 3.4, (0, 1.08, 0.17, 0.02, 1.05, 0.01, 0.04, 0.09, 0.16),
             (0.77, 0.56, 0.01, 0.4, 2.15, 0.01, 0.03, 0.03, 0.36), 60, 0.69),
    Recorded(60.0, 4.5, (0, 0, 0.59, 0.02, 3.2, 0.03, 0.07, 0.25, 0.16),
             (0.02, 0.01, 0.01, 0.48, 4.87, 0.01, 0.08, 0.08, 0.42), 60, 0.61),
    Recorded(32.5, 2.7, (0, 0, 0.26, 0.02, 1.56, 0.01, 0.07, 0.25, 0.16),
             (0.02, 0.01, 0.02, 0.45, 2.5, 0.01, 0.09, 0.09, 0.38), 60, 0.7),
)  # fmt: skip


def told(runs: Sequence[Recorded], now: float) -> float | None:
    """Return how many seconds a queue of recorded runs is said to take at a moment."""
    views, paces, started = list[JobView](), list[Pace](), 0.0
    for number, run in enumerate(runs):
        ended = started + sum(run.took)
        state = JobState.SUCCEEDED if ended <= now else JobState.RUNNING if started <= now else JobState.QUEUED
        seconds, eta = None, None
        if state is not JobState.QUEUED:
            seconds = min(ended, now) - started
            paces.append(pace := Pace(started, took_in_all(one.took(started) for one in paces)))
            for at, report in run.events():
                if at <= seconds:
                    report(pace, started + at)
            eta = pace.look(now).eta_seconds if state is JobState.RUNNING else None
            if state is JobState.SUCCEEDED:
                pace.enter("over", ended)
        views.append(
            JobView(
                str(number), "tune", "", "", state, 0, "", (), 0, None, "", 0.0, seconds, eta, run.expected, run.cost,
                1, False, None, None, None, None,
            )
        )  # fmt: skip
        started = ended
    found = queue_outlook(views)
    assert found is not None
    return found.eta_seconds


@pytest.mark.parametrize("runs", [SMOLLM2, BUNDLED], ids=["smollm2", "bundled"])
def test_the_time_left_of_a_queue_is_within_half_from_a_tenth_on(runs: Sequence[Recorded]) -> None:
    """Searches that were not made, trials that took long and first steps that got ready missed it in 15 % of looks."""
    whole = sum(sum(run.took) for run in runs)
    looks = [whole * (look + 0.5) / 100 for look in range(10, 97)]
    off = [(left or 0.0) / (whole - now) for now in looks for left in [told(runs, now)]]
    missed = [(round(now), round(ratio, 2)) for now, ratio in zip(looks, off, strict=True) if not 0.5 <= ratio <= 1.5]
    assert len(missed) <= 0.04 * len(looks), missed


def test_a_second_of_work_that_took_long_does_not_move_an_hour_of_waiting_runs() -> None:
    first = Recorded(1.0, 1.0, (0, 0, 0, 0, 1.0, 0, 0, 0, 0), (0, 0, 0, 0, 20.0, 0, 0, 0, 0), 10, 0.0)
    hour = Recorded(3600.0, 3600.0, (0, 0, 0, 0, 3600.0, 0, 0, 0, 0), (0, 0, 0, 0, 3600.0, 0, 0, 0, 0), 100, 0.0)
    for now in (5.0, 15.0, 21.0):
        assert told((first, hour), now) == pytest.approx(3600, rel=0.05)
