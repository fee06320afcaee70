"""Runs that end early and go on: the same next batch, the same end."""

import errno
import json
import shutil
import signal
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lsf.data.reading import read_data
from lsf.data.task import Example, Task
from lsf.errors import RunError, RunPausedError
from lsf.progress import Stop
from lsf.runs.checkpoints import CHECKPOINTS, checkpoint_step, latest_checkpoint
from lsf.runs.lock import RESULT, is_held, release
from lsf.runs.result import RunState
from lsf.runs.store import delete_run, load_run, read_metrics, reopen_run
from lsf.training import artefacts, splits, trainer
from lsf.training.caching import forget_states
from lsf.training.measuring import measure_kept
from lsf.training.run import tune
from tests.children import Child
from tests.toy import Stopper


@pytest.fixture
def long_spec(spec):
    return replace(spec, steps=20, checkpoint_steps=4, eval_every=5)


def weights_of(folder):
    return load_file(folder / "weights" / "tuned.safetensors")


def without_clock(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_end(one, other):
    assert without_clock(read_metrics(one)) == without_clock(read_metrics(other))
    mine, theirs = weights_of(one), weights_of(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("how", ["keep", "pause"])
def test_a_run_that_was_stopped_goes_on_to_the_very_end_of_an_uninterrupted_one(loaded, task, long_spec, folder, how):
    whole, broken = folder(long_spec), folder(long_spec)
    reference = tune(loaded, task, long_spec, whole)
    if how == "pause":
        with pytest.raises(RunPausedError, match="Paused after 7 of 20 steps; it can be resumed"):
            tune(loaded, task, long_spec, broken, Stopper(7, how))
        run = load_run(broken)
        assert run.state is RunState.INTERRUPTED
        assert "it can be resumed from step 7" in str(run.problem)
    else:
        assert tune(loaded, task, long_spec, broken, Stopper(7, how)).state is RunState.CANCELLED
    forget_states(loaded)  # as in a new process
    resumed = tune(loaded, task, reopen_run(broken), broken)
    assert resumed.state is RunState.SUCCEEDED
    assert resumed.resumed_at == 7
    assert (resumed.steps, resumed.tokens, resumed.after) == (reference.steps, reference.tokens, reference.after)
    assert resumed.proof == reference.proof
    assert_same_end(broken, whole)
    assert not (broken / CHECKPOINTS).exists()


def test_a_killed_run_shows_as_interrupted_with_what_it_logged_and_goes_on_to_the_same_end(
    tiny, loaded, tmp_path, folder
):
    runs = tmp_path / "runs"
    process = Child("-m", "tests.training.killed_run", tiny("llama"), runs, 40, 10, 24)
    try:
        end = time.monotonic() + 180
        while not (found := list(runs.glob("*/checkpoints/step-20"))) or len(read_metrics(found[0].parent.parent)) < 25:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end, "no checkpoint came"
            time.sleep(0.01)
        assert load_run(found[0].parent.parent).state is RunState.RUNNING
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    broken = found[0].parent.parent
    killed: Any = load_run(broken)
    step = checkpoint_step(broken)
    assert step is not None
    assert (killed.state, killed.result) == (RunState.INTERRUPTED, None)
    assert f"Its process ended before the run did; it can be resumed from step {step}." in killed.problem
    assert not is_held(broken)
    assert [row["step"] for row in read_metrics(broken)][: step + 1] == list(range(step + 1))
    early = tmp_path / "early"
    shutil.copytree(broken, early, ignore=shutil.ignore_patterns(CHECKPOINTS))
    assert "it can be resumed from its start." in str(load_run(early).problem)
    delete_run(early)
    assert not early.exists()
    spec = reopen_run(broken)
    task = Task("toy", tuple(Example(f"the {word} is", " red .") for word in ("cat", "dog", "sun")), (), ())
    resumed = tune(loaded, task, spec, broken)
    assert resumed.resumed_at == step == 20
    assert [row["step"] for row in read_metrics(broken)] == list(range(41))
    whole = folder(spec)
    tune(loaded, task, spec, whole)
    assert_same_end(broken, whole)


def test_a_checkpoint_that_cannot_be_read_leaves_the_one_before(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, broken, Stopper(10, "pause"))
    assert checkpoint_step(broken) == 10
    newest = broken / CHECKPOINTS / "step-10" / "tuned.safetensors"
    newest.write_bytes(newest.read_bytes()[:40])
    earlier = latest_checkpoint(broken)
    assert earlier is not None
    assert earlier.progress.step == checkpoint_step(broken) == 8
    assert load_run(broken).problem == "Its process ended before the run did; it can be resumed from step 8."
    assert tune(loaded, task, reopen_run(broken), broken).resumed_at == 8


def test_a_checkpoint_whose_optimizer_was_cut_off_leaves_the_one_before(loaded, task, long_spec, folder):
    place = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, place, Stopper(10, "pause"))
    newest = latest_checkpoint(place)
    assert newest is not None and newest.progress.step == 10
    state = newest.place / "optimizer.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert tune(loaded, task, reopen_run(place), place).resumed_at == 8


def test_the_seconds_of_a_resumed_run_are_those_of_everything_it_did(loaded, task, long_spec, folder):
    place = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, place, Stopper(10, "pause"))
    before = latest_checkpoint(place)
    assert before is not None and before.progress.phases["steps"] > 0
    result = tune(loaded, task, reopen_run(place), place)
    assert result.seconds is not None and result.total_seconds is not None
    assert result.seconds < result.total_seconds == pytest.approx(sum(result.phases.values()))
    assert all(result.phases[name] >= seconds for name, seconds in before.progress.phases.items())
    assert sum(result.predicted.phases.values()) > sum(before.progress.phases.values())


def test_a_searched_rate_is_not_searched_again(loaded, task, long_spec, folder):
    searching = replace(long_spec, learning_rate=None, steps=120, batch_size=8)
    broken = folder(searching)
    with pytest.raises(RunPausedError):
        tune(loaded, task, searching, broken, Stopper(5, "pause"))
    checkpoint = latest_checkpoint(broken)
    assert checkpoint is not None
    resumed = tune(loaded, task, reopen_run(broken), broken, Stopper(7, "keep"))
    assert resumed.learning_rate == checkpoint.progress.about["learning_rate"]
    assert len(resumed.search) == len(checkpoint.progress.about["search"]) >= 3
    assert resumed.searched_on == searching.plan.label
    assert resumed.search_seconds == checkpoint.progress.about["search_seconds"]
    assert (resumed.rate_from, resumed.search_share) == ("search", checkpoint.progress.about["search_share"])


def test_what_cannot_be_resumed_is_refused_with_its_reason(loaded, task, long_spec, folder, tmp_path):
    done = folder(long_spec)
    tune(loaded, task, long_spec, done)
    with pytest.raises(RunError, match="has succeeded; there is nothing to resume"):
        reopen_run(done)
    dropped = folder(long_spec)
    tune(loaded, task, long_spec, dropped, Stopper(3, "discard"))
    assert not (dropped / CHECKPOINTS).exists()
    with pytest.raises(RunError, match="was discarded; start it again from"):
        reopen_run(dropped)
    with pytest.raises(RunError, match="There is no run folder"):
        reopen_run(tmp_path / "nowhere")


def test_other_data_than_the_run_began_with_is_refused(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, broken, Stopper(5, "pause"))
    with pytest.raises(RunError, match="The data changed since the run's checkpoint"):
        tune(loaded, replace(task, train=task.train[:-1]), reopen_run(broken), broken)


def test_other_texts_of_the_same_rows_than_the_run_began_with_are_refused(loaded, task, long_spec, folder, monkeypatch):
    rows = read_data([{"prompt": row.prompt, "completion": row.completion} for row in task.train])
    broken = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, rows, long_spec, broken, Stopper(5, "pause"))
    template = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
    with monkeypatch.context() as patch, pytest.raises(RunError, match="The texts that the model's tokenizer and chat"):
        patch.setattr(loaded.tokenizer, "chat_template", template)
        tune(loaded, rows, reopen_run(broken), broken)
    assert tune(loaded, rows, reopen_run(broken), broken).resumed_at == 5


def test_the_test_of_a_stopped_run_is_not_made_on_other_texts_than_it_learned(
    loaded, task, long_spec, folder, monkeypatch
):
    rows = read_data([{"prompt": row.prompt, "completion": row.completion} for row in task.train])
    kept = folder(long_spec)
    assert tune(loaded, rows, long_spec, kept, Stopper(3, "keep")).unmeasured
    template = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
    with monkeypatch.context() as patch, pytest.raises(RunError, match="The texts that the model's tokenizer and chat"):
        patch.setattr(loaded.tokenizer, "chat_template", template)
        measure_kept(loaded, rows, kept)
    written = json.loads((kept / RESULT).read_text())
    assert written.pop("texts") is not None
    (kept / RESULT).write_text(json.dumps(written))  # as before it was kept
    assert measure_kept(loaded, rows, kept).after is not None


def test_epochs_that_were_begun_for_fewer_steps_end_after_those(loaded, task, spec, folder, monkeypatch):
    spec = replace(spec, epochs=1.0, batch_size=10, checkpoint_steps=1)
    begun, broken = 2, folder(spec)
    with monkeypatch.context() as patch, pytest.raises(RunPausedError, match=f"Paused after 1 of {begun} steps"):
        patch.setattr(splits, "_steps", lambda *_: begun)  # as versions did that rounded to the nearest
        tune(loaded, task, spec, broken, Stopper(1, "pause"))
    assert splits.encode_splits(loaded, task, spec).steps > begun
    resumed = tune(loaded, task, reopen_run(broken), broken)
    assert (resumed.steps, resumed.resumed_at) == (begun, 1)
    assert read_metrics(broken)[-1]["learning_rate"] == pytest.approx((resumed.learning_rate or 0.0) / begun)


def test_another_configuration_than_the_run_began_with_is_refused_and_an_old_checkpoint_without_one_goes_on(
    loaded, turned, task, long_spec, folder
):
    broken = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, broken, Stopper(5, "pause"))
    with pytest.raises(RunError, match="The base model's configuration changed since the run's checkpoint"):
        tune(turned, task, reopen_run(broken), broken)
    for file in broken.glob("checkpoints/*/progress.json"):
        written = json.loads(file.read_text())
        del written["about"]["config"]
        file.write_text(json.dumps(written))
    assert tune(loaded, task, reopen_run(broken), broken).resumed_at == 5


def test_a_full_disk_fails_the_run_with_its_sentence_and_keeps_its_checkpoint(loaded, task, long_spec, folder):
    full = folder(long_spec)

    class FillsUp(Stopper):
        def partial(self, value):
            if value["step"] == 9:  # from here on the metrics file takes nothing: a real ENOSPC
                shutil.copy(full / "metrics.jsonl", full / "kept.jsonl")
                (full / "metrics.jsonl").unlink()
                (full / "metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(RunError, match=r"Cannot write the metrics of .*: No space left on device"):
        tune(loaded, task, long_spec, full, FillsUp(99, "keep"))
    run = load_run(full)
    assert run.state is RunState.FAILED
    assert "No space left on device" in str(run.problem)
    (full / "metrics.jsonl").unlink()
    (full / "kept.jsonl").rename(full / "metrics.jsonl")
    resumed = tune(loaded, task, reopen_run(full), full)
    assert resumed.resumed_at == 8
    assert [row["step"] for row in read_metrics(full)] == list(range(21))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no checkpoint be written."""

    def refuse(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer, "save_file", refuse)


def test_checkpoints_that_a_full_disk_does_not_take_are_told_once_and_the_run_ends_well(
    loaded, task, long_spec, folder, full_disk
):
    place = folder(long_spec)
    result = tune(loaded, task, long_spec, place)
    assert (result.state, result.steps) == (RunState.SUCCEEDED, 20)
    said = f"Cannot write a checkpoint of {place.name}: No space left on device. Training went on without it."
    assert result.warnings == (said,)
    assert load_run(place).result == result


def test_a_pause_that_a_full_disk_does_not_take_is_an_error(loaded, task, long_spec, folder, full_disk):
    place = folder(long_spec)
    with pytest.raises(RunError, match=r"Cannot write a checkpoint of .*: No space left on device"):
        tune(loaded, task, long_spec, place, Stopper(7, "pause"))
    assert load_run(place).state is RunState.FAILED
    assert not list((place / CHECKPOINTS).glob("*"))


def test_a_run_whose_weights_the_disk_would_not_take_is_refused_before_its_first_step(
    loaded, task, long_spec, folder, monkeypatch
):
    place = folder(long_spec)
    monkeypatch.setattr(artefacts.shutil, "disk_usage", lambda _place: SimpleNamespace(free=20_000))
    with pytest.raises(RunError, match=r"weights of block 2 take 0\.0 MB and the disk of .* has 0\.0 MB free"):
        tune(loaded, task, long_spec, place)
    assert read_metrics(place) == []


def test_weights_for_which_an_older_checkpoint_makes_room_are_saved_and_else_leave_nothing_unfinished(
    loaded, task, long_spec, folder, monkeypatch
):
    save = artefacts.save_file

    def with_room_beside(place, checkpoints):
        def write(tensors, file, metadata):
            save(tensors, file, metadata=metadata)
            if len(list((place / CHECKPOINTS).glob("step-*"))) > checkpoints:
                raise OSError(errno.ENOSPC, "No space left on device")

        return write

    place, other = folder(long_spec), folder(long_spec)
    monkeypatch.setattr(artefacts, "save_file", with_room_beside(place, 1))
    assert tune(loaded, task, long_spec, place).state is RunState.SUCCEEDED
    monkeypatch.setattr(artefacts, "save_file", with_room_beside(other, 0))
    with pytest.raises(RunError, match="Cannot write the weights"):
        tune(loaded, task, long_spec, other)
    assert list((other / "weights").iterdir()) == []
    assert latest_checkpoint(other) is not None


def test_a_checkpoint_says_what_it_holds_and_holds_only_what_is_tuned(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, broken, Stopper(6, "pause"))
    place = broken / CHECKPOINTS / "step-6"
    assert {path.name for path in place.iterdir()} == {
        "tuned.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "progress.json",
    }  # fmt: skip
    assert set(load_file(place / "tuned.safetensors")) == set(loaded.layout.block_parameters(2))
    assert json.loads((place / "progress.json").read_text())["step"] == 6
    assert len(list((broken / CHECKPOINTS).glob("step-*"))) == 2


def asked(how: Stop) -> Stopper:
    """Return a reporter that asks to stop from the beginning."""
    reporter = Stopper(0, how)
    reporter.stop = how
    return reporter


def test_a_resumed_run_that_is_stopped_before_it_went_on_loses_nothing(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    kept = tune(loaded, task, long_spec, broken, Stopper(7, "keep"))
    spec = reopen_run(broken)
    assert load_run(broken).state is RunState.RUNNING
    with pytest.raises(RunPausedError, match="Stopped before it went on; it can be resumed"):
        tune(loaded, task, spec, broken, asked("keep"))
    run = load_run(broken)
    assert (run.state, run.result) == (RunState.CANCELLED, kept)
    assert checkpoint_step(broken) == 7
    assert tune(loaded, task, reopen_run(broken), broken).resumed_at == 7


def test_a_resumed_run_that_is_discarded_before_it_went_on_is_gone(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    tune(loaded, task, long_spec, broken, Stopper(7, "keep"))
    assert tune(loaded, task, reopen_run(broken), broken, asked("discard")).reason == "Stopped at its start."
    assert not (broken / CHECKPOINTS).exists()
    with pytest.raises(RunError, match="was discarded"):
        reopen_run(broken)


def test_a_run_whose_resumption_fails_keeps_what_it_had_come_to(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    kept = tune(loaded, task, long_spec, broken, Stopper(7, "keep"))
    with pytest.raises(RunError, match="The data changed"):
        tune(loaded, replace(task, train=task.train[:-1]), reopen_run(broken), broken)
    assert load_run(broken).result == kept
    assert [row["step"] for row in read_metrics(broken)] == list(range(8))


def test_a_run_that_is_being_resumed_cannot_be_taken_again(loaded, task, long_spec, folder, monkeypatch):
    broken = folder(long_spec)
    tune(loaded, task, long_spec, broken, Stopper(7, "keep"))
    seen_before = load_run(broken)
    reopen_run(broken)
    with pytest.raises(RunError, match="is still running"):
        reopen_run(broken)
    monkeypatch.setattr("lsf.runs.store.load_run", lambda _folder: seen_before)  # another tab read it a moment earlier
    with pytest.raises(RunError, match="is being resumed already"):
        reopen_run(broken)
    release(broken)


def test_metrics_go_to_tensorboard_where_they_are_asked_for(loaded, task, long_spec, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 seconds

    silent, told = folder(long_spec), folder(replace(long_spec, report_to="tensorboard"))
    tune(loaded, task, long_spec, silent)
    result = tune(loaded, task, replace(long_spec, report_to="tensorboard", learning_rate=None), told)
    (events,) = (told / "runs").rglob("events.out.tfevents.*")  # none of the search for the rate
    assert not (silent / "runs").exists()
    read = EventAccumulator(str(events))
    read.Reload()
    rows = {row["step"]: row["loss"] for row in read_metrics(told) if row["loss"] is not None}
    assert {event.step: event.value for event in read.Scalars("train/loss")} == pytest.approx(rows, rel=1e-3)
    assert result.steps == max(rows)


def test_where_no_checkpoint_can_be_read_the_run_does_not_begin_anew_without_a_word(loaded, task, long_spec, folder):
    broken = folder(long_spec)
    with pytest.raises(RunPausedError):
        tune(loaded, task, long_spec, broken, Stopper(10, "pause"))
    for tuned in broken.glob(f"{CHECKPOINTS}/*/tuned.safetensors"):
        tuned.write_bytes(tuned.read_bytes()[:40])
    with pytest.raises(RunError, match=r"No checkpoint of .* can be read, so it cannot go on"):
        tune(loaded, task, reopen_run(broken), broken)
    assert [row["step"] for row in read_metrics(broken)] == list(range(11))
    release(broken)
