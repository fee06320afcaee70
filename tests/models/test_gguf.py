"""GGUF files: read as the model they were written from, or refused in one sentence."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gguf", reason="the library gguf is not installed (requirements-gguf.txt)")

from gguf import GGMLQuantizationType, quants

from lsf.cli.main import main
from lsf.errors import ModelError
from lsf.models.cache import ModelCache
from lsf.models.gguf import ARCHITECTURES, unpacked_place
from lsf.models.loading import load_model
from lsf.models.supported import at_hand, find_model
from tests.gguf_writer import TOKENS, VOCABULARY, write_gguf
from tests.tiny import tiny_model

UNLIKE_DEFAULT: dict[str, dict[str, Any]] = {
    # what a file cannot say is as the architecture has it; what it can say is not what transformers would assume
    "gemma2": {"query_pre_attn_scalar": 256, "final_logit_softcapping": 20.0, "sliding_window": 32},
    "gemma3": {"query_pre_attn_scalar": 256, "sliding_window": 32},
    "starcoder2": {"rope_parameters": {"rope_theta": 999.0, "rope_type": "default"}, "norm_epsilon": 1e-3},
    "qwen3": {"rms_norm_eps": 1e-3},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(tmp_path: Path, architecture: str = "llama", **changes: Any) -> Path:
    model = tiny_model(architecture, vocab_size=VOCABULARY, pad_token_id=None)
    return write_gguf(model, architecture, tmp_path / "tiny.gguf", **changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_gives_the_logits_of_the_model_it_was_written_from(architecture: str, tmp_path: Path) -> None:
    settings = {"vocab_size": VOCABULARY, "pad_token_id": None, **UNLIKE_DEFAULT.get(architecture, {})}
    model = tiny_model(architecture, **settings)
    loaded = load_model(str(write_gguf(model, architecture, tmp_path / "tiny.gguf")), dtype="float32")
    ids = torch.arange(2, 50)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, model(ids).logits)
    assert loaded.info.origin == "F32 from GGUF"
    assert not getattr(loaded.model, "is_quantized", False)


def test_a_quantised_file_is_said_to_be_dequantised_and_has_its_values_rounded_to_bfloat16(tmp_path: Path) -> None:
    model = tiny_model("llama", vocab_size=VOCABULARY, pad_token_id=None, intermediate_size=64)  # blocks of 32 values
    loaded = load_model(str(write_gguf(model, "llama", tmp_path / "tiny.gguf", packed="Q8_0")))
    assert loaded.info.origin == "dequantised from Q8_0 (GGUF)"
    name, packed = "model.layers.1.mlp.up_proj.weight", GGMLQuantizationType.Q8_0
    there = quants.dequantize(quants.quantize(model.state_dict()[name].numpy(), packed), packed)
    assert torch.equal(loaded.model.state_dict()[name], torch.from_numpy(there).bfloat16().float())


@pytest.mark.parametrize(("own", "taken"), [(1.0, "bfloat16"), (1.001, "float32")])
def test_a_file_of_bfloat16_is_unpacked_as_such_unless_its_norms_have_more_bits(
    own: float, taken: str, tmp_path: Path
) -> None:
    model = tiny_model("llama", vocab_size=VOCABULARY, pad_token_id=None)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(value.bfloat16().float() if "norm" not in name else torch.full_like(value, own))
    path = write_gguf(model, "llama", tmp_path / "tiny.gguf", packed="BF16")
    loaded = load_model(str(path), dtype="float32")
    assert json.loads((unpacked_place(path) / "config.json").read_text())["dtype"] == taken
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def test_a_file_is_unpacked_once_and_again_where_it_was_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model_cache = written(tmp_path), ModelCache()
    assert not at_hand(str(path))
    first = model_cache.load(str(path))
    assert at_hand(str(path))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "gguf", None)
        assert find_model(str(path)).folder == unpacked_place(path)
        assert model_cache.load(str(path)) is first
    other = tiny_model("llama", seed=1, vocab_size=VOCABULARY, pad_token_id=None)
    again = model_cache.load(str(write_gguf(other, "llama", path)))
    assert again is not first
    assert torch.equal(again.layout.head_weight, other.lm_head.weight)


def test_a_config_and_a_tokenizer_beside_the_file_are_not_taken_for_its_own(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert load_model(str(written(tmp_path))).info.n_blocks == 4


def test_digits_are_split_as_the_vocabulary_was_learned_and_no_token_is_invented(tmp_path: Path) -> None:
    tokenizer = load_model(str(written(tmp_path))).tokenizer
    assert tokenizer.tokenize("the  12") == ["t", "he", "Ġ", "Ġ", "1", "2"]
    assert tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")[1][0] == "ĠĠ"  # GPT-2: "Ġ", then "Ġ12"
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(TOKENS)))


@pytest.mark.parametrize("add", [True, False])
def test_a_text_begins_with_the_mark_the_file_asks_for(add: bool, tmp_path: Path) -> None:
    tokenizer = load_model(str(written(tmp_path, add_bos_token=add))).tokenizer
    assert (tokenizer("he").input_ids[0] == tokenizer.bos_token_id) is add


def cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


def no_gguf(path: Path) -> None:
    path.write_bytes(b"PK" + path.read_bytes()[2:])


BREAKAGES: list[tuple[dict[str, Any], Callable[[Path], object], str]] = [
    ({}, lambda path: cut(path, 0.9), "is cut off or damaged: its "),
    ({}, lambda path: cut(path, 0.05), "is cut off or damaged: its "),
    ({}, lambda path: path.write_bytes(b""), "is not a GGUF file"),
    ({}, no_gguf, "is not a GGUF file"),
    ({}, lambda path: path.unlink(), "There is no file "),
    ({"expert_count": 8}, lambda path: path, "states llama.expert_count = 8, which transformers ignores"),
    ({"rope__scaling__factor": 4.0}, lambda path: path, "states llama.rope.scaling.factor = 4.0"),
    ({"rope__dimension_count": 4}, lambda path: path, "cannot be read"),
    ({"block_count": 5}, lambda path: path, "lacks "),
    (
        {"tensors": {"rope_freqs.weight": np.full(4, 2, np.float32)}},
        lambda path: path,
        "holds rope_freqs.weight, which transformers does not read",
    ),
]


@pytest.mark.parametrize(("changes", "break_it", "sentence"), BREAKAGES)
def test_a_file_that_would_be_another_model_gets_one_sentence_and_leaves_nothing(
    changes: dict[str, Any], break_it: Callable[[Path], object], sentence: str, tmp_path: Path, cache: Path
) -> None:
    path = written(tmp_path, **changes)
    break_it(path)
    with pytest.raises(ModelError) as caught:
        find_model(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [one for one in cache.rglob("*") if one.is_file() and one.suffix != ".lock"]


def test_an_architecture_that_is_not_read_is_answered_with_those_that_are(tmp_path: Path) -> None:
    model = tiny_model("llama", vocab_size=VOCABULARY, pad_token_id=None)
    path = write_gguf(model, "llama", tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(ModelError, match="of the architecture 'mamba'; supported are: llama, qwen2, qwen3, gemma2"):
        find_model(str(path))


def test_without_the_library_a_file_is_refused_on_the_command_line_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    asked = ["analyze", "--model", str(path), "--data", "lesson:facts", "--json", str(tmp_path / "a.json")]
    assert main(asked) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith("that is not installed: pip install -r requirements-gguf.txt.")
    assert not (tmp_path / "a.json").exists()


def test_a_cut_off_file_is_refused_on_the_command_line_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    cut(path, 0.5)
    asked = ["tune", "--model", str(path), "--data", "lesson:facts", "--all", "--runs", str(tmp_path / "runs")]
    assert main(asked) == 2
    assert "is cut off or damaged" in capsys.readouterr().err.strip().splitlines()[-1]
