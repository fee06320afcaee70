"""Checkpoints on a disk that fills up: room is made once, nothing unfinished stays, and only a pause needs one."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lsf.errors import RunError
from lsf.plans.plan import Plan
from lsf.runs.checkpoints import (
    CHECKPOINTS,
    TUNED,
    CheckpointManager,
    Progress,
    checkpoint_step,
    has_unreadable,
    latest_checkpoint,
)
from lsf.runs.spec import RunSpec
from lsf.runs.store import has_begun, load_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "spec.json").touch()
    return tmp_path


def progress(step: int) -> Progress:
    return Progress(step, 10 * step, 1.0, (), {})


def write(place: Path) -> None:
    save_file({"a": np.zeros(2)}, place / TUNED)


def on_a_disk_for(run: Path, checkpoints: int) -> Callable[[Path], None]:
    """Return a `write` that fails as on a full disk while so many finished checkpoints are there."""

    def fill(place: Path) -> None:
        write(place)
        if len(list((run / CHECKPOINTS).glob("step-*"))) >= checkpoints:
            raise OSError(errno.ENOSPC, "No space left on device")

    return fill


def there(run: Path) -> list[str]:
    return sorted(path.name for path in (run / CHECKPOINTS).iterdir())


def test_on_a_full_disk_the_older_checkpoint_makes_room_and_the_newest_stays(run):
    told: list[str] = []
    manager = CheckpointManager(run, {}, warn=told.append)
    manager.keep(progress(1), write, needed=False)
    manager.keep(progress(2), write, needed=False)
    manager.keep(progress(3), on_a_disk_for(run, 2), needed=True)
    assert (there(run), told) == (["step-2", "step-3"], [])


def test_on_a_full_disk_the_checkpoint_that_can_be_read_stays_and_a_newer_torn_one_makes_room(run):
    for step in (1, 2, 3):
        CheckpointManager(run, {}).keep(progress(step), write, needed=False)
    assert there(run) == ["step-2", "step-3"]
    torn = run / CHECKPOINTS / "step-3" / TUNED
    torn.write_bytes(torn.read_bytes()[:10])
    assert checkpoint_step(run) == 2
    manager = CheckpointManager(run, {})
    with pytest.raises(RunError, match="No space left on device"):
        manager.keep(progress(4), on_a_disk_for(run, 0), needed=True)
    assert (there(run), checkpoint_step(run), has_unreadable(run)) == (["step-2"], 2, False)


def test_a_torn_checkpoint_is_none_of_the_two_that_are_kept(run):
    manager = CheckpointManager(run, {})
    for step in (1, 9):
        manager.keep(progress(step), write, needed=False)
    (run / CHECKPOINTS / "step-9" / TUNED).write_bytes(b"")
    for step in (2, 3):
        manager.keep(progress(step), write, needed=False)
    assert (there(run), checkpoint_step(run)) == (["step-2", "step-3"], 3)


def test_a_run_of_which_no_checkpoint_can_be_read_is_not_said_to_be_resumable(run):
    CheckpointManager(run, {}).keep(progress(7), write, needed=False)
    RunSpec("m", "d", Plan("m", 4, (1,))).save(run / "spec.json")
    ended = "Its process ended before the run did; "
    assert load_run(run).problem == ended + "it can be resumed from step 7."
    (run / CHECKPOINTS / "step-7" / TUNED).write_bytes(b"")
    assert load_run(run).problem == (
        ended + "none of its checkpoints can be read, so it cannot go on; start it again from its spec.json."
    )
    assert has_begun(run)


def test_what_cannot_be_written_leaves_nothing_unfinished_and_is_an_error_only_where_it_is_needed(run):
    told: list[str] = []
    manager = CheckpointManager(run, {}, warn=told.append)
    manager.keep(progress(1), write, needed=False)
    manager.keep(progress(2), on_a_disk_for(run, 1), needed=False)
    assert there(run) == ["step-1"]
    words = f"Cannot write a checkpoint of {run.name}: No space left on device."
    assert told == [f"{words} Training went on without it."]
    with pytest.raises(RunError, match=words):
        manager.keep(progress(3), on_a_disk_for(run, 1), needed=True)
    assert there(run) == ["step-1"]
    (run / "spec.json").unlink()
    with pytest.raises(RunError, match="was removed while the run was going on"):
        manager.keep(progress(4), on_a_disk_for(run, 1), needed=False)


def test_what_a_killed_process_left_unfinished_is_removed_when_the_run_goes_on(run):
    manager = CheckpointManager(run, {})
    manager.keep(progress(1), write, needed=False)
    manager.unfinished(2).mkdir()
    CheckpointManager(run, {})
    assert there(run) == ["step-1"]
    found = latest_checkpoint(run)
    assert found is not None and found.progress.step == 1


def test_a_long_run_that_is_logged_now_and_then_has_a_checkpoint_for_every_so_many_steps(run):
    manager = CheckpointManager(run, {}, every_steps=5, every_seconds=1e9)
    assert [step for step in range(4, 29, 4) if manager.is_due(step)] == [8, 12, 16, 20, 28]
    manager.keep(progress(20), write, needed=False)
    resumed = CheckpointManager(run, {}, every_steps=5, every_seconds=1e9)
    assert [step for step in range(21, 31) if resumed.is_due(step)] == [25, 30]
