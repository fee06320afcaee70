"""Sources that are large: read in a stream, rows kept on disk, the same examples as in memory; a cap that is told."""

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from lsf.cli.main import main
from lsf.cli.terminal import TerminalReporter
from lsf.data import containers, report, rows, tables
from lsf.data.contents import DataOptions
from lsf.data.encode import encode
from lsf.data.report import SplitReader, count_tokens, shared_prompts
from lsf.data.rows import RowCollector, RowsOnDisk, joined, selected
from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.errors import DataError
from lsf.progress import Silent
from tests.data.test_files_of_people import FILES, read
from tests.tiny import tiny_tokenizer

ROWS = [{"prompt": f"the café {n % 150}", "completion": f' says "{n}"\nand 日本'} for n in range(200)]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")


def packed(path: Path) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))


def turns(row: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]


def parts(path: Path) -> None:
    path.mkdir()
    for part in range(4):
        pd.DataFrame(ROWS[part::4]).to_parquet(path / f"train-0000{part}-of-00004.parquet")


def book(path: Path) -> None:
    path.mkdir()
    for part in range(40):
        (path / f"{part:02}.md").write_text(f"The café of day {part}.\n" * 5, encoding="utf-8")


WINDOWS = [{"prompt": f"the café {n % 150}", "completion": f" says “{n}”\nfor 5 €"} for n in range(200)]
WRITERS: dict[str, Callable[[Path], Any]] = {
    "d.jsonl": jsonl,
    "d.json": jsonl,
    "d.jsonl.gz": packed,
    "d.csv": lambda path: pd.DataFrame(ROWS).to_csv(path, index=False),
    "semicolons.csv": lambda path: pd.DataFrame(ROWS).to_csv(path, index=False, sep=";"),
    "windows.csv": lambda path: pd.DataFrame(WINDOWS).to_csv(path, index=False, encoding="cp1252"),
    "sheet.csv": lambda path: path.write_text("sep=|\n" + pd.DataFrame(ROWS).to_csv(index=False, sep="|")),
    "chats.jsonl": lambda path: path.write_text("".join(json.dumps(turns(row)) + "\n" for row in ROWS)),
    "good.jsonl": lambda path: path.write_text("".join(json.dumps({**row, "label": 1}) + "\n" for row in ROWS)),
    "parts": lambda path: parts(path),
    "book": lambda path: book(path),
    "d.tsv": lambda path: pd.DataFrame(ROWS).to_csv(path, index=False, sep="\t"),
    "d.parquet": lambda path: pd.DataFrame(ROWS).to_parquet(path),
    "saved": lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(path),
    "d.txt": lambda path: path.write_text("\n\n".join(f"{row['prompt']} " * 90 for row in ROWS), encoding="utf-8"),
}


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything above a kilobyte counts as large, and is checked in chunks that cut through letters."""
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    for module in (rows, containers):
        monkeypatch.setattr(module, "LARGE", 1_000)
    monkeypatch.setattr(containers, "CHUNK", 7)


def everything(task: Task) -> list[Any]:
    return [task.fingerprint, task.seen, *(list(part) for part in (task.train, task.validation, task.test, task.rows))]


@pytest.mark.parametrize("name", WRITERS)
def test_a_large_source_gives_the_same_examples_from_disk(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    WRITERS[name](tmp_path / name)
    small = load_task(str(tmp_path / name))
    request.getfixturevalue("all_large")
    large = load_task(str(tmp_path / name))
    assert isinstance(small.train, tuple)
    assert isinstance(large.train, RowsOnDisk)
    assert everything(large) == everything(small)
    assert list(large.split("all")) == list(small.split("all"))
    assert shared_prompts(large) == shared_prompts(small)
    assert not list((tmp_path / "cache").iterdir())  # the file has no name: nothing is left behind


def test_files_as_people_have_them_give_the_same_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: everything(read(name, content[0], tmp_path)) for name, content in FILES.items()}
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    for module in (rows, containers):
        monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(containers, "CHUNK", 5)
    large = {name: load_task(str(tmp_path / name)) for name in FILES}
    assert {name: everything(task) for name, task in large.items()} == small
    assert sum(isinstance(task.rows, RowsOnDisk) for task in large.values()) > 40


def test_a_large_source_with_splits_of_its_own_keeps_them(tmp_path: Path, all_large: None) -> None:
    lines = [{**row, "split": "test" if n % 7 == 0 else "train"} for n, row in enumerate(ROWS)]
    pd.DataFrame(lines).to_csv(tmp_path / "d.csv", index=False)
    task = load_task(str(tmp_path / "d.csv"))
    assert [row.completion for row in task.test] == [row["completion"] for row in ROWS[::7]]
    assert len(task.train) + len(task.validation) == 171  # the rows a test split would have taken stay in training
    assert len(task.split("all")) == 200
    assert "test rows have a prompt that training has too" in shared_prompts(task)[0]


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xe9", "byte 0xe9 in line 101"),
        (b"\xc3", "byte 0xc3 in line 101"),  # the text ends inside a letter
    ],
)
def test_bytes_that_are_not_utf_8_are_named_by_their_line(raw: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"prompt,completion\n" + "café,b\n".encode() * 99 + b"c,d" + raw)
    task = load_task(str(tmp_path / "d.csv"))
    assert words in task.seen.notes[0]
    assert task.rows[-1].completion == "d" + raw.decode("latin-1")


def test_an_error_far_down_names_its_line_and_progress_is_told(tmp_path: Path, all_large: None) -> None:
    told = list[str]()

    class Listening(Silent):
        def progress(self, done: float, total: float | None, message: str = "") -> None:
            told.append(message)

    jsonl(path := tmp_path / "d.jsonl")
    load_task(str(path), report=Listening())
    assert {message.split()[0] for message in told} == {"checking", "converting"}
    with path.open("a", encoding="utf-8") as file:
        file.write('{"prompt": \n')
    with pytest.raises(DataError, match="line 201 is not valid JSON"):
        load_task(str(path))


def test_a_json_list_that_is_too_large_to_be_read_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tables, containers):
        monkeypatch.setattr(module, "WHOLE", 1_000)
    (tmp_path / "d.json").write_text(json.dumps(ROWS))
    with pytest.raises(DataError, match="save it as JSON Lines"):
        load_task(str(tmp_path / "d.json"))
    jsonl(tmp_path / "lines.json")
    assert len(load_task(str(tmp_path / "lines.json")).rows) == 200


def test_a_disk_without_room_is_one_sentence(tmp_path: Path, all_large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "file"))
    jsonl(tmp_path / "d.jsonl")
    with pytest.raises(DataError, match=r"kept under .*LSF_CACHE"):
        load_task(str(tmp_path / "d.jsonl"))


@pytest.mark.parametrize("name", ["d.jsonl", "saved"])
def test_a_cap_of_rows_is_drawn_at_random_and_told(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    whole, task = load_task(str(tmp_path / name)), load_task(str(tmp_path / name), options=DataOptions(max_rows=50))
    assert "Of 200 rows of" in task.seen.notes[0]
    assert "50 are read, as was asked: drawn at random" in task.seen.notes[0]
    assert "150 are left out" in task.seen.notes[0]
    assert task.seen.n_left_out == 0
    places = [row.row for row in task.rows]
    assert places == sorted(places, key=lambda place: place or 0)
    assert max(place or 0 for place in places) > 100
    assert set(task.rows) <= set(whole.rows)
    assert load_task(str(tmp_path / name), options=DataOptions(max_rows=200)).seen.notes == whole.seen.notes


def test_the_command_takes_a_cap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jsonl(tmp_path / "d.jsonl")
    assert main(["data", str(tmp_path / "d.jsonl"), "--max-rows", "60", "--show", "0"]) == 0
    assert "note: Of 200 rows of d.jsonl, 60 are read" in capsys.readouterr().out
    assert main(["data", str(tmp_path / "d.jsonl"), "--max-rows", "0"]) == 2
    assert "max_rows" in capsys.readouterr().err


def test_rows_on_disk_are_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    collector = RowCollector[int](on_disk=True)
    for number in range(1000):
        collector.add(number)
    kept = collector.rows()
    assert list(kept) == list(range(1000))
    assert (kept[-1], kept[64], list(kept[10:2:-3])) == (999, 64, [10, 7, 4])
    assert list(selected(kept, [500, 3])) == [500, 3]
    assert list(joined(kept[:3], (7, 8))) == [0, 1, 2, 7, 8]
    assert pickle.loads(pickle.dumps(kept[:3])) == (0, 1, 2)
    with pytest.raises(IndexError):
        _ = kept[1000]


def test_counting_in_parts_tells_what_encoding_all_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jsonl(tmp_path / "d.jsonl")
    tokenizer: Any = tiny_tokenizer()
    task = load_task(str(tmp_path / "d.jsonl"))
    encoded = [encode(tokenizer, part, 64, append_eos=True) for part in (task.train, task.validation, task.test)]
    whole = count_tokens([[one] for one in encoded], tokenizer, len(tokenizer))
    monkeypatch.setattr(report, "MANY", 10)
    reporter = TerminalReporter()
    reader = SplitReader(tokenizer, task, 64, 5, reporter)
    assert count_tokens(reader.splits(), tokenizer, len(tokenizer)) == whole
    assert reader.shown == list(encoded[0].rows[:5])
    assert whole.n_rows == 200
    assert "counting tokens (200 of 200)" in capsys.readouterr().err
