"""Every row of the families table: its states against transformers' own, and one block tuned, the rest frozen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.data.task import Example, split_examples
from lsf.lens.analyze import analyze
from lsf.models.families import FAMILIES
from lsf.models.layout import captured_states, resolve
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.evaluation import evaluate
from lsf.training.run import tune
from tests.tiny import MODEL_TYPES, WORDS, save_tiny, tiny_model

ROWS = [*FAMILIES, *(name for name in MODEL_TYPES if name not in FAMILIES)]
TASK = split_examples("words", [Example(f"the {word} sat on", f" {word} .") for word in WORDS])


@pytest.mark.parametrize("family", ROWS)
def test_captured_states_are_the_models_own_hidden_states(family: str) -> None:
    model = tiny_model(family)
    layout = resolve(model, FAMILIES[MODEL_TYPES.get(family, family).removesuffix("_text")])
    ids = torch.tensor([[1, 5, 9, 6, 20], [1, 8, 8, 3, 4]])
    with torch.no_grad():
        own = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        with captured_states(layout, lambda state: state) as states:
            model.base_model(input_ids=ids, use_cache=False)
        last = layout.read(states[-1])
        embedded = layout.embed(ids)
    assert len(states) == len(own.hidden_states)
    for state, theirs in zip(states[:-1], own.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state, theirs, rtol=0, atol=0)
    torch.testing.assert_close(layout.logits(last), own.logits, rtol=0, atol=1e-5)
    positional = ("gpt2", "gpt_neo", "opt", "opt_projected")  # position rows are added after the embedding
    assert torch.equal(embedded, states[0]) == (family not in positional)


def test_every_family_is_in_the_guide() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guide.md"
    listed = guide.read_text(encoding="utf-8").partition("Supported architectures:")[2]
    names = {name.strip() for name in listed.partition(" At ")[0].rstrip(". ").replace("\n", " ").split(",")}
    assert names == set(FAMILIES)


def test_a_row_of_a_longrope_model_has_its_numbers_whatever_stands_beside_it(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]}
    rope |= {"rope_theta": 10000.0, "original_max_position_embeddings": 24}
    loaded = load_model(str(save_tiny("phi3", tmp_path, rope_parameters=rope, original_max_position_embeddings=24)))
    rows = [Example(" ".join([word] * (5 + 25 * (place % 2))), " sat") for place, word in enumerate(WORDS)]
    found = [
        analyze(loaded, split_examples("words", rows), AnalysisSettings(batch_size=size), Silent()) for size in (1, 64)
    ]
    one, many = ([state.deviation for state in analysis.states] for analysis in found)
    assert one == pytest.approx(many, abs=1e-6)
    encoded = encode(loaded.tokenizer, rows, loaded.context)
    assert encoded.n_cut == len(rows) // 2
    alone = [evaluate(loaded.model, [row], 1).loss or 0.0 for row in encoded.rows]
    assert evaluate(loaded.model, encoded.rows, 64).loss == pytest.approx(sum(alone) / len(alone), abs=1e-5)


@pytest.mark.parametrize("family", ROWS)
def test_one_block_is_tuned_and_nothing_else_moves(family: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = replace(load_model(str(tiny(family))), context=16)  # short general text
    spec = RunSpec("tiny", "words", Plan("tiny", 4, (2,)), steps=2, batch_size=4, learning_rate=1e-2, eval_limit=2)
    result = tune(loaded, TASK, spec, create_run(tmp_path, spec), Silent())
    assert result.state == "succeeded"
    assert result.proof is not None
    assert result.proof.frozen_identical
    assert result.proof.tuned_moved > 0
    assert result.trainable_params == sum(p.numel() for p in loaded.layout.blocks[2].parameters())
    # experts no token was sent to, and blocks whose biases get no gradient, are named rather than hidden
    assert result.proof.tuned_tensors == result.proof.tuned_moved + len(result.proof.tuned_unmoved)
