"""What is written where: nothing that is read or written beside it is lost, and what cannot be is told first."""

import json
import logging
from pathlib import Path

import pytest

import lsf
from lsf.cli.main import main
from lsf.plans.plan import Plan

ROWS = [{"prompt": f"The capital of {n} is", "completion": f" {n % 3}"} for n in range(20)]
ANALYZE = ["analyze", "--model", "bundled", "--limit", "4", "--criteria", "deviation"]
BEACONS = ["beacons", "--model", "bundled", "--count", "2", "--out", "."]
DIMENSION = ["dimension", "--model", "bundled", "--steps", "1", "--seeds", "1"]
LONG = "a" * 300


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSF_RUNS", str(tmp_path / "runs"))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], asked: list[str]) -> str:
    """Return the one sentence of a command that is refused as bad input."""
    assert main(asked) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("asked", "data"),
    [
        ([*ANALYZE, "--json", "./data.json"], "data.json"),
        ([*ANALYZE, "--json", "a.json", "--html", "link.json"], "data.json"),
        ([*DIMENSION, "--json", "data.json"], "data.json"),
        (BEACONS, "filter.jsonl"),
    ],
)
def test_a_command_does_not_overwrite_the_data_it_reads(
    place: Path, capsys: pytest.CaptureFixture[str], asked: list[str], data: str
) -> None:
    text = json.dumps(ROWS)
    if data.endswith("jsonl"):
        text = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (place / data).write_text(text)
    (place / "link.json").symlink_to(place / data)
    assert "would overwrite what is read" in refused(capsys, [*asked, "--data", data])
    assert (place / data).read_text() == text


def test_an_export_does_not_overwrite_its_plan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Plan("bundled", 8, (6, 7)).save(place / "plan.json")
    told = refused(capsys, ["export", "--plan", "plan.json", "--to", "peft", "--out", "plan.json"])
    assert "would overwrite what is read" in told
    assert Plan.load(place / "plan.json").blocks == (6, 7)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--json", "a.json", "--html", "./a.json"], "Two files would be written to a.json"),
        (["--json", "-"], "Cannot write to - here; name a file"),
        (["--json", f"{LONG}.json"], "File name too long"),
        (["--json", f"{LONG}/a.json"], "File name too long"),
        (["--json", "a.json", "--criteria", ""], "--criteria names none; accepted are all, or some of: deviation,"),
        (["--json", "a.json", "--criteria", ","], "--criteria names none"),
        (["--json", "a.json", "--data", ""], "No data is named"),
    ],
)
def test_what_cannot_be_written_or_scored_is_refused_in_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], asked: list[str], words: str
) -> None:
    assert words in refused(capsys, [*ANALYZE, "--data", "lesson:facts", *asked])
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "asked",
    [
        "tune --model bundled --data lesson:facts --blocks 7 --steps 1 --runs file",
        "tune --model bundled --data lesson:facts --blocks 7 --steps 1 --runs file/runs",
        "demo pretrain --out file",
        "demo pretrain --out new --checkpoints file/kept",
        f"demo pretrain --out {LONG}",
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(
    place: Path, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    (place / "file").write_text("kept")
    told = refused(capsys, asked.split())
    assert "file is a file" in told or "File name too long" in told
    assert [one.name for one in place.iterdir()] == ["file"]


def test_a_model_without_a_name_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No model is named; bundled," in refused(capsys, ["data", "lesson:facts", "--model", " "])


def test_a_run_that_is_named_twice_is_compared_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "tune --model bundled --data lesson:facts --blocks 7 --steps 1 --eval-limit 2".split()
    assert main(asked) == 0
    (run,) = (place / "runs").iterdir()
    capsys.readouterr()
    assert main(["compare", str(run), f"runs/{run.name}/", "runs", "--format", "json"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)["rows"]] == [run.name]
    assert len(lsf.compare(run, run, "runs").rows) == 1


def test_libraries_do_not_warn_of_what_no_command_needs(place: Path) -> None:
    """Bitsandbytes tells on some processors that a package for 4-bit products is missing, whatever is tuned."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.NOTSET)
    assert main(["export", "--plan", "none.json", "--to", "peft"]) == 2
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
