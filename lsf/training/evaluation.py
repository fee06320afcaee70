"""How well a model completes held-out examples, and how much of its own language it loses."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from lsf.data.encode import EncodedExample
from lsf.data.task import Example
from lsf.methods.parametrization import held_still
from lsf.models.batches import TokenScores, autocasting, by_length, collate_numbered, score_tokens
from lsf.models.devices import input_device
from lsf.models.out_of_memory import in_halves
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
    end: int | list[int] | None,
    processors: Sequence[LogitsProcessor] = (),
    check: Callable[[], None] = do_nothing,
    mask: torch.Tensor | None = None,
    streamer: BaseStreamer | None = None,
) -> torch.Tensor:
    """Continue prompts of equal length by arg-max, with transformers' own `generate`.

    What a model's folder wishes for its decoding (generation_config.json: a repetition penalty, suppressed tokens) is
    left out: what is asked is what the model itself says.

    Args:
        model: a causal LM.
        prompts: ids of shape (examples, tokens).
        n_new: tokens to add at most.
        end: id of end-of-text, or several that end a text; None goes on to `n_new`.
        processors: what is done to the logits before the arg-max.
        check: called before each token; may raise to end the writing.
        mask: 0 where a prompt is padded on the left, else 1, of the prompts' shape; None where none is.
        streamer: gets a single prompt's ids, then each token as it is written.

    Returns:
        Ids of shape (examples, at most tokens + n_new), filled up with `end` (or 0) after the end.
    """
    filler = end[0] if isinstance(end, list) else end or 0
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=n_new, eos_token_id=end, pad_token_id=filler, use_cache=True
    )
    plain = copy.copy(model)  # the same modules; `generate` takes what is not set from the model's own wishes
    plain.generation_config = GenerationConfig()
    return plain.generate(
        prompts,
        attention_mask=torch.ones_like(prompts) if mask is None else mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([Asking(check), *processors]),
        streamer=streamer,
    )


def spread_out(n_rows: int, limit: int) -> list[int]:
    """Return at most `limit` row numbers, ascending, drawn once and for all: the same in every run on the same data."""
    if n_rows <= limit:
        return list(range(n_rows))
    return sorted(np.random.default_rng(0).permutation(n_rows)[:limit].tolist())


N_SEQUENCES = 64
"""Texts sampled from the base model."""
N_TOKENS = 64
"""Tokens of each at most, the first one included."""
BATCH_SIZE = 16
"""Texts per forward pass."""


@dataclass(frozen=True)
class GeneralText:
    """Text in the base model's own words, by its own probabilities."""

    ids: Int[Tensor, "texts tokens"]
    """Token ids, filled up after the end."""
    lengths: Int[Tensor, " texts"]
    """Tokens of each that count, end-of-text included."""

    @property
    def rows(self) -> tuple[EncodedExample, ...]:
        """The texts as examples whose completion is all but the first token."""
        return tuple(
            EncodedExample(tuple(ids[:length]), 1, length - 1, Example("", ""))
            for ids, length in zip(self.ids.tolist(), self.lengths.tolist(), strict=True)
        )


class Drawn(LogitsProcessor):
    """Leaves each text the one token that a generator of its own draws by the model's probabilities at temperature 1.

    One number per text and token, looked up in the cumulated probabilities (inverse transform sampling); `generate`'s
    own sampling draws from torch's global generator.
    """

    def __init__(self, seed: int) -> None:
        """Seed a generator on the CPU, so that every device gets the same numbers."""
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, input_ids: Int[Tensor, "texts tokens"], scores: Float[Tensor, "texts vocab"]
    ) -> Float[Tensor, "texts vocab"]:
        """Return 0 for the token drawn and -inf for all others."""
        uniform = torch.rand(len(scores), 1, generator=self._generator).to(scores.device)  # at most 1 - 2^-24
        passed = scores.float().softmax(dim=-1).cumsum(dim=-1)
        token = (passed <= uniform * passed[:, -1:]).sum(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).scatter_(1, token, 0.0)


@torch.no_grad()
def sample_general_text(
    base: Any,
    tokenizer: Any,
    context: int,
    base_dtype: str = "float32",
    seed: int = 0,
    check: Callable[[], None] = do_nothing,
) -> GeneralText:
    """Let the base model write 64 texts of up to 64 tokens at temperature 1.

    They start from beginning-of-text; where the tokenizer has none, from end-of-text; else from random tokens.

    Args:
        base: the base model, in eval mode.
        tokenizer: its tokenizer.
        context: tokens the model takes at most.
        base_dtype: bfloat16 is read under autocast.
        seed: of the draws; nothing global is touched.
        check: called before each drawn token; may raise to end the writing.
    """
    first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    if first is None:
        vocabulary = base.get_input_embeddings().weight.shape[0]
        starts = torch.randint(vocabulary, (N_SEQUENCES, 1), generator=torch.Generator().manual_seed(seed))
    else:
        starts = torch.full((N_SEQUENCES, 1), first)
    end = tokenizer.eos_token_id
    with autocasting(base, base_dtype):
        starts = starts.to(input_device(base))
        ids = generate(base, starts, min(N_TOKENS, context) - 1, end, [Drawn(seed)], check).cpu()
    if end is None:
        return GeneralText(ids, torch.full((N_SEQUENCES,), ids.shape[1]))
    ended = (ids[:, 1:] == end).int()
    lengths = torch.where(ended.any(dim=1), ended.argmax(dim=1) + 2, ids.shape[1])
    return GeneralText(ids, lengths)


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
