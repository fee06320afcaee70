"""Reading data: what is accepted, and the one sentence for everything that is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lsf.data.columns import fill_template, parse_template
from lsf.data.contents import DataOptions
from lsf.data.reading import read_data
from lsf.data.report import shared_prompts
from lsf.data.sources import load_task
from lsf.data.task import Example, split_examples, with_general
from lsf.errors import DataError

ROWS = "prompt,completion\n" + "".join(f"what is {n} plus one, {n + 1}\n" for n in range(20))


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_csv_becomes_three_disjoint_splits_in_the_files_order(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, "d.csv", ROWS))
    assert (len(task.train), len(task.validation), len(task.test)) == (16, 2, 2)
    everything = [*task.train, *task.validation, *task.test]
    assert len({example.prompt for example in everything}) == 20
    rows = [example.row for example in task.train if example.row is not None]
    assert rows == sorted(rows)
    assert [example.row for example in task.split("auto")] == list(range(2, 22))  # line 1 is the header


def test_rows_are_split_by_the_seed_alone(tmp_path: Path) -> None:
    name = write(tmp_path, "d.csv", ROWS)
    assert load_task(name, seed=3) == load_task(name, seed=3)
    assert load_task(name, seed=3).test != load_task(name, seed=4).test


def test_a_split_column_is_obeyed(tmp_path: Path) -> None:
    lines = [f"p{n}, c{n},{word}" for n, word in enumerate(["train", "dev", "test", "train", "Train"])]
    task = load_task(write(tmp_path, "d.csv", "prompt,completion,split\n" + "\n".join(lines)))
    assert [example.prompt for example in task.train] == ["p0", "p3", "p4"]
    assert [example.prompt for example in task.validation] == ["p1"]
    assert [example.prompt for example in task.test] == ["p2"]
    assert task.split("auto") == task.train


def test_a_missing_split_is_drawn_from_the_training_rows(tmp_path: Path) -> None:
    lines = [f"p{n}, c{n},{'test' if n == 0 else 'train'}" for n in range(12)]
    task = load_task(write(tmp_path, "d.csv", "prompt,completion,split\n" + "\n".join(lines)))
    assert [example.prompt for example in task.test] == ["p0"]
    assert len(task.validation) == 1
    assert len(task.train) == 10  # the rows a test split would have taken stay in training


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(ending: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["a", 'with "quotes"', "c\nd"], "completion": [" x", " y, z", " ü"]})
    path = tmp_path / f"d.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending in ("json", "jsonl"):
        frame.to_json(path, orient="records", lines=ending == "jsonl")
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    task = load_task(str(path))
    found = {(example.prompt, example.completion) for example in task.rows}
    assert found == {("a", " x"), ('with "quotes"', " y, z"), ("c\nd", " ü")}


def test_missing_values_and_bytes_of_a_parquet_file_are_no_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["a", "b", "c"], "completion": [" x", None, " z"], "raw": [b"x", b"y", b"z"]})
    frame["when"] = pd.to_datetime(["2026-01-01", None, "2026-01-03"])
    frame.to_parquet(path := tmp_path / "d.parquet")
    for asked, sentence in (
        (None, "row 2: the completion is null"),
        ("{when}", "row 2: the completion needs 'when', which is null"),
    ):
        with pytest.raises(DataError, match=sentence):
            load_task(str(path), None, asked)
    with pytest.raises(DataError, match="row 1: the column 'raw' holds a bytes; text or a number was expected"):
        load_task(str(path), None, "{raw}")


def test_a_line_ends_where_jsonl_says_and_a_long_text_is_no_fault(tmp_path: Path) -> None:
    rows = [{"prompt": f"a\u2028b\x85{n}", "completion": " " + "x" * 200_000} for n in range(3)]
    plain = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found = load_task(write(tmp_path, "d.jsonl", plain)).rows
    pd.DataFrame(rows).to_csv(tmp_path / "d.csv", index=False)
    assert {e.prompt for e in found} == {row["prompt"] for row in rows}
    assert {e.completion for e in load_task(str(tmp_path / "d.csv")).rows} == {e.completion for e in found}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("d.csv", "", "d.csv is empty"),
        ("d.csv", "prompt,completion\n", "no rows"),
        ("d.csv", "ask,say\na,b\nc,d\ne,f\n", "no column 'prompt'; its columns are: ask, say"),
        ("d.csv", "prompt,completion\na, b\nc, d, e\nf, g\n", "line 3: 3 values for 2 columns"),
        ("d.csv", "prompt,completion\na, b\nc\nf, g\n", "line 3: 1 value for 2 columns"),
        ("d.csv", 'prompt,completion\na, b\n"c, d\n', "line 3"),
        ("d.csv", b"PK\x03\x04\x00\x00binary", "binary data"),
        ("d.csv", "prompt,completion\n, b\n, d\n", "2 rows: left out, since the prompt is empty (line 2, line 3)."),
        ("d.csv", "prompt,prompt\na, b\n", "repeated or unnamed columns"),
        ("d.jsonl", '{"prompt": "a", "completion": " b"}\n{"prompt": \n', "line 2 is not valid JSON"),
        ("d.jsonl", '{"prompt": "a", "completion": " b"}\n[1, 2]\n', "line 2 is not a JSON object"),
        ("d.json", '{"prompt": "a"}', "a list of objects was expected"),
        ("d.json", "[" * 100_000, "d.json is not valid JSON: maximum recursion depth"),
        ("d.jsonl", '{"prompt": 1' + "0" * 5000 + "}", "line 1 is not valid JSON: Exceeds the limit"),
        ("d.jsonl", '{"prompt": "a", "completion": NaN}\n', "line 1: the completion is null; text"),
        ("d.jsonl", '{"prompt": "a", "completion": ["b"]}\n', "line 1: the column 'completion' holds a list; text"),
        ("d.jsonl", '{"prompt": "a", "completion": "b\\u0000"}\n', "line 1: a text holds a NUL byte"),
        ("d.json", "[]", "d.json has no rows; at least one was expected"),
        ("d.parquet", "not parquet", "not a readable Parquet file"),
        ("d.xlsx", "x", "accepted are: .csv, .tsv, .json, .jsonl, .parquet"),
        ("d.csv", "prompt,completion,split\na, b,train\nc, d,holdout\n", "line 3: split is 'holdout'"),
        ("d.csv", "prompt,completion,split\na, b,test\nc, d,test\ne, f,dev\n", "no training rows"),
    ],
)
def test_bad_data_gets_one_sentence(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_task(write(tmp_path, name, content))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_task(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="is a folder without files that are called train"):
        load_task(str(tmp_path))


def test_a_row_is_named_by_the_line_it_begins_in(tmp_path: Path) -> None:
    content = 'prompt,completion\n"a\nb", c\n\n"d\ne",\n"f\ng", h\n'
    task = load_task(write(tmp_path, "d.csv", content))
    assert [example.where for example in task.rows] == ["line 2", "line 7"]
    assert "the completion is empty (line 5)." in task.seen.notes[0]
    with pytest.raises(DataError, match="line 9: 3 values for 2 columns"):
        load_task(write(tmp_path, "d.csv", content + '"x\ny",z,z\n'))


def test_templates_render_any_columns(tmp_path: Path) -> None:
    content = "question,the answer\n" + "".join(f"q{n},a{n}\n" for n in range(3))
    task = load_task(write(tmp_path, "d.csv", content), "Question: {question}\nAnswer:", " {the answer} {{ok}}")
    assert task.rows[1].identity == ("Question: q1\nAnswer:", " a1 {ok}")
    assert task.rows[1].row == 3


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{nope}", "unknown column 'nope'; the columns are: prompt, completion"),
        ("{prompt.__class__}", "unknown column 'prompt.__class__'"),
        ("{prompt!r}", "unknown column 'prompt!r'"),
        ("{prompt", "cannot be read"),
        ("", "is empty"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_template(template, ["prompt", "completion"], "--prompt-template")
    assert sentence in str(caught.value)


def test_a_template_that_only_adds_blanks_has_an_empty_column(tmp_path: Path) -> None:
    name = write(tmp_path, "d.csv", "q,a\nx,1\ny,\nz,3\n")
    (left, _) = load_task(name, "{q}", " {a}").seen.notes
    assert left == "1 row: left out, since the completion is empty where its template names 'a' (line 3)."


def test_a_missing_value_is_an_empty_text() -> None:
    assert fill_template(parse_template("a{x}b", ["x"], "t"), {"x": None}) == "ab"


def test_lessons_take_no_templates_and_unknown_ones_are_answered_with_the_known() -> None:
    with pytest.raises(DataError, match="brings its own prompts"):
        load_task("lesson:facts", "{prompt}", None)
    with pytest.raises(ValueError, match="Unknown lesson 'nope'; known are: facts"):
        load_task("lesson:nope")


def test_the_hub_without_a_network_says_so_at_once() -> None:
    with pytest.raises(DataError, match="hub does not answer"):
        load_task("hub:no-such-owner/no-such-data-set")
    with pytest.raises(DataError, match="write hub:NAME"):
        load_task("hub:a:b:c:d")


def test_few_rows_are_all_for_training() -> None:
    task = split_examples("two", [Example("a", " b"), Example("c", " d")])
    assert (len(task.train), task.validation, task.test) == (2, (), ())
    with pytest.raises(DataError, match="no test examples"):
        task.split("test")


def test_a_prompt_of_half_the_rows_stays_in_training_and_the_splits_share_no_prompt() -> None:
    rows = [Example("again" if index < 45 else str(index), " a", index) for index in range(100)]
    for seed in range(5):
        task = split_examples("much", rows, seed, grouped=True)
        asked = [{row.prompt for row in part} for part in (task.train, task.validation, task.test)]
        assert sum(map(len, asked)) == len(set.union(*asked)) == 56
        assert (len(task.validation), len(task.test)) == (10, 10)


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def as_pair(asked: str, answer: str) -> dict[str, Any]:
    return {"prompt": asked, "completion": f" {answer}"}


def as_known(asked: str, answer: str) -> dict[str, Any]:
    return {"question": asked, "answer": answer}


def as_chat(asked: str, answer: str) -> dict[str, Any]:
    return {"messages": [say("user", asked), say("assistant", answer)]}


def as_longer_chat(asked: str, answer: str) -> dict[str, Any]:
    call = {"id": answer, "function": {"name": "look", "arguments": {}}}
    turns = [say("user", asked), say("assistant", "", tool_calls=[call]), say("tool", "Rome"), say("assistant", answer)]
    return {"messages": turns}


def as_segments(asked: str, answer: str) -> dict[str, Any]:
    return {"segments": [{"label": False, "text": asked}, {"label": True, "text": f" {answer}"}]}


def as_text(asked: str, answer: str) -> dict[str, Any]:
    return {"text": asked}


QUESTIONS = [(f"Capital of {n % 17 if n % 3 else n}?", str(n)) for n in range(60)]
"""Some of them several times, each time with another answer."""


@pytest.mark.parametrize("pairs", ["auto", "raw"])
@pytest.mark.parametrize("made", [as_pair, as_known, as_chat, as_longer_chat, as_segments, as_text])
def test_rows_of_one_kind_are_split_as_ever(made: Callable[[str, str], dict[str, Any]], pairs: str) -> None:
    rows = [made(*asked) for asked in QUESTIONS]
    task = read_data(rows, seed=3, options=DataOptions(pairs=pairs))
    # of a chat with calls, each with an id of its own, no prompt is equal to another one
    alone = made is as_longer_chat
    validation, test = ([18, 26, 40, 44, 49, 50], [1, 3, 4, 23, 38, 39]) if alone else (
        [4, 5, 21, 38, 39, 56], [1, 6, 18, 23, 35, 57]
    )  # fmt: skip
    assert [row.row for row in task.validation] == validation
    assert [row.row for row in task.test] == test


@pytest.mark.parametrize("pairs", ["auto", "chat", "raw"])
def test_a_pair_and_a_chat_that_ask_the_same_stay_on_one_side(pairs: str) -> None:
    asked = [(f"Capital of {n}?", str(n)) for n in range(100)]
    both = [row for one in asked for row in (as_pair(*one), as_chat(*one))]
    task = read_data(both, options=DataOptions(pairs=pairs))
    sides = [{(row.row - 1) // 2 for row in part if row.row} for part in (task.train, task.validation, task.test)]
    assert [len(side) for side in sides] == [80, 10, 10] and len(set.union(*sides)) == 100
    assert shared_prompts(task) == []
    parts = {
        "train": [as_chat(*one) for one in asked],
        "test": [as_pair(asked[0][0], "0"), as_pair(" A new one? ", "0")],
    }
    found = shared_prompts(read_data(parts, options=DataOptions(pairs=pairs)))
    assert found[-1] == "1 test row has a prompt that training has too; 1 with the same answer."


@pytest.mark.parametrize(("made", "general"), [(as_pair, as_chat), (as_chat, as_pair), (as_segments, as_chat)])
def test_general_data_has_no_held_out_prompt_of_data_of_another_kind(
    made: Callable[[str, str], dict[str, Any]], general: Callable[[str, str], dict[str, Any]]
) -> None:
    asked = [(f"Capital of {n}?", str(n)) for n in range(50)]
    task = read_data([made(*one) for one in asked])
    mixed = with_general(task, read_data([general(*one) for one in asked]))
    assert len(mixed.general) == 40
    held_out = {row.row for row in (*task.validation, *task.test)}
    assert not held_out & {row.row for row in mixed.general}


def test_the_fingerprint_knows_texts_and_splits() -> None:
    rows = [Example(str(n), " x") for n in range(10)]
    same = split_examples("a", rows).fingerprint
    assert split_examples("b", rows).fingerprint == same
    assert split_examples("a", [*rows[:-1], Example("9", " y")]).fingerprint != same
    assert split_examples("a", rows, seed=1).fingerprint != same
