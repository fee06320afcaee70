"""Conversations as others export them: OASST's trees and messages, ChatGPT's archive, Gemini's contents."""

import json
from pathlib import Path
from typing import Any

import pytest

from lsf.data.contents import Chat, DataOptions
from lsf.data.converting import joined_messages
from lsf.data.sources import load_task
from lsf.data.tables import read_table
from lsf.data.task import Task
from lsf.errors import DataError


def task_of(folder: Path, rows: list[Any], name: str = "d.json", **options: Any) -> Task:
    (folder / name).write_text(json.dumps(rows) if name.endswith("n") else "".join(json.dumps(r) + "\n" for r in rows))
    return load_task(str(folder / name), **options)


def said(task: Task) -> list[list[tuple[str, str]]]:
    chats = [example.content for example in task.split("all")]
    return [[(turn["role"], turn["content"]) for turn in chat.messages] for chat in chats if isinstance(chat, Chat)]


def message(name: str, parent: str | None, role: str, rank: float | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "role": role, "text": f"says {name}", "rank": rank, **more}


MESSAGES = [
    message("b2", "a", "assistant", 1.0),  # before what it answers
    message("a", None, "prompter"),
    message("b1", "a", "assistant", 0.0),
    message("b0", "a", "assistant", deleted=True),
    message("c", "b1", "prompter"),
    message("d", "c", "assistant"),
    message("e", "d", "prompter"),
    message("lonely", None, "prompter"),
    message("orphan", "gone", "assistant"),
    message("x", None, "prompter"),
    message("y", "x", "assistant"),
    message("round", "about", "prompter"),
    message("about", "round", "assistant"),
]
BEST = [("user", "says a"), ("assistant", "says b1"), ("user", "says c"), ("assistant", "says d")]


@pytest.mark.parametrize("name", ["d.json", "d.jsonls.jsonl"])
def test_messages_of_a_row_each_are_chats_of_the_best_replies(name: str, tmp_path: Path) -> None:
    task = task_of(tmp_path, MESSAGES, name)
    assert said(task) == [BEST, [("user", "says x"), ("assistant", "says y")]]
    assert [example.row for example in task.split("all")] == [2, 10]
    assert "one message per row (message_id, parent_id): 6 of 13 are joined into 2 chats" in task.seen.notes[0]
    assert joined_messages(read_table(tmp_path / name)).columns == ("messages",)
    assert said(load_task(str(tmp_path / name), options=DataOptions("oasst"))) == said(task)
    assert load_task(str(tmp_path / name), "{text}", "{role}").seen.formats == (("pairs", 13),)


def test_a_file_of_messages_that_nobody_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d\.json has no row that can be learned from"):
        task_of(tmp_path, [message("a", None, "prompter")])


def test_trees_of_replies_are_chats_of_the_best_ones(tmp_path: Path) -> None:
    def tree(name: str, role: str, *replies: Any, **more: Any) -> dict[str, Any]:
        return {"text": f"says {name}", "role": role, "replies": list(replies), **more}

    end = tree("c", "prompter", tree("d", "assistant", tree("e", "prompter")))
    best = tree("b1", "assistant", end, rank=0)
    whole = tree("a", "prompter", tree("b2", "assistant", rank=1), best, tree("b0", "assistant", deleted=True))
    task = task_of(tmp_path, [{"message_tree_id": "a", "prompt": whole}, whole, tree("z", "prompter")])
    assert said(task) == [BEST, BEST]
    assert task.seen.formats == (("oasst", 3),)
    assert "2 rows: the best-ranked replies are learned, and the others left out." in task.seen.notes
    assert "1 row: left out, since nobody answers in it (row 3)." in task.seen.notes
    with pytest.raises(DataError, match="row 1: its replies are no list of messages"):
        task_of(tmp_path, [{"prompt": tree("a", "prompter") | {"replies": "none"}}])


def node(parent: str | None, role: str, *parts: Any, children: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    held = {"author": {"role": role}, "content": {"content_type": "text", "parts": list(parts)}, **more}
    return {"parent": parent, "children": list(children), "message": held}


def conversation(**nodes: Any) -> dict[str, Any]:
    start = {
        "root": {"parent": None, "children": ["s"], "message": None},
        "s": node("root", "system", "", children=("a",)),
    }
    return {"title": "Green", "mapping": {**start, **nodes}}


TALK = conversation(
    a=node("s", "user", "What is green?", children=("old", "call")),
    old=node("a", "assistant", "Nothing."),
    call=node("a", "assistant", "search", recipient="web", children=("found",)),
    found=node("call", "tool", "lamps", children=("b1",)),
    b1=node("found", "assistant", "The lamp.", children=("b2",)),
    b2=node("b1", "assistant", "And the hall.", children=("c",)),
    c=node("b2", "user", "Thanks."),
)
GREEN = [("user", "What is green?"), ("assistant", "The lamp.\n\nAnd the hall.")]


def test_an_archive_of_chatgpt_gives_what_was_said_last_without_tools(tmp_path: Path) -> None:
    image = conversation(a=node("s", "user", {"asset_pointer": "file"}, "What is it?", children=("b",)))
    image["mapping"]["b"] = node("a", "assistant", "A lamp.")
    other = {**TALK, "current_node": "old"}
    empty = conversation(a=node("s", "user", "Hello?"))
    task = task_of(tmp_path, [TALK, {**TALK, "current_node": "c"}, other, image, empty], "conversations.json")
    assert said(task) == [GREEN, GREEN, [GREEN[0], ("assistant", "Nothing.")]]
    assert task.seen.formats == (("chatgpt", 5),)
    notes = " ".join(task.seen.notes)
    assert "2 rows: messages from and to tools, and hidden ones, are left out of the chat." in notes
    assert "it shows images or other files, which cannot be read (row 4)" in notes
    assert "nobody answers in it (row 5)" in notes
    assert "not used: title." in notes


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"a": node("b", "user", "x"), "b": node("a", "assistant", "y")}, "are parents of each other"),
        ({"a": "text"}, "holds no objects with message and parent"),
        ({}, "holds no objects with message and parent"),
        ({"a": {"message": 3, "parent": ["x"], "children": 0}}, "nobody answers in it"),
    ],
)
def test_an_archive_that_is_none_is_one_sentence(mapping: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        task_of(tmp_path, [{"mapping": mapping, "current_node": "a"}])


def test_contents_of_gemini_are_chats(tmp_path: Path) -> None:
    asked = {"parts": [{"text": "What is "}, {"text": "green?"}]}
    answer = {"role": "model", "parts": [{"text": "The lamp."}]}
    rows = [
        {"systemInstruction": {"role": "system", "parts": [{"text": "Be short."}]}, "contents": [asked, answer]},
        {"contents": [{"role": "user", **asked}, answer]},
    ]
    task = task_of(tmp_path, rows, "d.jsonl")
    chat = [("user", "What is green?"), ("assistant", "The lamp.")]
    assert said(task) == [[("system", "Be short."), *chat], chat]
    assert task.seen.formats == (("gemini", 2),)
    for bad, words in (([{"role": "user"}], "no list of objects with role and parts"),
                       ([{"parts": [{"inlineData": {}}]}, answer], "parts that are not text")):  # fmt: skip
        with pytest.raises(DataError, match=f"line 1: .*{words}"):
            task_of(tmp_path, [{"contents": bad}], "d.jsonl")
