"""Whole runs by methods: a pause changes nothing, and the table has what they store and how long they take."""

import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lsf.errors import BadInputError, RunPausedError
from lsf.methods import selective
from lsf.methods.selective import squared_gradients
from lsf.plans.plan import Plan
from lsf.runs.checkpoints import latest_checkpoint
from lsf.runs.comparison import compare
from lsf.runs.formats import render
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, load_run
from lsf.training.artefacts import find_weights
from lsf.training.run import tune
from tests.methods.test_contract import given
from tests.toy import Stopper

PLAN = Plan("tiny", 4, (2, 3))


def spec_of(base, name, **changes):
    settings = {"steps": 4, "batch_size": 8, "options": given(name, {})} | changes
    return RunSpec(model=base.info.name, data="toy", plan=PLAN, method=name, **settings)


@pytest.mark.parametrize("name", ["lora", "adapter", "fish", "lt_sft", "hiwi", "said"])
def test_a_paused_run_of_any_kind_goes_on_to_the_same_weights(name, gpt2, task, tmp_path):
    spec = spec_of(gpt2, name, steps=5, checkpoint_steps=2)
    whole, broken = (create_run(tmp_path / place, spec) for place in ("whole", "broken"))
    tune(gpt2, task, spec, whole)
    with pytest.raises(RunPausedError):
        tune(gpt2, task, spec, broken, Stopper(3, "pause"))
    assert tune(gpt2, task, spec, broken).state is RunState.SUCCEEDED
    one, two = (load_file(find_weights(folder)) for folder in (whole, broken))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_table_names_method_stored_bytes_and_latency(gpt2, task, tmp_path):
    specs = [spec_of(gpt2, "full", latency="on"), spec_of(gpt2, "adapter", options={"kind": "pfeiffer"}, latency="on")]
    folders = [create_run(tmp_path, spec) for spec in specs]  # one merges, one cannot
    results = [tune(gpt2, task, spec, folder) for spec, folder in zip(specs, folders, strict=True)]
    table = compare([load_run(folder) for folder in folders])
    assert all(result.latency_ratio is not None and result.latency_ratio > 0 for result in results)
    assert [row.latency_ratio for row in table.rows] == [result.latency_ratio for result in results]
    text = render(table)
    assert "adapter (kind=pfeiffer)" in text and "stored kB" in text and "x latency" in text
    assert "blocks 2-3 by adapter (kind=pfeiffer) (choice)" in text


def test_a_method_that_cannot_do_what_is_asked_fails_before_the_first_step(loaded, task, tmp_path):
    spec = spec_of(loaded, "bitfit")
    folder = create_run(tmp_path, spec)
    with pytest.raises(BadInputError, match=r"bitfit tunes biases and blocks 2-3 of .* has none"):
        tune(loaded, task, spec, folder)
    result = load_run(folder).result
    assert result is not None and result.state is RunState.FAILED and "bitfit tunes biases" in str(result.reason)
    assert replace(spec, method="full", options={}).how == "full"


def test_the_search_for_a_mask_is_counted_beside_the_steps_and_kept_over_a_pause(gpt2, task, tmp_path):
    spec = spec_of(gpt2, "lt_sft", steps=8, checkpoint_steps=2, options={"first_steps": 10, "fraction": 0.05})
    folder = create_run(tmp_path, spec)
    with pytest.raises(RunPausedError):
        tune(gpt2, task, spec, folder, Stopper(3, "pause"))
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    result = tune(gpt2, task, spec, folder)
    assert result.seconds is not None and result.prepare_seconds is not None
    assert result.prepare_seconds == checkpoint.progress.about["prepare_seconds"]
    assert result.prepare_seconds > 0
    row = compare([load_run(folder)]).rows[0]
    assert row.tuning_seconds == result.seconds + result.prepare_seconds


def test_the_search_for_a_mask_is_counted_where_a_trial_of_the_rate_made_it(gpt2, task, tmp_path, monkeypatch):
    def slowly(*given):
        time.sleep(1.0)
        return squared_gradients(*given)

    monkeypatch.setattr(selective, "squared_gradients", slowly)
    spec = spec_of(gpt2, "fish", steps=200, learning_rate=None, options={"fraction": 0.05})
    result = tune(gpt2, task, spec, create_run(tmp_path, spec), Stopper(1, "keep"))
    assert result.search_steps and result.prepare_seconds is not None and result.prepare_seconds >= 1.0
