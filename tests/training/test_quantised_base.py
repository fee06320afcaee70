"""Tuning over bases in 4 and 8 bits: what is accepted, that it is as exact as over floats, and what merging loses."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lsf.cli.main import main
from lsf.errors import BadInputError, RunPausedError
from lsf.evidence.sweep import SweepSpec
from lsf.methods.catalogue import CATALOGUE, LoraOptions
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.models.quantised import is_packed
from lsf.plans.plan import Plan, full_plan
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import reopen_run
from lsf.training.artefacts import load_tuned, merge, merge_loss
from lsf.training.caching import forget_states
from lsf.training.forecast import forecast
from lsf.training.proof import fingerprint
from lsf.training.run import tune
from tests.tiny import WHOLE_BLOCKS, save_tiny
from tests.toy import Stopper
from tests.training.test_resume import without_clock

OVER = [name for name, info in CATALOGUE.items() if info.over_quantised]
IDS = torch.arange(1, 22).reshape(3, 7)
pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module", params=["nf4", "int8"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory, kind):
    """A function: family -> folder of a tiny model of it, its rows whole blocks where they are packed in 4 bits."""

    def make(family):
        return str(save_tiny(family, tmp_path_factory.mktemp(family), **WHOLE_BLOCKS[family] if kind == "nf4" else {}))

    return cache(make)


@pytest.fixture(scope="module")
def packed(made, kind):
    """A family with biases, so that every method that can be had over packed weights does something."""
    return load_model(made("gpt2"), kind, "cpu")


@pytest.fixture
def asked(packed, kind):
    fixed = {"steps": 6, "batch_size": 4, "checkpoint_steps": 4, "dtype": kind, "method": "lora"}
    return RunSpec(packed.info.name, "toy", Plan("tiny", 4, (1, 2)), learning_rate=1e-2, **fixed)


@pytest.mark.parametrize("method", OVER)
def test_a_run_learns_and_leaves_the_packed_base_as_it_is_and_is_found_again(packed, task, asked, folder, method):
    spec, before = replace(asked, method=method, learning_rate=3e-2), fingerprint(packed.model)
    place = folder(spec)
    result: Any = tune(packed, task, spec, place)
    assert result.state is RunState.SUCCEEDED
    assert result.after.loss < result.before.loss
    assert result.proof.frozen_identical
    assert result.proof.trainable_params == result.proof.planned_params
    assert not result.proof.tuned_unmoved
    assert result.environment["dtype"] == spec.dtype
    assert fingerprint(packed.model) == before
    found = load_tuned(place, packed)
    again = load_tuned(place, packed)
    with torch.no_grad():
        assert torch.equal(found(input_ids=IDS).logits, again(input_ids=IDS).logits)
        assert not torch.equal(found(input_ids=IDS).logits, packed.model(input_ids=IDS).logits)


def test_it_repeats_and_resumes_to_the_bits_of_an_uninterrupted_run_cached_or_not(packed, task, asked, folder):
    from lsf.runs.store import read_metrics  # noqa: PLC0415

    spec = replace(asked, steps=9, cache="memory")
    whole, warm, broken = folder(spec), folder(spec), folder(spec)
    forget_states(packed)
    reference: Any = tune(packed, task, spec, whole)
    assert reference.cache["depth"] == 1
    assert tune(packed, task, spec, warm).after == reference.after
    forget_states(packed)
    with pytest.raises(RunPausedError):
        tune(packed, task, spec, broken, Stopper(6, "pause"))
    forget_states(packed)
    assert tune(packed, task, reopen_run(broken), broken).resumed_at == 6
    rows = [without_clock(read_metrics(place)) for place in (whole, warm, broken)]
    assert rows[0] == rows[1] == rows[2]


def test_lora_is_counted_by_the_maps_and_not_by_their_bytes(packed, made, task, asked):
    plain = load_model(made("gpt2"), "float32", "cpu")
    count, options = METHODS["lora"].count, LoraOptions()
    assert count(packed, asked.plan, options) == count(plain, asked.plan, options)
    found = forecast(packed, task, asked, 10**12)
    exact = forecast(plain, task, replace(asked, dtype="float32"), 10**12)
    assert found.fits
    assert (found.trainable_params, found.parts.optimizer) == (exact.trainable_params, exact.parts.optimizer)
    assert found.flops_ratio == exact.flops_ratio


@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_merging_gives_a_dequantised_model_and_says_what_it_loses(packed, made, kind, task, asked, folder, method):
    spec = replace(asked, method=method, learning_rate=3e-2)
    place = folder(spec)
    tune(packed, task, spec, place)
    tuned = load_tuned(place, packed)
    plain = merge(tuned, packed)
    assert not any(is_packed(value) for value in plain.parameters())
    fresh = load_model(made("gpt2"), "float32", "cpu").model
    shapes = {name: value.shape for name, value in fresh.named_parameters()}
    assert {name: value.shape for name, value in plain.named_parameters()} == shapes
    lost = merge_loss(tuned, plain, packed)
    assert 0 <= lost.mean <= lost.largest < {"nf4": 1e-3, "int8": 0.25}[kind]
    base = merge_loss(packed.model, plain, packed)
    assert base.mean > 3 * lost.mean  # what was learned is in it


def test_the_command_line_merges_tells_the_loss_and_writes_a_plain_folder(made, tmp_path, kind, task, capsys):
    data = tmp_path / "toy.csv"
    rows = [f"{row.prompt},{row.completion}" for row in task.train]
    data.write_text("\n".join(["prompt,completion", *rows]))
    runs, out = tmp_path / "runs", tmp_path / "merged"
    asked = ["tune", "--model", made("llama"), "--data", str(data), "--blocks", "1,2", "--dtype", kind]
    asked += ["--method", "lora", "--steps", "4", "--device", "cpu", "--runs", str(runs), "--optimizer", "adafactor"]
    assert main(asked) == 0
    (run,) = runs.iterdir()
    assert main(["merge", "--run", str(run), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"held in {kind} and was dequantised" in told
    assert "at most" in told
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert not hasattr(merged.config, "quantization_config")
    loaded = load_model(made("llama"), kind, "cpu")
    with torch.no_grad():
        difference = merged(input_ids=IDS).logits - load_tuned(run, loaded)(input_ids=IDS).logits
    assert difference.abs().max() < {"nf4": 1e-3, "int8": 0.25}[kind]


@pytest.mark.parametrize("method", [name for name in CATALOGUE if name not in OVER])
def test_a_method_that_tunes_the_base_s_tensors_is_refused_in_one_sentence(packed, task, asked, kind, method):
    with pytest.raises(BadInputError) as caught:
        replace(asked, method=method)
    told = str(caught.value)
    assert f"The method {method} tunes the base's own tensors" in told
    assert f"dtype {kind}" in told
    assert all(name in told for name in OVER)
    options = {"d": 50} if method in ("did", "said") else {}
    silent = replace(asked, method=method, dtype="auto", options=options)  # a base quantised all the same
    context = MethodContext(rows=(), options=CATALOGUE[method].options(**options))
    if METHODS[method].search is None:
        with pytest.raises(BadInputError, match=r"cannot be tuned itself|tunes the base's own"):
            METHODS[method].prepare(packed, silent.plan, context)


def test_the_command_line_refuses_it_before_anything_is_read(kind, capsys):
    assert main(["tune", "--model", "no/such", "--data", "no.csv", "--all", "--dtype", kind]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "The method full tunes the base's own tensors" in told
    with pytest.raises(BadInputError, match="The method full tunes"):
        SweepSpec("bundled", "lesson:facts", dtype=kind)


def test_a_packed_base_is_refused_to_a_spec_that_does_not_say_so(packed, task, asked, folder):
    spec = replace(asked, method="full", dtype="auto", plan=full_plan("tiny", 4))
    with pytest.raises(BadInputError, match="cannot be tuned itself"):
        tune(packed, task, spec, folder(spec))
