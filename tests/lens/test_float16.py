"""Gradients of a model in float16, in which small numbers are rounded to 0."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lsf.data.encode import encode
from lsf.data.task import Example
from lsf.lens.gradients import backward_readings
from lsf.models.batches import make_batches
from lsf.models.loading import load_model
from lsf.progress import Silent


def test_gradients_in_float16_do_not_vanish_over_many_positions(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    with torch.no_grad():
        loaded.model.lm_head.weight.mul_(2e-4)  # as small as a mean over thousands of positions makes them
    rows = encode(loaded.tokenizer, [Example("the cat is", " red"), Example("the dog", " is")] * 150, 64).rows
    found = []
    for model in (loaded.model, copy.deepcopy(loaded.model).half()):
        batches = make_batches(rows, "first", 100, 0, loaded.device)
        read = backward_readings(replace(loaded, model=model), batches, Silent(), fisher=True)
        assert read is not None and read.fisher is not None
        found.append(([np.linalg.norm(block.gradient_norms) for block in read.gradients], read.fisher))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=0.05)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=0.1)
