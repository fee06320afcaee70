"""One set of rows gives one set of examples, whatever file, encoding or folder it comes in."""

import gzip
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow
import pyarrow.ipc
import pytest

from lsf.data.containers import PIECE, DatasetRows, pieces
from lsf.data.encode import encode
from lsf.data.formats import example_line
from lsf.data.reading import read_data
from lsf.data.sources import load_task
from lsf.data.task import Example, Task
from lsf.errors import DataError
from tests.data.chat_templates import byte_level

ROWS = [{"prompt": f"the café {n}", "completion": f' says "{n}"\nand 日本'} for n in range(12)]
CHATS = [
    {"messages": [{"role": "user", "content": f"é {n}"}, {"role": "assistant", "content": "ok"}]} for n in range(12)
]


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS: dict[str, Callable[[list[Any]], str]] = {
    "json": lambda rows: json.dumps(rows, ensure_ascii=False),
    "object.json": lambda rows: json.dumps({"version": 1, "data": rows}, ensure_ascii=False),
    "jsonl": jsonl,
    "csv": lambda rows: pd.DataFrame(rows).to_csv(index=False),
    "tsv": lambda rows: pd.DataFrame(rows).to_csv(index=False, sep="\t"),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")


def identities(task: Task) -> list[tuple[object, ...]]:
    return [row.identity for row in task.rows]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_container_and_encoding_gives_the_same_rows(
    kind: str, encoding: str, packed: bool, tmp_path: Path
) -> None:
    for rows in (ROWS, CHATS) if "json" in kind else (ROWS,):
        (plain := tmp_path / "plain.jsonl").write_text(jsonl(rows), encoding="utf-8")
        raw = WRITERS[kind](rows).encode(encoding)
        path = tmp_path / f"d.{kind}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(raw) if packed else raw)
        assert identities(load_task(str(path))) == identities(load_task(str(plain)))


def test_crlf_changes_nothing_but_line_ends_inside_of_texts(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": f" c{n}"} for n in range(5)]
    (tmp_path / "d.jsonl").write_bytes(jsonl(rows).replace("\n", "\r\n").encode())
    (tmp_path / "d.csv").write_bytes(pd.DataFrame(rows).to_csv(index=False, lineterminator="\r\n").encode())
    assert identities(load_task(str(tmp_path / "d.jsonl"))) == identities(load_task(str(tmp_path / "d.csv")))


def test_latin_1_is_read_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("prompt,completion\ncafé, a\nb, c\nd, e\n".encode("latin-1"))
    task = load_task(str(tmp_path / "d.csv"))
    assert task.rows[0].prompt == "café"
    assert task.seen.notes[0].startswith("d.csv is not UTF-8 (byte 0xe9 in line 2) and was read as latin-1")


def test_parquet_and_a_folder_of_save_to_disk_give_the_same_chats_and_class_labels_their_names(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(jsonl(CHATS), encoding="utf-8")
    wanted = identities(load_task(str(tmp_path / "d.jsonl")))
    made = datasets.Dataset.from_list(CHATS)
    made.to_parquet(str(tmp_path / "d.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    assert identities(load_task(str(tmp_path / "d.parquet"))) == wanted
    assert identities(load_task(str(tmp_path / "saved"))) == wanted
    labels = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=labels)
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "both"))
    task = load_task(str(tmp_path / "both"))
    assert task.own_splits
    assert [row.completion for row in task.test] == [" good", " bad", " good"]
    none = datasets.Dataset.from_dict({"text": ["d"], "label": [-1]}, features=labels)
    datasets.concatenate_datasets([rows, none]).to_parquet(str(tmp_path / "labels.parquet"))
    read = load_task(str(tmp_path / "labels.parquet"))
    assert [row.completion for row in read.rows] == [" good", " bad", " good"]
    assert read.seen.n_left_out == 1 and "(row 4)" in read.seen.notes[1]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", ["stream", "file", "feather", "parquet", "data/train.arrow"])
def test_class_labels_have_their_names_from_every_kind_of_file_that_notes_them(
    kind: str, packed: bool, tmp_path: Path
) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = datasets.Dataset.from_dict({"text": list("abcd"), "label": [1, 0, 1, 0]}, features=features)
    table = rows.data.table.replace_schema_metadata(rows.features.arrow_schema.metadata)
    name = kind if "/" in kind else f"d.{kind}" if kind in ("feather", "parquet") else "d.arrow"
    (path := tmp_path / name).parent.mkdir(exist_ok=True)
    if kind == "parquet":
        rows.to_parquet(str(path))
    else:
        opened = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with pyarrow.OSFile(str(path), "wb") as file, opened(file, table.schema) as written:
            written.write_table(table)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        path = path.with_name(f"{path.name}.gz")
    task = load_task(str(path.parent.parent if "/" in kind else path))
    assert sorted(row.completion for row in task.split("all")) == [" bad", " bad", " good", " good"]


def test_calls_and_tools_have_no_arguments_of_others_where_arrow_kept_them(tmp_path: Path) -> None:
    def talk(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        properties = {key: {"type": "string"} for key in arguments}
        tool = {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
        }
        asked, called = {"role": "user", "content": name}, {"role": "assistant", "content": "", "tool_calls": [call]}
        return {"messages": [asked, called], "tools": [tool]}

    rows = [talk("weather", {"city": "Oslo"}), talk("add", {"one": "1", "two": "2"}), talk("weather", {"city": "Rome"})]
    (tmp_path / "d.jsonl").write_text(jsonl(rows), encoding="utf-8")
    wanted = identities(load_task(str(tmp_path / "d.jsonl")))
    assert all("null" not in repr(one) for one in wanted)
    made = datasets.Dataset.from_list(rows)
    made.to_parquet(str(tmp_path / "d.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for name in ("d.parquet", "saved"):
        assert identities(load_task(str(tmp_path / name))) == wanted
    for held in (made, pd.read_parquet(tmp_path / "d.parquet")):
        assert identities(read_data(held)) == wanted


def test_a_name_of_a_column_may_hold_a_comma_where_values_are_separated_by_semicolons(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("question, long;answer\nWhat, now, this?;Yes, it is\nWhy?;So\n")
    task = load_task(str(tmp_path / "d.csv"), "{question, long}", "{answer}")
    assert [(row.prompt, row.completion) for row in task.rows] == [("What, now, this?", "Yes, it is"), ("Why?", "So")]
    (tmp_path / "e.csv").write_text("question,answer;more\nWhat,b,c\n")
    with pytest.raises(DataError, match="line 2: 3 values for 2 columns"):
        load_task(str(tmp_path / "e.csv"))


@pytest.mark.parametrize("held", [b"", b"ARROW1\0\0cut", b"no arrow at all", b"\xff\xff\xff\xff"])
def test_what_is_no_arrow_file_is_refused_in_a_sentence(held: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.arrow").write_bytes(held)
    with pytest.raises(DataError, match=r"d\.arrow (is not a readable Arrow file|is empty|has no rows)"):
        load_task(str(tmp_path / "d.arrow"))


@pytest.mark.parametrize("kind", [datasets.List, datasets.Sequence, datasets.LargeList, lambda label: [label]])
def test_class_labels_in_lists_and_objects_become_their_names(kind: Any, tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["bad", "good"])
    kinds = datasets.Features({"text": datasets.Value("string"), "labels": kind(label), "more": {"one": label}})
    columns = {"text": ["a", "b"], "labels": [[1, 0], [-1]], "more": [{"one": 1}, {"one": None}]}
    rows = DatasetRows(datasets.Dataset.from_dict(columns, features=kinds))
    assert rows[0] == {"text": "a", "labels": ["good", "bad"], "more": {"one": "good"}}
    assert rows[1] == {"text": "b", "labels": [None], "more": {"one": None}}


LABELLED = datasets.Dataset.from_dict(
    {"text": [f"text {n}" for n in range(12)], "label": [0, 1] * 6},
    features=datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}),
)


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow", "python"])
def test_the_format_a_data_set_is_read_in_elsewhere_changes_no_row(kind: str) -> None:
    wanted = read_data(LABELLED)
    assert {row.completion for row in wanted.rows} == {" bad", " good"}
    for made in (LABELLED.with_format(kind), LABELLED.with_format(kind, columns=["text"])):
        assert read_data(made) == wanted
        assert read_data({"train": made, "test": made}).test == wanted.rows
        assert DatasetRows(made)[3] == {"text": "text 3", "label": "good"}
        assert DatasetRows(made).select([3])[0] == {"text": "text 3", "label": "good"}


def test_a_transform_of_a_data_set_says_what_its_rows_are() -> None:
    made = LABELLED.with_transform(lambda rows: {**rows, "text": [text.upper() for text in rows["text"]]})
    assert read_data(made).rows[0].prompt == "Text: TEXT 0\nLabel:"


def labelled(labels: list[int], text: str = "text") -> datasets.Dataset:
    rows = {"text": [f"{text} {n}" for n in range(len(labels))], "label": labels}
    return datasets.Dataset.from_dict(rows, features=LABELLED.features)


@pytest.mark.parametrize("templates", [(None, None), ("{text}:", " {label}"), ("{text}:", "{label}")])
def test_a_row_without_a_class_label_is_left_out_and_a_split_without_any_told(
    templates: tuple[str | None, str | None], tmp_path: Path
) -> None:
    parts = datasets.DatasetDict(
        {
            "train": labelled([0, 1, -1, 1] * 5),
            "validation": labelled([1, 0, -1], "other"),
            "test": labelled([-1] * 5, "new"),
        }
    )
    parts.save_to_disk(str(tmp_path / "saved"))
    for task in (read_data(parts, *templates), load_task(str(tmp_path / "saved"), *templates)):
        assert [len(rows) for rows in (task.train, task.validation, task.test)] == [14, 2, 1]
        assert {row.completion.strip() for row in (*task.train, *task.validation, *task.test)} == {"bad", "good"}
        assert task.seen.n_left_out == 11
        assert "No row of its split test can be used; rows of train are used instead." in task.seen.notes
        told = next(note for note in task.seen.notes if "left out" in note)
        assert told.startswith("11 rows: left out, since the ") and "(row 3 of train, row 7 of train, row 11" in told
    alone = read_data(labelled([0, 1, -1, 1] * 5), *templates)
    assert len(alone.rows) == 15 and any(
        note.endswith("(row 3, row 7, row 11 and 2 more).") for note in alone.seen.notes
    )
    unused = read_data(parts, "{text}:", " yes")
    assert [len(rows) for rows in (unused.train, unused.validation, unused.test)] == [20, 3, 5]
    with pytest.raises(DataError, match=r"no row of its split train that can be learned from; 4 rows: left out"):
        read_data({"train": labelled([-1] * 4), "test": labelled([1, 0])}, *templates)


def test_a_row_that_is_refused_is_named_with_its_split(tmp_path: Path) -> None:
    parts = {"train": ROWS, "test": [*ROWS[:1], {"prompt": "a", "completion": None}]}
    with pytest.raises(DataError, match="in memory, row 2 of test: the completion is null"):
        read_data(parts)
    for number, rows in enumerate([ROWS[:5], ROWS[5:], parts["test"]]):
        name = f"train-0000{number}-of-00002" if number < 2 else "dev-00000-of-00001"
        (tmp_path / f"{name}.jsonl").write_text(jsonl(rows), encoding="utf-8")
    with pytest.raises(DataError, match="line 2 of validation: the completion is null"):
        load_task(str(tmp_path))


def test_whether_an_answer_without_a_label_is_good_is_not_guessed() -> None:
    kinds = {"prompt": datasets.Value("string"), "completion": datasets.Value("string")}
    features = datasets.Features({**kinds, "label": datasets.ClassLabel(names=["false", "true"])})
    texts = {name: [str(n) for n in range(12)] for name in kinds}
    made = datasets.Dataset.from_dict({**texts, "label": [0, 1, 1] * 4}, features=features)
    assert len(read_data(made).rows) == 8
    made = datasets.Dataset.from_dict({**texts, "label": [0, 1, -1] * 4}, features=features)
    with pytest.raises(DataError, match="row 3: the label is empty; true or false was expected"):
        read_data(made)


def test_a_data_set_that_is_streamed_is_refused_with_what_to_give() -> None:
    streamed = LABELLED.to_iterable_dataset()
    for data in (streamed, datasets.IterableDatasetDict({"train": streamed})):
        with pytest.raises(DataError, match=r"a streaming IterableDataset.*without streaming=True.*from_list"):
            read_data(data)
    assert read_data(datasets.Dataset.from_list(list(streamed.take(12)), features=streamed.features)) == read_data(
        LABELLED
    )


def test_files_named_by_splits_in_one_folder_are_its_splits(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:9]), ("valid", ROWS[9:10]), ("test", ROWS[10:])):
        (tmp_path / f"{name}.jsonl").write_text(jsonl(rows), encoding="utf-8")
    task = load_task(str(tmp_path))
    assert (len(task.train), len(task.validation), len(task.test)) == (9, 1, 2)


@pytest.mark.parametrize("ending", ["txt", "md", "txt.gz"])
def test_a_text_is_cut_into_pieces_at_blank_lines_and_none_of_it_is_lost(ending: str, tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(40)) + "\n"
    raw = text.encode()
    (tmp_path / f"d.{ending}").write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    task = load_task(str(tmp_path / f"d.{ending}"))
    assert task.seen.formats[0][0] == "text"
    assert "".join(row.completion for row in task.rows) == text
    assert all(len(row.completion) < PIECE + 400 for row in task.rows)
    lines = text.split("\n")
    found = list(pieces(io.StringIO(text, newline="\n")))
    assert [lines[line - 1 :][0] for line, _, _ in found] == [piece.split("\n")[0] for _, piece, _ in found]
    assert len(found) > 2
    assert all(piece.startswith("Paragraph") for _, piece, _ in found)  # the blank line stays with what it ends


def ended(tokenizer: Any, rows: Iterable[Example]) -> list[bool]:
    """Say of each row whether its training tokens end in end-of-text."""
    found = encode(tokenizer, list(rows), 100_000, append_eos=True).rows
    return [row.ids[-1] == tokenizer.eos_token_id and len(row.ids) - 1 in row.targets for row in found]


@pytest.mark.parametrize("names", [["d.txt"], ["d.md.gz"], ["book/a.txt", "book/in/b.md"]])
def test_end_of_text_is_trained_where_a_file_ends_and_not_where_it_was_cut(names: list[str], tmp_path: Path) -> None:
    raw, tokenizer = ("One story, and it goes on for long.\n\n" * 200 + "The end.\n\n\n").encode(), byte_level(None)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    task = load_task(str(tmp_path / names[0].split("/")[0]))
    rows = task.split("all")
    wanted = [row.completion.endswith("The end.\n\n\n") for row in rows]
    assert (len(rows), wanted.count(True)) == (4 * len(names), len(names))
    assert ended(tokenizer, rows) == wanted
    (tmp_path / "bundle.jsonl").write_text("".join(example_line(row) for row in rows))
    assert ended(tokenizer, load_task(str(tmp_path / "bundle.jsonl")).split("all")) == wanted
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": row.completion}) + "\n" for row in rows))
    assert all(ended(tokenizer, load_task(str(tmp_path / "rows.jsonl")).split("all")))  # each is a text of its own


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.jsonl.gz", gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 9, mtime=0)[:40], "gz ends early"),
        ("d.jsonl.gz", b"no gzip at all", "is not a readable gzip file"),
        ("d.csv", "﻿a".encode("utf-16")[:5], "begins like UTF-16 but is not"),
        ("d.json", b'{"prompt": "a"}', "a list of objects was expected"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_task(str(tmp_path / name))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
