"""A job as others see it, and the report its function writes to."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lsf.pace import Pace
from lsf.reporting import Phase, Stop


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

    @property
    def active(self) -> bool:
        """True while it waits or runs."""
        return self.state in (JobState.QUEUED, JobState.RUNNING)


class Report:
    """What a job's function is handed (an `lsf.reporting.Reporter`): cheap, and safe from any thread."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self._lock = threading.Lock()
        self._pace = Pace(time.monotonic())
        self._partial: Any = None
        self._stop: Stop | None = None

    def begin(self) -> None:
        """Start the clock: its turn has come."""
        with self._lock:
            self._pace = Pace(time.monotonic())

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
