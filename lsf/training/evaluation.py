"""How well a model completes held-out examples, and how much of its own language it loses."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from lsf.data.encode import EncodedExample
from lsf.methods.parametrization import held_still
from lsf.models.batches import TokenScores, autocasting, by_length, collate_numbered, score_tokens
from lsf.models.devices import in_halves, input_device
from lsf.models.writing import GeneralText, generate
from lsf.progress import do_nothing
from lsf.runs.result import Metrics
from lsf.training.prefix import Prefix
from lsf.training.processes import n_processes

SPARE_TOKENS = 4
"""Tokens a greedy answer may have beyond its target."""
LONGEST_ANSWER = 48
"""Tokens of a greedy answer at most, however long its target."""


@torch.no_grad()
def evaluate(
    model: Any,
    rows: Sequence[EncodedExample],
    batch_size: int,
    base_dtype: str = "float32",
    check: Callable[[], None] = do_nothing,
    prefix: Prefix | None = None,
) -> Metrics:
    """Measure a model on examples encoded without end-of-text.

    Args:
        model: a causal LM in eval mode.
        rows: at least one; read in batches of similar length.
        batch_size: examples per forward pass.
        base_dtype: of the base model; bfloat16 is read under autocast.
        check: called before each batch; may raise to end the reading.
        prefix: serves the model's frozen prefix on these rows; None computes it.

    Where memory does not suffice for a batch, its rows are read in halves: the same sums, but for rounding.

    Returns:
        `loss` = mean negative log-likelihood per completion token (nats), `perplexity` = exp(loss), `accuracy` = share
        of completion tokens that are the arg-max, `exact_match` = share of examples whose every completion token is:
        exactly those that greedy decoding reproduces. `general_loss` is None. `byte_perplexity` is of plain text alone.
    """
    loss, hits, tokens, exact = 0.0, 0, 0, 0
    n_bytes = sum(row.n_bytes for row in rows) if all(row.is_text for row in rows) else 0
    for scores in scored(model, rows, batch_size, base_dtype, check, prefix):
        loss += scores.nll.double().sum().item()
        hits += int((scores.hit & scores.counted).sum())
        tokens += int(scores.counted.sum())
        exact += int((scores.hit | ~scores.counted).all(dim=1).sum())
    mean = loss / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    per_byte = math.exp(loss / n_bytes) if n_bytes and loss < 700 * n_bytes else None
    return Metrics(mean, perplexity, hits / tokens, exact / len(rows), None, len(rows), per_byte)


@torch.no_grad()
def scored(
    model: Any,
    rows: Sequence[EncodedExample],
    batch_size: int,
    base_dtype: str = "float32",
    check: Callable[[], None] = do_nothing,
    prefix: Prefix | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[TokenScores]:
    """Yield the scores of rows on the host, shortest rows first; see `evaluate`.

    Args:
        model: a causal LM in eval mode.
        rows: at least one.
        batch_size: examples per forward pass; where memory does not suffice, half of them, down to one.
        base_dtype: of the base model.
        check: called before each batch.
        prefix: serves the model's frozen prefix on `rows`; None computes it.
        numbers: of the rows that are read; None reads all.
    """
    chosen = range(len(rows)) if numbers is None else numbers
    fewest = 1 if n_processes() == 1 else batch_size  # several must pass a sharded model together

    def score(some: Sequence[int]) -> TokenScores:
        batch = collate_numbered([(chosen[place], rows[chosen[place]]) for place in some])
        serving = nullcontext() if prefix is None else prefix.serving(batch)
        with serving, autocasting(model, base_dtype):
            return score_tokens(model, batch).on_host()

    with held_still(model):
        vocabulary = model.config.get_text_config().vocab_size
        for places in by_length([rows[number] for number in chosen], batch_size, vocabulary):
            check()
            yield from in_halves(places, score, fewest)


@torch.no_grad()
def answer(
    model: Any,
    tokenizer: Any,
    row: EncodedExample,
    context: int,
    base_dtype: str = "float32",
    check: Callable[[], None] = do_nothing,
) -> str:
    """Return what a model writes after an example's prompt, greedily, at most a few tokens more than a short target.

    The text is cut at end-of-text, and where the model's context ends; special tokens are left out.

    Args:
        model: the base or a tuned model.
        tokenizer: its tokenizer.
        row: the example.
        context: tokens the model takes at most.
        base_dtype: bfloat16 is read under autocast.
        check: called before each token; may raise to end the writing.
    """
    n_new = min(row.n_answer + SPARE_TOKENS, LONGEST_ANSWER, context - row.asked)
    prompt = torch.tensor([row.ids[: row.asked]], device=input_device(model))
    ends = {row.ids[place] for place in row.ends} | {tokenizer.eos_token_id} - {None}
    end = sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    with held_still(model), autocasting(model, base_dtype):
        ids = generate(model, prompt, n_new, end, check=check).cpu()
    given = tokenizer.decode(row.ids[: row.asked], skip_special_tokens=True)
    return tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix(given)


def spread_out(n_rows: int, limit: int) -> list[int]:
    """Return at most `limit` row numbers, ascending, drawn once and for all: the same in every run on the same data."""
    if n_rows <= limit:
        return list(range(n_rows))
    return sorted(np.random.default_rng(0).permutation(n_rows)[:limit].tolist())


BATCH_SIZE = 16
"""Texts per forward pass."""


def general_loss(
    model: Any,
    text: GeneralText,
    base_dtype: str = "float32",
    check: Callable[[], None] = do_nothing,
    prefix: Prefix | None = None,
) -> float:
    """Return a model's mean negative log-likelihood per token (nats) on the base model's text, its first tokens given.

    The base model's own value is near its entropy; what a tuned model has above it, it forgot.

    Args:
        model: the base or a tuned model.
        text: from `sample_general_text`.
        base_dtype: bfloat16 is read under autocast.
        check: called before each batch; may raise to end the reading.
        prefix: serves the model's frozen prefix on `text.rows`; None computes it.
    """
    loss = evaluate(model, text.rows, BATCH_SIZE, base_dtype, check, prefix).loss
    assert loss is not None
    return loss
