"""How often a run looks at its validation rows, how little it reads there, and with how many threads."""

from dataclasses import replace

import pytest
import torch

from lsf.data.encode import encode
from lsf.plans.plan import full_plan
from lsf.runs.checkpoints import CheckpointManager
from lsf.runs.store import read_metrics
from lsf.training.evaluation import evaluate
from lsf.training.run import tune
from lsf.training.splits import READINGS, encode_splits, reading_interval


def interval(loaded, task, spec):
    return reading_interval(loaded, spec, encode_splits(loaded, task, spec))


def test_readings_are_planned_by_counting_and_an_interval_that_was_asked_for_wins(loaded, task, spec):
    long = replace(spec, steps=4000)
    assert interval(loaded, task, long) == 4000 // READINGS[1]
    assert interval(loaded, task, replace(spec, steps=10)) == 10 // READINGS[0]
    assert interval(loaded, task, replace(long, eval_every=7)) == 7


def test_a_run_of_dearer_steps_is_read_at_least_as_often(loaded, task, spec):
    last, whole = replace(spec, steps=60), replace(spec, steps=60, plan=full_plan("tiny", 4))
    assert interval(loaded, task, whole) <= interval(loaded, task, last)
    assert interval(loaded, task, replace(last, batch_size=16)) < interval(loaded, task, last)


@pytest.mark.parametrize(("asked", "readings"), [({"keep": "best"}, READINGS[1]), ({"until": "flat"}, 20)])
def test_a_run_that_goes_by_its_readings_has_as_many_whatever_is_tuned_and_they_are_forecast(
    loaded, task, spec, folder, asked, readings
):
    few, whole = replace(spec, steps=60, eval_every=None, **asked), replace(spec, steps=60, plan=full_plan("tiny", 4))
    for one in (few, replace(whole, eval_every=None, **asked)):
        assert interval(loaded, task, one) == 60 // readings
    best = replace(few, until="steps", keep="best")
    tune(loaded, task, best, place := folder(best))
    read = [row["step"] for row in read_metrics(place) if "validation_loss" in row]
    assert read == list(range(0, 61, 6))


def test_the_head_reads_no_position_but_those_whose_prediction_counts(loaded, task):
    rows, seen = encode(loaded.tokenizer, task.test, 64).rows, list[int]()
    handle = loaded.model.lm_head.register_forward_hook(lambda _m, _a, logits: seen.append(logits[..., 0].numel()))
    try:
        evaluate(loaded.model, rows, 4)
    finally:
        handle.remove()
    assert sum(seen) == sum(len(row.ids) - row.n_prompt for row in rows)


def test_threads_stand_in_the_result_and_are_put_back(loaded, task, spec, folder):
    before, asked = torch.get_num_threads(), replace(spec, threads=2, steps=1)
    assert tune(loaded, task, asked, folder(asked)).threads == 2
    assert torch.get_num_threads() == before
    assert tune(loaded, task, spec, folder(spec)).threads == before


def test_latency_is_unknown_unless_it_is_asked_for(loaded, task, spec, folder):
    result = tune(loaded, task, spec, folder(spec))
    assert (result.latency_ratio, "latency" in result.phases) == (None, False)


@pytest.mark.parametrize(("n_bytes", "seconds"), [(0, 60.0), (10**10, 1000.0)])
def test_checkpoints_by_the_clock_take_a_twentieth_of_the_time_at_most(tmp_path, n_bytes, seconds):
    manager = CheckpointManager(tmp_path, {}, None, 60.0, n_bytes)
    assert manager.every_seconds == pytest.approx(seconds)
    manager.took(9.0)
    assert manager.every_seconds == pytest.approx(180.0)
    manager.took(0.1)
    assert manager.every_seconds == 60.0
    assert not manager.is_due(1)
