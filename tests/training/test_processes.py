"""One run in two processes of `accelerate launch`: the same numbers as in one."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.numpy import load_file

from lsf.cli.main import main
from lsf.runs.result import RunState
from lsf.runs.store import list_runs, load_run, read_metrics
from tests.children import ROOT, Child, finished

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


HERE = ("--num_processes", "2", "--num_machines", "1", "--main_process_port", "0")


SHARDED = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")


def sharded(command, environment):
    """The two processes of `accelerate launch --use_fsdp`, each told by their environment what the launcher tells."""
    asked, *_ = _validate_launch_command(launch_command_parser().parse_args([*SHARDED, *HERE, "script"]))
    told = prepare_multi_gpu_env(asked) | environment | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(asked.main_process_port)}
    script, device = Path(__file__).with_name("sharded_launch.py"), [] if "--resume" in command else ["--device", "cpu"]
    return [
        Child(script, *command[2:], *device, environment=told | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]


def test_two_processes_give_the_numbers_of_one_at_the_same_global_batch_general_data_mixed_in(tiny, data, tmp_path):
    general = tmp_path / "general.txt"
    general.write_text("\n\n".join(f"a {one} ran under a {one} ." for one in ("moon", "mat", "tree")))
    mixed = ("--general", str(general), "--general-share", "0.3")
    assert main(tune_command(tiny("llama"), data, tmp_path / "alone", *mixed)[2:]) == 0
    (tmp_path / "tmp").mkdir()
    command = tune_command(tiny("llama"), data, tmp_path / "runs", *mixed)
    launched = ["-m", "accelerate.commands.launch", "--multi_gpu", *HERE, *command, "--device", "cpu"]
    own = {"PYTHONPATH": str(ROOT), "LSF_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    done = finished(*launched, environment=own)
    assert done.poll() == 0, done.err[-3000:]
    assert not list((tmp_path / "tmp").glob("lsf-process-*"))
    assert done.out.count("succeeded after 20 steps") == 1
    assert "general data: 24 rows trained on" in done.out
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
    command = tune_command(tiny("llama"), data, tmp_path / "killed", "--checkpoint-steps", "4")
    both = sharded(command, environment | {"REFUSED_FIRST": "1"})
    end = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("*/checkpoints/step-*")):
        assert [one.poll() for one in both] == [None, None], both[0].err
        assert time.monotonic() < end, "no checkpoint in time"
        time.sleep(0.002)
    for one in both:
        one.send_signal(signal.SIGKILL)
    assert {one.wait() for one in both} == {-signal.SIGKILL}
    assert all("shards models (--use_fsdp) over GPUs only" in one.err for one in both)
    (killed,) = list_runs(tmp_path / "killed")  # what was refused left no folder
    assert killed.state is RunState.INTERRUPTED
    both = sharded(["-m", "lsf", "tune", "--resume", str(killed.folder)], environment)
    assert [one.wait() for one in both] == [0, 0], both[0].err
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
    command = tune_command(tiny("llama"), data, runs)
    command[command.index("20")] = "300"
    process = Child(*command)
    end = time.monotonic() + 60
    while not (list_runs(runs) and len(read_metrics(list_runs(runs)[0].folder)) > 5):
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    folder = list_runs(runs)[0].folder
    assert process.wait() == 1
    assert f"Resume it with: python -m lsf tune --resume {folder}" in process.err
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


def test_two_processes_whose_clocks_tell_them_apart_write_checkpoints_together(tiny, data, tmp_path):
    command = tune_command(tiny("llama"), data, tmp_path / "runs", "--checkpoint-seconds", "0.02", "--device", "cpu")
    command[command.index("20")] = "200"
    launched = ["-m", "accelerate.commands.launch", "--multi_gpu", *HERE, *command]
    done = Child(*launched, environment={"PYTHONPATH": str(ROOT), "LSF_CACHE": str(tmp_path / "cache")})
    try:
        assert done.wait() == 0, done.err[-3000:]
    finally:
        if done.poll() is None:  # they wait for each other: the launcher ends both
            done.send_signal(signal.SIGTERM)
    assert len(losses(the_run(tmp_path / "runs"))) == 200
