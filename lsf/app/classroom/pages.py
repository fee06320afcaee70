"""What a class's process shares: the room, its two doors, and who came in as the teacher."""

import os
import secrets
from functools import cache
from pathlib import Path

import streamlit as st

from lsf.app.browser import browser_name
from lsf.app.lesson_notes import lessons_measured
from lsf.classroom.room import STUDENTS, TEACHER, Door, Room, password_of
from lsf.errors import BadInputError

ROOM = "LSF_CLASS_ROOM"
"""Names the room's folder in the environment of this process."""


class Classroom:
    """A room with its doors. Not in Streamlit's caches, which any browser may ask to clear."""

    def __init__(self) -> None:
        """Open what the environment names.

        Raises:
            BadInputError: there is no room, or no password at a door.
        """
        students, teacher = password_of(STUDENTS), password_of(TEACHER)
        if ROOM not in os.environ or students is None or teacher is None:
            raise BadInputError("A class is started by `python -m lsf class`.")
        self.lessons = lessons_measured()
        blocks = {name: one.setting.truth.n_blocks for name, one in self.lessons.items()}
        self.room = Room(Path(os.environ[ROOM]), blocks)
        self.door, self.teachers_door = Door(students), Door(teacher)
        self.teachers: set[str] = set()


@cache
def classroom() -> Classroom:
    """Return the class of this process, opened at the first call."""
    return Classroom()


def this_browser() -> str:
    """Return the name of this browser; without cookies one that lasts until the page is loaded again."""
    named = browser_name()
    if named is None:
        named = st.session_state.setdefault("browser", secrets.token_hex(32))
    return named


def this_address() -> str:
    """Return where this browser is, for the wait after wrong passwords."""
    return st.context.ip_address or "this machine"
