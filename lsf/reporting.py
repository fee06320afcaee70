"""How long work tells what it is doing, without knowing who listens: a thread's job, a terminal, or nobody."""

from typing import Any, Literal, Protocol, runtime_checkable

Stop = Literal["keep", "discard", "pause", "enough"]
"""`keep`: end early and keep what there is; `discard`: end and keep nothing; `pause`: leave, to go on another time;
`enough`: a training loop has done what it was for, which nobody outside asks for."""


@runtime_checkable
class Reporter(Protocol):
    """What long work is handed: it reports through it and asks it whether to stop."""

    @property
    def stop(self) -> Stop | None:
        """How the work is asked to end early; None to go on."""
        ...

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Say how far it is, in units of its own."""
        ...

    def partial(self, value: Any) -> None:
        """Hand over the result so far."""
        ...


class Silent:
    """A reporter nobody listens to, for calls from Python and tests."""

    stop: Stop | None = None

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Drop it."""

    def partial(self, value: Any) -> None:
        """Drop it."""
