import json
import resource
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lsf.data.encode import encode
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, DataError, OutOfMemoryError, PlanError, RunError
from lsf.models.loading import load_model
from lsf.models.sharing import share_model
from lsf.models.writing import sample_general_text
from lsf.plans.plan import Plan
from lsf.runs.lock import is_held
from lsf.runs.result import Metrics, RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import load_run, read_metrics
from lsf.training.artefacts import load_tuned
from lsf.training.attempts import explained_memory
from lsf.training.evaluation import evaluate
from lsf.training.forecast import forecast
from lsf.training.measuring import measure_kept
from lsf.training.proof import fingerprint
from lsf.training.splits import encode_splits, floor_on
from tests.toy import Stopper, tuned


def numbers(result):
    """What must repeat exactly: everything but times and memory."""
    return (
        result.before, result.after, result.proof, result.samples, result.steps, result.tokens, result.learning_rate
    )  # fmt: skip


def logged(folder):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(folder)]


def test_a_run_proves_what_moved_and_leaves_the_loaded_model_as_it_was(loaded, task, spec, folder):
    before = fingerprint(loaded.model)
    place = folder(spec)
    result = tuned(loaded, task, spec, place)
    assert fingerprint(loaded.model) == before
    assert result.state is RunState.SUCCEEDED
    assert result.proof is not None
    assert result.proof.holds
    assert result.proof.tuned_moved == result.proof.tuned_tensors == 9
    assert result.proof.frozen_tensors == before.frozen - 9
    assert result.trainable_params == sum(p.numel() for p in loaded.layout.blocks[2].parameters())
    assert load_run(place).result == result
    assert not is_held(place)


def test_the_same_spec_twice_gives_the_same_numbers(loaded, task, spec, folder):
    one, two = folder(spec), folder(spec)
    assert numbers(tuned(loaded, task, spec, one)) == numbers(tuned(loaded, task, spec, two))
    assert logged(one) == logged(two)
    other = replace(spec, seed=1)
    assert numbers(tuned(loaded, task, other, folder(other))) != numbers(load_run(one).result)


def test_before_is_the_same_for_every_run_also_on_a_model_loaded_again(loaded, task, spec, full, folder):
    one = tuned(loaded, task, spec, folder(spec))
    two = tuned(load_model(loaded.info.name, "float32", "cpu"), task, full, folder(full))
    assert one.before == two.before
    assert one.tokens == two.tokens
    assert full.plan.is_full
    assert two.trainable_params == loaded.info.n_params


def test_the_saved_weights_on_the_base_give_the_metrics_after(loaded, task, spec, folder):
    place = folder(spec)
    result = tuned(loaded, task, spec, place)
    saved = load_file(place / "weights" / "tuned.safetensors")
    assert all(name.startswith("model.layers.2.") for name in saved)
    rebuilt = share_model(loaded.model, own=saved)
    for name, value in saved.items():
        dict(rebuilt.named_parameters())[name].data.copy_(value)
    rows = encode(loaded.tokenizer, task.test, 64).rows
    again = evaluate(rebuilt, rows, spec.batch_size)
    assert replace(again, general_loss=result.after.general_loss) == result.after


def test_a_result_says_on_which_text_forgetting_was_read(loaded, task, spec, folder):
    result = tuned(loaded, task, spec, folder(spec))
    text = sample_general_text(loaded.model, loaded.tokenizer, loaded.context)
    other = sample_general_text(loaded.model, loaded.tokenizer, loaded.context, seed=1)
    assert result.general_text == text.fingerprint != other.fingerprint
    filled = replace(text, ids=torch.nn.functional.pad(text.ids, (0, 2)))  # what does not count
    assert filled.fingerprint == text.fingerprint
    place = folder(spec)
    kept = tuned(loaded, task, replace(spec, steps=500), place, Stopper(3, "keep"))
    assert (kept.general_text, measure_kept(loaded, task, place).general_text) == (None, text.fingerprint)


def test_metrics_are_one_whole_line_per_step_with_validation_where_it_was_read(loaded, task, spec, folder):
    place = folder(replace(spec, eval_every=4))
    tuned(loaded, task, replace(spec, eval_every=4), place)
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(7))
    assert [row["step"] for row in rows if "validation_loss" in row] == [0, 4, 6]
    assert rows[0]["loss"] is None
    assert all(row["loss"] > 0 and row["learning_rate"] > 0 for row in rows[1:])


def test_tuning_learns_the_task(loaded, task, full, folder):
    result = tuned(loaded, task, replace(full, steps=60), folder(full))
    assert result.after.exact_match > 0.9 > 0.1 > result.before.exact_match
    assert result.after.general_loss > result.before.general_loss
    assert result.samples[0].after != result.samples[0].before


def test_stop_and_keep_keeps_weights_and_metrics(loaded, task, spec, folder):
    spec = replace(spec, steps=500)
    place = folder(spec)
    result = tuned(loaded, task, spec, place, Stopper(3, "keep"))
    assert result.state is RunState.CANCELLED
    assert result.reason == "Stopped after 3 of 500 steps; what was learned so far is kept."
    assert result.steps == 3
    assert (result.after, result.unmeasured) == (None, True)
    assert result.proof.holds
    assert (place / "weights" / "tuned.safetensors").exists()
    assert not set(result.phases) & {"test", "forgetting", "answers"}


def test_the_floor_of_a_large_source_hangs_neither_on_the_seed_nor_on_the_rows_it_draws(loaded):
    colours = [" red", " blue"] * 190 + [" red"] * 18 + [" green"] * 2
    rows = tuple(Example("the cat is", colour) for colour in colours)
    task = Task("toy", train=rows, validation=(), test=(rows[0], rows[1], rows[1], rows[-1]))
    asked = RunSpec(loaded.info.name, "toy", Plan("tiny", 4, (2,)), steps=2, batch_size=4)
    floors = []
    for seed in range(6):
        splits = encode_splits(loaded, task, replace(asked, seed=seed))
        assert len(splits.own) == 16
        floors.append(floor_on(splits, Metrics(99.0, None, 0.0, 0.0), loaded.info.vocab_size, task.train))
    assert floors[0].prior.kind == "label frequencies" and floors[0].exact_match == 0.25
    assert floors[1:] == floors[:1] * 5


def test_a_kept_run_is_measured_on_the_text_its_base_model_is_read_on_again(loaded, task, spec, folder):
    place = folder(spec)
    one = tuned(loaded, task, replace(spec, steps=500), place, Stopper(3, "keep"))
    elsewhere = replace(one.before, general_loss=one.before.general_loss + 0.5)  # other text, as on another machine
    replace(one, before=elsewhere).save(place / "result.json")
    assert measure_kept(loaded, task, place).before == one.before


def test_what_a_stopped_run_kept_is_measured_afterwards_as_the_run_itself_would_have(loaded, task, spec, folder):
    place = folder(spec)
    one = tuned(loaded, task, replace(spec, steps=500), place, Stopper(3, "keep"))
    again = measure_kept(loaded, task, place)
    assert again == load_run(place).result
    assert (again.state, again.unmeasured, again.proof) == (RunState.CANCELLED, False, one.proof)
    rows = encode(loaded.tokenizer, task.test, 64).rows
    by_hand = evaluate(load_tuned(place, loaded), rows, spec.batch_size)
    assert again.after is not None
    assert replace(by_hand, general_loss=again.after.general_loss) == again.after
    assert all(sample.after is not None for sample in again.samples)
    assert not is_held(place)
    with pytest.raises(RunError, match="has nothing to measure"):
        measure_kept(loaded, task, place)


def test_the_latency_that_was_asked_for_is_measured_with_what_a_stopped_run_kept(loaded, task, spec, folder):
    timed = replace(spec, steps=500, latency="on")
    place = folder(timed)
    assert tuned(loaded, task, timed, place, Stopper(3, "keep")).latency_ratio is None
    found: Any = measure_kept(loaded, task, place)
    assert found.latency_ratio is not None and "latency" in found.phases
    assert 0 < found.latency_low <= found.latency_ratio <= found.latency_high


def test_measuring_that_is_stopped_leaves_the_result_as_it_was(loaded, task, spec, folder):
    place = folder(spec)
    tuned(loaded, task, replace(spec, steps=500), place, Stopper(3, "keep"))
    before, asked = (place / "result.json").read_bytes(), Stopper(0, "keep")
    asked.stop = "keep"
    assert measure_kept(loaded, task, place, asked).unmeasured
    assert (place / "result.json").read_bytes() == before
    other = replace(task, train=task.train[:-1])
    with pytest.raises(RunError, match="has changed since the run"):
        measure_kept(loaded, other, place)


def test_memory_that_does_not_suffice_for_measuring_is_its_own_sentence_and_leaves_the_result(
    loaded, task, spec, folder, monkeypatch
):
    place = folder(spec)
    tuned(loaded, task, replace(spec, steps=500), place, Stopper(3, "keep"))
    before = (place / "result.json").read_bytes()
    monkeypatch.setattr("lsf.training.measuring.load_tuned", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(OutOfMemoryError, match="cpu ran out of memory while measuring block 2 in batches of 4"):
        measure_kept(loaded, task, place)
    assert (place / "result.json").read_bytes() == before
    assert not is_held(place)


def test_stop_and_discard_keeps_no_weights(loaded, task, spec, folder):
    spec = replace(spec, steps=500)
    place = folder(spec)
    result = tuned(loaded, task, spec, place, Stopper(3, "discard"))
    assert result.state is RunState.CANCELLED
    assert result.reason == "Stopped after 3 of 500 steps and discarded."
    assert (result.steps, result.after) == (3, None)
    assert not (place / "weights").exists()
    assert load_run(place).state is RunState.CANCELLED


def test_a_stop_before_the_first_step_is_a_cancelled_run(loaded, task, spec, folder):
    asked = Stopper(0, "keep")
    asked.stop = "keep"
    result = tuned(loaded, task, spec, folder(spec), asked)
    assert (result.state, result.reason) == (RunState.CANCELLED, "Stopped at its start.")


def test_a_loss_that_is_no_longer_finite_fails_the_run_with_its_sentence(loaded, task, full, folder):
    spec = replace(full, steps=2)
    broken = load_model(loaded.info.name, "float32", "cpu")
    broken.model.model.norm.weight.data.fill_(1e38)
    place = folder(spec)
    with pytest.raises(RunError, match="no longer finite at step"):
        tuned(broken, task, spec, place)
    run: Any = load_run(place)
    assert run.state is RunState.FAILED
    assert "a smaller learning rate may help" in run.problem
    assert run.result.after is None


def test_a_folder_removed_during_the_run_ends_it_with_a_sentence(loaded, task, spec, folder):
    place = folder(spec)

    class Remover(Stopper):
        def partial(self, value):
            if value["step"] == 2:
                shutil.rmtree(place)

    with pytest.raises(RunError, match="was removed while the run was going on"):
        tuned(loaded, task, replace(spec, steps=500), place, Remover(1, None))
    assert not place.exists()


def test_running_out_of_memory_is_its_own_sentence(loaded, spec):
    sentence = "cpu ran out of memory while tuning block 2 in batches of 4 examples; a smaller batch"
    with pytest.raises(OutOfMemoryError, match=sentence), explained_memory(loaded, spec):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), explained_memory(loaded, spec):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))


def test_an_unexpected_error_is_a_failed_run_with_its_traceback_in_the_log(loaded, task, spec, folder):
    place = folder(spec)

    class Broken(Stopper):
        def partial(self, value):
            raise ZeroDivisionError("by design")

    with pytest.raises(ZeroDivisionError):
        tuned(loaded, task, spec, place, Broken(1, None))
    run: Any = load_run(place)
    assert run.state is RunState.FAILED
    assert "unexpected ZeroDivisionError" in run.problem
    assert "raise ZeroDivisionError" in (place / "run.log").read_text()


def test_a_full_disk_is_a_failed_run_with_its_sentence(loaded, task, full, folder):
    place = folder(full)

    class Limiter(Stopper):
        def progress(self, done, total, message=""):
            if message.startswith(f"step {full.steps} of"):  # the next file this process writes may have 20 kB
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    try:
        with pytest.raises(RunError, match="Cannot write the weights of"):
            tuned(loaded, task, full, place, Limiter(0, None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    run: Any = load_run(place)
    assert run.state is RunState.FAILED
    assert (run.result.steps, run.result.after) == (full.steps, None)
    assert not (place / "weights" / "tuned.safetensors").exists()


def test_an_interrupt_from_the_keyboard_is_a_cancelled_run(loaded, task, spec, folder):
    place = folder(spec)

    class Keyboard(Stopper):
        def partial(self, value):
            if value["step"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(loaded, task, spec, place, Keyboard(0, None))
    run: Any = load_run(place)
    assert (run.state, run.result.steps) == (RunState.CANCELLED, 2)
    assert not (place / "run.log").exists()


def test_without_held_out_examples_metrics_are_unknown(loaded, task, spec, folder):
    bare = Task("bare", task.train, (), ())
    result = tuned(loaded, bare, spec, folder(spec))
    assert result.state is RunState.SUCCEEDED
    assert replace(result.after, general_loss=None) == Metrics()
    assert result.samples == ()
    searching = replace(spec, learning_rate=None)
    with pytest.raises(DataError, match="needs validation examples and the data has none; give a rate"):
        tuned(loaded, bare, searching, folder(searching))


def test_epochs_replace_steps(loaded, task, spec, folder):
    spec = replace(spec, epochs=1.5, steps=1000)
    assert tuned(loaded, task, spec, folder(spec)).steps == 1.5 * len(task.train) / 4 == 9


@pytest.mark.parametrize(
    ("rows", "epochs", "steps"),
    [
        (24, 1, 2),
        (40, 1, 3),
        (17, 1, 2),
        (23, 1, 2),
        (32, 1, 2),
        (32, 0.5, 1),
        (20, 1.2, 2),
        (160, 0.1, 1),
        (3, 0.1, 1),
    ],
)
def test_an_epoch_is_never_less_than_a_pass_over_the_rows(loaded, task, spec, rows, epochs, steps):
    some = Task("some", (task.train * 7)[:rows], task.validation, task.test)
    assert encode_splits(loaded, some, replace(spec, epochs=epochs, batch_size=16)).steps == steps


@pytest.mark.parametrize("asked", [{"steps": 4}, {"epochs": 0.75}])
def test_a_warm_up_that_leaves_no_step_at_the_rate_is_refused_before_anything_is_trained(
    loaded, task, spec, folder, asked
):
    asked = replace(spec, **asked)
    steps = encode_splits(loaded, task, asked).steps
    assert steps >= 4
    for warmup in (steps, steps + 1):
        place, words = folder(asked), f"warmup_steps is {warmup} and the run has {steps} steps; it must be less"
        for start in (forecast, lambda *given, place=place: tuned(*given, place)):
            with pytest.raises(BadInputError, match=words):
                start(loaded, task, replace(asked, warmup_steps=warmup))
        assert not read_metrics(place)
    tuned(loaded, task, replace(asked, warmup_steps=steps - 1), place := folder(asked))
    rates = [row["learning_rate"] for row in read_metrics(place)][1:]
    assert max(rates) == pytest.approx(spec.learning_rate)


def test_a_plan_for_another_model_is_a_failed_run(loaded, task, spec, folder):
    spec = replace(spec, plan=Plan("other", 12, (7,)))
    place = folder(spec)
    with pytest.raises(PlanError, match="made for other with 12 blocks"):
        tuned(loaded, task, spec, place)
    assert load_run(place).state is RunState.FAILED


def test_a_bfloat16_run_starts_from_the_bases_own_numbers(tiny, task, spec, full, folder):
    loaded = load_model(str(tiny("llama")), "bfloat16", "cpu")
    still = replace(full, learning_rate=1e-8, steps=1)
    result = tuned(loaded, task, still, folder(still))
    assert result.after.loss == pytest.approx(result.before.loss, rel=5e-3)
    assert result.environment["dtype"] == "bfloat16"


def test_the_seconds_of_the_phases_add_up_to_those_of_the_run(loaded, task, spec, folder):
    result = tuned(loaded, task, spec, folder(spec))
    assert {"reading", "base", "steps", "validation", "test", "proof", "saving"} <= set(result.phases)
    assert sum(result.phases.values()) == pytest.approx(result.total_seconds)
