"""A job as others see it, the report its function writes to, and jobs waited for together as one."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lsf.progress import Pace, Phase, Stop, Took, speed_ratio

RUN = "tune"
"""Kind of a job that carries out a run."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class JobView:
    """A job as it was at one moment."""

    id: str
    """Names it in a URL."""
    kind: str
    """What sort of work it is, such as load, analyze or tune."""
    title: str
    """What a person reads."""
    owner: str
    """Who may stop it; empty means anybody."""
    state: JobState
    """Where it stands."""
    position: int
    """Jobs ahead of it in its queue, the running one counted; 0 once it runs."""
    phase: str
    """What it is doing, by name; empty where nothing was planned."""
    phases: tuple[str, ...]
    """All that it does, in order, as far as it was planned."""
    done: float
    """Units of its phase that are done."""
    total: float | None
    """Its units in all; None where they are not known."""
    message: str
    """What it is doing, in its own words."""
    fraction: float
    """Share of its whole time that has passed, in [0, 1]."""
    seconds: float | None
    """Since it started, until it ended; None while it waits."""
    eta_seconds: float | None
    """Seconds to go until all of it is done; None where they are not known."""
    expected_seconds: float | None
    """Wall seconds it was expected to take when it was submitted; None where nobody knew."""
    cost: float
    """What it computes, in any unit that jobs of its kind share."""
    queue: int | None
    """Number of the queue it is in, which jobs submitted before the last one ended share; None where it gives way."""
    stopping: bool
    """True once somebody asked it to stop."""
    partial: Any
    """The latest result so far."""
    result: Any
    """What it returned; None until it succeeded, or was stopped and kept something."""
    error: str | None
    """One sentence; None where nothing went wrong."""
    run: Path | None
    """The run folder it fills; None for a job without one."""
    about: Any = None
    """What it is about, by which its submitter finds it again; titles are for people and may be the same."""

    @property
    def active(self) -> bool:
        """True while it waits or runs."""
        return self.state in (JobState.QUEUED, JobState.RUNNING)


class Report:
    """What a job's function is handed (an `lsf.progress.Reporter`): cheap, and safe from any thread."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self._lock = threading.Lock()
        self._pace = Pace(time.monotonic())
        self._partial: Any = None
        self._stop: Stop | None = None

    def begin(self, before: Mapping[str, Took] | None = None) -> None:
        """Start the clock: its turn has come.

        Args:
            before: what phases took in jobs of its kind before it, by name.
        """
        with self._lock:
            self._pace = Pace(time.monotonic(), before)

    def took(self) -> Mapping[str, Took]:
        """Return what its phases took until now, by name, those whose seconds were predicted."""
        with self._lock:
            return self._pace.took(time.monotonic())

    @property
    def stop(self) -> Stop | None:
        """None to go on; `keep` to end early and keep what there is; `discard` to end and keep nothing."""
        return self._stop

    def ask_to_stop(self, how: Stop) -> None:
        """Ask the job to stop; a wish to discard is not taken back by a later one to keep."""
        with self._lock:
            self._stop = "discard" if self._stop == "discard" else how

    def plan(self, phases: Sequence[Phase]) -> None:
        """Say all that is to come from here on, in order."""
        with self._lock:
            self._pace.plan(phases, time.monotonic())

    def phase(self, name: str) -> None:
        """Go on with a planned phase."""
        with self._lock:
            self._pace.enter(name, time.monotonic())

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Say how far the present phase is, in units of its own."""
        with self._lock:
            self._pace.tell(done, total, message, time.monotonic())

    def partial(self, value: Any) -> None:
        """Hand over the result so far; it must not be changed afterwards."""
        with self._lock:
            self._partial = value

    def snapshot(self) -> dict[str, Any]:
        """Return the fields of a `JobView` that it knows."""
        with self._lock:
            return {
                **vars(self._pace.look(time.monotonic())),
                "partial": self._partial,
                "stopping": self._stop is not None,
            }


@dataclass(frozen=True)
class QueueOutlook:
    """A queue at one moment."""

    n_jobs: int
    """Jobs since it was last empty, those that ended counted."""
    n_ended: int
    """How many of them have ended."""
    fraction: float
    """Share of the time of all of them that has passed, in [0, 1]."""
    eta_seconds: float | None
    """Seconds until the last of them ends; None where some job's are not known."""
    awaits_run: bool = False
    """Whether they are known once its first run has read its data: that one counts all runs."""


def queue_outlook(views: Sequence[JobView]) -> QueueOutlook | None:
    """Return the outlook of the jobs of the present queue; None where none is active.

    A job that waits takes what was expected of it, scaled by what jobs before it took over what was expected of them;
    one of which nothing was expected takes what the others of its kind take for what they compute.

    Args:
        views: of one worker, in the order they were submitted.
    """
    queues = [view.queue for view in views if view.active and view.queue is not None]
    if not queues:
        return None
    own = [view for view in views if view.queue == max(queues)]
    whole = [_whole(view) for view in own]
    scale = _scale(own, whole)
    times = [
        seconds if seconds is not None or view.state is not JobState.QUEUED or view.expected_seconds is None
        else scale * view.expected_seconds
        for view, seconds in zip(own, whole, strict=True)
    ]  # fmt: skip
    times = [
        _by_kind(view, own, times) if seconds is None and view.state is JobState.QUEUED else seconds
        for view, seconds in zip(own, times, strict=True)
    ]
    spent = sum(view.seconds or 0.0 for view in own)
    n_ended = sum(not view.active for view in own)
    if any(seconds is None for seconds in times):
        unknown = [view.kind for view, seconds in zip(own, times, strict=True) if seconds is None]
        runs = unknown[unknown.index(RUN) :] if RUN in unknown else []  # what is unknown before is over by then
        return QueueOutlook(len(own), n_ended, n_ended / len(own), None, set(runs) == {RUN})
    total = sum(seconds or 0.0 for seconds in times)
    return QueueOutlook(len(own), n_ended, min(1.0, spent / total) if total else 0.0, max(0.0, total - spent))


def _whole(view: JobView) -> float | None:
    """Return the seconds a job takes in all, where it has begun; 0 where it ended without."""
    if not view.active:
        return view.seconds or 0.0
    if view.seconds is None:
        return None
    if view.eta_seconds is not None:
        return view.seconds + view.eta_seconds
    return None if view.expected_seconds is None else max(view.seconds, view.expected_seconds)


def _scale(views: Sequence[JobView], whole: Sequence[float | None]) -> float:
    """Return seconds over expected seconds of the jobs of which both are known and that were not ended early."""
    known = [
        (view.expected_seconds, seconds)
        for view, seconds in zip(views, whole, strict=True)
        if view.state in (JobState.RUNNING, JobState.SUCCEEDED) and seconds and view.expected_seconds
    ]
    return speed_ratio(known, sum(view.expected_seconds or 0.0 for view in views))


def _by_kind(view: JobView, views: Sequence[JobView], times: Sequence[float | None]) -> float | None:
    alike = [
        (seconds, other.cost)
        for other, seconds in zip(views, times, strict=True)
        if other.kind == view.kind and seconds and other.state not in (JobState.CANCELLED, JobState.FAILED)
    ]
    costs = sum(cost for _, cost in alike)
    return view.cost * sum(seconds for seconds, _ in alike) / costs if costs else None
