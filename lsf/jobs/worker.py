"""A queue and one thread that works through it; whoever asks gets frozen snapshots.

No torch and no streamlit: a job is a function of a `Report`. A page may close, a second tab may look on: the worker
belongs to the process. Only the owner of a job may stop it.
"""

import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsf.errors import BadInputError, LsfError, RunPausedError
from lsf.jobs.job import JobState, JobView, QueueOutlook, Report, queue_outlook
from lsf.progress import Took, took_in_all
from lsf.runs.lock import LOG, explain, finish, hold, record_failure, release
from lsf.runs.result import RunResult, RunState
from lsf.runs.store import has_begun

KEPT_JOBS = 64
"""Ended jobs remembered by a worker; those not asked for the longest are forgotten first."""
_LOGGER = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    view: JobView
    work: Callable[[Report], Any] | None
    expected: Callable[[], float | None]
    """Returns the wall seconds it is expected to take."""
    report: Report = field(default_factory=Report)
    started: float | None = None
    took: Mapping[str, Took] = field(default_factory=dict)
    """What its phases took, once it succeeded."""
    asked: int = 0
    """When it was last asked for, counted in questions."""

    @property
    def gives_way(self) -> bool:
        return self.view.queue is None


class Worker:
    """One daemon thread and its queue, first come first served; some jobs give way to all others."""

    def __init__(self, name: str) -> None:
        """Start the thread.

        Args:
            name: of the device it works for; seen in the thread's name.
        """
        self.name = name
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._running: _Job | None = None
        self._closed = False
        self._n_queues = 0
        self._furthest: dict[tuple[int, int], float] = {}
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._questions = itertools.count(1)
        self._thread = threading.Thread(target=self._loop, name=f"lsf-{name}", daemon=True)
        self._thread.start()

    def submit(
        self,
        kind: str,
        title: str,
        work: Callable[[Report], Any],
        owner: str = "",
        run: Path | None = None,
        expected_seconds: float | Callable[[], float | None] | None = None,
        cost: float = 1.0,
        gives_way: bool = False,
        about: Any = None,
    ) -> str:
        """Put a job at the end of the queue.

        Jobs that give way never stand in front of others: they begin where nothing else waits, and where another job is
        submitted, those that wait are cancelled and one that runs is asked to stop at once.

        Args:
            kind: what sort of work it is, such as load, analyze or tune.
            title: what a person reads.
            work: called in the worker's thread; a run ends by it or it raises. It is let go of afterwards.
            owner: who may stop it; empty means anybody.
            run: the run folder it fills; this process holds it from here on.
            expected_seconds: wall seconds it is expected to take, or what returns them; None where nobody knows.
            cost: what it computes, in any unit that jobs of its kind share: what is expected of it where nobody knows.
            gives_way: whether it is dropped for the sake of any other job, such as a forecast is for a run.
            about: what it is about, by which it is found again.

        Returns:
            The job's id.

        Raises:
            BadInputError: the worker was closed.
            RunError: another process holds the run.
        """
        if run is not None:
            hold(run)
        with self._changed:
            if self._closed:
                raise BadInputError(f"The worker {self.name} was closed; it takes no more jobs.")
            job_id = f"{next(self._numbers)}-{secrets.token_hex(4)}"
            view = JobView(
                id=job_id, kind=kind, title=title, owner=owner, state=JobState.QUEUED, position=0, phase="", phases=(),
                done=0, total=None, message="", fraction=0.0, seconds=None, eta_seconds=None,
                expected_seconds=None, cost=cost, queue=None if gives_way else self._queue_number(),
                stopping=False, partial=None, result=None, error=None, run=run,
                about=about,
            )  # fmt: skip
            if not gives_way:
                self._make_way()
            expected = expected_seconds if callable(expected_seconds) else lambda: expected_seconds
            job = _Job(view, work, expected, asked=next(self._questions))
            self._jobs[job_id] = job
            self._queue.append(job)
            self._forget_oldest()
            self._changed.notify_all()
        return job_id

    def view(self, job_id: str) -> JobView:
        """Return one job as it is now.

        Raises:
            BadInputError: no such job, or it was forgotten.
        """
        with self._changed:
            return self._view(self._find(job_id))

    def views(self) -> tuple[JobView, ...]:
        """Return every job it remembers, in the order they were submitted."""
        with self._changed:
            return tuple(self._view(job) for job in self._jobs.values())

    def outlook(self) -> QueueOutlook | None:
        """Return how far the whole queue is; its share of time never falls while no job joins it. None: it is empty."""
        with self._changed:
            views = self.views()
            found = queue_outlook(views)
            if found is None:
                return None
            key = max(view.queue for view in views if view.active and view.queue is not None), found.n_jobs
            furthest = max(found.fraction, self._furthest.get(key, 0.0))
            self._furthest = {key: furthest}
            return replace(found, fraction=furthest)

    def stop(self, job_id: str, owner: str = "", keep: bool = True) -> None:
        """Stop a job: one that waits is cancelled at once, one that runs is asked to; an ended one stays as it is.

        Raises:
            BadInputError: no such job, or it belongs to somebody else.
        """
        with self._changed:
            job = self._find(job_id)
            if job.view.owner and job.view.owner != owner:
                raise BadInputError(f"Only the person who started {job.view.title!r} can stop it.")
            waiting = job in self._queue
            if waiting:
                self._queue.remove(job)
                self._end(job, JobState.CANCELLED)
            elif job.view.active:
                job.report.ask_to_stop("keep" if keep else "discard")
            self._changed.notify_all()
        if waiting and job.view.run is not None:
            _cancel_run(job.view.run)

    def forget(self, job_id: str) -> None:
        """Drop an ended job and with it what it returned, so that its memory can be had back.

        Raises:
            BadInputError: no such job, or it has not ended.
        """
        with self._changed:
            if self._find(job_id).view.active:
                raise BadInputError("A queued or running job cannot be forgotten; stop it first.")
            del self._jobs[job_id]

    def wait(self, job_id: str, timeout: float | None = None) -> JobView:
        """Return a job's view once it ended, or as it is after `timeout` seconds."""
        with self._changed:
            job = self._find(job_id)
            self._changed.wait_for(lambda: not job.view.active, timeout)
            return self._view(job)

    def close(self, timeout: float | None = 10.0) -> None:
        """End: runs that wait or run pause and can be resumed, other jobs stop.

        Args:
            timeout: seconds it waits for a job without a run; None: until it ends. A run is waited for until it has
                paused, however long its checkpoint takes to be written.
        """
        with self._changed:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            for job in waiting:
                self._end(job, JobState.CANCELLED)
            pausing = self._running is not None and self._running.view.run is not None
            if self._running is not None:
                self._running.report.ask_to_stop("pause" if pausing else "keep")
            self._changed.notify_all()
        for job in waiting:
            if job.view.run is not None:
                release(job.view.run)
        self._thread.join(None if pausing else timeout)

    def _queue_number(self) -> int:
        """Return the number of the present queue, or of a new one where all that waits or runs gives way."""
        if not any(job.view.active and not job.gives_way for job in self._jobs.values()):
            self._n_queues += 1
        return self._n_queues

    def _make_way(self) -> None:
        """Cancel jobs that give way: those that wait at once; one that runs is asked to stop."""
        for job in [job for job in self._queue if job.gives_way]:
            self._queue.remove(job)
            self._end(job, JobState.CANCELLED)
        if self._running is not None and self._running.gives_way:
            self._running.report.ask_to_stop("discard")

    def _find(self, job_id: str) -> _Job:
        if job_id not in self._jobs:
            raise BadInputError(f"There is no job {job_id!r}; it ended long ago, or the server was started again.")
        job = self._jobs[job_id]
        job.asked = next(self._questions)
        return job

    def _view(self, job: _Job) -> JobView:
        if not job.view.active:
            return job.view
        position = self._queue.index(job) + (self._running is not None) if job in self._queue else 0
        seconds = None if job.started is None else time.monotonic() - job.started
        told = {"expected_seconds": job.expected(), **job.report.snapshot()}
        return replace(job.view, position=position, seconds=seconds, **told)

    def _took_before(self, job: _Job) -> Mapping[str, Took]:
        """Return what each phase took in jobs of the same kind that succeeded in the queue of this one."""
        alike = job.view.queue, job.view.kind
        return took_in_all(one.took for one in self._jobs.values() if (one.view.queue, one.view.kind) == alike)

    def _forget_oldest(self) -> None:
        """Forget ended jobs that nobody has asked for the longest: an analysis that pages show outlives later runs."""
        ended = sorted((job.asked, job_id) for job_id, job in self._jobs.items() if not job.view.active)
        for _, job_id in ended[: max(0, len(ended) - KEPT_JOBS)]:
            del self._jobs[job_id]

    def _end(self, job: _Job, state: JobState, result: Any = None, error: str | None = None) -> None:
        job.view = replace(self._view(job), state=state, position=0, result=result, error=error, eta_seconds=None)
        job.work = None

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                job = self._queue.popleft()
                self._running, job.started = job, time.monotonic()
                job.report.begin(self._took_before(job))
                job.view = replace(job.view, state=JobState.RUNNING)
                self._changed.notify_all()
            state, result, error = _work(job)
            with self._changed:
                self._running = None
                job.took = job.report.took() if state is JobState.SUCCEEDED else {}
                self._end(job, state, result, error)
                self._changed.notify_all()
            del job, result


def _work(job: _Job) -> tuple[JobState, Any, str | None]:
    """Do a job's work; the one border where every exception is caught, since a thread has nobody above it."""
    try:
        assert job.work is not None
        result = job.work(job.report)
    except BaseException as error:  # SystemExit too: the worker outlives its jobs; the unexpected is logged whole
        if isinstance(error, RunPausedError):
            return JobState.CANCELLED, None, str(error)
        if isinstance(error, LsfError) and job.view.run is None and job.report.stop is not None:
            return JobState.CANCELLED, None, str(error)
        if not isinstance(error, LsfError):
            _LOGGER.error("the job %r failed", job.view.title, exc_info=error)
        if job.view.run is not None:
            record_failure(job.view.run, error)
        return JobState.FAILED, None, explain(error, LOG) if job.view.run is not None else explain(error)
    finally:
        if job.view.run is not None:
            release(job.view.run)
    run_cancelled = isinstance(result, RunResult) and result.state is RunState.CANCELLED
    cancelled = run_cancelled or (not isinstance(result, RunResult) and job.report.stop is not None)
    return (JobState.CANCELLED if cancelled else JobState.SUCCEEDED), result, None


def _cancel_run(folder: Path) -> None:
    if folder.is_dir() and not has_begun(folder):  # what waits to be resumed can still be
        finish(folder, RunResult(RunState.CANCELLED, "Cancelled while queued."))
    else:
        release(folder)
