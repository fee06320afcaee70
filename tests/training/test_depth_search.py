"""Five depths, tried for the first steps of a run: what a run of the same spec reads at that step, to the last bit."""

from dataclasses import replace

import pytest
import torch

from lsf.errors import BadInputError, DataError, StoppedError
from lsf.methods.optimization import rounded
from lsf.models.loading import weights_hash
from lsf.plans.plan import Plan
from lsf.plans.tries import tried_sets
from lsf.progress import Silent, Stop, Unheard
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, read_metrics
from lsf.training.depth_search import try_depths
from lsf.training.run import tune


def asked(loaded, task, **settings) -> RunSpec:
    plan = Plan(loaded.info.name, loaded.info.n_blocks, (0,))
    return RunSpec(loaded.info.name, task.name, plan, **{"steps": 8, "batch_size": 4, "warmup_steps": 1, **settings})


@pytest.mark.parametrize("method", ["full", "lora", "lt_sft"])  # lt_sft keeps the mask it finds
def test_a_try_is_the_beginning_of_the_run_that_it_stands_for(loaded, task, tmp_path, method: str) -> None:
    before = weights_hash(loaded.model)
    spec = asked(loaded, task, method=method, learning_rate=0.01)
    found = try_depths(loaded, task, spec, Silent())
    assert weights_hash(loaded.model) == before
    assert (found.steps, found.run_steps) == (4, 8)
    assert tuple(one.blocks for one in found.tries) == tried_sets(loaded.info.n_blocks, 1)
    for one in found.tries:
        plan = Plan(loaded.info.name, loaded.info.n_blocks, one.blocks)
        run = replace(spec, plan=plan, eval_every=4)
        folder = create_run(tmp_path, run)
        tune(loaded, task, run, folder, Silent())
        read = {row["step"]: row["validation_loss"] for row in read_metrics(folder) if row.get("validation_loss")}
        assert one.loss == read[4]
        assert found.base_loss == read[0]
    assert try_depths(loaded, task, spec, Silent()).tries == found.tries


def test_without_a_number_depths_take_the_default_rate_and_the_best_of_them_half_and_twice_of_it_too(
    loaded, task, tmp_path
) -> None:
    spec = asked(loaded, task)
    found = try_depths(loaded, task, spec, Silent())
    own = found.tries[0].learning_rate
    assert {one.learning_rate for one in found.tries} == {own}
    depth = min(found.tries, key=lambda one: (one.loss, -one.blocks[0]))
    assert [(one.blocks, one.learning_rate) for one in found.rates] == [
        (depth.blocks, rounded(own / 2)), (depth.blocks, rounded(2 * own))
    ]  # fmt: skip
    for one in found.rates:
        plan = Plan(loaded.info.name, loaded.info.n_blocks, one.blocks)
        run = replace(spec, plan=plan, learning_rate=one.learning_rate, eval_every=4)
        folder = create_run(tmp_path, run)
        tune(loaded, task, run, folder, Silent())
        assert one.loss == next(row["validation_loss"] for row in read_metrics(folder) if row["step"] == 4)
    best = min((depth, *found.rates), key=lambda one: (one.loss, one.learning_rate))
    assert found.plan is not None
    assert found.plan.rates == {"full": best.learning_rate}
    taken = replace(spec, plan=found.plan)
    folder = create_run(tmp_path, taken)
    result = tune(loaded, task, taken, folder, Silent())
    assert (result.learning_rate, result.rate_from) == (best.learning_rate, "tried")


def test_a_given_rate_is_kept_and_goes_with_the_plan(loaded, task) -> None:
    found = try_depths(loaded, task, asked(loaded, task, learning_rate=0.02, steps=2), Silent())
    assert found.rates == ()
    assert found.plan is not None
    assert found.plan.rates == {"full": 0.02}


def test_a_search_within_a_try_is_refused(loaded, task) -> None:
    with pytest.raises(BadInputError, match="searches no learning rate; give a number"):
        try_depths(loaded, task, asked(loaded, task, learning_rate=None), Silent())


def test_what_diverges_is_no_choice(loaded, task) -> None:
    spec, one = asked(loaded, task), loaded.layout.blocks[-1]
    weight = next(one.parameters())
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("inf"))  # from then on no loss of this model is finite
        found = try_depths(loaded, task, spec, Silent())
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert [one.loss for one in found.tries] == [None] * len(tried_sets(loaded.info.n_blocks, 1))
    assert found.plan is None


class Stopping(Unheard):
    """A reporter that asks for an end after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    @property
    def stop(self) -> Stop | None:
        self.left -= 1
        return "keep" if self.left < 0 else None


@pytest.mark.parametrize("looks", [0, 6, 25])
def test_a_stop_before_the_last_try_chooses_nothing(loaded, task, looks: int) -> None:
    with pytest.raises(StoppedError, match="nothing was chosen"):
        try_depths(loaded, task, asked(loaded, task), Stopping(looks))


def test_without_validation_examples_it_says_so(loaded, task) -> None:
    with pytest.raises(DataError, match="needs validation examples"):
        try_depths(loaded, replace(task, validation=()), asked(loaded, task), Silent())
