"""Every method over a bfloat16 base: values are trained in float32, and what is merged computes the same."""

import pytest
import torch

from lsf.analysis.plan import Plan
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import load_model
from lsf.training.artefacts import load_tuned, save_weights
from lsf.training.batches import autocasting
from lsf.training.default_rates import LAWS
from lsf.training.evaluation import evaluate
from lsf.training.fitting import FitSettings, fit
from lsf.training.latency import latency_ratio
from lsf.training.merging import merge
from lsf.training.methods import METHODS
from lsf.training.proof import fingerprint
from tests.training.methods.conftest import scene_for, tuned_values
from tests.training.methods.test_contract import given

PLAN = Plan("tiny", 4, (1, 3))


@pytest.fixture(scope="module")
def half(tiny):
    return load_model(str(tiny("gpt2")), "bfloat16", "cpu")


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in METHODS), ("hiwi", {"form": "bias"})])
def test_a_bfloat16_base_is_tuned_in_float32_saved_loaded_and_merged(name, more, half, rows, tmp_path):
    options = given(name, {}) | more
    scene = scene_for(name, rows, **options)
    scene = type(scene)(**{**vars(scene), "base_dtype": "bfloat16"})
    model = METHODS[name].prepare(half, PLAN, scene)
    assert {value.dtype for value in tuned_values(model).values()} == {torch.float32}
    start, frozen = evaluate(model, rows, 24, "bfloat16").loss, fingerprint(model).frozen_hash
    base = evaluate(half.model, rows, 24, "bfloat16").loss
    settings = FitSettings(LAWS[name].rate, 3, 24, 0, 0.0, 0, "bfloat16")
    fit(model, rows, settings, tmp_path, lambda _row: None, lambda: None)
    end = evaluate(model, rows, 24, "bfloat16").loss
    assert start is not None and base is not None and end is not None
    assert start == pytest.approx(base, abs=0.02) and end < start
    assert fingerprint(model).frozen_hash == frozen
    stored = save_weights(model, half, RunSpec("tiny", "toy", PLAN, method=name, options=options), tmp_path)
    biases = 2 * (4 * 32 + 32)  # of the MLPs of two blocks of width 32
    assert stored == 4 * biases if more else stored >= 4 * sum(value.numel() for value in tuned_values(model).values())
    again = load_tuned(tmp_path, half)
    ids = torch.tensor([[1, 5, 7, 9, 4]])
    with torch.no_grad(), autocasting(model, "bfloat16"):
        assert torch.equal(again(ids).logits, model(ids).logits)
        if name in ("full", "lora"):  # norms in float32, and a path of its own beside each map: rounded otherwise
            torch.testing.assert_close(merge(again, half)(ids).logits, model(ids).logits, atol=0.1, rtol=0.05)
        elif METHODS[name].way.merges:
            assert torch.equal(merge(again, half)(ids).logits, model(ids).logits)
    latency = latency_ratio(tmp_path, half)
    assert 0 < latency.low <= latency.ratio <= latency.high
