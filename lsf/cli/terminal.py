"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lsf.environment import launched_rank
from lsf.progress import Outlook, Pace, Phase, Stop, left, phrase

LINE_SECONDS = 2.0
"""Least time between two plain lines of the same phase; of what was not planned, that is the message's first word."""
BAR = "{desc}: {percentage:3.0f}%|{bar}|{postfix}"
"""How the bar looks."""


class TerminalReporter(AbstractContextManager["TerminalReporter"]):
    """Reports a command's progress, and carries its Ctrl-C; of several launched processes only the first shows it.

    Its bar is gone after the `with` it is opened by.
    """

    def __init__(self) -> None:
        """Start with nothing shown."""
        self.stop: Stop | None = None
        self._pace = Pace(time.monotonic())
        self._bar: tqdm[Any] | None = None
        self._stretch: str | None = None
        self._shown = 0.0
        self._unread = False

    def plan(self, phases: Sequence[Phase]) -> None:
        """Take what is to come."""
        self._pace.plan(phases, time.monotonic())

    def phase(self, name: str) -> None:
        """Show the phase it is in."""
        self._pace.enter(name, time.monotonic())
        self._show()

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Show how far it is."""
        self._pace.tell(done, total, message, time.monotonic())
        self._show()

    def partial(self, value: Any) -> None:
        """Partial results are for screens that draw; a terminal waits for the whole."""

    def close(self) -> None:
        """Remove the bar."""
        bar, self._bar = self._bar, None
        if bar is not None and not self._unread:
            self._write(bar.close)

    def __exit__(self, *_: object) -> None:
        """Remove the bar, however it ended."""
        self.close()

    def _show(self) -> None:
        if launched_rank() == 0 and not self._unread:
            self._write(self._tell)

    def _write(self, write: Callable[[], object]) -> None:
        """Write to standard error, and no more once nobody reads it: work goes on behind `| head`, or a lost window."""
        try:
            write()
        except OSError:
            self._unread = True

    def _tell(self) -> None:
        found = self._pace.look(time.monotonic())
        stretch = found.phase or found.message.partition(" ")[0]
        fresh, self._stretch = stretch != self._stretch, stretch
        if sys.stderr.isatty():
            self._draw(found)
        elif fresh or found.done == found.total or time.monotonic() - self._shown > LINE_SECONDS:
            counted = "" if found.total is None or found.phases else f" ({found.done} of {found.total})"
            share = f" ({found.fraction:.0%}{_left(found)})" if found.phases else ""
            sys.stderr.write(f"{phrase(found)}{counted}{share}\n")
            self._shown = time.monotonic()

    def _draw(self, found: Outlook) -> None:
        if self._bar is None:
            self._bar = tqdm(total=1.0, file=sys.stderr, leave=False, bar_format=BAR, dynamic_ncols=True)
        self._bar.set_description_str(phrase(found), refresh=False)
        self._bar.set_postfix_str(_left(found), refresh=False)
        self._bar.n = found.fraction
        if time.monotonic() - self._shown > self._bar.mininterval:
            self._bar.refresh()
            self._shown = time.monotonic()


def _left(found: Outlook) -> str:
    return "" if found.eta_seconds is None else f", {left(found.eta_seconds)}"


@contextmanager
def listening(interrupt: Callable[[], None], terminate: Callable[[], None]) -> Iterator[None]:
    """Call a function at Ctrl-C and one at SIGTERM, in place of what they do else, inside the `with`.

    A terminal or connection that is lost is a SIGTERM, unless `nohup` has it ignored.
    """
    wishes = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    lost = getattr(signal, "SIGHUP", None)  # unknown on Windows
    if lost is not None and signal.getsignal(lost) is not signal.SIG_IGN:
        wishes[lost] = terminate
    before = {kind: signal.signal(kind, lambda *_, wish=wish: wish()) for kind, wish in wishes.items()}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def keeping(reporter: TerminalReporter) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask for an end that keeps what is there, and the second end it at once.

    Raises:
        KeyboardInterrupt: at the second one.
    """

    def ask() -> None:
        if reporter.stop is not None:
            raise KeyboardInterrupt
        reporter.stop = "keep"

    with listening(ask, ask):
        yield


def say_stopped(place: Path | str) -> int:
    """Say where what was measured before a stop is; return the exit code."""
    sys.stderr.write(f"lsf: Stopped; {place} holds what was measured so far.\n")
    return 1
