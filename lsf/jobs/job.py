"""A job as others see it, and the report its function writes to."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lsf.reporting import Stop

ETA_WINDOW_SECONDS = 30.0
"""The pace is taken from the last so many seconds."""


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
    done: int
    """Units done."""
    total: int | None
    """Units in all; None until it is known."""
    message: str
    """What it is doing."""
    seconds: float | None
    """Since it started, until it ended; None while it waits."""
    eta_seconds: float | None
    """Seconds to go at its recent pace; None where it is not known."""
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

    @property
    def active(self) -> bool:
        """True while it waits or runs."""
        return self.state in (JobState.QUEUED, JobState.RUNNING)


class Report:
    """What a job's function is handed (an `lsf.reporting.Reporter`): cheap, and safe from any thread."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self._lock = threading.Lock()
        self._done, self._total, self._message = 0, None, ""
        self._partial: Any = None
        self._stop: Stop | None = None
        self._marks: deque[tuple[float, int]] = deque()

    @property
    def stop(self) -> Stop | None:
        """None to go on; `keep` to end early and keep what there is; `discard` to end and keep nothing."""
        return self._stop

    def ask_to_stop(self, how: Stop) -> None:
        """Ask the job to stop; a wish to discard is not taken back by a later one to keep."""
        with self._lock:
            self._stop = "discard" if self._stop == "discard" else how

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Say how far it is, in units of its own; another total or a step back starts a new stretch."""
        now = time.monotonic()
        with self._lock:
            if total != self._total or done < self._done:
                self._marks.clear()
            self._done, self._total, self._message = done, total, message
            if not self._marks or now - self._marks[-1][0] >= 0.1:
                self._marks.append((now, done))
                while now - self._marks[0][0] > ETA_WINDOW_SECONDS:
                    self._marks.popleft()

    def partial(self, value: Any) -> None:
        """Hand over the result so far; it must not be changed afterwards."""
        with self._lock:
            self._partial = value

    def snapshot(self) -> dict[str, Any]:
        """Return the fields of a `JobView` that it knows."""
        with self._lock:
            return {
                "done": self._done,
                "total": self._total,
                "message": self._message,
                "partial": self._partial,
                "stopping": self._stop is not None,
                "eta_seconds": self._eta(),
            }

    def _eta(self) -> float | None:
        if self._total is None or len(self._marks) < 2:
            return None
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        if last <= first:
            return None
        return max(0.0, (self._total - last) * (end - start) / (last - first) - (time.monotonic() - end))
