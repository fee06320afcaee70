"""What every method promises, on a bias-free gated family and on one with biases and transposed maps."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lsf.errors import BadInputError, PlanError
from lsf.methods.catalogue import CATALOGUE, options_of
from lsf.methods.optimization import LAWS
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan, full_plan
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import find_weights, load_tuned, merge, save_weights
from lsf.training.evaluation import evaluate
from lsf.training.fitting import fit
from lsf.training.proof import fingerprint
from lsf.training.trainer import FitSettings
from tests.methods.conftest import context_for, tuned_values
from tests.tiny import save_tiny

PLAN = Plan("tiny", 4, (1, 3))
SMALL: dict[str, Any] = {"d": 40, "r": 4, "size": 8, "fraction": 0.05, "first_steps": 3, "examples": 8}
"""Options that fit a tiny model; each method takes those it has."""
BIASED = ("bitfit",)
"""Methods that need a family with biases."""
CASES = [
    (family, name, {})
    for family in ("loaded", "gpt2")
    for name in METHODS
    if not (family == "loaded" and name in BIASED)
] + [
    ("gpt2", "hiwi", {"form": "bias"}),
    ("gpt2", "adapter", {"kind": "pfeiffer"}),
    ("loaded", "pafi", {"scope": "global"}),
    ("loaded", "did", {"projection": "dense"}),
    ("gpt2", "said", {"projection": "sparse"}),
]


def given(name, extra):
    known = CATALOGUE[name].options.__dataclass_fields__
    return {key: value for key, value in SMALL.items() if key in known} | extra


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([*case[:2], *map(str, case[2].values())]))
def case(request, rows):
    """A base, a method, its options and its context."""
    family, name, extra = request.param
    options = given(name, extra)
    return request.getfixturevalue(family), METHODS[name], options, context_for(name, rows, **options)


@dataclass
class Tuned:
    """What three steps made of a prepared model; tests only read it."""

    model: Any
    done: Any
    start: float | None
    frozen: Any
    """Fingerprint of the model before the steps."""
    whole: Any
    """The base's before them."""


@pytest.fixture(scope="module")
def three_steps(case, tmp_path_factory):
    base, method, _, context = case
    model = method.prepare(base, PLAN, context)
    before = evaluate(model, context.rows, 24).loss, fingerprint(model), fingerprint(base.model)
    settings = FitSettings(LAWS[method.name].rate, 3, 24, 0, 0.01, 0, "float32")
    done = fit(model, context.rows, settings, tmp_path_factory.mktemp("fit"), lambda _row: None, lambda: None)
    return Tuned(model, done, *before)


def test_a_prepared_model_starts_as_the_base_and_tunes_exactly_what_is_counted(case):
    base, method, _, context = case
    before, ids = fingerprint(base.model), torch.tensor([[1, 5, 7, 9, 4]])
    model = method.prepare(base, PLAN, context)
    assert sum(value.numel() for value in tuned_values(model).values()) == method.count(base, PLAN, context.options) > 0
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        distance = (model(ids).logits - base.model(ids).logits).abs().max()
    assert distance < (0.05 if method.name == "adapter" else 1e-5)
    for value in tuned_values(model).values():
        value.data.add_(1.0)
    assert fingerprint(base.model) == before


def test_the_same_arguments_prepare_the_same_model(case):
    base, method, _, context = case
    one, two = (dict(method.prepare(base, PLAN, context).named_parameters()) for _ in range(2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_three_steps_lower_the_loss_and_move_nothing_frozen(case, three_steps):
    base, method, _, context = case
    after = fingerprint(three_steps.model)
    assert after.frozen_hash == three_steps.frozen.frozen_hash
    assert fingerprint(base.model) == three_steps.whole
    assert three_steps.done.trainable_params == method.count(base, PLAN, context.options)
    assert all(after.tuned[name] != digest for name, digest in three_steps.frozen.tuned.items())
    end = evaluate(three_steps.model, context.rows, 24).loss
    assert end is not None and three_steps.start is not None and end < three_steps.start


def test_what_is_saved_gives_the_tuned_model_on_a_fresh_base(case, three_steps, tmp_path):
    base, method, options, _ = case
    spec = RunSpec("tiny", "toy", PLAN, method=method.name, options=options)
    bytes_stored = save_weights(three_steps.model, base, spec, tmp_path)
    again = load_tuned(tmp_path, base)
    ids = torch.tensor([[1, 5, 7, 9, 4]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, three_steps.model(ids).logits, atol=1e-6, rtol=0)
        assert (again(ids).logits - base.model(ids).logits).abs().max() > 1e-4
    assert bytes_stored == sum(value.nbytes for value in method.store(three_steps.model).values())


def test_merged_equals_live_or_merging_is_refused(case, three_steps):
    base, method, _, _ = case
    model = three_steps.model
    if not method.info.merges:
        with pytest.raises(BadInputError, match="cannot be merged"):
            merge(model, base)
        return
    merged = merge(model, base)
    assert {name: value.shape for name, value in merged.named_parameters()} == {
        name: value.shape for name, value in base.model.named_parameters()
    }
    ids = torch.tensor([[1, 5, 7, 9, 4]])
    with torch.no_grad():
        exact = 0 if method.name != "lora" else 1e-4
        torch.testing.assert_close(merged(ids).logits, model(ids).logits, atol=exact, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_full_plan(name, gpt2, rows):
    options = given(name, {})
    model = METHODS[name].prepare(gpt2, full_plan("tiny", 4), context_for(name, rows, **options))
    count = METHODS[name].count(gpt2, full_plan("tiny", 4), options_of(name, options))
    assert sum(value.numel() for value in tuned_values(model).values()) == count
    with torch.no_grad():
        for value in tuned_values(model).values():
            value.add_(0.05)
    ids = torch.tensor([[1, 5, 7]])
    if CATALOGUE[name].merges:  # the tied head follows the embedding
        with torch.no_grad():
            torch.testing.assert_close(merge(model, gpt2)(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("full", "bitfit", "did", "said")])
def test_methods_that_act_on_blocks_refuse_a_plan_without_them(name, gpt2):
    plan = Plan("tiny", 4, (), final_norm=True)
    sentence = (
        rf"The method {name} tunes blocks and the plan names none \(final norm\); name at least one block in 0 to 3"
    )
    with pytest.raises(PlanError, match=sentence):
        METHODS[name].count(gpt2, plan, CATALOGUE[name].options())


@pytest.mark.parametrize("name", METHODS)
def test_a_plan_for_another_model_is_refused(name, gpt2):
    with pytest.raises(PlanError, match=r"made for other with 12 blocks; .* has 4"):
        METHODS[name].count(gpt2, Plan("other", 12, (2,)), CATALOGUE[name].options())


def test_registry_and_catalogue_name_the_same_methods_in_the_same_order():
    assert list(METHODS) == list(CATALOGUE)
    for info in CATALOGUE.values():
        assert all((info.label, info.meaning.endswith("."), info.unit, info.source, info.name in LAWS))


def test_an_artefact_of_another_base_is_refused_with_both_hashes(loaded, tmp_path, rows):
    other = load_model(str(save_tiny("llama", tmp_path / "other", seed=5)), "float32", "cpu")
    context = context_for("lora", rows)
    spec = RunSpec("tiny", "toy", PLAN, method="lora")
    save_weights(METHODS["lora"].prepare(loaded, PLAN, context), loaded, spec, tmp_path)
    with pytest.raises(
        BadInputError, match=r"was tuned on tiny \(weights [0-9a-f]{12} in float32\); .* has other weights"
    ):
        load_tuned(tmp_path, other)
    with pytest.raises(BadInputError, match="holds no tuned weights"):
        load_tuned(tmp_path / "other", loaded)
    broken = tmp_path / "weights" / "adapter_model.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="is not a file of tuned weights"):
        load_tuned(tmp_path, loaded)


@pytest.mark.parametrize("name", ["full", "lora", "fish", "did"])
def test_an_artefact_that_lost_renamed_cut_or_spoilt_a_tensor_is_refused(name, loaded, tmp_path, rows):
    context = context_for(name, rows)
    spec = RunSpec("tiny", "toy", PLAN, method=name)
    save_weights(METHODS[name].prepare(loaded, PLAN, context), loaded, spec, tmp_path)
    place = find_weights(tmp_path)
    whole = load_file(place)
    with safe_open(place, "pt") as file:
        header = file.metadata()
    first = next(key for key, value in whole.items() if value.is_floating_point())
    rest = {key: value for key, value in whole.items() if key != first}
    for tensors in (
        rest,
        {**rest, f"x.{first}": whole[first]},
        {**rest, first: whole[first][..., :-1].contiguous()},
        {**rest, first: torch.full_like(whole[first], torch.nan)},
    ):
        save_file(tensors, place, metadata=header)
        with pytest.raises(BadInputError, match=r"does not hold what its header says|is damaged"):
            load_tuned(tmp_path, loaded)
    save_file(whole, place, metadata=header)
    load_tuned(tmp_path, loaded)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("full", "bitfit", "did", "said")])
def test_modules_beside_blocks_are_refused_by_methods_that_tune_blocks_alone(name, gpt2):
    options, whole = CATALOGUE[name].options(), full_plan("tiny", 4)
    for plan in (replace(PLAN, head=True), replace(PLAN, modules=("transformer.wpe",))):
        with pytest.raises(
            PlanError, match=f"The method {name} tunes blocks alone and the plan names (head|transformer)"
        ):
            METHODS[name].count(gpt2, plan, options)
    assert METHODS[name].count(gpt2, whole, options)  # everything there is: a place of the grid
