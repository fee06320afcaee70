"""What a command tells on standard error where it is no terminal: one line a phase, with the share of the whole."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lsf.cli.arguments import say_notes
from lsf.cli.main import main
from lsf.cli.terminal import TerminalReporter, listening
from lsf.progress import Phase

ROOT = Path(__file__).parents[2]


def test_a_line_tells_the_phase_the_share_of_the_whole_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    reporter.plan((Phase("reading the data", 5.0), Phase("training", 100.0), Phase("test", 100.0)))
    reporter.phase("reading the data")
    reporter.phase("training")
    reporter.progress(2, 2, "step 2 of 2")
    reporter.phase("test")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "reading the data", "training", "training: step 2 of 2", "test",
    ]  # fmt: skip
    assert re.fullmatch(r"training: step 2 of 2 \(\d+%, about .+ left\)", lines[2])  # the test is to come


def test_work_that_was_not_planned_is_counted_in_its_own_units(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    reporter.progress(0, None, "loading bundled")
    reporter.progress(3, 3, "windows")
    assert capsys.readouterr().err.splitlines() == ["loading bundled", "windows (3 of 3)"]


@pytest.mark.parametrize("terminal", [False, True])
def test_work_goes_on_where_nobody_reads_how_far_it_is(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """As behind `2>&1 | head -2`: the run failed with BrokenPipeError."""
    reading, writing = os.pipe()
    os.close(reading)
    closed = os.fdopen(writing, "w", buffering=1)
    monkeypatch.setattr(closed, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", closed)
    monkeypatch.setattr("lsf.cli.terminal.LINE_SECONDS", 0.0)
    reporter = TerminalReporter()
    reporter.plan((Phase("training", 1.0), Phase("test", 1.0)))
    for phase in ("training", "test"):
        reporter.phase(phase)
        reporter.progress(1, 2, f"{phase}: step 1 of 2")
    reporter.close()
    say_notes("one row is left out", "another one")
    assert main(["export", "--plan", "nowhere.json", "--to", "nothing"]) == 2  # what it says, nobody hears
    with suppress(BrokenPipeError):  # what it could not write
        closed.close()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal")
def test_a_lost_terminal_pauses_as_sigterm_does_but_not_behind_nohup() -> None:
    heard, before = list[str](), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with listening(lambda: heard.append("interrupt"), lambda: heard.append("terminate")):
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with listening(lambda: heard.append("interrupt"), lambda: heard.append("terminate")):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == ["terminate"]


INTERRUPTED = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what they start in the background ignore it
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "lsf.cli.data":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["lsf", "demo"]
runpy.run_module("lsf", run_name="__main__")
"""


def test_an_interrupt_while_the_command_is_still_loading_shows_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lsf: interrupted.\n")
