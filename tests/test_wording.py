"""Numbers with their nouns, as people write them."""

import json
from pathlib import Path

import pytest

from lsf.app.tower import draw_tower
from lsf.cli.main import main
from lsf.data.reading import read_data
from lsf.data.report import format_lines
from lsf.plans.plan import Plan
from lsf.runs.differences import length_of
from lsf.runs.spec import RunSpec
from lsf.wording import counted, plural


def test_a_noun_is_in_the_number_of_its_count() -> None:
    assert [counted(n, "step") for n in (0, 1, 2, 1234)] == ["0 steps", "1 step", "2 steps", "1,234 steps"]
    assert (counted(1.0, "epoch"), counted(1.5, "epoch")) == ("1 epoch", "1.5 epochs")
    assert (counted(1, "more test row"), counted(3, "more test row")) == ("1 more test row", "3 more test rows")
    assert [plural(noun, 2) for noun in ("process", "analysis", "study")] == ["processes", "analyses", "studies"]


def test_one_is_not_told_as_several_in_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"The town {n} is", "completion": " red"} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    asked = "tune --model bundled --data rows.jsonl --blocks 7 --steps 1 --learning-rate 1e-3 --eval-limit 2 --runs r"
    assert main(asked.split()) == 0
    assert "succeeded after 1 step: " in capsys.readouterr().out
    analyse = "analyze --model bundled --data rows.jsonl --limit 1 --criteria deviation --json a.json"
    assert main(analyse.split()) == 0
    said = capsys.readouterr().out
    assert "9 states, 8 blocks, 1 example" in said and "1 examples" not in said


def test_one_is_not_told_as_several_in_pictures_and_reports() -> None:
    assert draw_tower(1, ()).title.startswith("1 block, none chosen")
    assert format_lines(read_data([{"prompt": "a", "completion": " b"}]))[0].startswith("1 row: ")
    spec = RunSpec("m", "d", Plan("m", 2, (1,)), epochs=1.0)
    assert length_of(spec) == "1 epoch"
