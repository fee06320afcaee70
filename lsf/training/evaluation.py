"""How well a model completes held-out examples, under teacher forcing and by greedy decoding."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from lsf.data.encode import EncodedExample
from lsf.jobs.result import Metrics
from lsf.measure.exhaustion import in_halves
from lsf.measure.offload import input_device
from lsf.training.batches import TokenScores, autocasting, by_length, collate_numbered, score_tokens
from lsf.training.parametrization import held_still
from lsf.training.prefix import Prefix
from lsf.training.processes import n_processes

SPARE_TOKENS = 4
"""Tokens a greedy answer may have beyond its target."""
LONGEST_ANSWER = 48
"""Tokens of a greedy answer at most, however long its target."""


def do_nothing() -> None:
    """Check nothing between batches or tokens."""


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
        exactly those that greedy decoding reproduces. `general_loss` is None.
    """
    loss, hits, tokens, exact = 0.0, 0, 0, 0
    for scores in scored(model, rows, batch_size, base_dtype, check, prefix):
        loss += scores.nll.double().sum().item()
        hits += int((scores.hit & scores.counted).sum())
        tokens += int(scores.counted.sum())
        exact += int((scores.hit | ~scores.counted).all(dim=1).sum())
    mean = loss / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return Metrics(mean, perplexity, hits / tokens, exact / len(rows), None, len(rows))


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
    n_new = min(row.n_completion + SPARE_TOKENS, LONGEST_ANSWER, context - row.n_prompt)
    prompt = torch.tensor([row.ids[: row.n_prompt]], device=input_device(model))
    with held_still(model), autocasting(model, base_dtype):
        ids = generate(model, prompt, n_new, tokenizer.eos_token_id, check=check).cpu()
    given = tokenizer.decode(row.ids[: row.n_prompt], skip_special_tokens=True)
    return tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix(given)


class Asking(LogitsProcessor):
    """Asks, whenever a token is to be written, whether to go on; the logits stay as they are."""

    def __init__(self, check: Callable[[], None]) -> None:
        """Ask by calling `check`, which may raise."""
        self._check = check

    def __call__(
        self, input_ids: Int[Tensor, "texts tokens"], scores: Float[Tensor, "texts vocab"]
    ) -> Float[Tensor, "texts vocab"]:
        """Return the logits as they are."""
        self._check()
        return scores


def generate(
    model: Any,
    prompts: torch.Tensor,
    n_new: int,
    end: int | None,
    processors: Sequence[LogitsProcessor] = (),
    check: Callable[[], None] = do_nothing,
) -> torch.Tensor:
    """Continue prompts of equal length by arg-max, with transformers' own `generate`.

    What a model's folder wishes for its decoding (generation_config.json: a repetition penalty, suppressed tokens) is
    left out: what is asked is what the model itself says.

    Args:
        model: a causal LM.
        prompts: ids of shape (examples, tokens).
        n_new: tokens to add at most.
        end: id of end-of-text; None goes on to `n_new`.
        processors: what is done to the logits before the arg-max.
        check: called before each token; may raise to end the writing.

    Returns:
        Ids of shape (examples, at most tokens + n_new), filled up with `end` (or 0) after the end.
    """
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=n_new, eos_token_id=end, pad_token_id=0 if end is None else end, use_cache=True
    )
    plain = copy.copy(model)  # the same modules; `generate` takes what is not set from the model's own wishes
    plain.generation_config = GenerationConfig()
    return plain.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        generation_config=settings,
        logits_processor=LogitsProcessorList([Asking(check), *processors]),
    )


def spread_out(n_rows: int, limit: int) -> list[int]:
    """Return at most `limit` row numbers, ascending, drawn once and for all: the same in every run on the same data."""
    if n_rows <= limit:
        return list(range(n_rows))
    return sorted(np.random.default_rng(0).permutation(n_rows)[:limit].tolist())
