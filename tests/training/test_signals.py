"""Real processes that get real signals while they train or test."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from lsf.cli.main import main
from lsf.runs.checkpoints import CHECKPOINTS
from lsf.runs.result import RunState
from lsf.runs.store import list_runs, load_run, read_metrics
from tests.children import Child

STEPS = 3


def told(child: Child, words: str) -> None:
    """Wait until a process has said some words on its standard error."""
    end = time.monotonic() + 180
    while words not in child.err:
        assert child.poll() is None, child.err
        assert time.monotonic() < end, child.err
        time.sleep(0.005)


@pytest.fixture
def tuning(tiny, tmp_path: Path) -> list[str]:
    """A run of few steps, whose test takes seconds."""
    rows = [{"prompt": "the cat is", "completion": " red .", "split": "train"}] * 8
    rows += [{"prompt": "the dog is", "completion": " two .", "split": "test"}] * 1_000
    data = tmp_path / "toy.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    asked = ["tune", "--model", str(tiny("llama")), "--data", str(data), "--blocks", "2", "--device", "cpu"]
    few = ["--steps", str(STEPS), "--batch-size", "4", "--eval-limit", "1000", "--threads", "1"]
    return [*asked, *few, "--learning-rate", "0.01", "--runs", str(tmp_path / "runs")]


def test_a_run_that_is_asked_to_end_in_its_test_keeps_its_training_and_only_the_test_is_left(tuning, tmp_path, capsys):
    child = Child("-m", "lsf", *tuning)
    told(child, "testing")
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 1
    (run,) = list_runs(tmp_path / "runs")
    reason = f"Paused in its test after {STEPS} steps; what was learned is kept."
    assert (run.state, run.problem) == (RunState.CANCELLED, reason)
    assert f"lsf: {reason}" in child.err and f"test it with: python -m lsf runs measure {run.folder}" in child.err
    assert run.result is not None and run.result.test_left and not (run.folder / CHECKPOINTS).exists()
    other = Path(shutil.copytree(run.folder, tmp_path / "other"))
    logged, weights = read_metrics(run.folder), (run.folder / "weights" / "tuned.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["runs", "measure", str(other)]) == 0
    assert main(["tune", "--resume", str(run.folder)]) == 0
    assert capsys.readouterr().out.count(f"succeeded after {STEPS} steps") == 2
    measured, resumed = load_run(other).result, load_run(run.folder).result
    assert measured is not None and resumed is not None
    assert measured.after == resumed.after is not None and resumed.reason is None
    assert read_metrics(run.folder) == logged  # nothing was trained again
    assert (run.folder / "weights" / "tuned.safetensors").read_bytes() == weights
