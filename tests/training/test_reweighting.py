"""Rows weighted by their distance from the target: what the weights are, when they change, what they do to the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lsf.cli.main import main
from lsf.errors import BadInputError, RunPausedError
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.batches import collate, score_tokens
from lsf.models.layout import resolve
from lsf.plans.plan import Plan
from lsf.runs.comparison import compare
from lsf.runs.result import RunState
from lsf.runs.store import create_run, load_run
from lsf.training.artefacts import find_weights
from lsf.training.fitting import fit
from lsf.training.reweighting import Reweighting, target_distances, weights
from lsf.training.run import tune
from lsf.training.splits import encode_splits
from lsf.training.trainer import FitSettings
from tests.toy import Stopper

PLAN, TAU, BATCH = Plan("tiny", 4, (1, 3)), 0.2, 8
SETTINGS = FitSettings(1e-2, 9, BATCH, 0, 0.0, 0, "float32")  # 24 rows: a pass takes three steps


@pytest.fixture
def rows(loaded, task, spec):
    return encode_splits(loaded, task, replace(spec, batch_size=BATCH)).train


def fitted(loaded, rows, folder, steps, method="full"):
    """Tune for some steps of the same schedule; return the model and its re-weighting."""
    model = METHODS[method].prepare(loaded, PLAN, MethodContext(METHODS[method].info.options(), rows))
    weighed = Reweighting(model, loaded, rows, TAU, BATCH)
    seen = []
    done = fit(model, rows, SETTINGS, folder, seen.append, lambda: "keep" if len(seen) >= steps else None,
               reweighting=weighed)  # fmt: skip
    assert done.steps == steps
    return model, weighed, done


@pytest.mark.parametrize("method", ["full", "lora", "hiwi"])
def test_the_weights_of_a_pass_are_those_of_the_model_as_the_pass_begins(method, loaded, rows, tmp_path):
    assert len(rows) == 3 * BATCH
    model, _, _ = fitted(loaded, rows, tmp_path, 3, method)  # one pass
    distance = target_distances(resolve(model, loaded.layout.family), rows)
    at_the_start = target_distances(loaded.layout, rows)
    assert np.abs(distance - at_the_start).max() > 1e-3
    for steps in (4, 6):  # the first and the last step of the second pass
        _, weighed, _ = fitted(loaded, rows, tmp_path, steps, method)
        np.testing.assert_allclose(weighed.weights, weights(distance, TAU), rtol=1e-4)
    assert weighed.weights.mean() == pytest.approx(1.0)


def test_the_first_step_follows_the_weighted_loss_and_no_other(loaded, rows, tmp_path):
    """After one step with the weights of the base, AdamW's first moment is a tenth of the weighted gradient."""
    model = METHODS["full"].prepare(loaded, PLAN, MethodContext(None, rows))
    weighed = Reweighting(model, loaded, rows, TAU, BATCH)
    seen = []

    def watch(row):
        seen.append(row.loss)

    fit(model, rows, SETTINGS, tmp_path, watch, lambda: "keep" if seen else None, reweighting=weighed)
    order = np.random.default_rng([0, 0]).permutation(len(rows))[:BATCH]
    with torch.no_grad():
        nll = score_tokens(loaded.model, collate([rows[number] for number in order])).nll
    counted = int((nll != 0).sum())
    own = torch.from_numpy(weights(target_distances(loaded.layout, rows), TAU))[order.tolist()]
    assert seen[0] == pytest.approx(float((nll.sum(1) * own).sum()) / counted, rel=1e-4)
    assert seen[0] != pytest.approx(float(nll.sum()) / counted, rel=1e-2)


def test_a_paused_run_goes_on_with_the_weights_of_its_pass_to_the_same_bits(loaded, task, spec, tmp_path):
    asked = replace(spec, steps=15, batch_size=BATCH, checkpoint_steps=1, reweight_tau=TAU)
    whole, broken = (create_run(tmp_path / place, asked) for place in ("whole", "broken"))
    tune(loaded, task, asked, whole)
    with pytest.raises(RunPausedError):
        tune(loaded, task, asked, broken, Stopper(5, "pause"))  # in the middle of the second pass
    result = tune(loaded, task, asked, broken)
    assert result.state is RunState.SUCCEEDED and result.resumed_at == 5
    one, two = (load_file(find_weights(folder)) for folder in (whole, broken))
    assert all(torch.equal(one[key], two[key]) for key in one)
    unbroken = load_run(whole).result
    assert unbroken is not None and result.distance_fell is not None
    assert unbroken.distance_fell == result.distance_fell > 0.5


def test_a_reweighted_run_that_is_stopped_and_kept_is_kept(loaded, task, spec, tmp_path):
    asked = replace(spec, steps=500, batch_size=BATCH, reweight_tau=TAU)
    place = create_run(tmp_path, asked)
    result = tune(loaded, task, asked, place, Stopper(4, "keep"))
    assert (result.state, result.steps) == (RunState.CANCELLED, 4)
    assert result.stored_bytes and find_weights(place).is_file()
    assert result.distance_fell is not None


def _unjudged(run):
    """Leave out what a random model is judged a failure by: its floor and what it forgot."""
    after = replace(run.result.after, general_loss=None)
    return replace(run, result=replace(run.result, floor=None, after=after))


def test_runs_that_weigh_differently_have_no_ratio_to_each_other(loaded, task, full, tmp_path):
    folders = []
    for asked in (
        full,
        replace(full, plan=PLAN, role="choice"),
        replace(full, plan=PLAN, role="choice", reweight_tau=TAU),
    ):
        folders.append(create_run(tmp_path, asked))
        tune(loaded, task, asked, folders[-1])
    found = compare([_unjudged(load_run(folder)) for folder in folders])
    assert [row.x_params is not None for row in found.rows] == [True, True, False]
    assert any("re-weighting" in warning for warning in found.warnings)


def test_several_processes_are_refused_before_the_first_step(loaded, monkeypatch):
    launcher = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match="Re-weighting by distance runs in one process"):
        Reweighting(loaded.model, loaded, (), TAU, BATCH)


def test_a_softness_of_nothing_is_refused_by_name(tiny, tmp_path, capsys):
    asked = ["tune", "--model", str(tiny("llama")), "--data", "lesson:facts", "--blocks", "1", "--runs", str(tmp_path)]
    assert main([*asked, "--reweight-tau", "0"]) == 2
    assert "reweight-tau" in capsys.readouterr().err.replace("_", "-")
    assert not list(tmp_path.iterdir())
