"""Ctrl-C in `analyze` and `edit`: what was measured is kept and told, a second one ends at once."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lsf.cli.main import main
from lsf.cli.terminal import TerminalReporter
from lsf.criteria.result import Analysis
from lsf.lens.kernels import KERNELS
from lsf.lens.speed import FORWARD

ANALYZE = "analyze --model bundled --data lesson:facts --split train --limit 64 --batch-size 8 --json an.json".split()
EDIT = "edit --width 4 --stride 4 --steps 2".split()
Press = Callable[[str, str, int], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a library may have put its own
    yield tmp_path
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch) -> Press:
    """Have Ctrl-C pressed some times, once, when a reporter is told something that begins in a certain way."""

    def install(method: str, word: str, times: int) -> None:
        told, pressed = getattr(TerminalReporter, method), list[int]()

        def tell(self: TerminalReporter, *given: Any) -> None:
            told(self, *given)
            if str(given[-1]).startswith(word) and not pressed:
                pressed.append(times)
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(TerminalReporter, method, tell)

    return install


def test_an_analysis_that_is_stopped_late_keeps_all_it_measured(
    place: Path, press: Press, capsys: pytest.CaptureFixture[str]
) -> None:
    press("phase", KERNELS, 1)
    asked = ["--criteria", "deviation,ablation,alignment", "--html", "an.html", "--notebook", "an.ipynb"]
    assert main([*ANALYZE, *asked]) == 1
    found, said = Analysis.load(place / "an.json"), capsys.readouterr()
    assert found.criteria == ("deviation", "ablation")
    assert all(block.scores["alignment"] is None for block in found.blocks)
    assert found.data.n_examples == found.data.n_taken == 64
    assert (place / "an.html").exists() and (place / "an.ipynb").exists()
    assert said.err.splitlines()[-1] == "lsf: Stopped; an.json holds what was measured so far."
    assert f"64 of {found.data.n_rows} rows were read; --limit takes the first ones" in said.out
    assert next(line for line in said.out.splitlines() if line.startswith("alignment")).split()[1:] == ["-"] * 8


def test_an_analysis_that_is_stopped_while_it_reads_tells_of_the_rows_it_read(
    place: Path, press: Press, capsys: pytest.CaptureFixture[str]
) -> None:
    press("progress", FORWARD, 1)
    assert main(ANALYZE) == 1
    found, said = Analysis.load(place / "an.json"), capsys.readouterr()
    assert found.data.n_examples == 8 and found.data.n_taken == 64
    assert f"\n8 of {found.data.n_rows} rows were read.\n" in said.out
    assert "Stopped; an.json holds" in said.err


def test_an_edit_that_is_stopped_keeps_the_windows_it_measured(
    place: Path, press: Press, capsys: pytest.CaptureFixture[str]
) -> None:
    press("progress", "editing blocks 4", 1)
    assert main([*EDIT, "--json", "ed.json"]) == 1
    found, said = json.loads((place / "ed.json").read_text()), capsys.readouterr()
    assert [one["blocks"] for one in found["windows"]] == [[], [0, 1, 2, 3]]
    assert found["n_windows"] == 2
    assert [line.split()[0] for line in said.out.splitlines()] == ["blocks", "base", "0-3"]
    assert said.err.splitlines()[-1] == "lsf: Stopped; ed.json holds what was measured so far."


@pytest.mark.parametrize(("asked", "word"), [(ANALYZE, FORWARD), ([*EDIT, "--json", "an.json"], "editing blocks")])
def test_a_second_ctrl_c_ends_at_once(
    place: Path, press: Press, capsys: pytest.CaptureFixture[str], asked: list[str], word: str
) -> None:
    press("progress", word, 2)
    assert main(asked) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "lsf: interrupted."
    assert not (place / "an.json").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
