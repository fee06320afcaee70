"""The phases of a run, named once: what a forecast predicts, a bar shows, and result.json holds the seconds of."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

PHASES: Mapping[str, str] = {
    "reading": "reading the data",
    "base": "measuring the base model",
    "forecast": "trying its longest batch",
    "search": "searching a learning rate",
    "preparing": "making the model",
    "prefix": "computing the frozen prefix",
    "steps": "training",
    "validation": "reading the validation split",
    "checkpoints": "writing a checkpoint",
    "saving": "saving the weights",
    "proof": "proving what moved",
    "test": "reading the test split",
    "forgetting": "reading general text",
    "answers": "writing answers",
    "latency": "timing a forward pass",
    "other": "everything else",
}
"""Key -> what a person reads. `prefix` fills the cache of frozen states, also for held-out rows; `steps` are forward,
backward and optimizer; `base` holds what is read of the base model because it is not on record."""
WORK = ("steps", "prefix")
"""Phases that are the tuning itself; all others watch it."""


class Stopwatch:
    """Seconds by phase, each moment in one phase only: what an inner phase takes is not the outer one's."""

    def __init__(
        self, entered: Callable[[str], None] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Start in `other`.

        Args:
            entered: told the phase at every change, from the thread that works.
            clock: returns seconds.
        """
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._phase, self._since, self._entered, self._clock = "other", clock(), entered, clock

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds of every phase entered so far, in the order of `PHASES`; together all since the start."""
        now = {**self._seconds, self._phase: self._seconds[self._phase] + self._clock() - self._since}
        return {name: now[name] for name in PHASES if name in now}

    def switch(self, name: str) -> str:
        """Go on in a phase, a key of `PHASES`, and return the one before."""
        assert name in PHASES, name
        now, before = self._clock(), self._phase
        self._seconds[before] += now - self._since
        self._phase, self._since = name, now
        if self._entered is not None:
            self._entered(name)
        return before

    @contextmanager
    def running(self) -> Iterator["Stopwatch"]:
        """Let `phase` count on this stopwatch, in this thread, inside the `with`."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


@contextmanager
def phase(name: str, whole: bool = False) -> Iterator[None]:
    """Count the time inside the `with` as this phase's, where a stopwatch runs in this thread; else change nothing.

    Args:
        name: key in `PHASES`.
        whole: whether phases inside count as this one too: the steps of a search are the search's.
    """
    stopwatch = _CURRENT.get()
    before = None if stopwatch is None else stopwatch.switch(name)
    token = _CURRENT.set(None if whole else stopwatch)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        if stopwatch is not None and before is not None:
            stopwatch.switch(before)
