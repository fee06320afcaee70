"""Semantic bases against the pseudo-inverse, and models that share memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.data.task import Example, split_examples
from lsf.errors import ModelError
from lsf.lens.analyze import analyze
from lsf.lens.semantics import TEMPERATURE, semantic_bases
from lsf.models.batches import make_batches, probed
from lsf.models.loading import load_model
from lsf.models.sharing import share_model
from lsf.progress import Silent
from tests.tiny import tiny_model, tiny_tokenizer


def test_bases_are_columns_of_the_pseudo_inverse() -> None:
    head = torch.randn(400, 24, generator=torch.Generator().manual_seed(0))
    bases = semantic_bases(head)
    expected = torch.linalg.pinv(head.double())
    found = bases.of(torch.tensor([[3, 399], [3, 0]]))
    assert not bases.jittered
    assert found.shape == (2, 2, 24)
    wanted = expected[:, [3, 399, 3, 0]].T.reshape(2, 2, 24)
    assert (found - wanted).abs().max() <= 1e-5 * expected.abs().max()


def test_the_head_reads_a_basis_as_its_token() -> None:
    head = torch.randn(60, 60, generator=torch.Generator().manual_seed(1))
    logits = semantic_bases(head).of(torch.arange(60)) @ head.T
    torch.testing.assert_close(logits, torch.eye(60), atol=1e-3, rtol=0)


def by_bases(head: torch.Tensor, readings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the semantic losses as they are defined, from the bases of the whole vocabulary."""
    meanings = torch.nn.functional.normalize(semantic_bases(head).of(torch.arange(len(head))), dim=-1)
    cosines = torch.nn.functional.normalize(readings, dim=-1) @ meanings.T
    return -(cosines / TEMPERATURE).log_softmax(-1)[torch.arange(len(targets)), :, targets]


@pytest.mark.parametrize(("kind", "dtype"), [("plain", "32"), ("steep", "64"), ("fewer rows than columns", "64")])
def test_semantic_losses_are_those_of_all_bases_to_the_rounding_of_float32(kind: str, dtype: str) -> None:
    draw = torch.Generator().manual_seed(3)
    head = torch.randn(20 if kind == "fewer rows than columns" else 700, 24, generator=draw)
    head[5] = 0  # a row of no token
    if kind == "steep":
        head = head * torch.logspace(0, -3, 24)
    readings, targets = torch.randn(6, 3, 24, generator=draw), torch.tensor([1, 19, 5, 7, 0, 2])
    bases = semantic_bases(head).ahead(None)
    assert str(bases.lengths.dtype if bases.lengths is not None else None) == f"torch.float{dtype}"
    found = bases.losses(readings, targets)
    assert found.dtype == torch.float32
    # a cosine is rounded to 6e-8 a few times, and divided by tau = 0.1
    torch.testing.assert_close(found, by_bases(head, readings, targets), rtol=0, atol=2e-5)


def test_semantic_losses_solve_for_readings_and_the_vocabulary_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head = torch.randn(700, 24, generator=torch.Generator().manual_seed(4))
    solved, solve = list[int](), torch.cholesky_solve

    def counted(columns: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        solved.append(columns.shape[1])
        return solve(columns, factor)

    monkeypatch.setattr(torch, "cholesky_solve", counted)
    monkeypatch.setattr("lsf.lens.semantics.CHUNK_ROWS", 400)
    bases = semantic_bases(head).ahead(None)
    for _ in range(2):
        bases.losses(torch.ones(5, 3, 24), torch.arange(5))
    assert solved == [400, 300, 15, 15]


def test_a_singular_head_is_jittered_and_says_so() -> None:
    head = torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    head[:, 7] = head[:, 6]
    bases = semantic_bases(head)
    assert bases.jittered
    assert bases.of(torch.arange(50)).isfinite().all()


def test_an_analysis_on_a_singular_head_says_so(tiny: Callable[[str], Path]) -> None:
    task, settings = split_examples("few", [Example("the cat", " sat")] * 4), AnalysisSettings(criteria=("deviation",))
    assert not analyze(load_model("bundled"), task, settings, Silent()).data.jittered
    fewer_tokens_than_width = load_model(str(tiny("llama")))
    assert analyze(fewer_tokens_than_width, task, settings, Silent()).data.jittered


def test_a_damaged_head_is_refused() -> None:
    head = torch.ones(5, 3)
    head[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        semantic_bases(head)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_shared_model_shares_what_is_frozen_and_owns_what_is_not(family: str) -> None:
    base = tiny_model(family).requires_grad_(False)
    names = [name for name, _ in base.named_parameters()]
    own = [name for name in names if ".2." in name]
    view = share_model(base, own=own)
    ids = torch.tensor([[1, 5, 6, 7]])
    torch.testing.assert_close(view(input_ids=ids).logits, base(input_ids=ids).logits, rtol=0, atol=0)
    for name, parameter in view.named_parameters():
        theirs = base.get_parameter(name)
        assert parameter is not theirs
        assert (parameter.data_ptr() == theirs.data_ptr()) == (name not in own)
        parameter.requires_grad_(True)
        assert not theirs.requires_grad
    before = base.get_parameter(own[0]).clone()
    with torch.no_grad():
        view.get_parameter(own[0]).add_(1)
    assert torch.equal(base.get_parameter(own[0]), before)
    assert not torch.equal(view(input_ids=ids).logits, base(input_ids=ids).logits)


def test_a_tied_head_stays_tied_in_a_shared_model() -> None:
    base = tiny_model("llama", tie_word_embeddings=True).requires_grad_(False)
    view = share_model(base, own=["model.embed_tokens.weight"])
    assert view.lm_head.weight is view.model.embed_tokens.weight
    assert view.lm_head.weight.data_ptr() != base.lm_head.weight.data_ptr()


def test_sharing_an_unknown_parameter_is_our_mistake() -> None:
    with pytest.raises(KeyError, match="nope"):
        share_model(tiny_model("llama"), own=["nope"])


def test_batches_hold_every_position_once_and_no_token_behind_the_last(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    texts = ["the cat", "the dog ran under the tree", "a", "one two three four"]
    examples = [Example(text, " blue sky .") for text in texts]
    rows = encode(tiny_tokenizer(), examples, 64).rows
    for positions, each in (("first", 1), ("all", 3)):
        batches = make_batches(rows, positions, 3, seed=0, device=loaded.device)
        seen = np.concatenate([batch.examples for batch in batches])
        assert sorted(seen.tolist()) == [index for index in range(4) for _ in range(each)]
        for batch in batches:
            assert batch.ids.shape[1] == max(probed(rows[index], positions)[-1] + 1 for index in batch.examples)
            for index, row, place, target in zip(
                batch.examples, batch.rows.tolist(), batch.places.tolist(), batch.targets.tolist(), strict=True
            ):
                assert rows[index].ids[place + 1] == target
                assert batch.ids[row, : place + 1].tolist() == list(rows[index].ids[: place + 1])
