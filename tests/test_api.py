"""The public API: every example in its docstrings runs, and what it promises beside them."""

import copy
import doctest
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import lsf
import lsf.api
import lsf.data.reading
import lsf.plans.plan
import lsf.training.frozen_proof
from lsf.errors import DataError, LsfError, PlanError, RunError
from lsf.lens.speed import speed_of
from lsf.models.loading import LoadedModel, load_model
from lsf.progress import do_nothing
from lsf.training.frozen_proof import UNPROVEN

ROOT = Path(__file__).parents[1]
ROWS = [{"q": f"the {noun} is", "a": " red" if n % 2 else " blue"} for n, noun in enumerate(["cat", "dog", "sun"] * 8)]
PLAN = lsf.Plan("tiny", 4, (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("module", [lsf.api, lsf.data.reading, lsf.plans.plan, lsf.training.frozen_proof])
def test_every_example_in_a_docstring_gives_what_it_says(module: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


def test_every_public_name_is_documented_with_an_example() -> None:
    for name in lsf.__all__:
        item = getattr(lsf, name)
        if callable(item) and not isinstance(item, type):
            assert item.__doc__ and ">>>" in item.__doc__ and "Raises:" in item.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'sumthing'"):
        lsf.sumthing  # noqa: B018


def test_importing_lsf_loads_nothing_heavy() -> None:
    code = "import sys, lsf; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "streamlit", "transformers"} & set(eval(done.stdout))


@pytest.mark.parametrize("kind", [lambda rows: rows, pd.DataFrame, Dataset.from_list])
def test_rows_of_every_kind_are_the_same_task(kind: Callable[[Any], Any]) -> None:
    task = lsf.read_data(kind(ROWS), "{q}", "{a}")
    assert task == lsf.read_data(ROWS, "{q}", "{a}")
    assert {len(task.train), len(task.validation), len(task.test)} == {20, 2}


def test_named_splits_stay_as_they_are_and_other_data_is_refused_in_a_sentence() -> None:
    parts = DatasetDict({"train": Dataset.from_list(ROWS[:20]), "test": Dataset.from_list(ROWS[20:])})
    assert len(lsf.read_data(parts, "{q}", "{a}").test) == 4
    for data, sentence in ((3, "kind int; a path"), ([1, 2, 3], "row 1: int was found"), ([], "has no rows")):
        with pytest.raises(DataError, match=sentence):
            lsf.read_data(data)
    with pytest.raises(DataError, match="no column 'prompt'"):
        lsf.read_data(ROWS)


def state_of(model: Any) -> Any:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.float().numpy().tobytes())
    wants = [(name, value.requires_grad, value.grad) for name, value in model.named_parameters()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    return digest.hexdigest(), wants, hooks, model.training


def test_a_wrapped_model_has_the_scores_of_the_loaded_one_and_is_left_as_it_was(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    own = copy.deepcopy(loaded.model).train()
    own.model.layers[1].requires_grad_(True)
    before, settings = state_of(own), {"prompt": "{q}", "completion": "{a}", "criteria": ("deviation", "alignment")}
    wrapped = lsf.analyze(lsf.wrap(own, loaded.tokenizer, loaded.info.name), ROWS, **settings)
    assert state_of(own) == before
    assert wrapped.blocks == lsf.analyze(loaded, ROWS, **settings).blocks


def test_peft_adapters_are_measured_as_the_model_answers_with_them(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    adapted: Any = get_peft_model(copy.deepcopy(loaded.model), LoraConfig(r=2, target_modules=["q_proj"])).eval()
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    before, ids = state_of(adapted), torch.tensor([[1, 2, 3]])
    wrapped = lsf.wrap(adapted, loaded.tokenizer)
    assert torch.allclose(wrapped.model(ids).logits, adapted(ids).logits, atol=1e-5)
    assert not torch.allclose(wrapped.model(ids).logits, loaded.model(ids).logits, atol=1e-3)
    assert state_of(adapted) == before


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_lora_of_a_plan_lies_in_its_blocks_alone(tiny: Callable[[str], Path], family: str) -> None:
    model = load_model(str(tiny(family)), "float32", "cpu").model
    adapted: Any = get_peft_model(copy.deepcopy(model), PLAN.lora_config(r=2))
    wants = {name for name, value in adapted.named_parameters() if value.requires_grad}
    blocks = {part for name in wants for part in name.split(".") if part.isdigit()}
    assert wants and blocks == {"1", "2"} and all("lora_" in name for name in wants)


def trained(model: Any, folder: Path, callback: Any, steps: int = 3, spoil: Any = None) -> None:
    rows = [{"input_ids": torch.arange(1, 9), "labels": torch.arange(1, 9)}] * 8
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-2, report_to="none",
        use_cpu=True, save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows, callbacks=[callback, *([] if spoil is None else [spoil])]).train()  # pyright: ignore[reportArgumentType]


def test_the_proof_holds_for_a_frozen_model_and_for_lora_of_the_plan(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base = load_model(str(tiny("llama")), "float32", "cpu").model
    for model in (copy.deepcopy(base), get_peft_model(copy.deepcopy(base), PLAN.lora_config(r=2))):
        proof = lsf.FrozenProof(PLAN)
        if not hasattr(model, "peft_config"):
            assert lsf.freeze(model, PLAN) > 0
        trained(model, tmp_path, proof)
        assert proof.proof is not None and proof.proof.frozen_identical and not proof.proof.tuned_unmoved


def test_what_is_not_as_the_plan_says_is_refused_before_the_first_step(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base = load_model(str(tiny("llama")), "float32", "cpu").model
    whole, other = copy.deepcopy(base).requires_grad_(True), copy.deepcopy(base)
    lsf.freeze(other, lsf.Plan("tiny", 4, (3,)))
    everywhere = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules=["q_proj"]))
    for model, sentence in ((whole, "not in the plan"), (other, "not in the plan"), (everywhere, "lies outside")):
        with pytest.raises(PlanError, match=sentence):
            trained(model, tmp_path, lsf.FrozenProof(PLAN))
    with pytest.raises(PlanError, match="has peft's adapters already"):
        lsf.freeze(everywhere, PLAN)


def test_a_frozen_tensor_that_moved_is_told_and_the_training_is_kept(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, TrainerCallback  # noqa: PLC0415

    class Spoiler(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            model.model.layers[0].mlp.up_proj.weight.data.add_(1.0)

    model = copy.deepcopy(load_model(str(tiny("llama")), "float32", "cpu").model)
    lsf.freeze(model, PLAN)
    proof = lsf.FrozenProof(PLAN)
    with pytest.raises(RunError, match="A frozen tensor moved; the trained model is kept in"):
        trained(model, tmp_path, proof, spoil=Spoiler())
    assert proof.proof is not None and not proof.proof.frozen_identical
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / UNPROVEN)
    assert torch.equal(kept.model.layers[1].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight)


def test_ctrl_c_in_a_cell_keeps_what_was_read(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    rows, before = ROWS * 40, signal.getsignal(signal.SIGINT)
    speed_of(loaded, do_nothing)  # timed once per model, before the first batch
    seen: list[int] = []

    def press(*_given: Any) -> None:
        seen.append(1)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    handle = loaded.layout.blocks[0].register_forward_hook(press)
    try:
        with pytest.warns(UserWarning, match="The analysis was interrupted"):
            found = lsf.analyze(loaded, rows, "{q}", "{a}", limit=None, batch_size=8)
    finally:
        handle.remove()
    assert 0 < found.data.n_examples < len(rows)
    assert signal.getsignal(signal.SIGINT) is before


def test_analyses_and_comparisons_are_drawn_in_a_notebook(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: LoadedModel = load_model(str(tiny("llama")), "float32", "cpu")
    found = lsf.analyze(loaded, ROWS, "{q}", "{a}", criteria=("deviation",))
    assert "<iframe" in found._repr_html_() and "&lt;script" in found._repr_html_()
    assert found.recommend(2, "deviation").reasons
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    found.show(found.recommend(2, "deviation"))
    assert len(shown) == 2
    run = lsf.tune(loaded, ROWS, PLAN, "{q}", "{a}", runs=tmp_path / "runs", steps=2, batch_size=4)
    assert run.result is not None and run.result.proof is not None and run.result.proof.frozen_identical
    assert "<table" in lsf.compare(run)._repr_html_()
    with pytest.raises(LsfError, match="no run to compare"):
        lsf.compare()
