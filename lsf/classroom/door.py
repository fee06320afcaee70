"""The doors of a class: passwords compared in constant time, and a wait that grows with every wrong try."""

import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lsf.errors import BadInputError

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Of a password that is made here: nothing that is taken for something else on a blackboard."""
FREE_TRIES = 5
"""Wrong ones from one address that cost no wait."""
LONGEST_WAIT = 60.0
"""Seconds."""
MOST_ADDRESSES = 10_000
"""Remembered; beyond it all are forgotten."""


@dataclass(frozen=True)
class Lock:
    """One of the two doors."""

    variable: str
    """Of the environment, where a password may be given."""
    shortest: int
    """Characters of one that is given."""
    groups: int
    """Of four letters, in one that is made here."""


STUDENTS = Lock("LSF_CLASS_PASSWORD", 6, 2)
TEACHER = Lock("LSF_CLASS_TEACHER", 10, 4)


def password_of(lock: Lock, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the password that the environment gives for a door; None where it gives none.

    Raises:
        BadInputError: it is too short, or has blanks around it, which nobody sees.
    """
    given = environment.get(lock.variable)
    if given is not None and (len(given) < lock.shortest or given != given.strip()):
        raise BadInputError(
            f"{lock.variable} must have {lock.shortest} characters or more and no spaces around them; leave it unset "
            "to have a password generated."
        )
    return given


def new_password(lock: Lock) -> str:
    """Return a password drawn at random, to be read from a blackboard and typed."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(lock.groups))


class Door:
    """A password, and who was wrong how often; may be asked from any thread."""

    def __init__(self, password: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the password.

        Args:
            password: the right one.
            clock: seconds that only grow.
        """
        self._password, self._clock = password.encode(), clock
        self._wrong: dict[str, tuple[int, float]] = {}
        self._guard = threading.Lock()

    def knock(self, given: str, address: str) -> None:
        """Let somebody in who has the password.

        Args:
            given: what was typed.
            address: where it came from; those from one address wait together.

        Raises:
            BadInputError: it is wrong, or came before the wait for an earlier wrong one was over.
        """
        with self._guard:
            tries, until = self._wrong.get(address, (0, 0.0))
            wait = until - self._clock()
            if wait > 0:
                raise BadInputError(f"Too many wrong passwords; try again in {math.ceil(wait)} s.")
            if secrets.compare_digest(given.strip().encode(), self._password):
                self._wrong.pop(address, None)
                return
            if len(self._wrong) >= MOST_ADDRESSES:
                self._wrong.clear()
            tries += 1
            pause = min(LONGEST_WAIT, 2.0 ** (tries - FREE_TRIES)) if tries >= FREE_TRIES else 0.0
            self._wrong[address] = (tries, self._clock() + pause)
        raise BadInputError("Wrong password; check it and try again.")
