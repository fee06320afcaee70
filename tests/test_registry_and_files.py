"""The small foundations: registries, errors, files, options."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lsf.cli.main import main
from lsf.errors import BadInputError, LsfError, UnknownNameError
from lsf.files import made_once, read_json, typed_path, write_json, write_records
from lsf.registry import Registry

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Thing:
    name: str


def test_a_registry_keeps_order_refuses_doubles_and_answers_unknown_names() -> None:
    things = Registry("thing", [Thing("b"), Thing("a")])
    assert list(things) == ["b", "a"]
    assert things["a"] == Thing("a")
    assert "c" not in things
    with pytest.raises(UnknownNameError) as caught:
        things["c"]
    assert str(caught.value) == "Unknown thing 'c'; known are: b, a."
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, LsfError)
    with pytest.raises(ValueError, match="two entries"):
        Registry("thing", [Thing("a"), Thing("a")])


def test_unknown_numbers_are_null_and_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": float("nan"), "b": [float("inf"), 0.0, None]})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 0.0, None]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text())["b"] == [None, 0.0, None]
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(BadInputError, match="Cannot write"):
        write_json(tmp_path / "no" / "x.json", 1)


MAKER = """
import pathlib, sys, time
from lsf.files import made_once
def make(out):
    out.mkdir()
    (out / "half").write_text("")
    time.sleep(0.5)
    (out / "whole").write_text("")
    print("made")
print(sorted(file.name for file in made_once(pathlib.Path(sys.argv[1]), make).iterdir()))
"""


def test_a_folder_is_made_once_by_two_processes_at_a_time_and_never_seen_half_made(tmp_path: Path) -> None:
    asked = [sys.executable, "-c", MAKER, str(tmp_path / "cache" / "folder")]
    both = [subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate()[0] for process in both)
    assert said.count("made\n") == 1
    assert said.count("['half', 'whole']") == 2


def test_a_folder_whose_making_fails_is_not_there_and_can_be_made_again(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        out.mkdir()
        raise BadInputError("No.")

    with pytest.raises(BadInputError, match="No"):
        made_once(tmp_path / "folder", fail)
    assert not [one for one in tmp_path.iterdir() if one.suffix != ".lock"]
    assert made_once(tmp_path / "folder", Path.mkdir).is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="Cannot write"):
        made_once(tmp_path / "file" / "folder", Path.mkdir)


def test_reading_says_what_was_expected_and_where(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1,\n}')
    with pytest.raises(BadInputError, match="is not a plan: line 2"):
        read_json(tmp_path / "x.json", "a plan")
    with pytest.raises(BadInputError, match="There is no file"):
        read_json(tmp_path / "y.json", "a plan")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "arguments are required: COMMAND"),
        (["nope"], "invalid choice: 'nope'"),
        (["analyze", "--model", "bundled"], "required: --data, --json"),
        (["analyze", "--model", "bundled", "--data", "lesson:facts", "--json", "no/such/a.json"], "there is no folder"),
        (["analyze", "--model", "bundled", "--data", "lesson:nope", "--json", "a.json"], "Unknown lesson 'nope'"),
        (["analyze", "--model", "bundled", "--data", "x.csv", "--json", "a.json"], "x.csv does not exist"),
        (["analyze", "--model", "./no", "--data", "lesson:facts", "--json", "a.json"], "./no does not exist"),
        (
            ["analyze", "--model", "bundled", "--data", "lesson:facts", "--json", "a.json", "--limit", "0"],
            "limit is 0; it must lie between 1 and",
        ),
        (
            ["analyze", "--model", "bundled", "--data", "lesson:facts", "--json", "a.json", "--limit", "many"],
            "Argument --limit: 'many' is not a whole number",
        ),
        (
            ["analyze", "--model", "bundled", "--data", "lesson:facts", "--json", "a.json", "--criteria", "x"],
            "Unknown criterion 'x'; known are: deviation,",
        ),
        (["plan", "--analysis", "no.json", "--criterion", "last", "--blocks", "1", "--json", "p.json"], "no.json"),
        (["runs", "list", "--runs", "no"], "There is no folder no"),
        (["runs", "show", "no"], "There is no run folder no"),
        (["runs", "show", "."], ". is not a run folder: it has no spec.json"),
        (["compare", "no"], "There is no run folder no"),
        (["tune", "--resume", "no"], "There is no run folder no"),
        (["tune", "--resume", "no", "--dtype", "bfloat16"], "--resume already sets everything; leave out --dtype"),
        (["tune", "--spec", "no", "--modules", "head"], "--spec already sets everything; leave out --modules"),
        (["merge", "--run", "no", "--out", "m"], "There is no run folder no"),
        (
            ["plan", "--analysis", "a.json", "--criterion", "last", "--blocks", "1", "--json", "./a.json"],
            "would overwrite",
        ),
        (
            [*"plan --analysis a.json --criterion last --policy knapsack --memory nan --json p.json".split()],
            "--memory is nan; a number above 0 was expected",
        ),
        (
            [*"beacons --model bundled --data lesson:facts --count 5 --tau nan --out o".split()],
            "tau is nan; it must lie between 0.001 and 1000",
        ),
        (
            [*f"demo pretrain --out o --seed {2**70}".split()],
            f"seed is {2**70}; it must lie between 0 and 2147483647",
        ),
        (["demo", "pretrain", "--out", "o", "--seed", "-1"], "seed is -1; it must lie between 0 and 2147483647"),
        (
            [*"tune --model bundled --data lesson:facts --blocks 7 --device map --runs r".split()],
            "--device map spreads a model to analyse it",
        ),
        (
            [*"tune --model bundled --data lesson:facts --blocks 0-99999999999 --runs r".split()],
            "Block 99999999999 does not exist",
        ),
        ([*"dimension --model bundled --data lesson:facts --blocks".split(), "", "--json", "d.json"], "as blocks"),
        (
            ["tune", "--model", "bundled", "--data", "lesson:facts", "--runs", "r"],
            "--plan --blocks --all --spec --resume is required",
        ),
        (
            ["tune", "--model", "bundled", "--data", "lesson:facts", "--runs", "r", "--blocks", "9"],
            "Block 9 does not exist; the model has blocks 0 to 7",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lsf:")]
    assert len(said) == 1
    assert sentence in said[0]
    assert not list(tmp_path.iterdir())


def test_records_are_written_one_a_line_and_read_as_they_were(tmp_path: Path) -> None:
    value = {
        "schema_version": 1,
        "studies": [{"d": 30, "loss": None}, {"d": 100, "loss": [0.5]}],
        "rates": {"a": 1e-5, "b": [2]},
    }
    write_records(tmp_path / "r.json", {**value, "studies": [{"d": 30, "loss": float("nan")}, value["studies"][1]]})
    assert read_json(tmp_path / "r.json", "records") == value
    lines = (tmp_path / "r.json").read_text().splitlines()
    assert lines[1:3] == ['{"d":30,"loss":null},', '{"d":100,"loss":[0.5]}']


@pytest.mark.parametrize(
    "path",
    [
        "benchmarks/dimension_cells.json",
        "lsf/dimension/dimension.json",
        "lsf/evidence/measured.json",
        "lsf/evidence/real.json",
    ],
)
def test_data_files_hold_one_record_a_line(path: str, tmp_path: Path) -> None:
    write_records(tmp_path / "again.json", read_json(ROOT / path, "records"))
    assert (tmp_path / "again.json").read_bytes() == (ROOT / path).read_bytes()


def test_a_typed_path_that_nothing_can_be_called_is_refused_in_a_sentence() -> None:
    assert typed_path("a file of [mine].csv") == Path("a file of [mine].csv")
    for text, why in (("a\0b", "it holds a NUL character"), ("a" * 5000, "File name too long")):
        with pytest.raises(BadInputError, match=f"is not a path that can be read: {why}."):
            typed_path(text)
