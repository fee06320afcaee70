"""Every method over the kept prefix: what lies below the planned blocks is served, and learned is the same."""

import pytest

from lsf.methods.optimization import LAWS
from lsf.methods.registry import METHODS
from lsf.plans.plan import Plan
from lsf.training.caching import forget_states, open_caching
from lsf.training.fitting import fit
from lsf.training.trainer import FitSettings
from tests.methods.conftest import context_for
from tests.methods.test_contract import given

PLAN, STEPS, BATCH = Plan("tiny", 4, (2, 3)), 5, 6


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_losses_with_and_without_the_kept_prefix(name, gpt2, rows, tmp_path):
    forget_states(gpt2)
    losses = []
    for kind in ("off", "memory"):
        model = METHODS[name].prepare(gpt2, PLAN, context_for(name, rows, **given(name, {})))
        caching, seen = open_caching(gpt2, model, PLAN, rows, kind, STEPS * BATCH), []
        settings = FitSettings(LAWS[name].rate, STEPS, BATCH, 0, 0.01, 0, "float32")
        fit(model, rows, settings, tmp_path, seen.append, lambda: None, prefix=caching.prefix)
        losses.append([row.loss for row in seen])
    told = caching.summary()
    assert (told["served"], told["depth"]) == (STEPS * BATCH, 2)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
