"""LoRA, adapters, HiWi and BitFit: where they act, what they compute, what is left of them."""

import warnings
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeanutConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lsf.errors import BadInputError, PlanError
from lsf.export.targets import EXPORTS, load_skeleton
from lsf.methods.adapters import Bottleneck, HighWay
from lsf.methods.catalogue import options_of
from lsf.methods.context import is_linear
from lsf.methods.parametrization import base_name
from lsf.methods.registry import METHODS
from lsf.models.families import FAMILIES
from lsf.models.layout import find_module
from lsf.models.loading import load_model
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import load_tuned, save_weights
from tests.methods.conftest import context_for, tuned_values
from tests.tiny import save_tiny, tiny_model

PLAN = Plan("tiny", 4, (1, 3))
IDS = torch.tensor([[1, 5, 7, 9, 4], [1, 6, 2, 8, 11]])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_table_names_attention_output_and_mlp_of_every_family(family):
    entry, model = FAMILIES[family], tiny_model(family)
    block = model.get_submodule(f"{entry.blocks}.1")
    assert is_linear(block.get_submodule(entry.attention_output))
    parts = [block.get_submodule(name) for name in entry.mlp]
    linear = [is_linear(part) for part in parts]
    assert all(linear) or entry.mlp == ("mlp",)
    if all(linear):
        named = {name for name, module in block.named_modules() if is_linear(module)}
        attention = {name for name in named if "att" in name}
        assert set(entry.mlp) == named - attention


@pytest.mark.parametrize("family", ["loaded", "gpt2"])
def test_only_the_planned_blocks_carry_lora(family, request):
    base = request.getfixturevalue(family)
    model = METHODS["lora"].prepare(base, PLAN, context_for("lora"))
    blocks = {name.partition(f"{base.layout.family.blocks}.")[2].split(".")[0] for name in tuned_values(model)}
    assert blocks == {"1", "3"}
    adapted = {name.partition(".lora_")[0] for name in tuned_values(model)}
    linear = [name for name, module in base.layout.blocks[1].named_modules() if is_linear(module)]
    assert len(adapted) == 2 * len(linear)


@pytest.mark.parametrize("family", ["loaded", "gpt2"])
def test_peft_alone_loads_what_a_lora_run_saved(family, request, tmp_path):
    base = request.getfixturevalue(family)
    model = METHODS["lora"].prepare(base, PLAN, context_for("lora", r=4, alpha=6.0))
    with torch.no_grad():
        for number, value in enumerate(tuned_values(model).values()):
            value.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    save_weights(model, base, RunSpec("tiny", "toy", PLAN, method="lora"), tmp_path)
    assert {file.name for file in (tmp_path / "weights").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    fresh = AutoModelForCausalLM.from_pretrained(base.info.name)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(fresh, str(tmp_path / "weights")).eval()(IDS).logits
        torch.testing.assert_close(model(IDS).logits, theirs, atol=1e-5, rtol=0)
        assert (theirs - base.model(IDS).logits).abs().max() > 0.01


def test_a_lora_run_on_the_bundled_model_asks_no_hub_for_it(tmp_path):
    base, plan = load_model("bundled", "float32", "cpu"), Plan("bundled", 8, (6,))
    model = METHODS["lora"].prepare(base, plan, context_for("lora"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # peft warns where it looked for the base's config and found none
        save_weights(model, base, RunSpec("bundled", "lesson:facts", plan, method="lora"), tmp_path)
        again = load_tuned(tmp_path, base)
    stored = load_file(tmp_path / "weights" / "adapter_model.safetensors")
    assert stored
    assert not any("embed" in name for name in stored)
    alone = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "weights")).eval()  # finds the base by itself
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS).logits)
        torch.testing.assert_close(alone(IDS).logits, model(IDS).logits)


def test_lora_is_w_x_plus_alpha_over_r_b_a_x(gpt2):
    model = METHODS["lora"].prepare(gpt2, PLAN, context_for("lora", r=2, alpha=6.0))
    module = model.get_submodule("transformer.h.1.mlp.c_fc")
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    assert not b.any() and a.abs().max() <= 1 / 32**0.5  # Kaiming-uniform with a = sqrt 5
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        b.fill_(0.1)
        frozen = gpt2.model.get_submodule("transformer.h.1.mlp.c_fc")
        torch.testing.assert_close(module(x), frozen(x) + 3.0 * x @ a.T @ b.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "places"), [("houlsby", ("attn.c_proj", "mlp.c_proj")), ("pfeiffer", ("mlp.c_proj",))]
)
def test_adapters_stand_after_the_maps_of_the_planned_blocks_and_nowhere_else(kind, places, gpt2):
    model = METHODS["adapter"].prepare(gpt2, PLAN, context_for("adapter", kind=kind))
    found = [name for name, module in model.named_modules() if isinstance(module, Bottleneck)]
    assert found == [f"transformer.h.{block}.{place}.adapter" for block in (1, 3) for place in places]
    bottleneck = model.get_submodule(found[0])
    size, activation = (64, torch.nn.GELU) if kind == "houlsby" else (2, torch.nn.ReLU)
    assert bottleneck.down.out_features == size and isinstance(bottleneck.activation, activation)
    assert bottleneck.down.weight.std().item() == pytest.approx(1e-3, rel=0.3) and not bottleneck.up.bias.any()


def test_an_adapter_adds_what_its_formula_says(gpt2):
    model = METHODS["adapter"].prepare(gpt2, PLAN, context_for("adapter", size=3))
    module = model.get_submodule("transformer.h.1.mlp.c_proj")
    adapter = module.adapter
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        adapter.up.weight.fill_(0.5)
        adapter.up.bias.fill_(0.1)
        h = gpt2.model.get_submodule("transformer.h.1.mlp.c_proj")(x)
        inner = torch.nn.functional.gelu(h @ adapter.down.weight.T + adapter.down.bias)
        torch.testing.assert_close(module(x), h + inner @ adapter.up.weight.T + 0.1, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_change_the_output_of_every_family(family, tmp_path):
    base = load_model(str(save_tiny(family, tmp_path)), "float32", "cpu")
    model = METHODS["adapter"].prepare(base, PLAN, context_for("adapter", kind="pfeiffer"))
    for number, value in enumerate(tuned_values(model).values()):
        value.data.normal_(generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        assert (model(IDS).logits - base.model(IDS).logits).abs().max() > 1e-3


def test_the_weight_form_of_hiwi_is_peanut_of_peft_at_depth_zero(loaded):
    model = METHODS["hiwi"].prepare(loaded, PLAN, context_for("hiwi", r=4))
    name = "model.layers.1.mlp.up_proj"
    info = next(module for key, module in model.get_submodule(name).named_modules() if isinstance(module, HighWay))
    theirs = inject_adapter_in_model(
        PeanutConfig(r=4, depth=0, target_modules=[name]), share_model(loaded.model)
    ).eval()
    peanut: Any = theirs.get_submodule(name)
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        info.up.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        peanut.peanut_A["default"].weight.copy_(info.down.T)
        peanut.peanut_B["default"].weight.copy_(info.up.T)
        torch.testing.assert_close(model.get_submodule(name)(x), peanut(x), atol=1e-5, rtol=1e-5)
        delta = peanut.get_delta_weight("default")
        torch.testing.assert_close(model.get_submodule(name).weight, loaded.model.get_submodule(name).weight + delta)


def test_the_bias_form_of_hiwi_leaves_exactly_the_mlp_biases(gpt2, tmp_path):
    model = METHODS["hiwi"].prepare(gpt2, PLAN, context_for("hiwi", form="bias"))
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, gpt2.model(IDS).logits)
        for value in tuned_values(model).values():
            value.add_(0.1)
    spec = RunSpec("tiny", "toy", PLAN, method="hiwi", options={"form": "bias"})
    stored = save_weights(model, gpt2, spec, tmp_path)
    saved = load_file(tmp_path / "weights" / "tuned.safetensors")
    names = [f"transformer.h.{block}.mlp.{part}.bias" for block in (1, 3) for part in ("c_fc", "c_proj")]
    assert sorted(saved) == sorted(names)
    assert stored == 4 * sum(gpt2.model.get_parameter(name).numel() for name in names) == 4 * 2 * (128 + 32)
    name = names[0]
    base = gpt2.model.get_parameter(name).detach()
    info = model.get_submodule("transformer.h.1.mlp.c_fc").parametrizations["bias"][0]
    by_hand = base + torch.relu(base @ info.down) @ info.up
    torch.testing.assert_close(saved[name], by_hand.detach())


def test_the_bias_form_is_refused_where_a_bias_is_missing_or_zero_and_names_the_weight_form(loaded, tmp_path):
    options = options_of("hiwi", {"form": "bias"})
    with pytest.raises(BadInputError, match=r"bias form cannot move .*mlp\.gate_proj .* no bias; take the weight form"):
        METHODS["hiwi"].count(loaded, PLAN, options)
    folder = save_tiny("gpt2", tmp_path)
    still = load_model(str(folder), "float32", "cpu")
    still.model.get_parameter("transformer.h.3.mlp.c_fc.bias").data.zero_()
    with pytest.raises(BadInputError, match=r"h\.3\.mlp\.c_fc .* a bias of zeros; take the weight form"):
        METHODS["hiwi"].count(still, PLAN, options)


def test_hiwi_and_lora_on_the_mlp_refuse_experts(tmp_path):
    base = load_model(str(save_tiny("mixtral", tmp_path)), "float32", "cpu")
    with pytest.raises(BadInputError, match=r"adapts the MLP's linear maps and model\.layers\.1\.mlp .* is not one"):
        METHODS["hiwi"].count(base, PLAN, options_of("hiwi", {}))
    context, refused = context_for("lora", maps="mlp"), r"maps=mlp adapts the MLP's linear maps and .* has none there"
    with pytest.raises(BadInputError, match=refused):
        METHODS["lora"].count(base, PLAN, context.options)
    with pytest.raises(BadInputError, match=refused):
        METHODS["lora"].prepare(base, PLAN, context)


def test_lora_on_a_plain_mlp_beside_blocks_of_experts_is_refused_and_adapts_no_expert(tmp_path):
    folder = save_tiny("qwen3_moe", tmp_path, mlp_only_layers=[0, 2])  # blocks 1 and 3 hold experts
    base, context = load_model(str(folder), "float32", "cpu"), context_for("lora")
    for blocks in ((2,), (1, 2)):
        plan = Plan(str(folder), 4, blocks)
        for ask in (lambda p=plan: METHODS["lora"].count(base, p, context.options), lambda p=plan: _exported(p)):
            with pytest.raises(BadInputError, match=r"layers\.2\.mlp\.gate_proj .* takes this name for the experts"):
                ask()
    adapted = METHODS["lora"].prepare(base, PLAN, context)
    assert {base_name(name).rpartition(".lora_")[0].split(".", 3)[3] for name in tuned_values(adapted)} == {
        f"self_attn.{part}_proj" for part in "qkvo"
    }


def test_pefts_own_lora_of_a_plan_adapts_what_ours_does_or_is_refused_as_ours_is(tmp_path):
    folder = save_tiny("qwen3_moe", tmp_path, mlp_only_layers=[0, 2])
    for blocks in ((2,), (1, 2), (0, 1, 2, 3)):
        model = load_model(str(folder), "float32", "cpu").model
        with pytest.raises(PlanError, match=r"adapt experts \(down_proj, gate_up_proj\) in all blocks"):
            get_peft_model(model, Plan(str(folder), 4, blocks).lora_config(r=2))
        assert not any("lora_" in name for name, _ in model.named_parameters())
    base = load_model(str(folder), "float32", "cpu")
    ours = tuned_values(METHODS["lora"].prepare(base, PLAN, context_for("lora")))
    theirs = tuned_values(get_peft_model(base.model, PLAN.lora_config()).get_base_model())
    assert set(theirs) == set(ours)


def _exported(plan):
    return EXPORTS["peft"].write(load_skeleton(plan), plan)


def test_a_bias_whose_relu_would_be_shut_is_turned_round():
    bias = torch.tensor([1.0, -2.0, 0.5])
    for seed in range(20):
        info = HighWay(bias, 1, True, torch.Generator().manual_seed(seed))
        assert (bias @ info.down).relu() > 0


def test_bitfit_tunes_every_bias_of_the_plan_and_nothing_else(gpt2):
    plan = Plan("tiny", 4, (2,), final_norm=True)
    names = {
        base_name(name.rpartition(".")[0])
        for name in tuned_values(METHODS["bitfit"].prepare(gpt2, plan, context_for("bitfit")))
    }
    parts = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"transformer.h.2.{part}.bias" for part in parts} | {"transformer.ln_f.bias"}


def test_bitfit_is_refused_where_there_is_no_bias(loaded):
    assert find_module(loaded.model, "model.layers.1.mlp.up_proj.bias") is None
    with pytest.raises(
        BadInputError, match=r"bitfit tunes biases and blocks 1, 3 of .* \(llama\) has none; take a model"
    ):
        METHODS["bitfit"].count(loaded, PLAN, None)


@pytest.mark.parametrize("part", ["c_fc", "c_proj"])
def test_the_weight_form_of_hiwi_has_a_row_per_input_also_where_the_map_is_transposed(part, gpt2):
    model = METHODS["hiwi"].prepare(gpt2, PLAN, context_for("hiwi", r=4))
    module = model.get_submodule(f"transformer.h.1.mlp.{part}")
    info = next(one for one in module.modules() if isinstance(one, HighWay))
    base = gpt2.model.get_submodule(f"transformer.h.1.mlp.{part}").weight  # Conv1D: a row per input
    with torch.no_grad():
        info.up.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        assert info.down.shape == (base.shape[1], 4)
        torch.testing.assert_close(module.weight, base + (base @ info.down).relu() @ info.up)
