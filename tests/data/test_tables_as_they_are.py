"""Tables as other tools write them: one table gives one text whatever it lies in; a row is trained only when whole."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow
import pyarrow.ipc
import pytest

from lsf.data.reading import read_data
from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.errors import DataError

TEMPLATES = "{text} ({note}) {n} {share} {sure}:", " {label}"
ROWS = [
    {
        "text": f'a "{n}"',
        "note": None if n == 1 else f"n\t{n}",
        "n": None if n == 2 else n,
        "share": n / 4,
        "sure": n > 2,
    }
    for n in range(6)
]
ROWS = [{**row, "label": 10**17 + place} for place, row in enumerate(ROWS)]  # more digits than a float has
FRAME = pd.DataFrame(ROWS).astype({"n": "Int64"})


def texts(task: Task) -> list[tuple[str, str]]:
    return [(row.prompt, row.completion) for row in task.rows]


def saved(ending: str, folder: Path) -> str:
    """Write the table as a file of a kind; return its path."""
    path = folder / f"d.{ending}"
    if ending == "parquet":
        FRAME.to_parquet(path)
    elif ending == "arrow.parquet":  # without what pandas notes of its own types
        datasets.Dataset.from_list(ROWS).to_parquet(str(path))
    elif ending == "index.parquet":
        FRAME.set_index(pd.Index(range(6, 12))).to_parquet(path)
    elif ending == "feather":
        FRAME.to_feather(path)
    elif ending == "arrow":  # a stream, in batches
        table = datasets.Dataset.from_list(ROWS).data.table
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=4)
    elif ending in ("csv", "tsv"):
        FRAME.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    elif ending == "index.csv":
        FRAME.to_csv(path)
    elif ending == "lines.json":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif ending == "list.jsonl":
        path.write_text(json.dumps(ROWS, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) if ending == "jsonl" else json.dumps(ROWS))
    return str(path)


FILES = [
    "csv",
    "index.csv",
    "tsv",
    "json",
    "lines.json",
    "jsonl",
    "list.jsonl",
    "parquet",
    "index.parquet",
    "arrow.parquet",
    "feather",
    "arrow",
]
IN_MEMORY: dict[str, Callable[[], Any]] = {
    "frame": lambda: FRAME,
    "dicts": lambda: ROWS,
    "dicts with NaN": lambda: [{name: float("nan") if v is None else v for name, v in row.items()} for row in ROWS],
    "data set": lambda: datasets.Dataset.from_list(ROWS),
}
WANTED = [
    ('a "0" (n\t0) 0 0.0 False:', f" {10**17}"),
    ('a "1" () 1 0.25 False:', f" {10**17 + 1}"),
    ('a "2" (n\t2)  0.5 False:', f" {10**17 + 2}"),
    ('a "3" (n\t3) 3 0.75 True:', f" {10**17 + 3}"),
    ('a "4" (n\t4) 4 1.0 True:', f" {10**17 + 4}"),
    ('a "5" (n\t5) 5 1.25 True:', f" {10**17 + 5}"),
]


@pytest.mark.parametrize("ending", FILES)
def test_one_table_gives_one_text_from_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    assert texts(load_task(saved(ending, tmp_path), *TEMPLATES)) == WANTED


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_one_table_gives_one_text_from_memory(kind: str) -> None:
    assert texts(read_data(IN_MEMORY[kind](), *TEMPLATES)) == WANTED


def test_values_of_parquet_are_written_as_they_are(tmp_path: Path) -> None:
    rows = [
        {"q": "a", "a": Decimal("1.50"), "k": 1},
        {"q": "b", "a": None, "k": 2},
        {"q": "c", "a": Decimal("2"), "k": 3},
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "d.parquet")
    found = load_task(str(tmp_path / "d.parquet"), "{q} {a}", " {k}")
    assert [row.prompt for row in found.rows] == ["a 1.50", "b ", "c 2.00"]


LABELS = [{"text": f"question {n}", "label": "yes"} for n in range(6)]


@pytest.mark.parametrize("missing", ["", "  "])
@pytest.mark.parametrize("template", [" The answer is {label}.", " {label}", "{label}", " {label} ({text})"])
def test_a_completion_without_its_label_is_named_and_never_trained(
    missing: object, template: str, tmp_path: Path
) -> None:
    rows = [*LABELS[:2], {"text": "question 2", "label": missing}, *LABELS[3:]]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for read in (
        lambda: load_task(str(tmp_path / "d.jsonl"), "{text}", template),
        lambda: read_data(rows, "{text}", template),
    ):
        task = read()
        assert "left out, since the completion is empty" in task.seen.notes[0]
        assert [example.row for example in task.rows] == [1, 2, *range(4, len(rows) + 1)]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_completion_whose_label_is_null_is_refused(missing: object, tmp_path: Path) -> None:
    rows = [*LABELS[:2], {"text": "question 2", "label": missing}, *LABELS[3:]]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"d\.jsonl, line 3: the completion needs 'label', which is null"):
        load_task(str(tmp_path / "d.jsonl"), "{text}", " The answer is {label}.")


def test_a_prompt_may_lack_an_optional_column_and_not_all_of_them(tmp_path: Path) -> None:
    rows = [
        {"ask": "sum", "input": "", "a": "3"},
        {"ask": "add", "input": None, "a": "4"},
        {"ask": "go", "input": "x", "a": "5"},
    ]
    found = read_data(rows, "{ask}\n{input}\nAnswer:", " {a}")
    assert [row.prompt for row in found.rows] == ["sum\n\nAnswer:", "add\n\nAnswer:", "go\nx\nAnswer:"]
    rows[1]["ask"] = ""
    rows[1]["input"] = ""
    left = read_data(rows, "{ask}\n{input}\nAnswer:", " {a}").seen.notes[0]
    assert left == "1 row: left out, since the prompt is empty where its template names 'ask' (row 2)."


def test_json_lines_under_the_name_json_are_read_and_their_faults_named_by_line(tmp_path: Path) -> None:
    (path := tmp_path / "d.json").write_text('{"prompt": "a", "completion": " b"}\n\n' * 3)
    task = load_task(str(path))
    assert ([row.row for row in task.rows], len(task.rows)) == ([1, 3, 5], 3)
    assert any("JSON Lines" in note for note in task.seen.notes)
    path.write_text('{"prompt": "a", "completion": " b"}\n{"prompt": "a", \n')
    with pytest.raises(DataError, match=r"d\.json, line 2 is not valid JSON"):
        load_task(str(path))


def test_a_nameless_column_is_left_out_and_one_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    for last in ("", " "):
        path.write_text(f",prompt,completion,{last}\n0,a, b,x\n1,c, d,y\n2,e, f,z\n")
        task = load_task(str(path))
        assert texts(task) == [("a", " b"), ("c", " d"), ("e", " f")]
        assert not any("not used" in note for note in task.seen.notes)
    path.write_text(",prompt,prompt\n0,a,b\n")
    with pytest.raises(DataError, match="repeated or unnamed columns in its first line"):
        load_task(str(path))
    path.write_text(",\n0,a\n")
    with pytest.raises(DataError, match="repeated or unnamed columns"):
        load_task(str(path))


def test_a_quotation_mark_is_text_in_tsv_unless_the_file_is_one_of_quoted_cells(tmp_path: Path) -> None:
    (path := tmp_path / "d.tsv").write_text('prompt\tcompletion\n"Begun but\tpos\nA pipe of 6"\tneg\n"x"\ty\nz\tw\n')
    assert texts(load_task(str(path))) == [('"Begun but', "pos"), ('A pipe of 6"', "neg"), ('"x"', "y"), ("z", "w")]
    path.write_text('prompt\tcompletion\n"a ""b"""\tpos\n"c\nd"\t"neg\te"\nz\tw\n')
    assert texts(load_task(str(path))) == [('a "b"', "pos"), ("c\nd", "neg\te"), ("z", "w")]
    path.write_bytes(b'prompt\tcompletion\r\n"a ""b"""\tpos\r\nc\t neg\r\nz\tw\r\n')
    assert texts(load_task(str(path))) == [('a "b"', "pos"), ("c", " neg"), ("z", "w")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('a,b\n"c,d\ne,f\ng,h\n', "line 3: a cell begins with a quotation mark that is never closed"),
        ('"a\nb",c\nd,"e\nf\n', "line 4: a cell begins with a quotation mark that is never closed"),
        (
            'a,b\n"c" d,e\n',
            "line 3: text follows a closing quotation mark; double those that are part of a quoted cell",
        ),
    ],
)
def test_a_quotation_that_is_not_closed_is_named_where_it_begins(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,completion\n" + content)
    with pytest.raises(DataError, match=sentence):
        load_task(str(tmp_path / "d.csv"))


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_line_ends_inside_of_cells_are_line_ends_whatever_the_file_has(ending: str, tmp_path: Path) -> None:
    sep = "," if ending == "csv" else "\t"
    rows = ["prompt" + sep + "completion", f'"one\r\ntwo{sep}"{sep}"a\r\n\r\nb"', f"three{sep}c", f"{sep}d"]
    (tmp_path / f"d.{ending}").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode() + b"\r\n")
    task = load_task(str(tmp_path / f"d.{ending}"))
    assert texts(task) == [(f"one\ntwo{sep}", "a\n\nb"), ("three", "c")]
    assert "(line 7)" in task.seen.notes[0]
