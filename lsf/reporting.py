"""How long work tells what it is doing, without knowing who listens: a thread's job, a terminal, or nobody."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Stop = Literal["keep", "discard", "pause", "enough"]
"""`keep`: end early and keep what there is; `discard`: end and keep nothing; `pause`: leave, to go on another time;
`enough`: a training loop has done what it was for, which nobody outside asks for."""


@dataclass(frozen=True)
class Phase:
    """One of the stretches that long work consists of."""

    name: str
    """What a person reads, such as `training`; no two phases of one plan share it."""
    seconds: float | None = None
    """Wall seconds it is expected to take; None where nobody knows."""
    extra_seconds: float = 0.0
    """Of those, what its first units cost beside what every unit costs: a cache that is filled on the way."""
    extra_share: float = 1.0
    """Share of its units over which they are spread, in (0, 1]."""

    def cost_share(self, share: float) -> float:
        """Return which share of its seconds a share of its units takes, both in [0, 1]."""
        if not self.seconds:
            return share
        even = max(0.0, self.seconds - self.extra_seconds)
        return (share * even + min(1.0, share / self.extra_share) * self.extra_seconds) / (even + self.extra_seconds)


@runtime_checkable
class Reporter(Protocol):
    """What long work is handed: it reports through it and asks it whether to stop."""

    @property
    def stop(self) -> Stop | None:
        """How the work is asked to end early; None to go on."""
        ...

    def plan(self, phases: Sequence[Phase]) -> None:
        """Say all that is to come from here on, in order; what was planned before is replaced."""
        ...

    def phase(self, name: str) -> None:
        """Go on with a planned phase; those planned before it are over."""
        ...

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Say how far the present phase is, in units of its own."""
        ...

    def partial(self, value: Any) -> None:
        """Hand over the result so far."""
        ...


class Unheard:
    """What a reporter does that nobody listens to; whether it asks to stop is left to say."""

    def plan(self, phases: Sequence[Phase]) -> None:
        """Drop it."""

    def phase(self, name: str) -> None:
        """Drop it."""

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Drop it."""

    def partial(self, value: Any) -> None:
        """Drop it."""


class Silent(Unheard):
    """A reporter nobody listens to, for calls from Python and tests."""

    stop: Stop | None = None


class Forwarding:
    """A reporter that hands everything on to another; what it is to do otherwise is overridden."""

    def __init__(self, report: Reporter) -> None:
        """Hand on to `report`."""
        self.report = report

    @property
    def stop(self) -> Stop | None:
        """How the other is asked to end."""
        return self.report.stop

    def plan(self, phases: Sequence[Phase]) -> None:
        """Hand it on."""
        self.report.plan(phases)

    def phase(self, name: str) -> None:
        """Hand it on."""
        self.report.phase(name)

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Hand it on."""
        self.report.progress(done, total, message)

    def partial(self, value: Any) -> None:
        """Hand it on."""
        self.report.partial(value)
