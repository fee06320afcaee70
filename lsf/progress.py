"""How far long work is, and how long it will take: what workers report, and the one bar and time left made of it."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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


PRIOR = 0.1
"""Share of what is predicted for the whole that counts as measured to be true: what little was seen moves it little."""
RATIOS = 0.125, 8.0
"""Measured over predicted seconds of one phase. Below, it had nothing to do, such as a search that was not made, and
says nothing of others; above, it counts as this much, so that a small one that stalled says little of others."""
TRUSTED = 0.1
"""Share of a phase after its first unit from which on its own pace alone counts."""
OVERDUE = 0.25
"""What is late is expected to take at least this share of the time it has been silent for."""


Took = tuple[float, float]
"""Predicted and measured seconds of the same work."""


def speed_ratio(over: Sequence[Took], predicted: float) -> float:
    """Return measured over predicted seconds of what is over, as far as that is worth for what is to come.

    It is the geometric mean, weighted by predicted seconds.

    Args:
        over: what is over; each ratio counts within `RATIOS`.
        predicted: seconds predicted for the whole, `PRIOR` of which count as measured to be true.
    """
    low, high = RATIOS
    weight = PRIOR * predicted + sum(one for one, _ in over)
    ratios = [(one, min(high, max(low, seconds / one))) for one, seconds in over]
    return math.exp(sum(one * math.log(ratio) for one, ratio in ratios) / weight) if weight else 1.0


def took_in_all(works: Iterable[Mapping[str, Took]]) -> dict[str, Took]:
    """Return what each phase took in several works together, by name."""
    found = dict[str, Took]()
    for name, (predicted, seconds) in (one for took in works for one in took.items()):
        before = found.get(name, (0.0, 0.0))
        found[name] = before[0] + predicted, before[1] + seconds
    return found


@dataclass(frozen=True)
class Outlook:
    """How far work is at one moment."""

    phase: str = ""
    """What it is doing, as planned; empty where nothing was planned."""
    phases: tuple[str, ...] = ()
    """All planned phases, in order."""
    message: str = ""
    """The last message, of this phase."""
    done: float = 0
    """Units of the phase that are done."""
    total: float | None = None
    """Its units in all; None where it has none."""
    fraction: float = 0.0
    """Share of the time of the whole work that has passed, in [0, 1]; of planned work it never falls."""
    eta_seconds: float | None = None
    """Seconds to go, all phases counted; None where they are not known. Never 0 while a phase is to come."""


@dataclass
class _Course:
    """The present phase."""

    phase: Phase
    entered: float
    mark: float
    """When its share was last told."""
    share: float | None = None
    """Of its seconds; None where it told none."""
    first: tuple[float, float] | None = None
    """Its share after its first unit, and when that was told."""

    def measured(self) -> tuple[float, float] | None:
        """Return a share and the seconds it took; None where nothing yet tells its speed.

        Its first unit holds what it had to get ready: that counts alone until the second, and only where it is much.
        """
        if self.first is None or self.share is None:
            return None
        share, told = self.first
        if self.share > share and self.mark > told:
            return self.share - share, self.mark - told
        return (self.share, self.mark - self.entered) if self.share >= TRUSTED and self.mark > self.entered else None


class Pace:
    """Takes what work reports, with the time of each report, and tells its outlook; not safe from several threads."""

    def __init__(self, now: float, before: Mapping[str, Took] | None = None) -> None:
        """Begin at `now`, in seconds of any clock that does not go back.

        Args:
            now: when.
            before: what phases took in work of the same kind before, by name; predictions are corrected by it.
        """
        self._begun, self._before = now, {} if before is None else before
        self._planned: tuple[Phase, ...] = ()
        self._place = -1
        self._over: list[Took] = []
        self._predicted = dict[str, float]()  # by phase, as it was planned
        self._took = dict[str, Took]()
        self._course = _Course(Phase(""), now, now)
        self._message, self._done, self._total = "", 0.0, None
        self._furthest = 0.0

    def plan(self, phases: Sequence[Phase], now: float) -> None:
        """Replace what is to come; a phase of the present one's name goes on where it is."""
        self._predicted = {phase.name: phase.seconds for phase in phases if phase.seconds}
        self._planned, self._over = tuple(self._corrected(phase) for phase in phases), []
        present = self._course.phase.name
        self._place = next((place for place, phase in enumerate(phases) if phase.name == present), -1)
        if self._place >= 0:
            self._course.phase = self._planned[self._place]
        else:
            self._begin(Phase(""), now)

    def enter(self, name: str, now: float) -> None:
        """Go on with a planned phase; one that is not planned is added where the work stands."""
        if self._planned and name == self._course.phase.name:
            return
        self._took = dict(self.took(now))
        if self._place >= 0 and self._course.phase.seconds:
            self._over.append((self._course.phase.seconds, now - self._course.entered))
        names = [phase.name for phase in self._planned]
        if name not in names:
            self._planned = (*self._planned[: self._place + 1], Phase(name), *self._planned[self._place + 1 :])
            self._place += 1
        else:
            self._place = names.index(name)
        self._begin(self._planned[self._place], now)

    def tell(self, done: float, total: float | None, message: str, now: float) -> None:
        """Take how far the present phase is."""
        if not self._planned and (total != self._total or done < self._done):
            self._begin(Phase(""), now)  # what was not planned is told stretch by stretch
        self._done, self._total, self._message = done, total, message
        if total:
            course = self._course
            course.share, course.mark = course.phase.cost_share(min(1.0, done / total)), now
            course.first = course.first or ((course.share, now) if course.share else None)

    def took(self, now: float) -> Mapping[str, Took]:
        """Return what its phases took whose seconds were predicted, by name, the present one as if it ended `now`."""
        name = self._course.phase.name
        if self._place < 0 or name not in self._predicted:
            return self._took
        return {**self._took, name: (self._predicted[name], now - self._course.entered)}

    def look(self, now: float) -> Outlook:
        """Return the outlook at `now`."""
        left = self._left(now)
        spent = now - self._begun
        fraction = self._course.share or 0.0
        if self._planned:
            known = 0.0 if left is None or spent <= 0 else spent / (spent + left)
            fraction = self._furthest = max(self._furthest, known)
        names = tuple(phase.name for phase in self._planned)
        return Outlook(self._course.phase.name, names, self._message, self._done, self._total, min(1.0, fraction), left)

    def _corrected(self, phase: Phase) -> Phase:
        """Return a planned phase with the seconds that it is expected to take by what it took before."""
        if not phase.seconds or phase.name not in self._before:
            return phase
        ratio = speed_ratio([self._before[phase.name]], phase.seconds)
        return replace(phase, seconds=ratio * phase.seconds, extra_seconds=ratio * phase.extra_seconds)

    def _begin(self, phase: Phase, now: float) -> None:
        self._course = _Course(phase, now, now)
        self._message, self._done, self._total = "", 0.0, None

    def _left(self, now: float) -> float | None:
        """Return the seconds to go."""
        scale = self._scale()
        later = [phase.seconds for phase in self._planned[self._place + 1 :]]
        own = self._own_left(scale, now)
        if own is None or None in later or (not self._planned and own == 0.0):
            return None
        return own + scale * sum(seconds or 0.0 for seconds in later)

    def _scale(self) -> float:
        """Return measured over predicted seconds of what is over, as far as it is worth for what is to come."""
        over = [(predicted, seconds) for predicted, seconds in self._over if seconds >= RATIOS[0] * predicted]
        if (measured := self._course.measured()) is not None and self._course.phase.seconds:
            over.append((measured[0] * self._course.phase.seconds, measured[1]))
        return speed_ratio(over, sum(phase.seconds or 0.0 for phase in self._planned))

    def _own_left(self, scale: float, now: float) -> float | None:
        """Return the seconds the present phase has to go: by its own pace once it has one, else as predicted."""
        course, share, silent = self._course, self._course.share or 0.0, now - self._course.mark
        measured, foreseen = course.measured(), course.phase.seconds
        if measured is None and foreseen is None:
            return 0.0 if share >= 1.0 or (self._place < 0 and self._planned) else None
        seconds = 0.0 if foreseen is None else scale * foreseen
        if measured is not None:
            trust = 1.0 if foreseen is None else min(1.0, measured[0] / TRUSTED)
            seconds = trust * measured[1] / measured[0] + (1.0 - trust) * seconds
        return 0.0 if share >= 1.0 else max((1.0 - share) * seconds - silent, OVERDUE * silent)


class Part(Forwarding):
    """A reporter for one phase of larger work: what is planned inside moves that phase by its share of the time."""

    def __init__(self, outer: Reporter, clock: Callable[[], float] = time.monotonic) -> None:
        """Report to `outer`, which is in the phase this is all of.

        Args:
            outer: of the larger work.
            clock: returns seconds.
        """
        super().__init__(outer)
        self._clock, self._pace = clock, Pace(clock())

    def plan(self, phases: Sequence[Phase]) -> None:
        """Plan the inside of the outer phase."""
        self._pace.plan(phases, self._clock())

    def phase(self, name: str) -> None:
        """Go on with an inner phase."""
        self._pace.enter(name, self._clock())
        self._hand_on()

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Say how far the inner phase is."""
        self._pace.tell(done, total, message, self._clock())
        self._hand_on()

    def _hand_on(self) -> None:
        found = self._pace.look(self._clock())
        self.report.progress(found.fraction, 1.0, phrase(found))


def phrase(found: Outlook) -> str:
    """Return phase and message as one phrase."""
    if not found.phase or found.message.startswith(found.phase):
        return found.message
    return f"{found.phase}: {found.message}" if found.message else found.phase


def left(eta_seconds: float) -> str:
    """Write what is left for people: `about 12 s left`."""
    return "less than a second left" if eta_seconds < 1.0 else f"about {duration(eta_seconds)} left"


def duration(seconds: float) -> str:
    """Write seconds for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def do_nothing() -> None:
    """Check nothing between batches or tokens."""


def never() -> Stop | None:
    """Say that nobody asks to stop."""
    return None
