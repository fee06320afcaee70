"""How far long work is, and how long it will take: what workers report, and the one bar and time left made of it."""

import math
import time
from collections.abc import Callable, Sequence
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


PRIOR = 0.05
"""Share of the whole plan that a prediction weighs before anything is measured."""
RATIOS = 0.125, 8.0
"""Measured over predicted seconds of one phase count within these: a small one that stalled says little of others."""
TRUSTED = 0.1
"""From this share of a phase on, its own pace alone counts."""
OVERDUE = 0.25
"""What is late is expected to take at least this share of the time it has been silent for."""


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


class Pace:
    """Takes what work reports, with the time of each report, and tells its outlook; not safe from several threads."""

    def __init__(self, now: float) -> None:
        """Begin at `now`, in seconds of any clock that does not go back."""
        self._begun = now
        self._planned: tuple[Phase, ...] = ()
        self._place = -1
        self._over: list[tuple[float, float]] = []  # predicted and measured seconds of what is over
        self._course = _Course(Phase(""), now, now)
        self._message, self._done, self._total = "", 0.0, None
        self._furthest = 0.0

    def plan(self, phases: Sequence[Phase], now: float) -> None:
        """Replace what is to come; a phase of the present one's name goes on where it is."""
        self._planned, self._over = tuple(phases), []
        present = self._course.phase.name
        self._place = next((place for place, phase in enumerate(phases) if phase.name == present), -1)
        if self._place >= 0:
            self._course.phase = phases[self._place]
        else:
            self._begin(Phase(""), now)

    def enter(self, name: str, now: float) -> None:
        """Go on with a planned phase; one that is not planned is added where the work stands."""
        if self._planned and name == self._course.phase.name:
            return
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
            self._course.share = self._course.phase.cost_share(min(1.0, done / total))
            self._course.mark = now

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
        course = self._course
        measured = list(self._over)
        if course.share and course.phase.seconds and course.mark > course.entered:
            measured.append((course.share * course.phase.seconds, course.mark - course.entered))
        prior = PRIOR * sum(phase.seconds or 0.0 for phase in self._planned)
        weight = prior + sum(predicted for predicted, _ in measured)
        if not weight:
            return 1.0
        low, high = RATIOS
        ratios = [(w, min(high, max(low, seconds / w))) for w, seconds in measured]
        return math.exp(sum(w * math.log(ratio) for w, ratio in ratios) / weight)

    def _own_left(self, scale: float, now: float) -> float | None:
        """Return the seconds the present phase has to go: by its own pace once it has one, else as predicted."""
        course, share = self._course, self._course.share or 0.0
        took, silent = course.mark - course.entered, now - course.mark
        paced = took * (1.0 - share) / share if share and took > 0 else None
        foreseen = None if course.phase.seconds is None else scale * course.phase.seconds * (1.0 - share)
        if paced is None and foreseen is None:
            return 0.0 if share >= 1.0 or (self._place < 0 and self._planned) else None
        if paced is None or foreseen is None:
            left = foreseen if paced is None else paced
        else:
            trust = min(1.0, share / TRUSTED)
            left = trust * paced + (1.0 - trust) * foreseen
        assert left is not None
        return 0.0 if share >= 1.0 else max(left - silent, OVERDUE * silent)


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
