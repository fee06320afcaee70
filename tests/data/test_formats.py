"""Every kind of rows is recognised and converted; what cannot be used is refused in one sentence with its row."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from lsf.data.contents import Chat, DataOptions, Document, Segments, Tokens, content_from_json, content_to_json
from lsf.data.encode import encode
from lsf.data.formats import FORMATS, example_line, kinds_of, recognise
from lsf.data.reading import read_data
from lsf.data.sources import load_task
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, DataError
from tests.tiny import tiny_tokenizer

USER, SAID = {"role": "user", "content": "What is green?"}, {"role": "assistant", "content": "The lamp."}


def task_of(rows: Sequence[Mapping[str, Any]], path: Path, **options: Any) -> Task:
    """Return the task of rows in a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_task(str(path), options=DataOptions(**options))


def one_of(row: Mapping[str, Any], path: Path, **options: Any) -> Example:
    """Return the first of four examples of one row, each with another question."""
    return task_of([row] * 4, path / "d.jsonl", **options).rows[0]


def turns(example: Example) -> list[tuple[str, str]]:
    assert isinstance(example.content, Chat)
    return [(turn["role"], turn["content"]) for turn in example.content.messages]


@pytest.mark.parametrize("name", FORMATS)
def test_every_formats_own_example_is_recognised_as_it_and_becomes_an_example(name: str, tmp_path: Path) -> None:
    entry = FORMATS[name]
    assert recognise(tuple(kinds_of(entry.example).items())) == name
    task = task_of([entry.example] * 4, tmp_path / "d.jsonl")
    assert task.seen.formats == ((name, 4),)
    assert task.seen.why == f"its columns: {', '.join(name for name in entry.example if name != 'rejected')}"
    assert task.rows[0].completion
    same = task_of([entry.example] * 4, tmp_path / "d.jsonl", format=name)
    assert [row.identity for row in same.rows] == [row.identity for row in task.rows]


def test_messages_and_sharegpt_are_the_same_chat_with_their_roles_mapped(tmp_path: Path) -> None:
    conversation = [{"from": "human", "value": "What is green?"}, {"from": "gpt", "value": "The lamp."}]
    plain = one_of({"messages": [{"role": "system", "content": "Be short."}, USER, SAID]}, tmp_path)
    mapped = one_of({"conversations": conversation, "system": "Be short."}, tmp_path)
    assert plain.content == mapped.content
    renamed = [{"role": turn["from"], "content": turn["value"]} for turn in conversation]  # the known trap
    assert turns(one_of({"messages": renamed}, tmp_path)) == [("user", "What is green?"), ("assistant", "The lamp.")]


def test_calls_and_answers_of_tools_of_sharegpt_become_those_of_templates(tmp_path: Path) -> None:
    call = json.dumps({"name": "look", "arguments": {"at": "lamp"}})
    row = {
        "conversations": [
            {"from": "human", "value": "Look."}, {"from": "function_call", "value": call},
            {"from": "observation", "value": "green"}, {"from": "gpt", "value": "Green."},
        ],
        "tools": json.dumps([{"name": "look"}]),
    }  # fmt: skip
    example = one_of(row, tmp_path)
    assert isinstance(example.content, Chat)
    assert [turn["role"] for turn in example.content.messages] == ["user", "assistant", "tool", "assistant"]
    (called,) = example.content.messages[1]["tool_calls"]
    assert called == {"type": "function", "function": {"name": "look", "arguments": {"at": "lamp"}}}
    assert example.content.tools == [{"name": "look"}]


def test_prompt_and_completion_as_messages_train_the_completion_alone(tmp_path: Path) -> None:
    row = {"prompt": [USER, SAID, USER], "completion": [SAID]}
    example = one_of(row, tmp_path)
    assert isinstance(example.content, Chat)
    assert (example.content.given, len(example.content.messages)) == (3, 4)


def test_a_chat_is_the_same_text_however_it_is_written_and_a_template_over_its_column_is_one_sentence(
    tmp_path: Path,
) -> None:
    conversation = [{"from": "human", "value": "the cat"}, {"from": "gpt", "value": "sat"}]
    asked, said = {"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}
    ways = {"messages": [asked, said]}, {"conversations": conversation}, {"prompt": [asked], "completion": [said]}
    tokenizer, texts = tiny_tokenizer(), set()
    for way in ways:
        (row,) = (found := encode(tokenizer, [one_of(way, tmp_path)], 64)).rows
        texts.add((row.ids, row.n_prompt))
        assert row.ids.index(tokenizer.bos_token_id) == 0
        assert tokenizer.convert_ids_to_tokens([row.ids[place] for place in row.targets]) == ["sat", "</s>"]
        assert found.rendering == "chat, by a plain template, since the model has none"
        column = next(iter(way))
        with pytest.raises(DataError, match=rf"line 1: the column '{column}' holds a list; .*Leave the template out"):
            load_task(str(tmp_path / "d.jsonl"), f"{{{column}}}", f" {{{column}}}")
    assert len(texts) == 1


def test_alpaca_is_a_chat_for_models_with_a_template_and_prompt_and_completion_for_others(tmp_path: Path) -> None:
    row = {
        "instruction": "Name it.",
        "input": "lamp",
        "output": "green",
        "system": "Be short.",
        "history": [["a", "b"]],
    }
    example = one_of(row, tmp_path)
    said = [
        ("system", "Be short."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "Name it.\n\nlamp"),
        ("assistant", "green"),
    ]
    assert turns(example) == said
    assert example.prompt == "Be short.\nInstruction: a\nAnswer: b\nInstruction: Name it.\nInput: lamp\nAnswer:"
    assert example.completion == " green"
    assert isinstance(example.content, Chat)
    assert example.content.pair
    assert one_of(row, tmp_path, pairs="raw").content is None


def test_the_chosen_side_of_a_preference_and_rows_marked_good_are_learned_and_said(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(5)]
    task = task_of(rows, tmp_path / "p.jsonl")
    assert {row.completion for row in task.rows} == {"good"}
    assert "5 rows: a preference, of which the chosen side is learned and the rejected one left out." in task.seen.notes
    marked = [{"prompt": f"q{n}", "completion": "a", "label": n % 2 == 0} for n in range(10)]
    task = task_of(marked, tmp_path / "u.jsonl")
    assert len(task.rows) == 5
    assert task.seen.n_left_out == 5
    assert any(note.startswith("5 rows: left out, since their label is false") for note in task.seen.notes)
    talk = one_of({"prompt": "x", "chosen": [USER, SAID], "rejected": [USER, SAID]}, tmp_path)
    assert turns(talk) == [("user", "What is green?"), ("assistant", "The lamp.")]


def test_tokens_segments_and_text_are_kept_as_they_are(tmp_path: Path) -> None:
    assert one_of({"input_ids": [1, 2], "labels": [-100, 2]}, tmp_path).content == Tokens((1, 2), (-100, 2))
    parts = [{"label": False, "text": "a"}, {"label": True, "text": "b"}]
    assert one_of({"segments": parts}, tmp_path).content == Segments(((False, "a"), (True, "b")))
    assert one_of({"text": "some words"}, tmp_path).content == Document("some words")


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"question": "q", "answer": "a"}, "Question: q\nAnswer:", " a"),
        ({"Text": "t", "Label": 1}, "Text: t\nLabel:", " 1"),
        ({"premise": "p", "hypothesis": "h", "label": "yes"}, "Premise: p\nHypothesis: h\nLabel:", " yes"),
    ],
)
def test_columns_known_by_name_get_a_template_that_is_told(
    row: Any, prompt: str, completion: str, tmp_path: Path
) -> None:
    task = task_of([row] * 4, tmp_path / "d.jsonl")
    assert (task.rows[0].prompt, task.rows[0].completion) == (prompt, completion)
    assert any("are suggested for the columns" in note for note in task.seen.notes)


def test_mixed_formats_json_strings_numbers_and_half_characters_are_read_and_told(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER, SAID]}, {"messages": json.dumps([USER, SAID])}, {"messages": [USER, SAID]},
        {"prompt": "p", "completion": 7}, {"prompt": "half \ud83d of one", "completion": " c"},
    ]  # fmt: skip
    task = task_of(rows, tmp_path / "d.jsonl")
    assert len(task.rows) == 5
    assert task.rows[4].prompt == "half \ufffd of one"
    said = " ".join(task.seen.notes)
    for words in (
        "several formats: 3 chat, 2 prompt and completion",
        "JSON string, which was parsed",
        "holds a number",
    ):
        assert words in said
    assert "1 row: a character of which only half is there" in said
    assert "It has 5 rows, so one is for validation and one for the test" in said


def test_one_row_is_read_and_said_to_be_too_few_to_split(tmp_path: Path) -> None:
    task = task_of([{"prompt": "p", "completion": " c"}], tmp_path / "d.jsonl")
    assert (len(task.train), task.test) == (1, ())
    assert task.seen.notes == ("It has 1 row, too few to split: all are for training, none for a test.",)


BAD = {
    "a role nobody knows": (
        {"messages": [{"role": "narrator", "content": "x"}, SAID]},
        "has the role 'narrator'; accepted",
    ),
    "from nobody knows": ({"conversations": [{"from": "oracle", "value": "x"}]}, "has the role 'oracle'"),
    "no list": ({"messages": "hello"}, "the column 'messages' holds text; a list of messages was expected"),
    "a string that is no list": ({"messages": '{"role": "user"}'}, "holds text; a list of messages"),
    "no message": ({"messages": []}, "holds no message"),
    "only system": ({"messages": [{"role": "system", "content": "x"}]}, "no assistant's turn to train on"),
    "a null field": (
        {"messages": [{"role": "user", "content": None}, SAID]},
        "message 1 of the column 'messages' has no",
    ),
    "no role": ({"messages": [{"content": "x"}, SAID]}, "has no role; its keys are: content"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image"}]}, SAID]}, "parts that are not text"),
    "a NUL byte": ({"messages": [USER, {"role": "assistant", "content": "a\0b"}]}, "NUL byte"),
    "no target": ({"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}, "labels has no target"),
    "unequal": ({"input_ids": [1, 2, 3], "labels": [1]}, "as many were expected"),
    "a foreign label": ({"input_ids": [1, 2], "labels": [-100, 7]}, "labels has 7 where input_ids has 2"),
    "no segment": ({"segments": [{"label": False, "text": "a"}]}, "no segment is a target"),
    "no call": (
        {"conversations": [{"from": "function_call", "value": "look"}]},
        "not a JSON object with name and arguments",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_one_sentence_that_names_it(case: str, tmp_path: Path) -> None:
    row, words = BAD[case]
    good = FORMATS["chat"].example if "messages" in row else row
    with pytest.raises(DataError) as caught:
        task_of([good, row, good] if good is not row else [row], tmp_path / "d.jsonl")
    said = str(caught.value)
    assert words in said
    assert "\n" not in said
    assert said.startswith(f"d.jsonl, line {1 if good is row else 2}: ")


EMPTY = {
    "a pair": ("pairs", {"prompt": "a", "completion": ""}, "the completion is empty"),
    "a prompt": ("pairs", {"prompt": "", "completion": "a"}, "the prompt is empty"),
    "an answer": ("known", {"question": "a", "answer": ""}, "the answer is empty"),
    "an output": ("alpaca", {"instruction": "a", "output": ""}, "the output is empty"),
    "a text": ("text", {"text": ""}, "the text is empty"),
    "a chosen side": ("preference", {"prompt": "a", "chosen": "", "rejected": "b"}, "the chosen is empty"),
}
NULL = {
    "a prompt": ("pairs", {"prompt": None, "completion": "a"}, "the prompt is null"),
    "half a pair": ("pairs", {"prompt": "a"}, "the completion is null"),
    "an answer": ("known", {"question": "a", "answer": None}, "the answer is null"),
    "a label": ("known", {"text": "a", "label": float("nan")}, "the label is null"),
    "a chat": ("chat", {"messages": None}, "the column 'messages' is null"),
    "an assistant's turn": (
        "chat", {"messages": [USER, {"role": "assistant", "content": " "}]},
        "message 2 of the column 'messages' is an assistant's turn without content or tool calls",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NULL)
def test_a_row_that_lacks_what_is_to_be_learned_is_refused_by_its_line(case: str, tmp_path: Path) -> None:
    name, row, why = NULL[case]
    good = {"text": "b", "label": "x"} if "label" in row else FORMATS[name].example
    with pytest.raises(DataError, match=re.escape(f"d.jsonl, line 2: {why}")):
        task_of([good, row, good], tmp_path / "d.jsonl", format=name)


@pytest.mark.parametrize("case", EMPTY)
def test_a_row_without_its_text_is_left_out_told_and_counted_and_a_file_of_them_is_refused(
    case: str, tmp_path: Path
) -> None:
    name, row, why = EMPTY[case]
    task = task_of([good := FORMATS[name].example, row, row, row, good, row], tmp_path / "d.jsonl")
    assert [(one.row, one.where) for one in task.train] == [(1, "line 1"), (5, "line 5")]
    assert task.seen.formats == ((name, 6),)
    assert task.seen.n_left_out == 4
    said = f"4 rows: left out, since {why} (line 2, line 3, line 4 and 1 more)."
    assert said in task.seen.notes
    with pytest.raises(DataError) as caught:
        task_of([row], tmp_path / "all.jsonl", format=name)
    assert f"no row that can be learned from; 1 row: left out, since {why} (line 1)." in str(caught.value)


def test_a_row_without_a_label_is_no_plain_text(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ""}, {"text": "c", "label": ""}]
    rows.append({"text": "d", "label": "y"})
    task = task_of(rows, tmp_path / "d.jsonl")
    assert task.seen.formats == (("known", 4),)
    assert [example.completion for example in task.split("all")] == [" x", " y"]
    kept = task_of([{"messages": [USER, SAID]}, {"text": "plain"}, {"text": "plain"}], tmp_path / "e.jsonl")
    assert kept.seen.formats == (("text", 2), ("chat", 1))


def test_a_label_and_a_verdict_that_are_not_there_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [1.0, np.nan, 0.0]})
    with pytest.raises(DataError, match="row 2: the label is null; text or a number was expected"):
        read_data(frame, options=DataOptions(format="known"))
    pair = {"prompt": "a", "completion": "b"}
    with pytest.raises(DataError, match="line 2: the label is empty; true or false was expected"):
        task_of([{**pair, "label": True}, {**pair, "label": None}], tmp_path / "d.jsonl")


@pytest.mark.parametrize("label", [True, False, 1, "0", "True"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["texts", "messages"])
def test_answers_are_not_taken_for_good_where_most_have_no_verdict(label: Any, wrapped: bool, tmp_path: Path) -> None:
    pair: dict[str, Any] = {"prompt": [USER], "completion": [SAID]} if wrapped else {"prompt": "a", "completion": "b"}
    rows = [{**pair, "label": None}, pair, pair, {**pair, "label": label}]
    with pytest.raises(DataError, match="line 1: the label is empty; true or false was expected, or a format that"):
        task_of(rows, tmp_path / "d.jsonl")
    if not wrapped:
        assert len(task_of(rows, tmp_path / "d.jsonl", format="pairs").split("all")) == 4


def test_an_unknown_format_is_answered_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="format is 'chatml'; accepted are: auto, bundle, tokens"):
        task_of([{"text": "a"}], tmp_path / "d.jsonl", format="chatml")


def test_a_data_set_of_datasets_and_a_list_give_what_a_file_gives(tmp_path: Path) -> None:
    rows = [{"messages": [USER, {"role": "assistant", "content": f"The lamp {n}."}]} for n in range(6)]
    by_file = task_of(rows, tmp_path / "d.jsonl")
    for data in (rows, datasets.Dataset.from_list(rows), pd.DataFrame(rows)):
        assert [row.identity for row in read_data(data).rows] == [row.identity for row in by_file.rows]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bundle"])
def test_what_a_bundle_writes_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    first = one_of(FORMATS[name].example, tmp_path)
    if first.content is None:
        return
    assert content_from_json(json.loads(json.dumps(content_to_json(first.content)))) == first.content
    row = {"prompt": first.prompt, "completion": first.completion, "content": content_to_json(first.content)}
    assert one_of(row, tmp_path).content == first.content


def test_raw_pairs_among_chats_are_read_as_they_were_written_whatever_is_asked_for(tmp_path: Path) -> None:
    rows = [{"messages": [USER, {"role": "assistant", "content": f"The lamp {n}."}]} for n in range(4)]
    rows += [{"prompt": f"q{n}", "completion": f" a{n}"} for n in range(3)]
    task = task_of(rows, tmp_path / "d.jsonl", pairs="raw")
    file = tmp_path / "again.jsonl"
    file.write_text("".join(example_line(row) for row in task.rows))
    for pairs in ("auto", "chat", "raw"):
        again = load_task(str(file), options=DataOptions(pairs=pairs))
        assert [row.content for row in again.rows] == [row.content for row in task.rows]
        assert again.fingerprint == task.fingerprint


def test_equal_prompts_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n // 3}", "completion": f" a{n}"} for n in range(90)]
    task = task_of(rows, tmp_path / "d.jsonl")
    sides = [{row.prompt for row in getattr(task, name)} for name in ("train", "validation", "test")]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert all(sides)
