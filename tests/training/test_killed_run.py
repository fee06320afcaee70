import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lsf.runs.lock import is_held
from lsf.runs.result import RunState
from lsf.runs.store import delete_run, list_runs, load_run, read_metrics

ROOT = Path(__file__).parent.parent.parent


def wait_for(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


def test_a_run_whose_process_is_killed_shows_as_interrupted_with_what_it_logged(tiny, tmp_path):
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "tests.training.killed_run", str(tiny("llama")), str(runs), "2000", "1000"]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for(lambda: list_runs(runs) and len(read_metrics(list_runs(runs)[0].folder)) > 3)
        folder = list_runs(runs)[0].folder
        assert load_run(folder).state is RunState.RUNNING
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run: Any = load_run(folder)
    assert run.state is RunState.INTERRUPTED
    assert run.result is None
    assert "Its process ended before the run did; it can be resumed from its start." in run.problem
    assert not is_held(folder)
    assert [row["step"] for row in read_metrics(folder)][:4] == [0, 1, 2, 3]
    delete_run(folder)
    assert list_runs(runs) == []
