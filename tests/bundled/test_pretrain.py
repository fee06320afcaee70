"""How the bundled model is made."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsf.bundled.pretrain import Family, PretrainingSpec, encode, language_loss, make_model, make_tokenizer, pretrain
from lsf.data.corpus import Statement

TINY = PretrainingSpec(steps=3, batch_size=8, warmup_steps=1, width=16, inner=16, heads=2, blocks=2, log_every=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    pretrain(first, spec=TINY)
    pretrain(second, spec=TINY, checkpoints=second / "along")
    return first, second


def test_same_seed_and_steps_give_identical_weights(folders: tuple[Path, Path]) -> None:
    first, second = folders
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_folder_loads_and_its_log_is_complete(folders: tuple[Path, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders[0], local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folders[0], local_files_only=True)
    assert model.config.vocab_size == len(tokenizer)
    log = json.loads((folders[0] / "pretraining.json").read_text())
    assert [line["step"] for line in log["curve"]] == [2, 3]
    assert log["spec"]["seed"] == 0
    assert {"held_out_loss", "held_out_exact_match", "seconds", "versions"} <= set(log)


@pytest.mark.parametrize("family", get_args(Family))
def test_the_loss_is_that_of_transformers_on_real_tokens(family: Family) -> None:
    statements = [Statement("x", "a", "one two", " three"), Statement("x", "b", "one", " two")]
    tokenizer = make_tokenizer(statement.text for statement in statements)
    model = make_model(replace(TINY, family=family), tokenizer)
    assert model.config.model_type == family
    ids = encode(tokenizer, statements)
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    loss, count = language_loss(model, ids, pad)
    assert count == 4 + 3
    theirs = model(input_ids=ids, labels=ids.masked_fill(ids == pad, -100), attention_mask=(ids != pad).long()).loss
    torch.testing.assert_close(loss / count, theirs)


def test_checkpoints_along_the_way_are_loadable_in_half_precision_and_change_nothing(
    folders: tuple[Path, Path],
) -> None:
    without, out = folders
    assert (out / "model.safetensors").read_bytes() == (without / "model.safetensors").read_bytes()
    kept = sorted(path.name for path in (out / "along").iterdir())
    assert kept == ["step-0000", "step-0001", "step-0002", "step-0003"]  # seven shares of three steps, rounded
    stored = load_file(out / "along" / "step-0003" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    last = AutoModelForCausalLM.from_pretrained(out / "along" / "step-0003", local_files_only=True)
    end = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    for mine, theirs in zip(last.parameters(), end.parameters(), strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=1e-3, atol=1e-6)
    AutoTokenizer.from_pretrained(out / "along" / "step-0000", local_files_only=True)
