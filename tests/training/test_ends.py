"""When a run ends by its validation loss, and which step's values it keeps."""

import shutil
from dataclasses import replace

import pytest
import torch

from lsf.data.task import Example, Task
from lsf.errors import DataError, RunPausedError
from lsf.models.layout import resolve
from lsf.runs.result import RunState
from lsf.runs.spec import is_flat
from lsf.runs.store import read_metrics, reopen_run
from lsf.training import trainer
from lsf.training.artefacts import load_tuned
from lsf.training.evaluation import evaluate
from lsf.training.metrics_logger import Best
from lsf.training.proof import prove
from lsf.training.reweighting import fell, target_distances
from lsf.training.splits import encode_splits
from lsf.training.trainer import StepTimer
from tests.toy import Stopper, tuned


@pytest.fixture
def misleading(task):
    """Rows whose validation wants the answers' tokens in another order: what is learned is soon wrong there."""
    return replace(task, validation=tuple(Example(row.prompt, " . red") for row in task.validation))


@pytest.fixture
def wild(full):
    """A run whose best reading is far from the last one."""
    return replace(full, steps=40, learning_rate=0.01, eval_every=2, keep="best", checkpoint_steps=6)


def losses_of(folder):
    return {row["step"]: row["validation_loss"] for row in read_metrics(folder) if "validation_loss" in row}


def test_the_values_of_the_best_validation_reading_are_saved_and_measured(loaded, misleading, wild, folder):
    place = folder(wild)
    result = tuned(loaded, misleading, wild, place)
    losses = losses_of(place)
    best = min((step for step in losses if step), key=lambda step: losses[step])
    assert 0 < result.kept_step == best < result.steps == 40
    rows = encode_splits(loaded, misleading, wild)
    assert evaluate(load_tuned(place, loaded), rows.validation, 4).loss == pytest.approx(losses[best], abs=1e-5)
    assert evaluate(load_tuned(place, loaded), rows.test, 4).loss == pytest.approx(result.after.loss, abs=1e-5)
    assert result.proof.holds
    last = replace(wild, keep="last")
    assert tuned(loaded, misleading, last, folder(last)).kept_step == 40


def test_the_share_of_rows_that_came_nearer_is_that_of_the_values_that_are_kept(loaded, misleading, wild, folder):
    wild = replace(wild, reweight_tau=0.02)  # the farthest row alone, another at each pass
    place = folder(wild)
    result = tuned(loaded, misleading, wild, place)
    assert result.kept_step < result.steps
    rows = encode_splits(loaded, misleading, wild).train
    kept = resolve(load_tuned(place, loaded), loaded.layout.family)
    before, after = (target_distances(layout, rows) for layout in (loaded.layout, kept))
    assert result.distance_fell == fell(before, after)


def test_a_resumed_run_keeps_the_best_values_it_had_before(loaded, misleading, wild, folder):
    whole = tuned(loaded, misleading, wild, folder(wild))
    broken = folder(wild)
    with pytest.raises(RunPausedError):
        tuned(loaded, misleading, wild, broken, Stopper(38, "pause"))
    resumed = tuned(loaded, misleading, reopen_run(broken), broken)
    assert resumed.resumed_at is not None and resumed.resumed_at > whole.kept_step
    assert (resumed.kept_step, resumed.after) == (whole.kept_step, whole.after)


def test_a_run_that_is_stopped_and_kept_keeps_its_best_values_too(loaded, misleading, wild, folder):
    place = folder(wild)
    result = tuned(loaded, misleading, wild, place, Stopper(36, "keep"))
    losses = losses_of(place)
    assert result.state is RunState.CANCELLED and result.steps == 36
    assert result.kept_step == min((step for step in losses if step), key=lambda step: losses[step])


def test_best_takes_the_first_of_equals_and_never_what_is_not_finite_or_untuned():
    model = torch.nn.Linear(1, 1)
    best = Best()
    for step, loss in ((0, 0.1), (1, float("nan")), (2, 3.0), (3, 3.0), (4, None), (5, 4.0)):
        best.look(step, loss, model)
        with torch.no_grad():
            model.weight.fill_(step + 1.0)
    assert best.step == 2
    best.restore(model)
    assert model.weight.item() == 2.0  # as it was when step 2 was read


def test_a_run_until_its_loss_is_flat_ends_there_as_succeeded_whatever_is_tuned(loaded, task, spec, full, folder):
    for asked in (spec, replace(spec, method="lora", learning_rate=1e-2), full):
        flat = replace(asked, until="flat", steps=400, eval_every=2)
        place = folder(flat)
        result = tuned(loaded, task, flat, place)
        readings = list(losses_of(place).values())
        assert result.state is RunState.SUCCEEDED and result.reason is None
        assert is_flat(readings) and not is_flat(readings[:-1])
        assert result.steps == max(losses_of(place)) < 400


def test_a_resumed_run_ends_at_the_same_step(loaded, task, spec, folder):
    flat = replace(spec, until="flat", steps=400, eval_every=2, checkpoint_steps=5)
    whole = tuned(loaded, task, flat, folder(flat))
    broken = folder(flat)
    with pytest.raises(RunPausedError):
        tuned(loaded, task, flat, broken, Stopper(whole.steps - 3, "pause"))
    resumed = tuned(loaded, task, reopen_run(broken), broken)
    assert resumed.resumed_at is not None
    assert (resumed.steps, resumed.after) == (whole.steps, whole.after)


def test_a_run_that_is_stopped_paused_or_killed_where_its_loss_is_flat_ends_at_that_step_too(
    loaded, task, spec, folder, tmp_path, monkeypatch
):
    flat = replace(spec, until="flat", steps=400, eval_every=2, checkpoint_steps=1)
    place, killed = folder(flat), tmp_path / "killed"

    def proving(*arguments):
        if not killed.exists():
            shutil.copytree(place, killed)  # what a kill at this moment leaves
        return prove(*arguments)

    monkeypatch.setattr("lsf.training.run.prove", proving)
    whole = tuned(loaded, task, flat, place)
    paused = folder(flat)
    assert tuned(loaded, task, flat, paused, Stopper(whole.steps, "pause")).test_left
    for broken in (killed, paused):
        resumed = tuned(loaded, task, reopen_run(broken), broken)
        assert (resumed.steps, resumed.after) == (whole.steps, whole.after)
    kept = tuned(loaded, task, flat, folder(flat), Stopper(whole.steps, "keep"))
    assert (kept.state, kept.steps, kept.after) == (RunState.SUCCEEDED, whole.steps, whole.after)


def test_a_long_run_logs_reads_and_can_keep_its_last_step_whatever_its_rows_are_apart(
    loaded, task, spec, folder, monkeypatch
):
    monkeypatch.setattr(trainer, "LOGGED_STEPS", 6)  # of 20 steps: rows at 4, 8, 12, 16 and 20; of 22: 4, ..., 20, 22
    for steps, logged in ((20, [0, 4, 8, 12, 16, 20]), (22, [0, 4, 8, 12, 16, 20, 22])):
        asked = replace(spec, steps=steps, eval_every=5, keep="best", learning_rate=1e-3)
        place = folder(asked)
        result = tuned(loaded, task, asked, place)
        losses = losses_of(place)
        assert [row["step"] for row in read_metrics(place)] == logged
        assert list(losses) == [0, 8, 12, 16, *logged[logged.index(20) :]]
        assert result.steps == result.kept_step == steps == min(losses, key=lambda step: losses[step])


@pytest.mark.parametrize("steps", [11, 19])  # between two rows: nothing of it was due, or a reading was
def test_a_pause_between_two_rows_of_a_long_run_moves_none_of_its_readings(
    loaded, task, wild, folder, monkeypatch, steps
):
    monkeypatch.setattr(trainer, "LOGGED_STEPS", 10)
    wild = replace(wild, eval_every=6)  # rows at 4, 8, ...; readings at 8, 12, 20, 24, 32, 36 and 40
    whole = folder(wild)
    unbroken = tuned(loaded, task, wild, whole)
    broken, own = folder(wild), StepTimer.on_step_end
    stopper = Stopper(1000, "pause")

    def on_step_end(self, args, state, control, **others):
        stopper.stop = "pause" if state.global_step == steps else None
        return own(self, args, state, control, **others)

    monkeypatch.setattr(StepTimer, "on_step_end", on_step_end)
    with pytest.raises(RunPausedError):
        tuned(loaded, task, wild, broken, stopper)
    monkeypatch.setattr(StepTimer, "on_step_end", own)
    resumed = tuned(loaded, task, reopen_run(broken), broken)
    assert losses_of(broken) == losses_of(whole) and list(losses_of(whole)) == [0, 8, 12, 20, 24, 32, 36, 40]
    assert (resumed.kept_step, resumed.after) == (unbroken.kept_step, unbroken.after)


def test_without_validation_examples_neither_can_be(loaded, task, spec, folder):
    bare = Task("bare", task.train, (), task.test)
    for asked, words in ((replace(spec, keep="best"), "keep best"), (replace(spec, until="flat"), "until flat")):
        with pytest.raises(DataError, match=f"{words} needs validation examples"):
            tuned(loaded, bare, asked, folder(asked))
