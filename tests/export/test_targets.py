"""Each export, tested by the tool it is for, or by its own rule where the tool is not installed."""

import json
import re
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch
import yaml
from peft import LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lsf.cli.main import main
from lsf.data.encode import encode
from lsf.data.task import Example
from lsf.errors import PlanError
from lsf.export.targets import EXPORTS, load_skeleton, training_script
from lsf.plans.plan import Plan
from tests.models.test_families import ROWS
from tests.tiny import save_tiny, tiny_tokenizer

FAMILIES = ["llama", "gpt2", "gpt_neox", "opt", "bloom", "gemma3"]


def plan_for(folder, blocks=(1, 3), **more):
    return Plan(str(folder), 4, blocks, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_the_config_and_trains_exactly_the_planned_blocks(tiny, family, tmp_path):
    plan = plan_for(tiny(family))
    skeleton = load_skeleton(plan)
    (tmp_path / "adapter_config.json").write_text(EXPORTS["peft"].write(skeleton, plan))
    config = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, LoraConfig)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny(family)), config)
    tuned = [name for name, value in model.named_parameters() if value.requires_grad]
    names = [skeleton.layout.block_names[block] for block in (1, 3)]
    assert all(any(f".{name}." in f".{one}" for name in names) for one in tuned)
    assert all(any(f".{name}." in f".{one}" for one in tuned) for name in names)


@pytest.mark.parametrize("family", ROWS)
def test_axolotls_expressions_match_exactly_the_planned_tensors(tiny, family):
    plan = plan_for(tiny(family))
    skeleton = load_skeleton(plan)
    plan = replace(plan, final_norm=skeleton.layout.final_norm_name is not None)
    patterns = yaml.safe_load(EXPORTS["axolotl"].write(skeleton, plan))["unfrozen_parameters"]
    model = AutoModelForCausalLM.from_pretrained(tiny(family))
    matched = {name for name, _ in model.named_parameters() if any(re.match(pattern, name) for pattern in patterns)}
    assert matched == set(skeleton.tensors(plan))


def test_ten_blocks_are_not_taken_for_one(tiny):
    plan = plan_for(tiny("llama"), blocks=(1,))
    (pattern,) = yaml.safe_load(EXPORTS["axolotl"].write(load_skeleton(plan), plan))["unfrozen_parameters"]
    assert re.match(pattern, "model.layers.1.mlp.up_proj.weight")
    assert not re.match(pattern, "model.layers.10.mlp.up_proj.weight")


def test_llamafactory_gets_first_or_last_blocks_and_a_sentence_otherwise(tiny):
    write = EXPORTS["llamafactory"].write
    last = plan_for(tiny("llama"), blocks=(2, 3), final_norm=True)
    skeleton = load_skeleton(last)
    asked = yaml.safe_load(write(skeleton, last))
    assert (asked["finetuning_type"], asked["freeze_trainable_layers"]) == ("freeze", 2)
    assert asked["freeze_extra_modules"] == "norm"
    assert yaml.safe_load(write(skeleton, plan_for(tiny("llama"), blocks=(0,))))["freeze_trainable_layers"] == -1
    with pytest.raises(PlanError, match="takes the first or the last blocks only and the plan tunes blocks 1, 3 of 4"):
        write(skeleton, plan_for(tiny("llama")))


def test_peft_refuses_what_layers_cannot_say(tiny):
    plan = plan_for(tiny("llama"), head=True)
    with pytest.raises(PlanError, match="names blocks only"):
        EXPORTS["peft"].write(load_skeleton(plan), plan)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_script_runs_moves_exactly_the_planned_tensors_and_saves_them_in_the_bases_dtype(dtype, tmp_path):
    folder = save_tiny("llama", tmp_path / "base", dtype=dtype)
    plan_for(folder, blocks=(2,)).save(tmp_path / "plan.json")
    script = tmp_path / "tune.py"
    assert main(["export", "--plan", str(tmp_path / "plan.json"), "--to", "transformers", "--out", str(script)]) == 0
    rows = [{"prompt": f"the {word} is", "completion": " red ."} for word in ("cat", "dog", "sun", "moon")]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    command = [sys.executable, str(script), "--data", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "tuned")]
    steps = ["--steps", "3", "--batch-size", "2", "--learning-rate", "0.01"]
    done = subprocess.run([*command, *steps], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "tuned"))
    assert {value.dtype for value in before.values()} == {value.dtype for value in after.values()} == {dtype}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("model.layers.2.")}
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_an_unknown_target_and_a_broken_plan_are_one_sentence(tiny, tmp_path, capsys):
    plan_for(tiny("llama")).save(tmp_path / "plan.json")
    assert main(["export", "--plan", str(tmp_path / "plan.json"), "--to", "trl"]) == 2
    assert "Unknown export target 'trl'; known are: peft, axolotl" in capsys.readouterr().err
    assert main(["export", "--plan", str(tmp_path / "none.json"), "--to", "peft"]) == 2
    assert main(["export", "--plan", str(tmp_path / "plan.json"), "--to", "llamafactory"]) == 2
    assert "choose a suffix" in capsys.readouterr().err


def test_the_script_reads_rows_as_the_product_does(tmp_path):
    code = training_script("none", "block 1", ["x"], 1e-3)
    module = types.ModuleType("script")
    exec(compile(code, "tune.py", "exec"), module.__dict__)
    rows = [{"prompt": "the cat", "completion": " sat on"}, {"prompt": "the", "completion": " mat</s>"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tokenizer = tiny_tokenizer()
    ours = encode(tokenizer, [Example(row["prompt"], row["completion"]) for row in rows], 64, append_eos=True).rows
    expected = [[-100] * row.n_prompt + list(row.ids[row.n_prompt :]) for row in ours]
    assert [one["input_ids"] for one in module.read(tmp_path / "rows.jsonl", tokenizer)] == [list(r.ids) for r in ours]
    assert [one["labels"] for one in module.read(tmp_path / "rows.jsonl", tokenizer)] == expected
