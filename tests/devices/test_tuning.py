"""Tuning, evaluation, generation, resuming, merging on the pretend accelerator, as on the CPU but for rounding."""

import math
import threading
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from lsf.data.encode import encode
from lsf.errors import RunPausedError
from lsf.lens import speed
from lsf.lens.speed import _timed as measured_speed
from lsf.methods.catalogue import CATALOGUE, options_of
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.batches import by_length
from lsf.models.devices import input_device
from lsf.models.writing import sample_general_text
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.answers import AnswerSettings, Voice
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, reopen_run
from lsf.training.artefacts import load_tuned, merge, save_weights
from lsf.training.asking import ask
from lsf.training.caching import forget_states, open_caching
from lsf.training.evaluation import answer, evaluate, general_loss
from lsf.training.fitting import fit
from lsf.training.forecast import forecast
from lsf.training.graft import measure_graft
from lsf.training.measured_pass import forward_on, time_pass
from lsf.training.prefix import GROUP
from lsf.training.run import tune
from lsf.training.short_runs import first_tuning
from lsf.training.trainer import FitSettings
from tests.accelerator import NAME
from tests.devices.conftest import SHALLOW
from tests.toy import Stopper
from tests.training.test_resume import assert_same_end

WIDTH, VOCABULARY = 32, 28
PLAN, SHORT = Plan("tiny", 4, (1, 3)), Plan("tiny", 2, (1,))
"""Of a model of four blocks, and of one of two."""
SMALL = {"d": 40, "r": 4, "size": 8, "fraction": 0.05, "first_steps": 3, "examples": 8}
"""Options that fit a tiny model; each method takes those it has."""
STEPS, RATE = 4, 1e-2


def options_for(name):
    known = CATALOGUE[name].options.__dataclass_fields__
    return {key: value for key, value in SMALL.items() if key in known}


def tuned(loaded, name, task, folder, cache="memory"):
    """Prepare and fit on a device, with the states of the frozen prefix kept."""
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    scene = MethodContext(options_of(name, options_for(name)), rows, 0, 4, loaded.info.dtype, first_tuning=first_tuning)
    plan = SHORT if loaded.info.n_blocks == 2 else PLAN
    model = METHODS[name].prepare(loaded, plan, scene)
    settings = FitSettings(RATE, STEPS, 12, 0, 0.0, 0, loaded.info.dtype)
    caching = open_caching(loaded, model, plan, rows, cache, STEPS * 12)
    logged = []
    fit(model, rows, settings, folder, lambda row: logged.append(row.loss), lambda: None, prefix=caching.prefix)
    return model, rows, logged


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tunes_saves_loads_and_merges_on_the_device(name, on_device, on_cpu, task, tmp_path, accelerator):
    family, plan = ("gpt2", PLAN) if name == "bitfit" else (SHALLOW, SHORT)  # biases
    loaded = on_device(family)
    with accelerator.watched(width=WIDTH, states=10_000, vocabulary=VOCABULARY):
        model, rows, logged = tuned(loaded, name, task, tmp_path)
    spec = RunSpec(model="tiny", data="toy", plan=plan, method=name, options=options_for(name))
    held_out = encode(loaded.tokenizer, task.test, 64).rows
    n_batches = math.ceil(len(held_out) / 4)
    (tmp_path / "run").mkdir()
    with accelerator.watched(width=WIDTH, waits=n_batches, vocabulary=VOCABULARY):
        after = evaluate(model, held_out, 4)
    with accelerator.watched(width=WIDTH):
        save_weights(model, loaded, spec, tmp_path / "run")
        again = load_tuned(tmp_path / "run", loaded)
        assert {value.device.type for value in again.parameters()} == {NAME}
        assert evaluate(again, held_out, 4).loss == pytest.approx(after.loss, abs=1e-6)
        if METHODS[name].info.merges:
            plain = merge(again, loaded)
            assert evaluate(plain, held_out, 4).loss == pytest.approx(after.loss, abs=1e-5)
    reference, _, expected = tuned(on_cpu(family), name, task, tmp_path)
    assert logged == pytest.approx(expected, rel=1e-3)
    assert after.loss == pytest.approx(evaluate(reference, held_out, 4).loss, rel=1e-3)
    assert len(rows) == len(task.train)


def test_a_step_waits_for_nothing_and_the_prefix_once_a_group(on_device, task, tmp_path, accelerator):
    loaded, n_tokens = on_device(), 0
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    for group in range(0, len(rows), GROUP):
        lengths = sorted(len(row.ids) for row in rows)[group : group + GROUP]
        n_tokens += len(lengths) * max(lengths)
    groups = math.ceil(len(rows) / GROUP)
    with accelerator.watched(width=WIDTH, states=n_tokens, waits=groups, vocabulary=VOCABULARY) as seen:
        tuned(loaded, "full", task, tmp_path)
    assert {where.rpartition(":")[0] for where in seen.waits} == {"lsf/training/prefix.py"}
    assert seen.states == n_tokens  # each row's once, in the model's own type
    with accelerator.watched(width=WIDTH, waits=0, vocabulary=VOCABULARY) as seen:
        tuned(loaded, "full", task, tmp_path, cache="off")
    assert seen.by_libraries.total() >= STEPS  # transformers reads the loss of every logged step


def test_a_worker_threads_run_keeps_the_rules_too(on_device, task, tmp_path, accelerator):
    loaded, done = on_device(), []
    with accelerator.watched(width=WIDTH, waits=0) as seen:
        worker = threading.Thread(
            target=lambda: done.append(tuned(loaded, "full", task, tmp_path, "off")), name="lsf-worker"
        )
        worker.start()
        worker.join()
    assert len(done) == 1
    assert "lsf-worker" in seen.threads
    assert any(name.startswith("Dummy") for name in seen.threads)  # backward passes


def test_general_text_is_the_same_on_every_device_and_its_loss_is_read_once_a_batch(on_device, on_cpu, accelerator):
    loaded, base = on_device(), on_cpu()
    with accelerator.watched(width=WIDTH, vocabulary=VOCABULARY, waits=1):
        text = sample_general_text(loaded.model, loaded.tokenizer, 12)
    expected = sample_general_text(base.model, base.tokenizer, 12)
    assert torch.equal(text.ids, expected.ids)
    with accelerator.watched(width=WIDTH, vocabulary=VOCABULARY, waits=4):
        found = general_loss(loaded.model, text)
    assert found == pytest.approx(general_loss(base.model, expected), abs=1e-6)


def test_an_answer_is_fetched_once(on_device, on_cpu, task, accelerator):
    loaded, base = on_device(), on_cpu()
    row = encode(loaded.tokenizer, task.test, 64).rows[0]
    with accelerator.watched(width=WIDTH, waits=1):
        found = answer(loaded.model, loaded.tokenizer, row, loaded.context)
    assert found == answer(base.model, base.tokenizer, row, base.context)


def test_every_clock_waits_for_the_device_before_it_is_read(on_device, task, accelerator):
    loaded = on_device()
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    model = METHODS["full"].prepare(loaded, PLAN, MethodContext())
    with accelerator.watched() as seen:
        timed = time_pass(model, loaded, rows[:4], depth=2)
    assert seen.clocks == 4  # at both ends of the pass, and of the blocks below
    assert 0 < timed.prefix_seconds < timed.seconds
    with accelerator.watched() as seen:
        forward_on(loaded.model, loaded)()
    assert seen.clocks == 1
    with accelerator.watched() as seen:
        measured_speed(loaded, lambda: None)
    assert seen.clocks >= 2 * (2 * speed.LEAST_REPEATS + 2)  # passes of two sizes, optimizer steps


def test_the_free_memory_of_a_device_that_torch_numbers_is_known(on_device, task, accelerator):
    loaded = on_device()
    assert str(loaded.device) == f"{NAME}:0"  # as Apple's only GPU is mps:0
    spec = RunSpec(model="tiny", data="toy", plan=PLAN, steps=4, batch_size=4, learning_rate=1e-2)
    found = forecast(loaded, task, spec)
    assert found.fits
    assert found.free_bytes


def test_evaluation_cuts_batches_that_would_hold_too_many_logits(on_device, task, accelerator, monkeypatch):
    loaded, most = on_device(), 5 * 3 * VOCABULARY
    rows = encode(loaded.tokenizer, task.test, 64).rows
    whole = evaluate(loaded.model, rows, 12)
    monkeypatch.setattr("lsf.models.batches.MOST_LOGITS", most)
    assert max(len(batch) for batch in by_length(rows, 12, VOCABULARY)) == 5 * 3 // 2  # two targets a row
    with accelerator.watched(vocabulary=VOCABULARY, most_logits=most):
        cut = evaluate(loaded.model, rows, 12)
    assert cut.loss == pytest.approx(whole.loss, abs=1e-6)


@pytest.mark.slow
def test_a_whole_run_is_measured_saved_and_exported_as_on_the_cpu(on_device, on_cpu, task, tmp_path, accelerator):
    loaded, base = (replace(load(SHALLOW), context=12) for load in (on_device, on_cpu))  # short general text
    spec = RunSpec(
        model="tiny",
        data="toy",
        plan=SHORT,
        steps=4,
        batch_size=12,
        learning_rate=1e-2,
        cache="memory",
    )
    folder = create_run(tmp_path / "runs", spec)
    with accelerator.watched(width=WIDTH, states=10_000, vocabulary=VOCABULARY):
        result = tune(loaded, task, spec, folder)
    assert result.state is RunState.SUCCEEDED
    assert result.proof is not None
    assert result.proof.frozen_identical
    assert not result.proof.tuned_unmoved
    expected = tune(base, task, spec, create_run(tmp_path / "others", spec))
    assert result.after is not None
    assert expected.after is not None
    assert result.after.loss == pytest.approx(expected.after.loss, rel=1e-3)
    assert result.after.general_loss == pytest.approx(expected.after.general_loss, rel=1e-3)
    plain = merge(load_tuned(folder, loaded), loaded)
    plain.save_pretrained(tmp_path / "exported")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    held_out = encode(loaded.tokenizer, task.test, 64).rows
    assert evaluate(exported.eval(), held_out, 4).loss == pytest.approx(result.after.loss, abs=1e-5)


def test_the_graft_and_an_answer_to_a_prompt_are_the_cpus(on_device, on_cpu, task, tmp_path, accelerator):
    loaded, base = (replace(load(SHALLOW), context=12) for load in (on_device, on_cpu))
    both = Plan("tiny", 2, (0, 1))
    spec = RunSpec(model="tiny", data="toy", plan=both, steps=4, batch_size=12, learning_rate=1e-2)
    folders = [create_run(tmp_path / name, spec) for name in ("device", "cpu")]
    for one, folder in zip((loaded, base), folders, strict=True):
        tune(one, task, spec, folder)
    voices = (Voice(), Voice(folders[0]))
    with accelerator.watched(width=WIDTH, states=10_000, vocabulary=VOCABULARY):
        found = measure_graft(loaded, task, folders[0], Silent())
        answers = ask(loaded, voices, ["red has"], AnswerSettings(4), lambda _: None)
    expected = measure_graft(base, task, folders[1], Silent())
    assert [part.block for part in found.parts] == [0, 1]
    for part, other in zip(found.parts, expected.parts, strict=True):
        assert part.alone.reading.loss == pytest.approx(other.alone.reading.loss, rel=1e-3)
        assert part.without.reading.loss == pytest.approx(other.without.reading.loss, rel=1e-3)
    beside = ask(base, (Voice(), Voice(folders[1])), ["red has"], AnswerSettings(4), lambda _: None)
    assert [one.ids for one in answers] == [one.ids for one in beside]
    assert all(one.done and one.lens for one in answers)


@pytest.mark.slow
def test_a_paused_run_goes_on_to_the_end_of_an_unbroken_one(on_device, task, tmp_path, accelerator):
    loaded = replace(on_device(SHALLOW), context=12)
    spec = RunSpec(model="tiny", data="toy", plan=SHORT, steps=5, batch_size=12, learning_rate=1e-2, cache="memory")
    unbroken, broken = create_run(tmp_path / "unbroken", spec), create_run(tmp_path / "broken", spec)
    expected = tune(loaded, task, spec, unbroken)
    with accelerator.watched(width=WIDTH, states=10_000, vocabulary=VOCABULARY):
        with pytest.raises(RunPausedError):
            tune(loaded, task, spec, broken, Stopper(3, "pause"))
        forget_states(loaded)
        result = tune(loaded, task, reopen_run(broken), broken)
    assert result.resumed_at == 3
    assert result.after == expected.after
    assert_same_end(broken, unbroken)


def test_asking_for_a_models_device_computes_nothing(on_device, accelerator):
    loaded = on_device()
    scene = MethodContext(options_of("did", {"d": 40}), (), 0, 4, "float32")
    model = METHODS["did"].prepare(loaded, Plan("tiny", 4, (1,), embedding=True), scene)
    with accelerator.watched() as seen:
        assert input_device(model).type == NAME
        assert seen.operations == 0
        assert model.get_input_embeddings().weight.device.type == NAME
        assert seen.operations > 0  # the parametrized embedding was computed to be asked
