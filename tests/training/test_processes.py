"""One run in two processes of `accelerate launch`: the same numbers as in one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from lsf.cli.main import main
from lsf.runs.result import RunState
from lsf.runs.store import list_runs, load_run, read_metrics

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [f"the {s} is, {c}" for s in ("cat", "dog", "tree", "sky", "sun") for c in ("red", "blue", "one", "two")]
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    path.write_text("prompt,completion\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def alone(tiny, data, tmp_path_factory):
    """The run of one process that others must agree with."""
    runs = tmp_path_factory.mktemp("alone")
    assert main(tune_command(tiny("llama"), data, runs)[2:]) == 0
    return the_run(runs)


def finish(command, environment):
    """Run a command to its end; return what it printed."""
    whole = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def the_run(runs):
    (run,) = list_runs(runs)
    assert run.state is RunState.SUCCEEDED
    return run


def losses(run):
    return np.array([row["loss"] for row in read_metrics(run.folder)[1:]])


def told(run):
    return json.loads((run.folder / "result.json").read_text())


def tune_command(model, data, runs, *more):
    asked = ["--model", str(model), "--data", str(data), "--blocks", "2,3", "--steps", "20", "--batch-size", "4"]
    return ["-m", "lsf", "tune", *asked, "--learning-rate", "0.003", "--runs", str(runs), *more]


def launched(command, n, *how):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *(how or ("--multi_gpu",))]
    inputs = ["--num_processes", str(n), "--num_machines", "1", "--main_process_port", "0"]
    return [*launcher, *inputs, *command, *(() if "--resume" in command else ("--device", "cpu"))]


SHARDED = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")


def sharded(command):
    return launched([str(Path(__file__).with_name("sharded_launch.py")), *command[2:]], 2, *SHARDED)


def test_two_processes_give_the_numbers_of_one_at_the_same_global_batch_general_data_mixed_in(tiny, data, tmp_path):
    general = tmp_path / "general.txt"
    general.write_text("\n\n".join(f"a {one} ran under a {one} ." for one in ("moon", "mat", "tree")))
    mixed = ("--general", str(general), "--general-share", "0.3")
    assert main(tune_command(tiny("llama"), data, tmp_path / "alone", *mixed)[2:]) == 0
    (tmp_path / "tmp").mkdir()
    command = tune_command(tiny("llama"), data, tmp_path / "runs", *mixed)
    said = finish(launched(command, 2), {"LSF_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")})
    assert not list((tmp_path / "tmp").glob("lsf-process-*"))
    assert said.count("succeeded after 20 steps") == 1
    assert "general data: 24 rows trained on" in said
    alone, both = the_run(tmp_path / "alone"), the_run(tmp_path / "runs")
    assert len(losses(alone)) == len(losses(both)) == 20
    assert np.abs(losses(alone) - losses(both)).max() <= 1e-4
    found, expected = told(both), told(alone)
    assert found["metrics"]["after"]["loss"] == pytest.approx(expected["metrics"]["after"]["loss"], abs=1e-4)
    assert found["general"] == expected["general"]
    assert found["proof"]["frozen_identical"]
    assert found["cache"]["served"] == 40  # half of 80, the other half in the other process
    assert not list((tmp_path / "cache" / "prefix").glob("shared-*"))


def test_fsdp_is_refused_on_plain_cpus_and_else_gives_the_numbers_of_one_process_although_it_was_killed_and_resumed(
    tiny, data, alone, tmp_path
):
    environment = {"ACCELERATE_USE_CPU": "true", "LSF_CACHE": str(tmp_path / "cache")}
    command = tune_command(tiny("llama"), data, tmp_path / "killed", "--checkpoint-steps", "2")
    whole = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "REFUSED_FIRST": "1"} | environment
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(sharded(command), cwd=ROOT, env=whole, stderr=said)
    end = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("*/checkpoints/step-*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "no checkpoint in time"
        time.sleep(0.002)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=60)
    assert "shards models (--use_fsdp) over GPUs only" in (tmp_path / "said").read_text()
    (killed,) = list_runs(tmp_path / "killed")  # what was refused left no folder
    assert killed.state is RunState.INTERRUPTED
    finish(sharded(["-m", "lsf", "tune", "--resume", str(killed.folder)]), environment)
    parted = load_run(killed.folder)
    assert parted.result is not None
    assert parted.result.resumed_at is not None
    assert np.abs(losses(alone) - losses(parted)).max() <= 1e-4
    proof = told(parted)["proof"]
    assert proof["frozen_identical"]
    assert proof["tuned_moved"] == proof["tuned_tensors"]
    assert proof["trainable_params"] == proof["planned_params"]
    mine, theirs = (load_file(run.folder / "weights" / "tuned.safetensors") for run in (parted, alone))
    assert mine.keys() == theirs.keys()
    assert all(np.abs(mine[name] - theirs[name]).max() <= 1e-4 for name in theirs)


def test_sigterm_pauses_a_run_and_resume_goes_on_with_it(tiny, data, tmp_path, capfd):
    runs = tmp_path / "runs"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *tune_command(tiny("llama"), data, runs)]
    command[command.index("20")] = "300"
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (list_runs(runs) and len(read_metrics(list_runs(runs)[0].folder)) > 5):
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    folder = list_runs(runs)[0].folder
    assert process.returncode == 1
    assert f"Resume it with: python -m lsf tune --resume {folder}" in said
    stopped = load_run(folder)
    assert stopped.state is RunState.INTERRUPTED
    step = read_metrics(folder)[-1]["step"]
    assert f"it can be resumed from step {step}" in str(stopped.problem)
    assert main(["tune", "--resume", str(folder), "--steps", "3"]) == 2
    assert "--resume already sets everything; leave out --steps" in capfd.readouterr().err
    assert main(["tune", "--resume", str(folder)]) == 0
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 300
    result = load_run(folder).result
    assert result is not None
    assert result.resumed_at == step
