"""Models and examples at the edge of what can be measured: an answer, or one sentence that names what is wrong."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.errors import BadInputError, ModelError
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.models.supported import find_model
from lsf.progress import Silent
from tests.lens.test_reference import PAIRS, task_of
from tests.tiny import save_tiny

ALL = tuple(name for name, criterion in CRITERIA.items() if criterion.needs != "runs")


def changed(folder: Path, source: Path, tensor: str, change: Callable[[torch.Tensor], object]) -> Path:
    """Copy a model with one tensor changed in place."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights[tensor])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def everything(folder: Path, pairs: list[tuple[str, str]]) -> Analysis:
    return analyze(load_model(str(folder)), task_of(pairs), AnalysisSettings(criteria=ALL, batch_size=3), Silent())


def numbers(analysis: Analysis) -> list[float]:
    """Return every score and deviation that was measured."""
    scores = [score for block in analysis.blocks for score in block.scores.values() if score is not None]
    states = [value for state in analysis.states for value in (state.deviation, state.target_deviation)]
    return [value for value in (*scores, *states) if value is not None]


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -float("inf")])
def test_a_damaged_weight_is_named(damage: float, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    folder = changed(tmp_path / "model", tiny("llama"), name, lambda weight: weight[0, 0].fill_(damage))
    with pytest.raises(ModelError, match=f"NaN or infinite weights in {name}"):
        load_model(str(folder))


@pytest.mark.parametrize(("block", "word"), [(0, "block 0"), (2, "block 2")])
def test_a_state_that_overflows_is_named_with_its_block(block: int, word: str, tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    with torch.no_grad():  # finite weights whose product is not: loading cannot know
        loaded.model.model.layers[block].mlp.down_proj.weight.fill_(3e38)
    with pytest.raises(ModelError, match=f"State {block + 1} holds NaN or infinite numbers: {word} produced them"):
        analyze(loaded, task_of(PAIRS), AnalysisSettings(criteria=("deviation",)), Silent())


def test_ids_beyond_the_embedding_are_refused_by_their_numbers(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path, vocab_size=10)
    with pytest.raises(ModelError, match=r"tokenizer .* gives ids up to 27 but its embedding has 10 rows"):
        load_model(str(folder))


def test_a_tokenizer_with_gaps_whose_ids_all_fit_is_accepted(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    padded = save_tiny("llama", tmp_path, vocab_size=64)  # rows the tokenizer never uses
    assert load_model(str(padded)).info.vocab_size == 64


def test_a_token_whose_vectors_are_zero_has_no_direction_and_breaks_nothing(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    row = 4  # the word "the", which PAIRS begin with and end in
    folder = changed(tmp_path / "a", tiny("llama"), "model.embed_tokens.weight", lambda weight: weight[row].zero_())
    folder = changed(tmp_path / "b", folder, "lm_head.weight", lambda weight: weight[row].zero_())
    ours = everything(folder, [("the", " the"), ("a cat sat on the", " the"), ("the dog", " the")])
    assert np.isfinite(numbers(ours)).all()
    # without a direction nothing is near it or far from it
    assert [state.target_deviation for state in ours.states] == pytest.approx([1.0] * 5)


def test_one_example_gives_every_criterion_and_no_interval(tiny: Callable[[str], Path]) -> None:
    ours = everything(tiny("llama"), PAIRS[:1])
    assert ours.data.n_examples == 1
    assert np.isfinite(numbers(ours)).all()
    assert {state.deviation_low for state in ours.states} == {None}
    assert ours.scores("deviation") == tuple(state.deviation for state in ours.states[1:])


def test_a_model_of_one_block_has_two_states_and_one_score_each(tmp_path: Path) -> None:
    ours = everything(save_tiny("llama", tmp_path, num_hidden_layers=1), PAIRS)
    assert (len(ours.states), len(ours.blocks)) == (2, 1)
    assert set(ours.criteria) == set(ALL)
    assert np.isfinite(numbers(ours)).all()
    assert ours.scores("law_headroom") == (pytest.approx(0.0, abs=1e-9),)


def test_prompts_of_one_token_are_read(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None  # no <s> in front
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    ours = everything(folder, [("the", " cat"), ("dog", " ran"), ("sun", " is")])
    assert (ours.data.n_positions, ours.data.mean_tokens) == (3, 2)
    assert np.isfinite(numbers(ours)).all()


def test_a_checkpoint_without_its_head_is_refused(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights \(such as lm_head.weight\)"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("how", "packed"),
    [({"quant_method": "bitsandbytes", "load_in_4bit": True}, torch.uint8), ({"quant_method": "gptq"}, torch.int32)],
)
def test_a_4_bit_model_is_refused_before_its_weights_are_read(
    how: dict, packed: torch.dtype, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(24, 32, dtype=packed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": how}))
    with pytest.raises(ModelError, match=r"is quantised; its blocks cannot be tuned\. Take the original weights"):
        find_model(str(folder))


def test_a_setting_out_of_its_range_says_what_would_be_accepted() -> None:
    with pytest.raises(BadInputError, match="batch_size is 0; it must lie between 1 and 65536"):
        replace(AnalysisSettings(), batch_size=0)


def test_raw_states_of_another_width_than_the_head_are_refused_in_a_sentence(tmp_path: Path) -> None:
    loaded = load_model(str(save_tiny("opt_projected", tmp_path)))
    raw = AnalysisSettings(reading="raw", criteria=("deviation",))
    with pytest.raises(BadInputError, match=r"have width 32 and its head reads 16.*accepted is the reading: lens"):
        analyze(loaded, task_of(PAIRS), raw, Silent())
    assert analyze(loaded, task_of(PAIRS), replace(raw, reading="lens"), Silent()).criteria == ("deviation",)
