"""The graft: blocks of a tuned model in its base and back, by every method; the same rows, the same bits."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lsf.errors import BadInputError, RunError
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Silent, Stop
from lsf.runs.graft import GRAFT, Graft, which_did_it
from lsf.runs.spec import RunSpec
from lsf.runs.store import load_run, take_up
from lsf.training.artefacts import load_tuned
from lsf.training.evaluation import evaluate
from lsf.training.graft import Grafts, measure_graft, measure_mixture, read_grafts
from lsf.training.proof import fingerprint
from lsf.training.splits import read_test_rows
from tests.toy import tuned

IDS = torch.tensor([[1, 5, 7, 9, 4], [1, 6, 8, 10, 3]])
PLAN = Plan("tiny", 4, (1, 3))
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4}, "adapter": {"size": 8}, "hiwi": {"r": 4}, "did": {"d": 40}, "said": {"d": 40},
    "pafi": {"fraction": 0.05}, "fish": {"fraction": 0.05, "examples": 8}, "random_mask": {"fraction": 0.05},
    "lt_sft": {"fraction": 0.05, "first_steps": 3}, "top_magnitude": {"fraction": 0.05},
}  # fmt: skip
RATES = {"did": 1.0, "said": 1.0, "hiwi": 0.05}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def read(*arguments: Any) -> Any:
    """`read_grafts`, for tests that read parts they know to be there."""
    return read_grafts(*arguments)


def grafts_of(loaded, task, spec, folder) -> tuple[Grafts, Any]:
    place = folder(spec)
    assert tuned(loaded, task, spec, place).state == "succeeded"
    return Grafts(loaded, load_tuned(place, loaded)), logits(load_tuned(place, loaded))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "bitfit"])
def test_all_parts_are_the_tuned_model_and_none_the_base_bit_for_bit(loaded, task, spec, folder, method):
    rate = RATES.get(method, 1e-2)
    asked = replace(spec, plan=PLAN, method=method, options=OPTIONS.get(method, {}), learning_rate=rate)
    asked = replace(asked, steps=2, eval_limit=2)
    before = fingerprint(loaded.model)
    grafts, whole = grafts_of(loaded, task, asked, folder)
    assert grafts.parts == (1, 3)
    found = {}
    for parts in ((), (1,), (3,), (1, 3)):
        with grafts.model(parts) as model:
            found[parts] = logits(model)
    assert torch.equal(found[()], logits(loaded.model))
    assert torch.equal(found[1, 3], whole)
    for one, other in (((1,), ()), ((3,), ()), ((1,), (1, 3)), ((3,), (1, 3)), ((1,), (3,))):
        assert not torch.equal(found[one], found[other])
    with grafts.model(()) as model:  # nothing of the mixtures before is left
        assert torch.equal(logits(model), found[()])
    assert fingerprint(loaded.model) == before


def test_what_is_tuned_outside_of_blocks_is_a_part_of_its_own(loaded, task, full, folder):
    grafts, whole = grafts_of(loaded, task, full, folder)
    assert grafts.parts == (0, 1, 2, 3, None)
    with grafts.model(grafts.parts) as model:
        assert torch.equal(logits(model), whole)
    with grafts.model((0, 1, 2, 3)) as model, torch.no_grad():
        assert torch.equal(model.get_input_embeddings().weight, loaded.model.get_input_embeddings().weight)
        assert not torch.equal(logits(model), whole)
    with grafts.model((None,)) as model, torch.no_grad():
        assert not torch.equal(model.get_input_embeddings().weight, loaded.model.get_input_embeddings().weight)
        own = model.get_submodule(loaded.layout.block_names[2]).state_dict()
        assert all(torch.equal(value, own[name]) for name, value in loaded.layout.blocks[2].state_dict().items())


def test_a_mixture_reads_the_loss_that_evaluate_reads_with_and_without_kept_states(loaded, task, spec, folder):
    asked = replace(spec, plan=PLAN)
    grafts, _ = grafts_of(loaded, task, asked, folder)
    rows = read_test_rows(loaded, task, asked)
    found, plain = (read(grafts, rows, replace(asked, cache=cache), Silent()) for cache in ("auto", "off"))
    assert found == plain
    assert found.base.loss == pytest.approx(evaluate(loaded.model, rows, 4).loss, abs=1e-12)
    for part in found.parts:
        for parts, effect in ((grafts.parts_of([part.block], "alone"), part.alone), ((4 - part.block,), part.without)):
            with grafts.model(parts) as model:
                metrics = evaluate(model, rows, 4)
            assert effect.reading.loss == pytest.approx(metrics.loss, abs=1e-12)
            assert effect.reading.exact_match == metrics.exact_match
        assert part.alone.by_loss.mean == pytest.approx(found.base.loss - part.alone.reading.loss)
        assert part.without.by_loss.mean == pytest.approx(part.without.reading.loss - found.tuned.loss)
        assert part.alone.by_loss.low < part.alone.by_loss.mean < part.alone.by_loss.high


@pytest.mark.parametrize(("source", "tuned_parts"), [("tuned", (1, 3)), ("base", (2,))])
def test_some_blocks_are_exchanged_together_from_either_model(loaded, task, spec, folder, source, tuned_parts):
    asked, place = replace(spec, plan=Plan("tiny", 4, (1, 2, 3))), folder(spec)
    assert tuned(loaded, task, asked, place).state == "succeeded"
    found: Any = measure_mixture(loaded, task, place, (3, 1), source, Silent())
    rows = read_test_rows(loaded, task, asked)
    grafts = Grafts(loaded, load_tuned(place, loaded))
    losses = []
    for parts in ((), tuned_parts, (1, 2, 3)):
        with grafts.model(parts) as model:
            losses.append(evaluate(model, rows, 4).loss)
    base, mixed, whole = losses
    assert (found.base.loss, found.mixed.loss, found.tuned.loss) == pytest.approx((base, mixed, whole), abs=1e-12)
    assert found.over_base.mean == pytest.approx(base - mixed)
    assert found.below_tuned.mean == pytest.approx(mixed - whole)
    assert (found.blocks, found.n_rows, found.data) == ((1, 3), len(rows), task.name)
    with pytest.raises(BadInputError, match="The run did not tune block 0; it tuned: block 1, block 2, block 3"):
        measure_mixture(loaded, task, place, (0, 1), source, Silent())


def test_a_block_whose_weights_are_the_bases_changes_nothing(loaded, task, spec, folder):
    asked = replace(spec, plan=PLAN)
    place = folder(asked)
    tuned(loaded, task, asked, place)
    model = load_tuned(place, loaded)
    for name, value in loaded.layout.block_parameters(3).items():
        model.get_parameter(name).data.copy_(value)
    found = read(Grafts(loaded, model), read_test_rows(loaded, task, asked), asked, Silent())
    idle, busy = found.parts[1], found.parts[0]
    assert idle.block == 3
    for effect in (idle.alone, idle.without):
        assert (effect.by_loss.mean, effect.by_loss.low, effect.by_loss.high) == (0, 0, 0)
        assert effect.behind.side == 1
    assert idle.alone.reading == found.base
    assert busy.alone.by_loss == found.gain == busy.without.by_loss
    assert which_did_it(found)[0].startswith("Block 1 did most of it: alone it brings")


def test_the_graft_of_a_run_is_kept_in_its_folder_and_goes_where_the_run_goes_on(loaded, task, spec, folder):
    asked = replace(spec, plan=PLAN)
    place = folder(asked)
    result = tuned(loaded, task, asked, place)
    found = measure_graft(loaded, task, place, Silent())
    assert Graft.load(place / GRAFT) == found
    assert found.base.loss == pytest.approx(result.before.loss)
    assert found.tuned.loss == pytest.approx(result.after.loss)
    assert (found.base.exact_match, found.tuned.exact_match) == (result.before.exact_match, result.after.exact_match)
    with pytest.raises(RunError, match=r"The data of .* has changed since the run"):
        measure_graft(loaded, replace(task, test=task.test[1:]), place, Silent())
    take_up(place, None)
    assert not (place / GRAFT).exists()
    with pytest.raises(RunError, match="has no tuned model"):
        measure_graft(loaded, task, place, Silent())


def test_it_ends_where_asked_and_keeps_nothing(loaded, task, spec, folder):
    class Asked(Silent):
        stop: Stop | None = "keep"

    place = folder(spec)
    tuned(loaded, task, spec, place)
    with pytest.raises(RunError, match="The graft was stopped"):
        measure_graft(loaded, task, place, Asked())
    assert not (place / GRAFT).exists()
    assert load_run(place).state == "succeeded"


def test_a_block_that_was_not_tuned_is_refused(loaded, task, spec, folder):
    grafts, _ = grafts_of(loaded, task, spec, folder)
    with pytest.raises(BadInputError, match="The run did not tune block 1; it tuned: block 2"), grafts.model((1,)):
        pass
    with pytest.raises(BadInputError, match="did not tune anything outside of blocks"), grafts.model((None,)):
        pass


def test_biases_of_a_biased_family_are_grafted(tiny, task, folder):
    gpt2 = load_model(str(tiny("gpt2")), "float32", "cpu")
    for method, plan in (("bitfit", PLAN), ("lora", PLAN), ("full", full_plan("tiny", 4))):
        asked = RunSpec(gpt2.info.name, "toy", plan, method=method, steps=3, batch_size=4, learning_rate=1e-2)
        grafts, whole = grafts_of(gpt2, task, asked, folder)
        with grafts.model(()) as model:
            assert torch.equal(logits(model), logits(gpt2.model))
        with grafts.model(grafts.parts) as model:
            assert torch.equal(logits(model), whole)
