"""The six lessons."""

import subprocess
import sys

import pytest

from lsf.data.corpus import make_corpus
from lsf.data.lessons import LESSONS, load_lesson
from lsf.data.world import make_world
from lsf.errors import UnknownNameError

each_lesson = pytest.mark.parametrize("name", LESSONS)


@each_lesson
def test_a_lesson_says_what_it_teaches_and_how_it_is_judged(name: str) -> None:
    lesson = LESSONS[name]
    assert lesson.title
    assert lesson.teaches.endswith(".")
    assert lesson.metric == "exact_match"
    assert 10 <= lesson.steps <= 150


@each_lesson
def test_splits_are_large_enough_and_share_no_prompt(name: str) -> None:
    task = load_lesson(name)
    assert task.name == f"lesson:{name}"
    assert 100 <= len(task.train) <= 800
    assert 45 <= len(task.validation) <= 100
    assert 70 <= len(task.test) <= 200
    prompts = [example.prompt for split in (task.train, task.validation, task.test) for example in split]
    assert len(set(prompts)) == len(prompts)


@each_lesson
def test_completions_begin_with_a_space_and_have_one_to_three_words(name: str) -> None:
    task = load_lesson(name)
    for example in (*task.train, *task.validation, *task.test):
        assert example.completion.startswith(" ")
        assert 1 <= len(example.completion.split()) <= 3
        assert example.prompt == example.prompt.strip()


@each_lesson
def test_every_word_was_read_in_pretraining_and_every_answer_word_was_an_answer(name: str) -> None:
    taught = make_corpus(make_world(0)).taught
    answers = {word for statement in taught for word in statement.completion.split()}
    words = {word.strip(".,:?") for statement in taught for word in statement.text.split()}
    task = load_lesson(name)
    for example in (*task.train, *task.validation, *task.test):
        assert set(example.completion.split()) <= answers
        assert {word.strip(".,:?") for word in example.prompt.split()} <= words


@each_lesson
def test_a_lesson_is_the_same_each_time_and_another_for_another_seed(name: str) -> None:
    assert load_lesson(name) == load_lesson(name)
    assert LESSONS[name].task(seed=1).train != load_lesson(name).train


def test_an_unknown_lesson_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="facts, aliases, labels, sums, dialect, twohop"):
        load_lesson("history")


def test_loading_a_lesson_loads_no_torch() -> None:
    code = "import sys, lsf.data.lessons as l; l.load_lesson('facts'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
