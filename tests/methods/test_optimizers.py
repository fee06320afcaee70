"""Optimizers beside float32 AdamW: what they keep in memory, and that they are as exact as it about everything else."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer

from lsf.cli.main import main
from lsf.errors import BadInputError, RunPausedError
from lsf.jobs.queue import queue_runs
from lsf.jobs.worker import Worker
from lsf.methods.context import MethodContext
from lsf.methods.optimization import OPTIMIZERS
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan, full_plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import reopen_run
from lsf.training.caching import forget_states
from lsf.training.fitting import fit
from lsf.training.forecast import forecast
from lsf.training.forecaster import optimizer_bytes
from lsf.training.run import tune
from lsf.training.splits import encode_splits
from lsf.training.trainer import CompletionTrainer, FitSettings, training_arguments
from tests.tiny import save_tiny
from tests.toy import Stopper
from tests.training.test_resume import assert_same_end, weights_of

INSTALLED = [name for name, one in OPTIMIZERS.items() if one.package is None or find_spec(one.package)]
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model with matrices above and below 4096 numbers, and sizes that no block of 256 divides."""
    changes = {"hidden_size": 72, "intermediate_size": 100, "head_dim": 18, "vocab_size": 150}
    return load_model(str(save_tiny("llama", tmp_path_factory.mktemp("wide"), **changes)), "float32", "cpu")


@pytest.fixture
def kept(monkeypatch):
    """The trainers that a test's fits made."""
    made = []
    start = CompletionTrainer.__init__

    def note(self, *arguments):
        start(self, *arguments)
        made.append(self)

    monkeypatch.setattr(CompletionTrainer, "__init__", note)
    return made


def stepped(loaded, task, spec, folder, plan, optimizer):
    """Tune for two steps and return the tuned model."""
    model = METHODS["full"].prepare(loaded, plan, MethodContext())
    settings = FitSettings(1e-3, 2, 4, 0, 0.01, 0, "float32", optimizer=optimizer)
    fit(model, encode_splits(loaded, task, spec).train, settings, folder, lambda _row: None, lambda: None)
    return model


@pytest.mark.parametrize("optimizer", INSTALLED)
@pytest.mark.parametrize("plan", [Plan("tiny", 4, (1, 2)), full_plan("tiny", 4)], ids=["blocks", "full"])
def test_the_bytes_counted_for_an_optimizer_are_those_of_its_real_state(
    wide, task, spec, tmp_path, kept, plan, optimizer
):
    model = stepped(wide, task, spec, tmp_path, plan, optimizer)
    (trainer,) = kept
    state = [value for one in trainer.optimizer.state.values() for value in one.values()]
    tensors = {id(value): value for value in state if isinstance(value, torch.Tensor)}
    large = sum(value.nbytes for value in tensors.values() if value.numel() > 1)
    maps = 2 * 256 * 4 if optimizer == "adamw_8bit" else 0  # two tables for the whole optimizer
    counted, _ = optimizer_bytes(model, OPTIMIZERS[optimizer], "cpu")
    assert large == counted + maps


def most_allocated(work):
    """Return the most bytes that torch held at a time beyond those before, while something worked."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    seen: Any = watched.profiler
    changes = [event.nbytes() for event in seen.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes))


@pytest.mark.parametrize("optimizer", INSTALLED)
def test_what_an_optimizer_keeps_and_takes_while_it_steps_is_what_is_counted(tmp_path, optimizer):
    model = torch.nn.ParameterList([torch.ones(512, 512) for _ in range(2)])
    settings = FitSettings(1e-3, 2, 4, 0, 0.0, 0, "float32", optimizer=optimizer)
    kind, given = Trainer.get_optimizer_cls_and_kwargs(training_arguments(settings, tmp_path, torch.device("cpu")))
    stepping = kind(model.parameters(), **given)
    for value in model:
        value.grad = torch.ones_like(value)
    kept, copies = optimizer_bytes(model, OPTIMIZERS[optimizer], "cpu")
    small = 8192  # counters of steps, tables of eight bits
    assert kept + copies <= most_allocated(stepping.step) <= kept + copies + small
    assert copies <= most_allocated(stepping.step) <= copies + small


@pytest.mark.parametrize("optimizer", INSTALLED)
def test_a_forecast_counts_what_the_optimizer_asked_for_keeps(wide, task, spec, optimizer):
    asked = replace(spec, plan=full_plan("tiny", 4), optimizer=optimizer)
    found = forecast(wide, task, asked, 10**12)
    model = METHODS["full"].prepare(wide, asked.plan, MethodContext())
    assert found.parts.optimizer == optimizer_bytes(model, OPTIMIZERS[optimizer], "cpu")[0]
    whole = 8 * found.trainable_params
    assert found.parts.optimizer == whole if optimizer == "adamw" else found.parts.optimizer < whole


@pytest.mark.parametrize("optimizer", [name for name in INSTALLED if name != "adamw"])
def test_a_run_lowers_its_loss_and_repeats_bit_by_bit_and_resumes_to_the_same_end(wide, task, spec, folder, optimizer):
    asked = replace(spec, plan=full_plan("tiny", 4), steps=12, optimizer=optimizer, learning_rate=3e-3)
    asked = replace(asked, checkpoint_steps=5, eval_every=4, weight_decay=0.01)
    whole, again, broken = folder(asked), folder(asked), folder(asked)
    result: Any = tune(wide, task, asked, whole)
    assert result.after.loss < result.before.loss
    tune(wide, task, asked, again)
    assert_same_end(again, whole)
    with pytest.raises(RunPausedError):
        tune(wide, task, asked, broken, Stopper(7, "pause"))
    forget_states(wide)
    assert tune(wide, task, reopen_run(broken), broken).resumed_at == 7
    assert_same_end(broken, whole)
    plain = folder(replace(asked, optimizer="adamw"))
    tune(wide, task, replace(asked, optimizer="adamw"), plain)
    assert any(not torch.equal(value, weights_of(plain)[name]) for name, value in weights_of(whole).items())


@needs_bitsandbytes
def test_a_fit_in_8_bits_leaves_no_settings_with_bitsandbytes(wide, task, spec, tmp_path):
    from bitsandbytes.optim.optimizer import GlobalOptimManager  # noqa: PLC0415

    stepped(wide, task, spec, tmp_path, full_plan("tiny", 4), "adamw_8bit")
    manager = GlobalOptimManager.get_instance()
    assert not manager.pid2config
    assert not manager.index2config
    assert not manager.module_weight_config_triple


def test_the_optimizer_stands_in_spec_json_and_an_older_spec_has_the_one_there_was(tmp_path, spec):
    replace(spec, optimizer="adafactor").save(tmp_path / "spec.json")
    assert RunSpec.load(tmp_path / "spec.json").optimizer == "adafactor"
    plain = json.loads((tmp_path / "spec.json").read_text())
    del plain["optimizer"]
    (tmp_path / "spec.json").write_text(json.dumps(plain))
    assert (
        RunSpec.load(tmp_path / "spec.json").optimizer == RunSpec(spec.model, spec.data, spec.plan).optimizer == "adamw"
    )


@pytest.fixture
def without_bitsandbytes(monkeypatch):
    """An environment in which bitsandbytes cannot be found."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("lsf.methods.optimization.find_spec", lambda name: None)


def test_an_optimizer_whose_package_is_missing_is_refused_before_anything_is_read(
    without_bitsandbytes, loaded, task, spec, folder, tmp_path, capsys
):
    asked = ["tune", "--model", "no/such", "--data", "no.csv", "--blocks", "1", "--optimizer", "adamw_8bit"]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "adamw_8bit needs the package bitsandbytes" in told
    assert "adamw, adafactor" in told
    asked_spec = replace(spec, optimizer="adamw_8bit")
    with pytest.raises(BadInputError, match="pip install bitsandbytes"):
        tune(loaded, task, asked_spec, folder(asked_spec))
    worker = Worker("tests")
    with pytest.raises(BadInputError, match="pip install bitsandbytes"):
        queue_runs(worker, tmp_path / "none", [asked_spec], lambda: loaded, lambda: task)
    assert not (tmp_path / "none").exists()
    worker.close()


def test_an_unknown_optimizer_is_refused_naming_those_there_are(capsys):
    assert main(["tune", "--model", "bundled", "--data", "lesson:facts", "--blocks", "1", "--optimizer", "sgd"]) == 2
    assert "adamw, adamw_8bit, adafactor" in capsys.readouterr().err
