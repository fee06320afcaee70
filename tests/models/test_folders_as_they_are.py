"""Model folders as people have them, trusted no further than their files go: read rightly, or one sentence."""

import importlib.util
import json
import logging
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lsf.cli.main import main
from lsf.criteria.result import AnalysisSettings
from lsf.data.task import Example, split_examples
from lsf.errors import DataError, ModelError
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model, weights_hash
from lsf.models.supported import find_model
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.artefacts import save_merged
from lsf.training.run import tune
from tests.tiny import WORDS, save_tiny, tiny_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456\n".format("0" * 64)
TASK = split_examples("words", [Example(f"the {word} sat on", f" {word} .", row) for row, word in enumerate(WORDS, 1)])


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a tiny Llama's folder, to be changed."""
    return shutil.copytree(tiny("llama"), tmp_path / "model")


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def refused(folder: Path) -> str:
    """Return the sentence on a folder, which says nothing of our own failures and is one line."""
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_the_config_does_not_ask_for_are_told_by_us_and_not_by_a_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny("llama", tmp_path / "six", num_hidden_layers=6)
    edit(folder, num_hidden_layers=4)
    told = load_model(str(folder)).info.left_out
    assert told is not None
    assert told.startswith("18 tensors of its files (such as model.layers.4.input_layernorm.weight) are not part of")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": e.prompt, "completion": e.completion}) for e in TASK.rows))
    capfd.readouterr()
    command = ["analyze", "--model", str(folder), "--data", str(rows), "--criteria", "deviation"]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    shown = "".join(capfd.readouterr())
    assert shown.count(told) == 1
    assert "UNEXPECTED" not in shown
    assert json.loads((tmp_path / "out.json").read_text())["model"]["left_out"] == told


def test_a_folder_whose_weights_are_all_asked_for_tells_nothing(tiny: Callable[[str], Path]) -> None:
    for family in ("llama", "gpt2"):
        assert load_model(str(tiny(family))).info.left_out is None


def test_a_model_and_an_adapter_in_one_folder_are_refused_and_never_mixed(folder: Path) -> None:
    plain = weights_hash(load_model(str(folder)).model)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(str(folder))
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert "holds a model and an adapter to it (adapter_config.json); merge the adapter" in refused(folder)
    for path in folder.glob("adapter_*"):
        path.unlink()
    assert weights_hash(load_model(str(folder)).model) == plain


def test_an_adapter_alone_is_called_one(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert "is an adapter (adapter_config.json), not a model; merge it into its base model first" in refused(folder)


@pytest.mark.parametrize("pad", [28, 5000, -1])
def test_a_padding_token_beyond_the_vocabulary_changes_nothing(
    pad: int, folder: Path, tiny: Callable[[str], Path]
) -> None:
    edit(folder, pad_token_id=pad)
    ids = torch.tensor([[1, 5, 9, 27]])
    with torch.no_grad():
        assert torch.equal(load_model(str(folder)).model(ids).logits, load_model(str(tiny("llama"))).model(ids).logits)


def test_a_config_that_asks_for_tuples_is_measured_and_tuned_as_any_other(folder: Path, tmp_path: Path) -> None:
    asked = AnalysisSettings(criteria=("deviation", "gradient_norm"))
    plain = analyze(load_model(str(folder)), TASK, asked, Silent())
    edit(folder, return_dict=False)
    loaded = load_model(str(folder))
    found = analyze(loaded, TASK, asked, Silent())
    assert (found.states, found.blocks) == (plain.states, plain.blocks)
    spec = RunSpec(str(folder), "words", Plan("tiny", 4, (2,)), steps=1, batch_size=2, eval_limit=2)
    place = create_run(tmp_path, spec)
    assert tune(loaded, TASK, spec, place, Silent()).state == "succeeded"
    assert save_merged(place, loaded, tmp_path / "merged").largest < 1e-4


@pytest.mark.parametrize("wish", ["flash_attention_2", "flash_attention_3", "kernels-community/flash-attn", "made_up"])
def test_an_attention_that_is_not_here_gives_way_to_one_that_is(wish: str, folder: Path) -> None:
    edit(folder, _attn_implementation=wish)
    assert load_model(str(folder)).model.config._attn_implementation == "sdpa"
    edit(folder, _attn_implementation="eager")
    assert load_model(str(folder)).model.config._attn_implementation == "eager"


def test_a_shape_that_does_not_fit_is_named_with_both_sizes(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(folder, vocab_size=32)
    said = refused(folder)
    assert "config.json of" in said
    assert "has the shape 28 x 32 in the file and 32 x 32 by the config (2 tensors differ)" in said
    assert "ignore_mismatched_sizes" not in said
    assert "MISMATCH" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_called_one(file: str, folder: Path) -> None:
    (folder / file).write_text(POINTER)
    assert f"{file} of {folder} is a git-lfs pointer, not the file itself; run `git lfs pull`" in refused(folder)


@pytest.mark.parametrize("damage", ["text", "cut header", "cut values", "no header", "header of a list"])
def test_a_damaged_file_of_weights_is_named_before_it_is_read(damage: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    n_header = struct.unpack("<Q", whole[:8])[0]
    content, sentence = {
        "text": (b"<html>Not found</html>", "is not a safetensors file"),
        "cut header": (whole[: n_header // 2], "ends early"),
        "cut values": (whole[:-4], f"ends early: it has {len(whole) - 4:,} bytes and should have {len(whole):,}"),
        "no header": (b"\0" * 64, "is not a safetensors file"),
        "header of a list": (struct.pack("<Q", 2) + b"[]", "is not a safetensors file"),
    }[damage]
    path.write_bytes(content)
    said = refused(folder)
    assert f"model.safetensors of {folder} {sentence}" in said
    assert said.endswith("download the weights again.")


@pytest.mark.parametrize("entry", [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {}])
def test_a_merged_model_that_kept_its_quantisation_entry_is_told_to_remove_it(entry: dict, folder: Path) -> None:
    edit(folder, quantization_config=entry)
    assert "has the entry quantization_config though its weights are floats; remove the entry" in refused(folder)


def test_an_empty_quantisation_entry_is_none(folder: Path) -> None:
    edit(folder, quantization_config=None)
    assert load_model(str(folder)).info.dtype == "float32"


def test_a_mask_of_whole_numbers_is_no_quantised_weight(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("gpt2"), tmp_path / "gpt2")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)  # as old files hold it
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder, quantization_config={})
    assert "remove the entry" in refused(folder)


def test_a_sentencepiece_tokenizer_names_its_package_where_that_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    found = importlib.util.find_spec
    monkeypatch.setattr("lsf.models.weights.find_spec", lambda name: None if name == "sentencepiece" else found(name))
    said = refused(folder)
    assert "needs the package sentencepiece (pip install sentencepiece), or put a tokenizer.json beside it" in said


@pytest.mark.parametrize("content", ["not json", "{}", '{"version": "1.0", "model": {"type": "Nope"}}'])
def test_a_tokenizer_that_cannot_be_read_is_named(content: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content)
    assert "(tokenizer.json) cannot be read: " in refused(folder)


@pytest.mark.parametrize(
    "change", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"hidden_act": "nope"}, {"num_hidden_layers": None}]
)
def test_a_config_that_transformers_cannot_build_is_the_folders_fault_and_not_ours(
    change: dict, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, **change)
    assert str(folder) in refused(folder)
    Plan(str(folder), 4, (1,)).save(folder / "plan.json")
    assert main(["export", "--plan", str(folder / "plan.json"), "--to", "peft"]) == 2
    assert "internal error" not in capsys.readouterr().err


def test_a_folder_of_the_hubs_cache_gives_the_snapshot_that_main_is(folder: Path, tmp_path: Path) -> None:
    root, commit = tmp_path / "models--me--small", "a" * 40
    shutil.copytree(folder, root / "snapshots" / commit)
    (root / "snapshots" / ("b" * 40)).mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    found = find_model(str(root))
    assert (found.folder, found.revision) == (root / "snapshots" / commit, commit)
    (root / "refs" / "main").write_text("c" * 40)
    assert f"name one of its folders itself, such as {root / 'snapshots' / commit}" in refused(root)
    shutil.rmtree(root / "snapshots" / commit)
    shutil.rmtree(root / "snapshots" / ("b" * 40))
    assert "without a snapshot; download the model again" in refused(root)


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A model whose tokenizer has one special token beyond its embedding, as Gemma 3's text models have."""
    folder = save_tiny("llama", tmp_path / "added")
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<picture>", special=True, normalized=False)])
    tokenizer.save_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<picture>") == 4 + len(WORDS) == len(tiny_tokenizer())
    return folder


def test_an_id_beyond_the_embedding_is_accepted_until_a_text_yields_it(added: Path, tmp_path: Path) -> None:
    loaded, settings = load_model(str(added)), AnalysisSettings(criteria=("deviation",))
    assert analyze(loaded, TASK, settings, Silent()).data.n_examples > 0
    rows = [*TASK.rows[:9], Example("the <picture> sat", " on", 17), *TASK.rows[9:]]
    bad = split_examples("words", rows)
    sentence = r"Row 17 has the token '<picture>' \(id 28\), for which .* has no embedding: its ids are below 28"
    with pytest.raises(DataError, match=sentence):
        analyze(loaded, bad, AnalysisSettings(criteria=("deviation",), split="all"), Silent())
    spec = RunSpec(str(added), "words", Plan(str(added), 4, (3,)), steps=1)
    with pytest.raises(DataError, match=sentence):
        tune(loaded, bad, spec, create_run(tmp_path / "runs", spec), Silent())


def test_what_transformers_logs_is_as_loud_afterwards_as_before(tiny: Callable[[str], Path]) -> None:
    logger = logging.getLogger("transformers")
    before = logger.level
    load_model(str(tiny("llama")))
    assert logger.level == before
