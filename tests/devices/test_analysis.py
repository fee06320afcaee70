"""Analyses on the pretend accelerator: the CPU's numbers, one wait a batch, no states but those of pictures."""

import numpy as np
import pytest
import torch

import lsf.models.batches
from lsf.criteria.registry import CRITERIA, Need
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.lens.analyze import analyze
from lsf.lens.forward import Wanted, stream_readings
from lsf.lens.gradients import backward_readings
from lsf.lens.semantics import semantic_bases
from lsf.lens.trajectories import KEPT_EXAMPLES, SAMPLED_POSITIONS
from lsf.models.batches import MOST_PADDING, make_batches
from lsf.progress import Silent
from lsf.training.reweighting import target_distances
from tests.accelerator import LogitsError
from tests.devices.conftest import SHALLOW

WIDTH, VOCABULARY, STATES = 32, 28, 3
AT_THE_START = 1
"""Waits before the first batch: for the tokens whose bases are solved for ahead, in float64 on the host."""
NEEDS: tuple[Need, ...] = (
    "forward",
    "path",
    "vocabulary",
    "states",
    "backward",
    "per_example",
    "trial_step",
    "bypass",
    "kernel",
    "weights",
)
PASSES = {"forward": 1, "backward": 2, "per_example": 2, "trial_step": 3}
"""Need -> times every batch goes through the model; those left out go through it once."""


def asked(need: Need) -> AnalysisSettings:
    names = tuple(name for name in CRITERIA if CRITERIA[name].needs == need)
    return AnalysisSettings(limit=None, split="train", criteria=names, batch_size=8, positions="all")


def waits_of(need: Need, n_batches: int) -> int:
    """One a batch for each pass that answers something, and what the end of a pass takes."""
    per_batch = {"per_example": 2, "bypass": 2}.get(need, 1)
    at_the_end = {"backward": 1, "per_example": 1, "trial_step": 2, "kernel": 1}.get(need, 0)
    return per_batch * n_batches + at_the_end + AT_THE_START


@pytest.mark.parametrize("need", NEEDS)
def test_every_criterion_has_the_cpus_scores_and_waits_once_a_batch(need, on_device, on_cpu, many, accelerator):
    settings, loaded = asked(need), on_device(SHALLOW)
    rows = encode(loaded.tokenizer, many.train, 64).rows
    n_batches = len(make_batches(rows, "all", 8, 0, torch.device("cpu"), MOST_PADDING))
    sampled = SAMPLED_POSITIONS + 2 if need == "states" else 0
    pictures = (KEPT_EXAMPLES + 8) * 2  # positions of the first examples, and of the first batch
    states = pictures * (STATES + 2) + sampled * STATES
    waits = waits_of(need, n_batches)
    with accelerator.watched(width=WIDTH, states=states, waits=waits, vocabulary=VOCABULARY) as seen:
        found = analyze(loaded, many, settings, Silent())
    assert seen.waits.total() >= n_batches
    expected = analyze(on_cpu(SHALLOW), many, settings, Silent())
    for name in settings.criteria:
        mine, theirs = (np.array([block.scores[name] for block in one.blocks], float) for one in (found, expected))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5, err_msg=name)
    if need == "forward":
        mine, theirs = (np.array([state.deviation for state in one.states]) for one in (found, expected))
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt_projected", "qwen3_moe"])
def test_other_families_are_read_on_the_device_as_on_the_cpu(family, on_device, on_cpu, many, accelerator):
    loaded = on_device(family)
    rows = encode(loaded.tokenizer, many.train[:16], 64).rows
    n_batches = len(make_batches(rows, "first", 8, 0, torch.device("cpu"), MOST_PADDING))
    with accelerator.watched(width=WIDTH, states=0, waits=n_batches + AT_THE_START):
        found = target_distances(loaded.layout, rows, 8)
    np.testing.assert_allclose(found, target_distances(on_cpu(family).layout, rows, 8), atol=1e-5)


def test_parameters_that_no_tap_sees_are_added_up_on_the_device(on_device, on_cpu, many, accelerator):
    found = []
    for loaded in (on_device("qwen3_moe"), on_cpu("qwen3_moe")):
        rows = encode(loaded.tokenizer, many.train[:4], 64).rows
        batches = make_batches(rows, "first", 4, 0, loaded.device)
        with accelerator.watched():  # transformers' experts wait by themselves, in backward passes too
            found.append(backward_readings(loaded, batches, Silent(), fisher=True))
    np.testing.assert_allclose(found[0].fisher, found[1].fisher, rtol=1e-3)


def test_the_lens_holds_no_more_logits_than_allowed(on_device, many, accelerator, monkeypatch):
    loaded = on_device()
    rows = encode(loaded.tokenizer, many.train, 64).rows
    batches = make_batches(rows, "all", 16, 0, loaded.device)
    bases, most = semantic_bases(loaded.layout.head_weight), 40 * VOCABULARY
    with (
        accelerator.watched(vocabulary=VOCABULARY, most_logits=most),
        pytest.raises(LogitsError, match=r"lsf/models/layout|transformers|torch"),
    ):
        next(stream_readings(loaded.layout, bases, batches, Wanted()))
    monkeypatch.setattr(lsf.models.batches, "MOST_LOGITS", most)
    with accelerator.watched(vocabulary=VOCABULARY, most_logits=most) as seen:
        next(stream_readings(loaded.layout, bases, batches, Wanted()))
    assert seen.logits == most  # as many rows as fit


def test_the_head_is_passed_in_few_parts_where_the_vocabulary_is_large(on_device):
    assert lsf.models.batches.MOST_LOGITS == 2**26
    assert lsf.models.batches.rows_at_once(152_064, 10_000) == 441
