"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from lsf.environment import launched_rank
from lsf.reporting import Stop

LINE_SECONDS = 2.0
"""Least time between two plain lines of the same phase, which is the message's first word."""


class TerminalReporter:
    """Reports a command's progress, and carries its Ctrl-C; of several launched processes only the first shows it."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self.stop: Stop | None = None
        self._bar: tqdm[Any] | None = None
        self._phase: str | None = None
        self._shown = 0.0

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Show how far it is."""
        if launched_rank() != 0:
            return
        phase = message.partition(" ")[0]
        fresh, self._phase = phase != self._phase, phase
        if sys.stderr.isatty():
            if self._bar is None or fresh or self._bar.total != total:
                self.close()
                self._bar = tqdm(total=total, file=sys.stderr, leave=False)
            self._bar.set_description(message, refresh=False)
            self._bar.update(done - self._bar.n)
        elif fresh or done == total or time.monotonic() - self._shown > LINE_SECONDS:
            counted = "" if total is None else f" ({done} of {total})"
            sys.stderr.write(f"{message}{counted}\n")
            self._shown = time.monotonic()

    def partial(self, value: Any) -> None:
        """Partial results are for screens that draw; a terminal waits for the whole."""

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def listening(interrupt: Callable[[], None], terminate: Callable[[], None]) -> Iterator[None]:
    """Call a function at Ctrl-C and one at SIGTERM, in place of what they do else, inside the `with`."""
    wishes = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    before = {kind: signal.signal(kind, lambda *_, wish=wish: wish()) for kind, wish in wishes.items()}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
