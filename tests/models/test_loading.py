"""Which models are loaded, and the one sentence for each that is not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from lsf.errors import BadInputError, LsfError, ModelError, SelfCheckError, UnknownFamilyError
from lsf.models import layout as anatomy_module
from lsf.models.cache import ModelCache
from lsf.models.devices import Device, choose_device, list_devices
from lsf.models.families import FAMILIES, family_of, plain
from lsf.models.layout import resolve, self_check
from lsf.models.loading import dtype_for, load_model
from lsf.models.supported import find_model
from tests.tiny import save_tiny, tiny_model

IN_TABLE = [*FAMILIES, "opt_projected"]


@pytest.mark.parametrize("family", IN_TABLE)
def test_every_family_of_the_table_passes_the_self_check(family: str, tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny(family)))
    assert loaded.self_check <= anatomy_module.SELF_CHECK_TOLERANCE
    assert loaded.info.n_blocks == 4
    assert loaded.info.width == 32
    assert loaded.context == (2048 if family == "bloom" else 64)  # bloom has no position table and states no limit
    assert loaded.info.n_params == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training


@pytest.mark.parametrize("forgotten", ["soft-cap", "final norm"])
def test_the_self_check_refuses_a_reading_that_is_not_the_models(forgotten: str) -> None:
    reading = resolve(tiny_model("gemma2", final_logit_softcapping=1.0), FAMILIES["gemma2"])
    assert self_check(reading) <= anatomy_module.SELF_CHECK_TOLERANCE
    if forgotten == "soft-cap":
        wrong = replace(reading, family=FAMILIES["llama"])
    else:
        wrong = replace(reading, final_norm_name=None)
    with pytest.raises(SelfCheckError, match="fails the self-check"):
        self_check(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("cap", "loudness"), [(30.0, 1.0), (30.0, 0.02), (500.0, 1.0)])
def test_a_forgotten_soft_cap_is_refused_however_small_the_logits_are(
    dtype: torch.dtype, cap: float, loudness: float
) -> None:
    model = tiny_model("gemma2", final_logit_softcapping=cap, tie_word_embeddings=False).to(dtype)
    model.lm_head.weight.data.mul_(loudness)
    assert self_check(resolve(model, FAMILIES["gemma2"])) == 0.0
    with pytest.raises(SelfCheckError, match="fails the self-check"):
        self_check(resolve(model, replace(FAMILIES["gemma2"], finish_logits=plain)))
    assert not model.lm_head._forward_hooks


@pytest.mark.parametrize("family", IN_TABLE)
def test_every_family_passes_the_self_check_in_bfloat16_to_the_last_bit(
    family: str, tiny: Callable[[str], Path]
) -> None:
    assert load_model(str(tiny(family)), dtype="bfloat16").self_check == 0.0


@pytest.mark.parametrize(
    ("major", "own", "taken"),
    [(7, "bfloat16", "float32"), (8, "bfloat16", "bfloat16"), (8, "float16", "bfloat16"), (8, "float32", "float32")],
)
def test_a_gpu_takes_bfloat16_for_halves_where_it_computes_in_it_and_float32_else(
    major: int, own: str, taken: str, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_model(str(save_tiny("llama", tmp_path, dtype=own)))
    generations = {0: 15 - major, 1: major}  # the other GPU is of the other kind
    current = [0]

    def exchange(index: int) -> int:
        current.append(index)
        return current[-2]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(major=generations[index]))
    assert torch.cuda.is_bf16_supported()  # by emulation, where it is not real
    assert dtype_for(source, "auto", Device("cuda:1", "a GPU", None, None)) == getattr(torch, taken)
    assert current[-1] == 0


def test_the_self_check_refuses_a_model_that_skips_a_block() -> None:
    model = tiny_model("llama")
    reading = resolve(model, FAMILIES["llama"])
    model.config.num_hidden_layers = 3  # transformers then runs the first three of four blocks
    with pytest.raises(SelfCheckError, match="gave 3 states in one forward pass where its 4 blocks should give 5"):
        self_check(reading)


def test_an_unknown_family_is_refused_with_the_known() -> None:
    with pytest.raises(UnknownFamilyError, match="'mamba' is not in the families table; supported are: llama, "):
        family_of("mamba")


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_only(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def lose_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def poison(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_off(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


BREAKAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "line 1 is not valid JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "holds a JSON list; an object was expected"),
    (drop_weights, "holds no weights; weights as safetensors are needed"),
    (pickle_only, "holds only pytorch_model.bin, which may run code"),
    (lose_a_tensor, "lacks 1 of its weights (such as model.layers.2.mlp.up_proj.weight)"),
    (poison, "NaN or infinite weights in model.layers.1.self_attn.q_proj.weight"),
    (cut_off, "model.safetensors of"),
    (drop_tokenizer, "has no tokenizer"),
    (lambda folder: edit_config(folder, model_type="mamba"), "not in the families table"),
    (
        lambda folder: edit_config(folder, model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Mine"}),
        "needs its own Python code",
    ),
    (lambda folder: edit_config(folder, architectures=["LlamaForSequenceClassification"]), "no language-model head"),
]


@pytest.mark.parametrize(("break_it", "sentence"), BREAKAGES)
def test_a_broken_model_folder_gets_one_sentence(
    break_it: Callable[[Path], object], sentence: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    break_it(folder)
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_encoder_is_named_as_one(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is BertForMaskedLM, not a causal language model"):
        find_model(str(tmp_path))


def test_a_model_that_reads_images_too_is_named_as_one_though_its_language_model_is_supported(tmp_path: Path) -> None:
    folder = save_tiny("gemma3", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": config}
    (folder / "config.json").write_text(json.dumps(whole))
    with pytest.raises(ModelError, match=r"which reads more than text around its language model \(gemma3_text\); a ch"):
        find_model(str(folder))


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path, vocab_size=10)
    with pytest.raises(ModelError, match="its embedding has 10 rows"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./none", "The model folder ./none does not exist"),
        ("no-such-owner/no-such-model", "hub does not answer"),
        (__file__, "is a file"),
    ],
)
def test_a_name_that_leads_nowhere_is_said_at_once(name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        find_model(name)


def test_devices_end_with_the_cpu_and_tell_their_memory() -> None:
    devices = list_devices()
    assert devices[-1].name == "cpu"
    assert 0 < (devices[-1].free_bytes or 0) <= (devices[-1].total_bytes or 0)
    assert "GB free" in devices[-1].memory
    assert choose_device("cpu").name == "cpu"
    with pytest.raises(BadInputError, match="There is no device 'abacus' here; available are: auto, "):
        choose_device("abacus")


def test_the_shelf_holds_one_model_and_gives_it_back(tiny: Callable[[str], Path]) -> None:
    model_cache = ModelCache()
    first = model_cache.load(str(tiny("llama")))
    assert model_cache.load(str(tiny("llama"))) is first
    second = model_cache.load(str(tiny("gpt2")))
    assert model_cache.current is second
    assert model_cache.unload() == sum(parameter.nbytes for parameter in second.model.parameters())
    assert model_cache.current is None
    assert model_cache.unload() is None


def test_a_folder_whose_weights_were_written_anew_is_loaded_anew(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder, model_cache = tmp_path / "model", ModelCache()
    shutil.copytree(tiny("llama"), folder)
    first = model_cache.load(str(folder))
    assert model_cache.load(str(folder)) is first
    changed = 2.5
    other = load_model(str(folder)).model
    other.get_input_embeddings().weight.data[0, 0] = changed
    other.save_pretrained(folder)
    again = model_cache.load(str(folder))
    assert again is not first
    assert again.model.get_input_embeddings().weight[0, 0].item() == changed


def test_bfloat16_loads_and_passes_its_own_self_check(tiny: Callable[[str], Path]) -> None:
    assert load_model(str(tiny("llama")), dtype="bfloat16").info.dtype == "bfloat16"


def test_a_failed_load_leaves_the_shelf_usable(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model_cache = ModelCache()
    with pytest.raises(LsfError):
        model_cache.load(str(tmp_path))
    assert model_cache.load(str(tiny("llama"))).info.n_blocks == 4
