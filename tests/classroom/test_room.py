"""A room keeps what it confirmed, takes only what can be, and says what is wrong; its doors and their passwords."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsf.classroom.room import (
    FREE_TRIES,
    LETTERS,
    LONGEST_NAME,
    LONGEST_WAIT,
    MOST_RECORDS,
    MOST_STUDENTS,
    ROOM,
    STUDENTS,
    TEACHER,
    Door,
    Prediction,
    Room,
    Stage,
    new_password,
    password_of,
)
from lsf.errors import BadInputError, RunError

LESSONS = {"facts": 8, "sums": 4}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path, LESSONS)
    yield room
    room.close()


def reopened(room: Room) -> Room:
    room.close()
    room.__init__(room.folder, room.lessons)
    return room


def test_everything_is_there_again_when_the_room_is_opened_again(room: Room) -> None:
    room.join("a", "Ada")
    room.join("b", "Ben")
    room.step("open")
    room.predict("a", "facts", 7, "it is last")
    room.predict("a", "facts", 3)
    room.predict("b", "facts", 3)
    room.step("reveal")
    room.go_to("sums")
    before = room.state
    assert reopened(room).state == before
    assert before.students == {"a": "Ada", "b": "Ben"}
    stage = before.stages["facts"]
    assert (stage.open, stage.shown, stage.revealed) == (False, True, True)
    assert stage.counts(8) == [0, 0, 0, 2, 0, 0, 0, 0]
    assert stage.predictions["a"] == Prediction(3, "", stage.predictions["a"].at)
    assert before.stage == Stage()


def test_a_line_that_was_never_whole_is_dropped_and_the_next_one_stands_alone(room: Room) -> None:
    room.join("a", "Ada")
    with (room.folder / ROOM).open("a") as file:
        file.write('{"at": "now", "what": "join", "stud')
    assert reopened(room).state.students == {"a": "Ada"}
    room.join("b", "Ben")
    assert reopened(room).state.students == {"a": "Ada", "b": "Ben"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 1 is not JSON"),
        ('{"at": "now", "what": "shout"}', "line 1: what is 'shout'"),
        ('{"at": "now", "what": "open", "lesson": "drama"}', "about the lesson 'drama'; known are: facts, sums"),
        ('{"at": "now", "what": "join"}', "lets somebody in without a name"),
        ('{"at": "now", "what": "predict", "lesson": "sums", "student": "a", "block": 4}', "a block that is not there"),
        ('{"at": "now", "what": "predict", "lesson": "sums", "block": 1}', "nobody's"),
    ],
)
def test_a_file_that_is_no_rooms_is_refused_with_its_line_and_left_as_it_is(
    tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / ROOM).write_text(line + "\n")
    for _ in range(2):  # the first refusal lets go of the room
        with pytest.raises(BadInputError, match=said):
            Room(tmp_path, LESSONS)
    assert (tmp_path / ROOM).read_text() == line + "\n"


def test_a_room_has_one_server(room: Room) -> None:
    with pytest.raises(BadInputError, match="held by another server"):
        Room(room.folder, LESSONS)


def test_a_room_in_a_place_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="Cannot make the folder"):
        Room(tmp_path / "file", LESSONS)
    (tmp_path / ROOM).mkdir()
    with pytest.raises(BadInputError, match="Cannot open"):
        Room(tmp_path, LESSONS)


def test_predictions_are_taken_while_they_are_open_and_for_the_lesson_that_is_on(room: Room) -> None:
    with pytest.raises(BadInputError, match="Join the room first"):
        room.predict("a", "facts", 1)
    room.join("a", "Ada")
    with pytest.raises(BadInputError, match="closed"):
        room.predict("a", "facts", 1)
    room.step("open")
    for block in (-1, 8):
        with pytest.raises(BadInputError, match="there are 0 to 7"):
            room.predict("a", "facts", block)
    with pytest.raises(BadInputError, match="closed"):
        room.predict("a", "sums", 1)
    room.predict("a", "facts", 1)
    room.go_to("sums")
    with pytest.raises(BadInputError, match="closed"):
        room.predict("a", "facts", 2)
    assert not room.state.stages["facts"].open
    assert room.state.stages["facts"].predictions["a"].block == 1


def test_what_was_revealed_stays_so_and_nobody_predicts_afterwards(room: Room) -> None:
    room.join("a", "Ada")
    room.step("open")
    room.step("reveal")
    for step in ("open", "hide", "reveal"):
        with pytest.raises(BadInputError, match="this lesson is over"):
            room.step(step)
    with pytest.raises(BadInputError, match="closed"):
        room.predict("a", "facts", 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "1 to 30 characters"),
        (" \n ", "1 to 30 characters"),
        ("x" * (LONGEST_NAME + 1), "at most 30 characters; this one has 31"),
        ("Ada\u202eneB", "invisible"),
        ("\x1b[31m", "invisible"),
        ("ben ", "has this nickname"),
        ("Ben\ufe0f", "has this nickname"),  # a variation selector
        ("\uff22en", "has this nickname"),  # a wide B
        ("\ufe0f", "1 to 30 characters"),
        *((name, "invisible") for name in ("Ben\u034f", "Ben\u3164", "\u3164", "\u2800", "B\u115fen", "Ben\uffa0")),
        *((name, "invisible") for name in ("Ben\u00ad", "B\u200ben", "Ben\u17b4", "Ben\u180b", "\U0001d159")),
    ],
)
def test_a_nickname_that_is_none_is_refused_in_a_sentence(room: Room, name: str, said: str) -> None:
    room.join("b", "Ben")
    with pytest.raises(BadInputError, match=said):
        room.join("a", name)
    assert room.state.students == {"b": "Ben"}


def test_a_nickname_may_have_what_a_phone_sends(room: Room) -> None:
    for student, name in (("a", "Zoë \u2764\ufe0f"), ("b", "李雷"), ("c", "Ada 🙂"), ("d", "देवी")):
        room.join(student, name)
    assert list(room.state.students.values()) == ["Zoë \u2764", "李雷", "Ada 🙂", "देवी"]


def test_texts_are_kept_as_they_were_typed_in_one_line(room: Room) -> None:
    room.join("a", " <b>Ada</b>\n:red[x] ")
    room.step("open")
    room.predict("a", "facts", 1, "=1+1\n</script>")
    assert room.state.students["a"] == "<b>Ada</b> :red[x]"
    assert room.state.stage.predictions["a"].why == "=1+1 </script>"
    assert len((room.folder / ROOM).read_text().splitlines()) == 3
    with pytest.raises(BadInputError, match="A reason has at most 200 characters"):
        room.predict("a", "facts", 1, "x" * 201)


def test_a_room_stays_small_whatever_is_sent(room: Room) -> None:
    room.join("a", "Ada")
    room.step("open")
    for number in range(MOST_RECORDS - 1):
        room.predict("a", "facts", number % 8)
    for _ in range(2):
        with pytest.raises(BadInputError, match=f"changed {MOST_RECORDS} times"):
            room.predict("a", "facts", 1)
        reopened(room)
    for number in range(1, MOST_STUDENTS):
        room.join(str(number), f"student {number}")
    with pytest.raises(BadInputError, match="The room is full"):
        room.join("one more", "one more")
    room.join("1", "another name")


def test_a_lesson_that_is_asked_for_is_gone_to_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    room = Room(tmp_path, LESSONS, "sums")
    assert room.state.lesson == "sums"
    with pytest.raises(BadInputError, match="no lesson 'drama'; known are: facts, sums"):
        room.go_to("drama")
    room.close()
    room = Room(tmp_path, LESSONS)
    assert room.state.lesson == "sums"  # where it was
    room.close()
    (line,) = (tmp_path / ROOM).read_text().splitlines()
    assert json.loads(line)["lesson"] == "sums"


def test_what_the_disk_does_not_take_was_not_taken_and_what_follows_is_whole(room: Room) -> None:
    resource = pytest.importorskip("resource")
    room.join("a", "Ada")
    before, limits = room.state, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((room.folder / ROOM).stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(RunError, match="This could not be saved, so it does not count"):
            room.join("b", "Ben")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert room.state == before
    room.join("c", "Cem")
    assert reopened(room).state.students == {"a": "Ada", "c": "Cem"}


def wrong(door: Door, address: str = "here", times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(BadInputError, match="Wrong password"):
            door.knock("wrong", address)


def test_wrong_tries_wait_longer_each_time_and_others_do_not_wait_for_them() -> None:
    now = [100.0]
    door = Door("right word", lambda: now[0])
    wrong(door, times=FREE_TRIES)
    for pause in (1, 2, 4, 8, 16, 32, LONGEST_WAIT, LONGEST_WAIT):
        with pytest.raises(BadInputError, match=rf"try again in {pause:.0f} s"):
            door.knock("right word", "here")  # even that: nothing is learned while one waits
        now[0] += pause
        wrong(door)
    door.knock("right word", "elsewhere")
    now[0] += LONGEST_WAIT
    door.knock(" right word ", "here")
    wrong(door, times=FREE_TRIES)  # whoever was let in begins anew


def test_a_password_may_hold_any_letters() -> None:
    door = Door("Schlüssel ☃")
    door.knock("Schlüssel ☃", "here")
    with pytest.raises(BadInputError):
        door.knock("Schlussel ☃", "here")
    with pytest.raises(BadInputError):
        door.knock("", "here")


def test_passwords_are_made_at_random_and_can_be_read_from_a_blackboard() -> None:
    for lock, groups in ((STUDENTS, 2), (TEACHER, 4)):
        made = {new_password(lock) for _ in range(50)}
        assert len(made) == 50
        assert all(re.fullmatch("-".join([f"[{LETTERS}]{{4}}"] * groups), one) for one in made)


def test_a_password_that_is_given_is_taken_or_refused_in_a_sentence() -> None:
    assert password_of(STUDENTS, {}) is None
    assert password_of(STUDENTS, {"LSF_CLASS_PASSWORD": "sesame"}) == "sesame"
    for bad in ("", "short", " padded "):
        with pytest.raises(BadInputError, match="LSF_CLASS_PASSWORD must have 6 characters or more"):
            password_of(STUDENTS, {"LSF_CLASS_PASSWORD": bad})
    with pytest.raises(BadInputError, match="LSF_CLASS_TEACHER must have 10 characters"):
        password_of(TEACHER, {"LSF_CLASS_TEACHER": "123456789"})
