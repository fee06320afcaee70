"""Every method over a bfloat16 base: values are trained in float32, and what is merged computes the same."""

import pytest
import torch

from lsf.methods.optimization import LAWS
from lsf.methods.registry import METHODS
from lsf.models.batches import autocasting
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import load_tuned, merge, save_weights
from lsf.training.evaluation import evaluate
from lsf.training.fitting import fit
from lsf.training.measured_pass import latency_ratio
from lsf.training.proof import fingerprint
from lsf.training.trainer import FitSettings
from tests.methods.conftest import context_for, tuned_values
from tests.methods.test_contract import given

PLAN = Plan("tiny", 4, (1, 3))


@pytest.fixture(scope="module")
def half(tiny):
    return load_model(str(tiny("gpt2")), "bfloat16", "cpu")


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in METHODS), ("hiwi", {"form": "bias"})])
def test_a_bfloat16_base_is_tuned_in_float32_saved_loaded_and_merged(name, more, half, rows, tmp_path):
    options = given(name, {}) | more
    context = context_for(name, rows, **options)
    context = type(context)(**{**vars(context), "base_dtype": "bfloat16"})
    model = METHODS[name].prepare(half, PLAN, context)
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
        elif METHODS[name].info.merges:
            assert torch.equal(merge(again, half)(ids).logits, model(ids).logits)
    if name in ("full", "adapter"):  # up to a second each: where it is merged, and where it cannot be
        latency = latency_ratio(tmp_path, half)
        assert 0 < latency.low <= latency.ratio <= latency.high
