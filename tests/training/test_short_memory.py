"""Memory that does not suffice for something beside the run: the run itself is not lost."""

from dataclasses import replace

import pytest
import torch

from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.devices import is_out_of_memory
from lsf.models.loading import weights_hash
from lsf.runs.result import RunState
from lsf.runs.store import create_run, load_run
from lsf.training import attempts, evaluation, measured_pass, prefix
from lsf.training.artefacts import load_tuned, save_weights
from lsf.training.caching import forget_states
from lsf.training.measured_pass import Held
from lsf.training.run import tune


def no_room(*_arguments: object, **_named: object) -> None:
    """Ask for more than any machine has, as torch refuses it."""
    torch.empty(2**60)


def test_a_tuned_model_that_does_not_fit_is_short_memory_and_no_bad_file(loaded, task, spec, tmp_path, monkeypatch):
    folder = create_run(tmp_path, spec)
    tune(loaded, task, spec, folder)
    monkeypatch.setattr("lsf.methods.selective.share_model", no_room)
    with pytest.raises(RuntimeError) as caught:
        load_tuned(folder, loaded)
    assert is_out_of_memory(caught.value)


def test_reloading_holds_what_was_tuned_once(loaded, spec, tmp_path):
    model = METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    tuned_values = [value for value in model.parameters() if value.requires_grad]
    count, largest = sum(value.nbytes for value in tuned_values), max(value.nbytes for value in tuned_values)
    save_weights(model, loaded, spec, tmp_path)
    del model, tuned_values
    weights_hash(loaded.model)  # of what follows it is made once per model
    with Held() as held:
        held.know(loaded.model)
        load_tuned(tmp_path, loaded)
    assert 2 * count <= held.peak <= 2 * count + 2 * largest  # as read, on the host, and in the model


def test_a_run_that_was_saved_succeeds_where_memory_is_short_for_timing_it(loaded, task, spec, tmp_path, monkeypatch):
    asked = []

    def load_where_there_is_no_room(*arguments):
        asked.append(arguments)
        with monkeypatch.context() as patch:
            patch.setattr("lsf.methods.selective.share_model", no_room)
            return load_tuned(*arguments)

    monkeypatch.setattr(measured_pass, "load_tuned", load_where_there_is_no_room)
    timed = replace(spec, latency="on")
    folder = create_run(tmp_path, timed)
    result = tune(loaded, task, timed, folder)
    assert asked
    assert (result.state, result.latency_ratio) == (RunState.SUCCEEDED, None)
    assert load_run(folder).result == result


def test_a_reading_that_is_short_of_memory_leaves_the_micro_batch_of_the_steps_as_it_is(
    loaded, task, spec, tmp_path, monkeypatch
):
    score = evaluation.score_tokens

    def narrow(model, batch):
        if len(batch["numbers"]) > 1:
            no_room()
        return score(model, batch)

    asked = replace(spec, cache="off", eval_every=2)
    whole = tune(loaded, task, asked, create_run(tmp_path, asked))
    monkeypatch.setattr(evaluation, "score_tokens", narrow)
    result = tune(loaded, task, asked, create_run(tmp_path, asked))
    assert (result.state, result.micro_batch) == (RunState.SUCCEEDED, spec.batch_size)
    assert result.after is not None and whole.after is not None
    assert result.after.loss == pytest.approx(whole.after.loss, rel=1e-5)


def test_states_of_a_frozen_prefix_that_do_not_fit_together_are_computed_in_halves(
    loaded, task, spec, tmp_path, monkeypatch
):
    score, passed = prefix.score_tokens, []

    def narrow(model, batch):
        if len(batch["numbers"]) > 4:
            no_room()
        passed.append(len(batch["numbers"]))
        return score(model, batch)

    forget_states(loaded)
    monkeypatch.setattr(prefix, "score_tokens", narrow)
    asked = replace(spec, cache="memory", steps=12)
    result = tune(loaded, task, asked, create_run(tmp_path, asked))
    assert (result.state, result.micro_batch) == (RunState.SUCCEEDED, spec.batch_size)
    assert max(passed) == 4 and result.cache is not None and result.cache["computed"] == len(task.train)


def test_the_peak_of_memory_is_that_of_the_attempt_that_went_through(loaded, task, spec, tmp_path, monkeypatch):
    fit, tried = attempts.fit, []

    def wasteful(model, rows, settings, *rest):
        tried.append(settings.micro_batch)
        if settings.micro_batch > 2:
            torch.ones(300 << 18).sum()  # 300 MB
            no_room()
        return fit(model, rows, settings, *rest)

    monkeypatch.setattr(attempts, "fit", wasteful)
    result = tune(loaded, task, spec, create_run(tmp_path, spec))
    assert tried == [4, 2]
    assert result.peak_memory_bytes is not None and result.peak_memory_bytes < 200 << 20
