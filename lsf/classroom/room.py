"""The room of a class and its two doors: who is in, what was predicted, how far each lesson is; and the passwords.

The room is one file, one record a line. What `Room` was told is on the disk before it returns, so that a server that is
killed loses nothing it had confirmed. A line that a power cut left half written was never confirmed, and is dropped
when the room is opened again. At a `Door` passwords are compared in constant time, and the wait grows with every wrong
try.
"""

import json
import math
import os
import re
import secrets
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from lsf.errors import BadInputError, RunError
from lsf.files import make_folder
from lsf.schema import decode

ROOM, LOCK = "room.jsonl", "lock"
LONGEST_NAME, LONGEST_REASON = 30, 200
"""Characters."""
MOST_STUDENTS = 200
MOST_RECORDS = 100
"""Of one student; a room's file stays small whatever they send."""
Step = Literal["open", "close", "show", "hide", "reveal"]
"""What a teacher does with a lesson: take predictions or not, show their histogram or not, reveal what was measured."""


@dataclass(frozen=True)
class Record:
    """One line of the file."""

    at: str
    """When, in UTC."""
    what: Literal["join", "predict", "lesson", "open", "close", "show", "hide", "reveal"]
    """What happened."""
    lesson: str | None = None
    """Which lesson it was about; None for `join`."""
    student: str | None = None
    """Who it was, as the browser's name; None for what the teacher does."""
    name: str | None = None
    """Nickname; of `join` only."""
    block: int | None = None
    """Predicted; of `predict` only."""
    why: str | None = None
    """The reason in the student's words; of `predict` only."""


@dataclass(frozen=True)
class Prediction:
    """What one student predicts for one lesson."""

    block: int
    """The block worth tuning."""
    why: str
    """The reason; may be empty."""
    at: str
    """When, in UTC."""


@dataclass(frozen=True)
class Stage:
    """How far a lesson is."""

    open: bool = False
    """Whether predictions are taken."""
    shown: bool = False
    """Whether the class sees the histogram."""
    revealed: bool = False
    """Whether the class sees what was measured; there is no way back."""
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    """Student -> prediction."""

    def counts(self, n_blocks: int) -> list[int]:
        """Return how many predict each block, block 0 first."""
        found = Counter(one.block for one in self.predictions.values())
        return [found[block] for block in range(n_blocks)]


@dataclass(frozen=True)
class RoomState:
    """All that the records say."""

    lesson: str
    """The one the class is at."""
    students: Mapping[str, str] = field(default_factory=dict)
    """Student -> nickname, in the order in which they joined."""
    stages: Mapping[str, Stage] = field(default_factory=dict)
    """Lesson -> how far it is; lessons that were not begun are missing."""

    @property
    def stage(self) -> Stage:
        """How far the current lesson is."""
        return self.stages.get(self.lesson, Stage())

    def after(self, record: Record) -> "RoomState":
        """Return the state once a record was added."""
        if record.what == "join":
            return replace(self, students={**self.students, str(record.student): str(record.name)})
        if record.what == "lesson":
            return replace(self, lesson=str(record.lesson))
        lesson = str(record.lesson)
        stage = self.stages.get(lesson, Stage())
        if record.what == "predict":
            assert record.block is not None
            own = Prediction(record.block, record.why or "", record.at)
            stage = replace(stage, predictions={**stage.predictions, str(record.student): own})
        elif record.what == "reveal":
            stage = replace(stage, open=False, shown=True, revealed=True)
        elif record.what in ("open", "close"):
            stage = replace(stage, open=record.what == "open")
        else:
            stage = replace(stage, shown=record.what == "show")
        return replace(self, stages={**self.stages, lesson: stage})


class Room:
    """A room that this process holds; its methods may be called from any thread."""

    def __init__(self, folder: Path, lessons: Mapping[str, int], lesson: str | None = None) -> None:
        """Open a room, or make one.

        Args:
            folder: made where it is not there yet.
            lessons: name -> how many blocks there are to choose from, in the order in which they are taught.
            lesson: to go to; None for where the room was, or the first.

        Raises:
            BadInputError: another process holds it, it cannot be written to, or its file is not a room's.
        """
        self.folder, self.lessons = folder, lessons
        self._records: Counter[str] = Counter()
        self._guard = threading.Lock()
        make_folder(folder)
        self._lock = FileLock(folder / LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BadInputError(f"The room {folder} is held by another server; end that one first.") from None
        except OSError as error:
            raise BadInputError(f"Cannot write {folder}: {error.strerror or error}.") from error
        try:
            self._file = os.open(folder / ROOM, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self.state = self._read(RoomState(next(iter(lessons))))
        except OSError as error:
            self._lock.release()
            raise BadInputError(f"Cannot open {folder / ROOM}: {error.strerror or error}.") from error
        except BadInputError:
            self.close()
            raise
        if lesson not in (None, self.state.lesson):
            self.go_to(str(lesson))

    def close(self) -> None:
        """Let go of the room."""
        os.close(self._file)
        self._lock.release()

    def join(self, student: str, name: str) -> None:
        """Let a student in under a nickname, or give the student another one.

        Raises:
            BadInputError: a nickname that is none or is taken, or the room is full.
            RunError: the disk does not take it.
        """
        name = _one_line(_SELECTORS.sub("", name), LONGEST_NAME, "A nickname")
        if _BLANK.search(name):
            raise BadInputError("A nickname takes visible characters and spaces only; remove the invisible ones.")
        if not name:
            raise BadInputError(f"A nickname has 1 to {LONGEST_NAME} characters.")
        with self._guard:
            students = self.state.students
            if any(_read_as(known) == _read_as(name) for one, known in students.items() if one != student):
                raise BadInputError("Somebody in the room has this nickname; choose another one.")
            if student not in students and len(students) >= MOST_STUDENTS:
                raise BadInputError(f"The room is full: it takes {MOST_STUDENTS} students.")
            self._add(Record(_now(), "join", student=student, name=name))

    def predict(self, student: str, lesson: str, block: int, why: str = "") -> None:
        """Take a student's prediction, in place of an earlier one.

        Args:
            student: who joined before.
            lesson: the one the student was shown.
            block: the block that is worth tuning.
            why: the reason; may be empty.

        Raises:
            BadInputError: predictions are closed, or what is predicted cannot be.
            RunError: the disk does not take it.
        """
        why = _one_line(why, LONGEST_REASON, "A reason")
        with self._guard:
            if student not in self.state.students:
                raise BadInputError("Join the room first.")
            if lesson != self.state.lesson or not self.state.stage.open:
                raise BadInputError("Predictions are closed; this one was not counted.")
            if not 0 <= block < self.lessons[lesson]:
                raise BadInputError(f"There is no block {block}; there are 0 to {self.lessons[lesson] - 1}.")
            self._add(Record(_now(), "predict", lesson, student, block=block, why=why))

    def step(self, what: Step) -> None:
        """Take the current lesson a step on: what a teacher does.

        Raises:
            BadInputError: what was measured has been revealed, and the class knows it.
            RunError: the disk does not take it.
        """
        with self._guard:
            if self.state.stage.revealed:
                raise BadInputError("What was measured has been revealed; this lesson is over.")
            self._add(Record(_now(), what, self.state.lesson))

    def go_to(self, lesson: str) -> None:
        """Go to a lesson; predictions of the one before are closed.

        Raises:
            BadInputError: there is none of this name.
            RunError: the disk does not take it.
        """
        if lesson not in self.lessons:
            raise BadInputError(f"There is no lesson {lesson!r}; known are: {', '.join(self.lessons)}.")
        with self._guard:
            if self.state.stage.open:
                self._add(Record(_now(), "close", self.state.lesson))
            self._add(Record(_now(), "lesson", lesson))

    def _add(self, record: Record) -> None:
        """Write a record down, then know it."""
        if record.student is not None and self._records[record.student] >= MOST_RECORDS:
            raise BadInputError(f"Your nickname and predictions were changed {MOST_RECORDS} times; that is the limit.")
        line = json.dumps({name: value for name, value in asdict(record).items() if value is not None}) + "\n"
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = os.write(self._file, line.encode())
            if written < len(line):
                raise OSError("the disk is full")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise RunError(f"This could not be saved, so it does not count: {error.strerror or error}.") from error
        self._know(record)

    def _know(self, record: Record) -> None:
        self.state = self.state.after(record)
        if record.student is not None:
            self._records[record.student] += 1

    def _read(self, begin: RoomState) -> RoomState:
        """Return what the file says; a last line without its end is cut off."""
        self.state, place = begin, self.folder / ROOM
        text = place.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            where = f"{place}, line {number}"
            try:
                value = json.loads(line)
            except ValueError:
                raise BadInputError(f"{where} is not JSON; a record of a class was expected.") from None
            record = decode(value, Record, where, "record of a class")
            self._check(record, where)
            self._know(record)
        return self.state

    def _check(self, record: Record, where: str) -> None:
        """Refuse a record that no room of these lessons can have written."""
        if record.what != "join" and record.lesson not in self.lessons:
            raise BadInputError(f"{where} is about the lesson {record.lesson!r}; known are: {', '.join(self.lessons)}.")
        if record.what == "join" and not (record.student and record.name):
            raise BadInputError(f"{where} lets somebody in without a name.")
        if record.what == "predict" and (record.student is None or record.block not in self._blocks(record)):
            raise BadInputError(f"{where} predicts a block that is not there, or is nobody's.")

    def _blocks(self, record: Record) -> range:
        return range(self.lessons[str(record.lesson)])


_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Choose how the character before looks, as phones send it behind a symbol; a name is the same without them."""
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0\U0001d159]")
"""Printable to Python, and nothing to be seen: default-ignorable characters, and letters that are blank."""


def _read_as(name: str) -> str:
    """Return what two names share that are read as the same: other widths, ligatures and cases are no other name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _one_line(text: str, longest: int, what: str) -> str:
    """Return a text in one line, without blanks around it.

    Raises:
        BadInputError: it is too long, or has characters that cannot be seen.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if len(text) > longest:
        raise BadInputError(f"{what} has at most {longest} characters; this one has {len(text)}.")
    if not text.isprintable():
        raise BadInputError(f"{what} takes visible characters and spaces only; remove the invisible ones.")
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
