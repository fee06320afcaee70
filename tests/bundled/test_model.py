"""The committed model: what it is, what it knows, how its tokenizer reads."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsf.bundled import MODEL_FOLDER
from lsf.bundled.pretrain import exactly_completed
from lsf.data.corpus import make_corpus
from lsf.data.lessons import LESSONS, load_lesson
from lsf.data.world import make_world


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32, local_files_only=True).eval()


def test_it_is_a_llama_of_8_blocks_within_its_limits(model: Any) -> None:
    assert model.config.model_type == "llama"
    assert model.config.num_hidden_layers == 8
    assert model.config.attention_bias and model.config.mlp_bias  # so that bitfit and hiwi's bias form can be shown
    assert sum(tensor.numel() for tensor in model.parameters()) <= 3_000_000
    assert (MODEL_FOLDER / "model.safetensors").stat().st_size <= 6_000_000


@pytest.fixture(scope="module")
def right(model: Any, tokenizer: Any) -> np.ndarray:
    return exactly_completed(model, tokenizer, make_corpus(make_world(0)).held_out)


def test_it_completes_95_percent_of_held_out_wordings(right: np.ndarray) -> None:
    assert right.mean() >= 0.95
    held_out = make_corpus(make_world(0)).held_out
    facts = [place for place, statement in enumerate(held_out) if statement.relation not in ("review", "sum")]
    assert right[facts].mean() >= 0.95


def test_the_log_says_what_the_weights_do(model: Any, right: np.ndarray) -> None:
    log = json.loads((MODEL_FOLDER / "pretraining.json").read_text())
    assert log["held_out_exact_match"] == pytest.approx(right.mean(), abs=0.002)
    assert log["parameters"] == sum(tensor.numel() for tensor in model.parameters())
    assert log["seconds"] <= 30 * 60
    assert log["curve"][-1]["step"] == log["spec"]["steps"]


def test_greedy_decoding_says_what_one_pass_says(model: Any, tokenizer: Any) -> None:
    statements = make_corpus(make_world(0)).held_out[::150]
    right = exactly_completed(model, tokenizer, statements)
    for statement, expected in zip(statements, right, strict=True):
        prompt = tokenizer(statement.prompt, return_tensors="pt").input_ids
        wanted = tokenizer(statement.completion, add_special_tokens=False).input_ids
        said = model.generate(prompt, max_new_tokens=len(wanted), do_sample=False)[0, prompt.shape[1] :]
        assert (said.tolist() == wanted) == expected


def test_text_survives_the_round_trip(tokenizer: Any) -> None:
    for statement in make_corpus(make_world(0)).taught[::500]:
        assert tokenizer.decode(tokenizer(statement.text).input_ids, skip_special_tokens=True) == statement.text


def test_a_text_begins_with_one_begin_token_and_pads_and_ends_with_others(tokenizer: Any) -> None:
    ids = tokenizer("The capital of Norland is").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}) == 4


@pytest.mark.parametrize("name", LESSONS)
def test_a_completion_alone_has_the_tokens_it_has_in_running_text(name: str, tokenizer: Any) -> None:
    for example in load_lesson(name).test:
        prompt = tokenizer(example.prompt).input_ids
        completion = tokenizer(example.completion, add_special_tokens=False).input_ids
        assert tokenizer(example.prompt + example.completion).input_ids == prompt + completion
        assert tokenizer.unk_token_id not in prompt + completion
