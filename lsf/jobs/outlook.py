"""How far a whole queue is and how long it will take: the jobs that were waited for together, as one."""

from collections.abc import Sequence
from dataclasses import dataclass

from lsf.jobs.job import JobState, JobView


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


def queue_outlook(views: Sequence[JobView]) -> QueueOutlook | None:
    """Return the outlook of the jobs of the present queue; None where none is active.

    A job that waits takes what was expected of it, scaled by what jobs before it took over what was expected of them;
    one of which nothing was expected takes the mean of the others of its kind.

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
        _mean_of_kind(view, own, times) if seconds is None and view.state is JobState.QUEUED else seconds
        for view, seconds in zip(own, times, strict=True)
    ]
    spent = sum(view.seconds or 0.0 for view in own)
    n_ended = sum(not view.active for view in own)
    if any(seconds is None for seconds in times):
        return QueueOutlook(len(own), n_ended, n_ended / len(own), None)
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
        (seconds, view.expected_seconds)
        for view, seconds in zip(views, whole, strict=True)
        if view.state in (JobState.RUNNING, JobState.SUCCEEDED) and seconds and view.expected_seconds
    ]
    return sum(seconds for seconds, _ in known) / sum(expected for _, expected in known) if known else 1.0


def _mean_of_kind(view: JobView, views: Sequence[JobView], times: Sequence[float | None]) -> float | None:
    alike = [
        seconds
        for other, seconds in zip(views, times, strict=True)
        if other.kind == view.kind and seconds and other.state not in (JobState.CANCELLED, JobState.FAILED)
    ]
    return sum(alike) / len(alike) if alike else None
