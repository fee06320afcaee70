"""Passwords: what is given, what is made, and the wait after wrong ones."""

import re

import pytest

from lsf.classroom.door import FREE_TRIES, LETTERS, LONGEST_WAIT, STUDENTS, TEACHER, Door, new_password, password_of
from lsf.errors import BadInputError


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
