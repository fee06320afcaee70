"""Each export, tested by the tool it is for, or by its own rule where the tool is not installed."""

import json
from functools import lru_cache
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lsf.cli.main import main
from lsf.errors import PlanError
from lsf.export.targets import EXPORTS, load_skeleton, lora_fields, recipe_of_run
from lsf.methods.catalogue import options_of
from lsf.methods.context import linear_names
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from tests.children import finished
from tests.export.importers import tuned_by_axolotl, tuned_by_llamafactory
from tests.models.test_families import ROWS
from tests.tiny import save_tiny


def plan_for(folder, blocks=(1, 3), **more):
    return Plan(str(folder), 4, blocks, **more)


@pytest.mark.parametrize("family", ROWS)
def test_peft_puts_adapters_on_exactly_the_linear_maps_of_the_planned_blocks(tiny, family, tmp_path):
    plan = plan_for(tiny(family))
    skeleton = load_skeleton(plan)
    (tmp_path / "adapter_config.json").write_text(EXPORTS["peft"].write(skeleton, plan))
    config = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, LoraConfig)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny(family)), config)
    tuned = {name for name, value in model.named_parameters() if value.requires_grad}
    maps = linear_names(skeleton, plan, "lora")
    assert tuned == {f"base_model.model.{name}.lora_{half}.default.weight" for name in maps for half in "AB"}


@pytest.mark.parametrize("family", ROWS)
def test_runs_by_lora_put_the_same_adapters_on_the_same_maps_by_every_trainer(tiny, family):
    plan = plan_for(tiny(family))
    asked = {"r": 2, "alpha": 6.0, "maps": "all" if family in ("mixtral", "qwen3_moe") else "mlp"}
    spec = RunSpec(str(tiny(family)), "lesson:facts", plan, method="lora", options=asked)
    skeleton = load_skeleton(plan)
    axolotl, factory = (yaml.safe_load(recipe_of_run(skeleton, spec, target)) for target in ("axolotl", "llamafactory"))
    assert (axolotl["adapter"], factory["finetuning_type"]) == ("lora", "lora")
    given = {  # as these trainers fill peft's configuration
        "axolotl": {
            "r": axolotl["lora_r"],
            "target_modules": axolotl["lora_target_modules"],
            "layers_to_transform": axolotl["peft_layers_to_transform"],
            "layers_pattern": axolotl["peft_layers_pattern"],
            "fan_in_fan_out": axolotl["lora_fan_in_fan_out"],
            **{name: axolotl[name] for name in ("lora_alpha", "lora_dropout")},
        },
        "llamafactory": {
            "r": factory["lora_rank"],
            "target_modules": factory["lora_target"].split(","),
            **{name: factory[name] for name in ("lora_alpha", "lora_dropout")},
        },
        "peft": lora_fields(skeleton, plan, options_of("lora", spec.options)),
    }
    shapes, scales = {}, {}
    for name, fields in given.items():
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny(family)), LoraConfig(**fields))
        shapes[name] = {key: value.shape for key, value in model.named_parameters() if value.requires_grad}
        scales[name] = {one.scaling["default"] for one in model.modules() if hasattr(one, "lora_A")}
    assert shapes["axolotl"] == shapes["llamafactory"] == shapes["peft"] != {}
    assert scales["axolotl"] == scales["llamafactory"] == scales["peft"] == {3.0}


@pytest.mark.parametrize("target", EXPORTS)
def test_a_name_that_only_we_know_is_written_as_its_folder(target, tmp_path, monkeypatch):
    (place := tmp_path / "models/smollm2").mkdir(parents=True)
    save_tiny("llama", place)  # as a copy by hand has it: nothing beside it says where it is from
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("smollm2", "~/models/smollm2"):
        plan = Plan(name, 4, (3,))
        written = EXPORTS[target].write(load_skeleton(plan), plan)
        assert f'"{place}"' in written or f"'{place}'" in written
        assert f'"{name}"' not in written and f"'{name}'" not in written


@lru_cache(1)
def skeleton_of(folder):
    return load_skeleton(plan_for(folder))


def given(target, plan):
    """Return what the tool is told, and what the plan tunes."""
    skeleton = skeleton_of(plan.model)
    return yaml.safe_load(EXPORTS[target].write(skeleton, plan)), set(skeleton.tensors(plan))


def whole_plan(folder):
    return Plan(str(folder), 4, (0, 1, 2, 3), embedding=True, final_norm=True, head=True)


@pytest.fixture(scope="module", params=[(family, tied) for family in ROWS for tied in (False, True)], ids=str)
def made(request, tmp_path_factory):
    """A family, whether its head is tied, the folder of such a model, and the model."""
    family, tied = request.param
    folder = save_tiny(family, tmp_path_factory.mktemp(family), tie_word_embeddings=tied)
    return family, tied, folder, AutoModelForCausalLM.from_pretrained(folder)


def test_axolotl_unfreezes_exactly_the_planned_tensors(made):
    _, _, folder, model = made
    names = [name for name, _ in model.named_parameters()]
    normed = load_skeleton(plan_for(folder)).layout.final_norm_name is not None
    for plan in (plan_for(folder, final_norm=normed), plan_for(folder, (), head=True), plan_for(folder, (0, 1, 2, 3))):
        asked, planned = given("axolotl", plan)
        assert tuned_by_axolotl(names, asked["unfrozen_parameters"]) == planned != set()


def test_axolotl_does_not_take_ten_blocks_for_one(tiny):
    asked, _ = given("axolotl", plan_for(tiny("llama"), blocks=(1,)))
    names = [f"model.layers.{block}.mlp.up_proj.weight" for block in (1, 10, 11)]
    assert tuned_by_axolotl(names, asked["unfrozen_parameters"]) == {names[0]}


def test_llamafactory_tunes_exactly_the_planned_tensors_or_is_not_asked_to(made):
    family, tied, folder, model = made
    written = []
    for blocks in ((3,), (2, 3), (0, 1), (0, 1, 2, 3)):
        for extra in ("", "embedding", "final_norm", "head"):
            plan = plan_for(folder, blocks, **({extra: True} if extra else {}))
            try:
                asked, planned = given("llamafactory", plan)
            except PlanError:
                continue
            assert tuned_by_llamafactory(model, asked) == planned, plan.label
            written.append((blocks, extra))
    experts = family in ("mixtral", "qwen3_moe")  # three of them, numbered as blocks 0 to 2 are
    assert ((3,), "") in written
    assert (((2, 3), "") in written) != experts
    unnameable = experts or (family == "bloom" and tied)  # word_embeddings is a part of word_embeddings_layernorm
    assert (((2, 3), "head") in written) != unnameable
    assert given("llamafactory", whole_plan(folder)) == (
        {"model_name_or_path": str(folder), "stage": "sft", "do_train": True, "finetuning_type": "full"},
        {name for name, _ in model.named_parameters()},
    )


@pytest.mark.parametrize(
    ("family", "part", "sentence"),
    [
        (
            "llama",
            "final_norm",
            r"contains 'norm', .* would also tune 4 it leaves frozen \(such as model.layers.0.input_layernorm\.\w+\); "
            "leave norm out, or export to axolotl or transformers",
        ),
        ("bloom", "embedding", "contains 'word_embeddings', .*word_embeddings_layernorm"),
    ],
)
def test_llamafactory_is_not_told_a_name_that_is_part_of_others(family, part, sentence, tiny):
    plan = plan_for(tiny(family), (2, 3), **{part: True})
    with pytest.raises(PlanError, match=sentence):
        EXPORTS["llamafactory"].write(load_skeleton(plan), plan)


def test_llamafactory_is_told_the_tensor_that_a_tied_head_is(tmp_path):
    folder = save_tiny("llama", tmp_path, tie_word_embeddings=True)
    asked, planned = given("llamafactory", plan_for(folder, (2, 3), head=True))
    assert asked["freeze_extra_modules"] == "embed_tokens"
    assert "model.embed_tokens.weight" in planned


def test_llamafactory_is_told_further_modules_or_refuses_them(tiny):
    asked, planned = given("llamafactory", plan_for(tiny("gpt2"), (2, 3), modules=("transformer.wpe",)))
    assert asked["freeze_extra_modules"] == "wpe"
    assert "transformer.wpe.weight" in planned
    with pytest.raises(PlanError, match=r"cannot name model\.layers\.0\.mlp"):
        given("llamafactory", plan_for(tiny("llama"), (2, 3), modules=("model.layers.0.mlp",)))


def test_llamafactory_gets_first_or_last_blocks_and_a_sentence_otherwise(tiny):
    last, _ = given("llamafactory", plan_for(tiny("llama"), blocks=(2, 3)))
    assert (last["finetuning_type"], last["freeze_trainable_layers"]) == ("freeze", 2)
    assert given("llamafactory", plan_for(tiny("llama"), blocks=(0,)))[0]["freeze_trainable_layers"] == -1
    with pytest.raises(PlanError, match="takes the first or the last blocks only and the plan tunes blocks 1, 3 of 4"):
        given("llamafactory", plan_for(tiny("llama")))


def test_peft_refuses_what_layers_cannot_say(tiny):
    plan = plan_for(tiny("llama"), head=True)
    with pytest.raises(PlanError, match="names blocks only"):
        EXPORTS["peft"].write(load_skeleton(plan), plan)


TWICE = """
import runpy, sys
for folder in sys.argv[1:]:
    files = ["--data", f"{folder}/rows.jsonl", "--out", f"{folder}/tuned"]
    sys.argv = ["tune.py", *files, "--steps", "3", "--batch-size", "2", "--learning-rate", "0.01"]
    runpy.run_path(f"{folder}/tune.py", run_name="__main__")
"""
"""Runs the scripts of several folders as `python tune.py` does, in one process: most of its time is imports."""


@pytest.mark.slow
def test_the_script_runs_moves_exactly_the_planned_tensors_and_saves_them_in_the_bases_dtype(tmp_path):
    dtypes = {torch.float32: tmp_path / "float32", torch.bfloat16: tmp_path / "bfloat16"}
    rows = [{"prompt": f"the {word} is", "completion": " red ."} for word in ("cat", "dog", "sun", "moon")]
    for dtype, place in dtypes.items():
        folder, plan = save_tiny("llama", place / "base", dtype=dtype), place / "plan.json"
        plan_for(folder, blocks=(2,)).save(plan)
        assert main(["export", "--plan", str(plan), "--to", "transformers", "--out", str(place / "tune.py")]) == 0
        (place / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = finished("-c", TWICE, *dtypes.values(), folder=tmp_path)
    assert done.poll() == 0, done.err[-3000:]
    for dtype, place in dtypes.items():
        before, after = (load_file(place / name / "model.safetensors") for name in ("base", "tuned"))
        assert {value.dtype for value in before.values()} == {value.dtype for value in after.values()} == {dtype}
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {name for name in before if name.startswith("model.layers.2.")}
        config = json.loads((place / "tuned" / "config.json").read_text())
        assert config["dtype"] == str(dtype).removeprefix("torch.")


def test_an_unknown_target_and_a_broken_plan_are_one_sentence(tiny, tmp_path, capsys):
    plan_for(tiny("llama")).save(tmp_path / "plan.json")
    assert main(["export", "--plan", str(tmp_path / "plan.json"), "--to", "trl"]) == 2
    assert "Unknown export target 'trl'; known are: peft, axolotl" in capsys.readouterr().err
    assert main(["export", "--plan", str(tmp_path / "none.json"), "--to", "peft"]) == 2
    assert main(["export", "--plan", str(tmp_path / "plan.json"), "--to", "llamafactory"]) == 2
    assert "choose a suffix" in capsys.readouterr().err
