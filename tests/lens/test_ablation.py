"""Blocks bypassed, and the path of mean states, against plain transformers with a module replaced by the identity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import lsf
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.data.lessons import load_lesson
from lsf.lens.analyze import analyze
from lsf.lens.forward import ablation_batches, ablation_rises
from lsf.models.batches import Batch
from lsf.models.loading import LoadedModel, load_model
from lsf.progress import Silent
from tests.lens.reference import reference_ids, reference_states
from tests.lens.test_reference import PAIRS, task_of

NEW = ("polyline", "ablation")
# llama: bare states; gpt2: learned positions; gemma2, gemma3, gpt_neo: attention in turns; falcon: parallel attention;
# bloom: a normed embedding and slopes; opt_projected: a projected embedding; qwen3_moe: experts
FAMILIES = ["llama", "gpt2", "gemma2", "gemma3", "gpt_neo", "falcon", "bloom", "opt_projected", "qwen3_moe"]


class Identity(torch.nn.Module):
    """In the place of a block: hands on what enters it, in the form of the block's own output."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.__dict__ |= {name: value for name, value in vars(block).items() if isinstance(value, str)}  # its kind
        self.in_tuple: bool = False

    def forward(self, hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states, None) if self.in_tuple else hidden_states


def reference_rises(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> list[float]:
    """Return by how much the mean loss of every completion token rises without each block, one text at a time."""
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    kinds: list[bool] = []
    handle = blocks[0].register_forward_hook(lambda _m, _a, out: kinds.append(isinstance(out, tuple)))

    def loss() -> float:
        found = []
        for prompt, completion in pairs:
            before, after = reference_ids(tokenizer, prompt, completion)
            logits = model(input_ids=torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
            found.append(cross_entropy(logits.double(), torch.tensor(after), reduction="none"))
        return torch.cat(found).mean().item()

    with torch.no_grad():
        base = loss()
        handle.remove()
        rises = []
        for number, block in enumerate(list(blocks)):
            blocks[number] = Identity(block)
            blocks[number].in_tuple = kinds[0]  # type: ignore[assignment]
            rises.append(loss() - base)
            blocks[number] = block
    return rises


def rises_of(loaded: LoadedModel, pairs: list[tuple[str, str]], **settings: Any) -> tuple[np.ndarray, list[Batch]]:
    rows = encode(loaded.tokenizer, task_of(pairs).rows, 64).rows
    batches = ablation_batches(loaded, rows, AnalysisSettings(positions="all", **settings))
    found = ablation_rises(loaded, batches, Silent())
    assert found is not None
    return found, batches


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_bypassed_is_a_block_replaced_by_the_identity(family: str, tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny(family)))
    found, batches = rises_of(loaded, PAIRS, batch_size=3)
    assert len(batches) > 1
    expected = reference_rises(load_model(str(tiny(family))).model, loaded.tokenizer, PAIRS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(found) > 1e-3


def test_what_a_hook_adds_to_a_block_is_bypassed_with_it(tiny: Callable[[str], Path]) -> None:
    steered, plain = (lsf.load(str(tiny("llama")), "float32", "cpu") for _ in range(2))
    for model in (steered.model, plain.model):
        model.model.layers[1].register_forward_hook(lambda _module, _given, out: out + 0.5)
    found, _ = rises_of(steered.measured(), PAIRS)
    expected = reference_rises(plain.model, plain.tokenizer, PAIRS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_bundled_model_needs_blocks_as_plain_transformers_says() -> None:
    loaded = load_model("bundled")
    pairs = [(row.prompt, row.completion) for row in load_lesson("facts").train[:3]]
    found, _ = rises_of(loaded, pairs)
    expected = reference_rises(load_model("bundled").model, loaded.tokenizer, pairs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_first_examples_with_enough_positions_are_read_and_the_model_is_left_alone(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(tiny("llama")))
    whole, _ = rises_of(loaded, PAIRS[:2])
    counts = [len(row.targets) for row in encode(loaded.tokenizer, task_of(PAIRS).rows, 64).rows]
    monkeypatch.setattr("lsf.lens.forward.ABLATION_POSITIONS", counts[0] + 1)
    few, batches = rises_of(loaded, PAIRS)
    assert {int(number) for batch in batches for number in batch.examples} == {0, 1}
    np.testing.assert_allclose(few, whole)
    monkeypatch.setattr("lsf.lens.forward.STATES_SHARE", 0.0)  # no room: one text at a time
    alone, batches = rises_of(loaded, PAIRS)
    assert {len(batch.ids) for batch in batches} == {1}
    np.testing.assert_allclose(alone, few, rtol=1e-5)
    assert not any("forward" in vars(block) or block._forward_hooks for block in loaded.layout.blocks)


def test_a_batch_that_does_not_fit_is_read_in_halves(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lsf.lens.forward  # noqa: PLC0415

    loaded = load_model(str(tiny("llama")))
    expected, _ = rises_of(loaded, PAIRS)
    real = lsf.lens.forward.position_losses

    def small(layout: Any, batch: Batch) -> torch.Tensor:
        if len(batch.ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(layout, batch)

    monkeypatch.setattr("lsf.lens.forward.position_losses", small)
    np.testing.assert_allclose(rises_of(loaded, PAIRS)[0], expected, rtol=1e-5)


def test_an_analysis_has_both_only_where_they_are_asked_for_and_nothing_else_changes(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(tiny("gpt2")))
    names = tuple(name for name in CRITERIA if CRITERIA[name].needs != "runs")

    def measured(criteria: tuple[str, ...]) -> Any:
        settings = AnalysisSettings(criteria=criteria, batch_size=2, positions="all")
        return analyze(loaded, task_of(PAIRS), settings, Silent())

    with_both = measured(names)
    monkeypatch.setattr("lsf.lens.analyze.ablation_rises", None)  # would fail where it is called
    without = measured(tuple(name for name in names if name not in NEW))
    for name in names:
        if name not in NEW:
            assert with_both.scores(name) == without.scores(name)
    assert with_both.states == without.states
    assert with_both.data.ablation_positions == with_both.data.n_positions
    assert without.data.ablation_positions is None
    assert set(NEW) <= set(with_both.criteria) and not set(NEW) & set(without.criteria)
    assert {len(one.scores["polyline"]) for one in with_both.growth if "polyline" in one.scores} == {4}


def test_the_mean_path_turns_where_transformers_own_states_do(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    settings = AnalysisSettings(criteria=("polyline",), batch_size=2)
    scores = analyze(loaded, task_of(PAIRS), settings, Silent()).scores("polyline")
    found = [score for score in scores if score is not None]
    assert len(found) == 4
    ids = [reference_ids(loaded.tokenizer, *pair)[0] for pair in PAIRS]
    path = torch.stack([reference_states(loaded.model, row)[:, -1] for row in ids]).mean(0).double().numpy()
    chord = path[4] - path[0]
    aside = [np.linalg.norm(p - path[0] - ((p - path[0]) @ chord) / (chord @ chord) * chord) for p in path[1:4]]
    first = int(np.argmax(aside))
    assert found[first] == pytest.approx(aside[first], rel=1e-4)  # the first split of all
    assert found[3] == pytest.approx(aside[first], rel=1e-4)  # the end is kept longest
    assert max(found) == found[3] and min(found) >= 0


def test_a_stop_leaves_out_what_was_not_reached(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    rows = encode(loaded.tokenizer, task_of(PAIRS).rows, 64).rows
    report = Silent()
    report.stop = "keep"
    assert ablation_rises(loaded, ablation_batches(loaded, rows, AnalysisSettings()), report) is None
