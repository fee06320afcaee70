"""Too little memory, for real: a process under an address-space limit takes micro-batches, or ends with a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lsf.runs.result import RunState
from lsf.runs.store import list_runs

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does"),
]


def test_a_batch_that_does_not_fit_is_split_and_where_no_example_fits_the_run_fails_with_what_would_need_less(
    tiny, tmp_path
):
    script = str(Path(__file__).with_name("limited_run.py"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, script, str(tiny("llama")), str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    little, none = (list_runs(tmp_path / name)[0].result for name in ("little", "none"))
    assert little is not None, done.stderr[-2000:]
    assert little.state is RunState.SUCCEEDED
    assert little.micro_batch is not None
    assert little.micro_batch < 256
    assert none is not None
    assert done.returncode == 1
    assert "OutOfMemoryError" in done.stderr
    assert "ran out of memory" in done.stderr
    assert none.state is RunState.FAILED
    assert "a smaller batch, shorter examples or fewer blocks need less" in str(none.reason)
