"""The public API: every example in its docstrings runs, and what it promises beside them."""

import copy
import doctest
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import lsf
import lsf.api
import lsf.data.reading
import lsf.display
import lsf.models.loading
import lsf.plans.plan
import lsf.training.proof
from lsf.criteria.result import Analysis as Record
from lsf.data.contents import DataOptions
from lsf.errors import BadInputError, DataError, LsfError, ModelError, PlanError, RunError
from lsf.lens.speed import speed_of
from lsf.methods.context import is_linear
from lsf.models.families import FAMILIES
from lsf.models.loading import adapted_maps, layout_of, load_model, weights_hash
from lsf.progress import do_nothing
from lsf.training.proof import UNPROVEN
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[1]
ROWS = [{"q": f"the {noun} is", "a": " red" if n % 2 else " blue"} for n, noun in enumerate(["cat", "dog", "sun"] * 8)]
PLAN = lsf.Plan("tiny", 4, (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", [lsf.api, lsf.display, lsf.data.reading, lsf.plans.plan, lsf.models.loading, lsf.training.proof]
)
def test_every_example_in_a_docstring_gives_what_it_says(module: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


def test_every_public_name_is_documented_with_an_example() -> None:
    for name in lsf.__all__:
        item = getattr(lsf, name)
        if isinstance(item, type):
            assert item.__doc__, name
        elif callable(item):
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"prompt": "Question: {q}"}, "prompt"),
        ({"completion": "{a}!"}, "completion"),
        ({"pairs": "raw"}, "pairs"),
        ({"max_rows": 3, "train_on": "last"}, "train_on and max_rows"),
    ],
)
def test_templates_and_options_beside_a_task_are_refused_and_those_it_was_read_by_are_not(
    given: dict[str, Any], named: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    model = lsf.wrap(tiny_model("llama"), load_model(str(tiny("llama")), "float32", "cpu").tokenizer)
    task = lsf.read_data(ROWS, "{q}", "{a}")
    ways = (
        lambda **given: lsf.tune(model, task, PLAN, runs=tmp_path, steps=1, **given),
        lambda **given: lsf.analyze(model, task, **given),
        lambda **given: lsf.sweep(model, task, seeds=1, steps=1, **given),
    )
    for way in ways:
        with pytest.raises(BadInputError, match=f"is a task.* so that {named} would change nothing of it"):
            way(**given)
    options = {name: value for name, value in given.items() if name not in ("prompt", "completion")}
    if options:
        with pytest.raises(BadInputError, match=named):
            lsf.tune(model, ROWS, PLAN, "{q}", "{a}", runs=tmp_path, general=task, steps=1, **options)
    texts = given.get("prompt", "{q}"), given.get("completion", "{a}")
    made = lsf.read_data(ROWS, *texts, options=DataOptions(**options))
    assert lsf.read_data(made, *texts, options=DataOptions(**options)) is made
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_what_a_task_was_read_by_is_what_a_run_of_it_records(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    model, options = lsf.wrap(loaded.model, loaded.tokenizer), {"pairs": "raw", "max_rows": 12}
    task = lsf.read_data(ROWS, "Is {q}?", "{a}", options=DataOptions(pairs="raw", max_rows=12))
    settings: dict[str, Any] = {"runs": tmp_path, "steps": 1, "learning_rate": 1e-4, "general_share": 0.5}
    of_task = lsf.tune(model, task, PLAN, general=[{"prompt": "a", "completion": " b"}], **settings)
    of_rows = lsf.tune(
        model, ROWS, PLAN, "Is {q}?", "{a}", general=[{"prompt": "a", "completion": " b"}], **settings, **options
    )
    spec, found, same = of_task.spec, of_task.result, of_rows.result
    assert spec == of_rows.spec and spec is not None and found is not None and same is not None
    assert (spec.pairs, spec.max_rows, spec.prompt_template) == ("raw", 12, "Is {q}?")
    assert found.before is not None and found.before == same.before and found.general == same.general


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


def test_a_wrapped_model_in_double_precision_gets_a_plan(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    double = lsf.wrap(copy.deepcopy(loaded.model).double(), loaded.tokenizer)
    analysis = lsf.analyze(double, ROWS, prompt="{q}", completion="{a}", criteria=("alignment",))
    assert analysis.model.dtype == "float64"
    assert len(lsf.recommend(analysis, 2).blocks) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_in_a_dtype_that_is_not_trained_in_is_refused_before_a_run_is_made(
    tiny: Callable[[str], Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    odd = lsf.wrap(copy.deepcopy(loaded.model).to(dtype), loaded.tokenizer)
    said = f"The model is in {str(dtype).rpartition('.')[2]}, in which LSF measures but does not tune; accepted are"
    with pytest.raises(BadInputError, match=said):
        lsf.tune(odd, ROWS, lsf.Plan(odd.info.name, 4, (1,)), "{q}", "{a}", runs=tmp_path / "runs", steps=2)
    with pytest.raises(BadInputError, match=said):
        lsf.sweep(odd, ROWS, "{q}", "{a}", steps=2, json=tmp_path / "sweep.json")
    assert not list(tmp_path.iterdir())


def test_peft_adapters_are_measured_as_the_model_answers_with_them(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    adapted: Any = get_peft_model(copy.deepcopy(loaded.model), LoraConfig(r=2, target_modules=["q_proj"])).eval()
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    before, ids = state_of(adapted), torch.tensor([[1, 2, 3]])
    wrapped = lsf.wrap(adapted, loaded.tokenizer)
    measured = wrapped.measured().model
    assert wrapped.model is adapted and not adapted_maps(measured)
    assert torch.allclose(measured(ids).logits, adapted(ids).logits, atol=1e-5)
    assert not torch.allclose(measured(ids).logits, loaded.model(ids).logits, atol=1e-3)
    with adapted.disable_adapter():
        assert torch.equal(wrapped.measured().model(ids).logits, loaded.model(ids).logits)
    assert state_of(adapted) == before


def test_adapters_that_are_no_change_of_weights_and_what_is_no_model_are_refused(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    prompt = get_peft_model(
        copy.deepcopy(loaded.model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    for model, tokenizer, sentence in (
        (prompt, loaded.tokenizer, "changes no weights"),
        ("bundled", loaded.tokenizer, "A str was given; a causal LM"),
        (torch.nn.Linear(2, 2), loaded.tokenizer, "A Linear was given; a causal LM"),
        (loaded.model, None, "A NoneType was given as the tokenizer"),
    ):
        with pytest.raises(ModelError, match=sentence):
            lsf.wrap(model, tokenizer)
    for model, sentence in (("bundled", r"lsf.load\('bundled'\)"), (loaded.model, r"lsf.wrap\(model, tokenizer\)")):
        with pytest.raises(BadInputError, match=sentence):
            lsf.analyze(model, ROWS)  # pyright: ignore[reportArgumentType]


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(tiny: Callable[[str], Path]) -> None:
    model = lsf.load(str(tiny("llama")), "float32", "cpu")
    for call in (lsf.analyze, lsf.sweep):
        with pytest.raises(BadInputError, match=r"no setting 'limt'; known are: .*batch_size"):
            call(model, ROWS, "{q}", "{a}", limt=3)


def test_a_template_among_the_settings_is_refused_with_its_own_argument(tiny: Callable[[str], Path]) -> None:
    model = lsf.load(str(tiny("llama")), "float32", "cpu")
    calls: list[Callable[..., Any]] = [lambda **more: lsf.tune(model, ROWS, PLAN, **more)]
    for call in [*calls, lambda **more: lsf.sweep(model, ROWS, **more)]:
        with pytest.raises(BadInputError, match="'prompt_template'; the template is given as prompt="):
            call(prompt_template="{q}", completion="{a}")


def test_a_model_that_a_fused_optimizer_trained_is_known_to_be_another(tiny: Callable[[str], Path]) -> None:
    model = lsf.load(str(tiny("llama")), "float32", "cpu")
    lsf.freeze(model.model, lsf.Plan("tiny", 4, (1,)))
    tuned = [value for value in model.model.parameters() if value.requires_grad]
    before = weights_hash(model.measured().model)
    assert model.measured() is model.measured()
    model.model(torch.tensor([[1, 2, 3]])).logits.square().mean().backward()
    torch.optim.AdamW(tuned, fused=True).step()  # counts no version up
    model.model.requires_grad_(False)
    assert weights_hash(model.measured().model) != before


def test_a_model_that_was_written_by_way_of_data_is_known_to_be_another(tiny: Callable[[str], Path]) -> None:
    model = lsf.load(str(tiny("llama")), "float32", "cpu")
    weight, hashes = model.model.get_parameter("model.layers.1.mlp.up_proj.weight"), set()
    hashes.add(weights_hash(model.measured().model))
    weight.data.mul_(2)
    hashes.add(weights_hash(model.measured().model))
    weight.data[[0, 1]] = weight.data[[1, 0]].clone()
    hashes.add(weights_hash(model.measured().model))
    assert len(hashes) == 3 and weight._version == 0


class Steering:
    """A hook as people write them: a method of an object that cannot be copied."""

    def __init__(self, by: torch.Tensor) -> None:
        self.by, self.lock = by, threading.Lock()

    def __call__(self, module: torch.nn.Module, given: Any, out: Any) -> Any:
        with self.lock:
            return (out[0] + self.by, *out[1:]) if isinstance(out, tuple) else out + self.by


def test_hooks_act_in_what_is_measured_from_when_they_are_set_until_they_are_removed(
    tiny: Callable[[str], Path],
) -> None:
    model, settings = lsf.load(str(tiny("llama")), "float32", "cpu"), {"prompt": "{q}", "completion": "{a}"}
    plain = lsf.analyze(model, ROWS, **settings)
    steering = Steering(torch.linspace(-1, 1, 32))
    handle = model.model.get_submodule("model.layers.1").register_forward_hook(steering)
    steered = lsf.analyze(model, ROWS, **settings)
    deviations = [[state.target_deviation for state in one.states] for one in (plain, steered)]
    assert deviations[0][:2] == deviations[1][:2] and deviations[0][2:] != deviations[1][2:]
    assert plain.weights is not None and steered.weights is None
    steering.by = torch.zeros(32)
    assert lsf.analyze(model, ROWS, **settings).states == plain.states
    handle.remove()
    assert lsf.analyze(model, ROWS, **settings).states == plain.states


def test_a_model_is_measured_as_it_is_now_without_dropout(tiny: Callable[[str], Path]) -> None:
    model, settings = lsf.load(str(tiny("gpt2")), "float32", "cpu"), {"prompt": "{q}", "completion": "{a}"}
    before = lsf.analyze(model, ROWS, **settings)
    model.model.train().requires_grad_(True)  # as a Trainer leaves it; GPT-2 has dropout
    assert lsf.analyze(model, ROWS, **settings).blocks == before.blocks
    assert model.model.training and all(value.requires_grad for value in model.model.parameters())
    get_peft_model(model.model, PLAN.lora_config(r=2))
    assert lsf.analyze(model, ROWS, **settings).blocks == before.blocks  # B = 0: the model answers as before
    model.model.transformer.h[1].mlp.c_fc.base_layer.weight.data = torch.zeros(32, 128)
    assert lsf.analyze(model, ROWS, **settings).blocks != before.blocks


GLOBAL_STATE = """
import gc, random, signal, sys
gc.disable()  # imports take a quarter less
import numpy as np, torch, lsf, lsf.lens.analyze, lsf.training.run
loaded = {name.partition(".")[0] for name in sys.modules}
assert "torch" in loaded
assert not {"streamlit", "sklearn"} & loaded, "sklearn: half a second of every start, for pictures alone"
from pathlib import Path

def state():
    flags = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    drawn = random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    return [drawn, flags, Path.cwd(), signal.getsignal(signal.SIGINT)]

rows = [{"prompt": f"the {noun} is", "completion": " red"} for noun in ["cat", "dog", "sun"] * 8]
before = state()
model = lsf.load(sys.argv[1], "float32", "cpu")
lsf.analyze(lsf.wrap(model.model, model.tokenizer), rows, criteria=("alignment", "random"))
lsf.tune(model, rows, lsf.Plan("tiny", 4, (1, 2)), runs=sys.argv[2], steps=2, batch_size=4)
same = [now == then for now, then in zip(state(), before)]
assert all(same), f"random numbers, torch, folder, Ctrl-C: {same}"
"""
"""A program for an interpreter of its own: the tests' checks of shapes draw random numbers."""


@pytest.mark.slow
def test_what_measures_and_tunes_loads_no_streamlit_and_changes_no_global_state(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", GLOBAL_STATE, str(tiny("llama")), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_lora_of_a_plan_lies_in_its_blocks_alone(tiny: Callable[[str], Path], family: str) -> None:
    model = load_model(str(tiny(family)), "float32", "cpu").model
    adapted: Any = get_peft_model(copy.deepcopy(model), PLAN.lora_config(r=2))
    wants = {name for name, value in adapted.named_parameters() if value.requires_grad}
    blocks = {part for name in wants for part in name.split(".") if part.isdigit()}
    assert wants and blocks == {"1", "2"} and all("lora_" in name for name in wants)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_lora_of_a_plan_lies_on_every_linear_map_of_its_blocks_in_every_family(family: str) -> None:
    model = tiny_model(family)
    layout = layout_of(model)
    wanted = {
        f"{layout.block_names[block]}.{name}"
        for block in PLAN.blocks
        for name, module in layout.blocks[block].named_modules()
        if is_linear(module)
    }
    assert set(adapted_maps(get_peft_model(model, PLAN.lora_config(r=2)).get_base_model())) == wanted


def test_lora_of_a_plan_that_names_more_than_blocks_is_refused() -> None:
    for plan, sentence in (
        (lsf.Plan("tiny", 4, (1,), head=True), "names head too"),
        (lsf.Plan("tiny", 4, (), head=True), "names none"),
    ):
        with pytest.raises(PlanError, match=sentence):
            plan.lora_config()


def trained(model: Any, folder: Path, callback: Any, steps: int = 3, spoil: Any = None, rate: float = 1e-2) -> None:
    rows = [{"input_ids": torch.arange(1, 9), "labels": torch.arange(1, 9)}] * 8
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=rate, report_to="none",
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
    model = get_peft_model(copy.deepcopy(base), PLAN.lora_config(r=2))
    trained(model, tmp_path, proof, steps=1)  # A cannot have moved yet: B was 0
    assert proof.proof.tuned_unmoved and all(".lora_A." in name for name in proof.proof.tuned_unmoved)


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


def test_a_proof_that_fails_keeps_the_training_even_where_the_disk_does_not_take_it(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: Any
) -> None:
    model = copy.deepcopy(load_model(str(tiny("llama")), "float32", "cpu").model)
    lsf.freeze(model, PLAN)

    def full(*_given: Any, **_named: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(RunError, match=r"did not move, .*in memory as trainer.model and could not be saved \(No space"):
        trained(model, tmp_path, lsf.FrozenProof(PLAN), rate=0.0)


def test_transformers_own_adapters_are_proved_too(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = copy.deepcopy(load_model(str(tiny("llama")), "float32", "cpu").model)
    model.add_adapter(PLAN.lora_config(r=2))
    proof = lsf.FrozenProof(PLAN)
    trained(model, tmp_path, proof)
    assert proof.proof is not None and proof.proof.frozen_identical and proof.proof.tuned_moved == 28


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


def test_interrupted_at_once_the_latest_partial_result_is_returned_and_without_one_it_is_raised(
    tiny: Callable[[str], Path], monkeypatch: Any
) -> None:
    model = lsf.load(str(tiny("llama")), "float32", "cpu")
    whole = lsf.analyze(model, ROWS, "{q}", "{a}", criteria=("deviation",))

    def interrupted(_model: Any, _task: Any, _settings: Any, report: Any, _runs: Any) -> None:
        report.partial(whole)
        raise KeyboardInterrupt

    def early(*_given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lsf.lens.analyze.analyze", interrupted)
    with pytest.warns(UserWarning, match="The analysis was interrupted"):
        assert lsf.analyze(model, ROWS, "{q}", "{a}") == whole
    monkeypatch.setattr("lsf.lens.analyze.analyze", early)
    with pytest.raises(KeyboardInterrupt):
        lsf.analyze(model, ROWS, "{q}", "{a}")


def test_an_analysis_is_the_record_it_saves(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    found = lsf.analyze(lsf.load(str(tiny("llama")), "float32", "cpu"), ROWS, "{q}", "{a}", criteria=("deviation",))
    found.save(tmp_path / "analysis.json")
    again = Record.load(tmp_path / "analysis.json")
    assert again.to_json() == found.to_json()
    assert found == lsf.api.Analysis(**vars(found)) and Record(**vars(found)) == found == Record(**vars(found))


def test_everything_is_drawn_in_a_notebook_and_small(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: Any
) -> None:
    model, opened = lsf.load(str(tiny("llama")), "float32", "cpu"), list[str]()
    found = lsf.analyze(model, ROWS, "{q}", "{a}", criteria=("deviation",))
    plan = found.recommend(2, "deviation")
    assert plan.reasons and "why" in plan._repr_html_() and "n_blocks" in model._repr_html_()
    html = found._repr_html_()
    assert html.count("<tr>") == 5 and "linear-gradient" in html and len(html) < 10_000
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found.show(plan)
    assert "The plan: tune" in Path(opened[0].removeprefix("file://")).read_text(encoding="utf-8")
    run = lsf.tune(model, ROWS, PLAN, "{q}", "{a}", runs=tmp_path / "runs", steps=2, batch_size=4)
    assert run.result is not None and run.result.proof is not None and run.result.proof.frozen_identical
    assert "<table" in lsf.compare(run)._repr_html_() and "<table" in run._repr_html_()
    with pytest.raises(LsfError, match="no run to compare"):
        lsf.compare()
    assert repr(model).startswith("Model(") and "4 blocks" in repr(model)
    assert "deviation" in str(found).lower() and len(str(found).splitlines()) == 2 + 1 + model.info.n_blocks
    assert f"{run.folder}\n" in str(run) and "Verdict: " in str(lsf.compare(run))
    assert repr(lsf.read_data(ROWS, "{q}", "{a}")).startswith("Task(")
