import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from filelock import FileLock, Timeout

from lsf.errors import RunError
from lsf.plans.plan import Plan
from lsf.runs.lock import finish, hold, is_held, release, run_lock
from lsf.runs.result import Metrics, Proof, RunResult, RunState, Sample, SearchTrial
from lsf.runs.spec import RunSpec
from lsf.runs.store import append_metrics, create_run, delete_run, list_runs, load_run, read_metrics

SPEC = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (6, 7)))
RESULT = RunResult(
    RunState.SUCCEEDED,
    before=Metrics(2.0, 7.4, 0.5, 0.25, 1.5, 40),
    after=Metrics(1.0, 2.7, 0.9, 0.75, 1.6, 40),
    trainable_params=10,
    steps=3,
    peak_memory_bytes=1000,
    step_seconds_median=0.5,
    proof=Proof(5, "ab", True, 2, 1, ("norm",), 10, 10),
    search=(SearchTrial(1e-3, 1.2, 10), SearchTrial(1e-2, None, 10)),
    samples=(Sample("a", " b", " c", " b"),),
    seed=0,
    environment={"torch": "2", "gpu": None},
    phases={"steps": 3.0, "test": 1.0},
)


def test_a_result_is_the_same_after_a_round_trip_and_has_the_contracts_names(tmp_path):
    RESULT.save(tmp_path / "result.json")
    assert RunResult.load(tmp_path / "result.json") == RESULT
    plain = json.loads((tmp_path / "result.json").read_text())
    assert plain["metrics"]["after"]["exact_match"] == 0.75
    assert plain["measured"] == {
        "trainable_params": 10,
        "flops_ratio": None,
        "memory_bytes": 1000,
        "step_seconds": 0.5,
        "phases": {"steps": 3.0, "test": 1.0},
    }
    assert plain["search"][1]["validation_loss"] is None
    assert {"state", "reason", "predicted", "proof", "seed", "environment", "tokens", "seconds"} <= set(plain)


def test_a_run_is_queued_then_running_then_what_its_result_says(tmp_path):
    folder = create_run(tmp_path, SPEC)
    hold(folder)
    assert load_run(folder).state is RunState.QUEUED
    append_metrics(folder, {"step": 0})
    assert load_run(folder).state is RunState.RUNNING
    finish(folder, RESULT)
    run: Any = load_run(folder)
    assert (run.state, run.result, run.spec, run.problem) == (RunState.SUCCEEDED, RESULT, SPEC, None)
    assert not is_held(folder)


def test_names_can_be_read_and_never_clash(tmp_path):
    folders = {create_run(tmp_path, SPEC).name for _ in range(50)}
    assert len(folders) == 50
    assert all("facts-blocks-6-7" in name for name in folders)


def test_a_run_nobody_holds_and_without_a_result_is_interrupted(tmp_path):
    folder = create_run(tmp_path, SPEC)
    assert load_run(folder).state is RunState.INTERRUPTED
    hold(folder)
    assert load_run(folder).state is RunState.QUEUED
    release(folder)
    assert load_run(folder).state is RunState.INTERRUPTED


def test_another_holder_is_seen_and_refused(tmp_path):
    folder = create_run(tmp_path, SPEC)
    with FileLock(folder / "lock", thread_local=False):  # as another process would: its own descriptor
        assert is_held(folder)
        assert load_run(folder).state is RunState.QUEUED
        with pytest.raises(RunError, match="held by another process"):
            hold(folder)
    hold(folder)
    release(folder)


@contextmanager
def without_writing(lock: Path) -> Iterator[None]:
    """Be somebody who may read a lock and not write it: for root that is another user."""
    lock.chmod(0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_run_that_another_user_holds_is_not_told_as_dead_and_one_that_ended_not_as_held():
    with TemporaryDirectory() as runs:
        Path(runs).chmod(0o755)
        folder = create_run(Path(runs), SPEC)
        append_metrics(folder, {"step": 0})
        held = FileLock(folder / "lock", thread_local=False)
        with held, without_writing(folder / "lock"):
            with pytest.raises(PermissionError):
                (folder / "lock").open("r+b")
            assert is_held(folder)
            assert load_run(folder).state is RunState.RUNNING
            with pytest.raises(RunError, match="still queued or running"):
                delete_run(folder)
        with without_writing(folder / "lock"):
            assert not is_held(folder)
            assert load_run(folder).state is RunState.INTERRUPTED
        assert not is_held(folder / "nowhere") and not is_held(folder / "spec.json")


def test_a_run_is_held_while_it_is_deleted_so_that_nobody_resumes_it_meanwhile(tmp_path, monkeypatch):
    folder, remove = create_run(tmp_path, SPEC), shutil.rmtree

    def rmtree(place):
        with pytest.raises(Timeout), FileLock(folder / "lock", thread_local=False, timeout=0):
            pass
        remove(place)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    delete_run(folder)
    assert not folder.exists() and not is_held(folder)


def test_what_ends_a_held_run_is_written_down(tmp_path):
    folder = create_run(tmp_path, SPEC)
    with pytest.raises(RunError), run_lock(folder) as builder:
        builder.add(steps=4, before=RESULT.before)
        raise RunError("The loss was lost.")
    run: Any = load_run(folder)
    assert (run.state, run.problem) == (RunState.FAILED, "The loss was lost.")
    assert (run.result.steps, run.result.before) == (4, RESULT.before)
    assert not is_held(folder)


def test_a_torn_last_line_and_a_broken_one_are_left_out(tmp_path):
    folder = create_run(tmp_path, SPEC)
    assert read_metrics(folder) == []
    append_metrics(folder, {"step": 1, "loss": float("nan")})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo\x00\n[3]\n{"step": 4}\n{"step": 5, "loss"')
    assert read_metrics(folder) == [{"step": 1, "loss": None}, {"step": 4}]


def test_a_reader_never_sees_half_a_line_while_another_writes(tmp_path):
    folder = create_run(tmp_path, SPEC)
    writer = threading.Thread(
        target=lambda: [append_metrics(folder, {"step": n, "pad": "x" * 200}) for n in range(400)]
    )
    writer.start()
    while writer.is_alive():
        rows = read_metrics(folder)
        assert [row["step"] for row in rows] == list(range(len(rows)))
    writer.join()
    assert len(read_metrics(folder)) == 400


@pytest.mark.parametrize("broken", ["spec.json", "result.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', "\x00\xff"])
def test_a_broken_folder_is_listed_with_its_problem_and_hides_no_other(tmp_path, broken, text):
    whole, folder = create_run(tmp_path, SPEC), create_run(tmp_path, SPEC)
    finish(whole, RESULT)
    if broken == "result.json":
        finish(folder, RESULT)
    (folder / broken).write_text(text, encoding="latin-1")
    (tmp_path / "no run").mkdir()
    (tmp_path / "a file").write_text("x")
    listed: dict[str, Any] = {run.id: run for run in list_runs(tmp_path)}
    assert set(listed) == {whole.name, folder.name}
    assert listed[whole.name].state is RunState.SUCCEEDED
    assert listed[folder.name].state is (RunState.FAILED if broken == "result.json" else RunState.INTERRUPTED)
    assert broken in listed[folder.name].problem


def test_no_runs_at_all_is_an_empty_list(tmp_path):
    assert list_runs(tmp_path / "nothing") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's /dev/full is the disk")
def test_a_full_disk_is_a_sentence(tmp_path):
    folder = create_run(tmp_path, SPEC)
    (folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"Cannot write the metrics of .*: No space left on device"):
        append_metrics(folder, {"step": 1})


def test_a_removed_folder_is_a_sentence_and_is_not_made_again(tmp_path):
    folder = create_run(tmp_path, SPEC)
    hold(folder)
    shutil.rmtree(folder)
    with pytest.raises(RunError, match="was removed while the run was going on"):
        append_metrics(folder, {"step": 1})
    with pytest.raises(RunError, match="was removed"):
        finish(folder, RESULT)
    with pytest.raises(RunError, match="There is no run folder"):
        load_run(folder)
    assert not folder.exists()


def test_only_a_run_that_nobody_holds_is_deleted(tmp_path):
    folder = create_run(tmp_path, SPEC)
    hold(folder)
    with pytest.raises(RunError, match="still queued or running; stop it first"):
        delete_run(folder)
    release(folder)
    delete_run(folder)
    assert not folder.exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match="is not a run folder"):
        delete_run(tmp_path / "mine")
    with pytest.raises(RunError, match="There is no run folder"):
        delete_run(folder)
