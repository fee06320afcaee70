"""How well a model completes held-out examples, how much of its own language it loses, and what it answers right.

An answer that follows from many written tokens (GSM8K's `#### 42`) is not judged by exact match of all of them but by
generation: rows with an answer to be found, the texts a model writes to them, and the share whose answer is equal.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch

from lsf.data.contents import answer_in
from lsf.data.encode import EncodedExample
from lsf.errors import DataError
from lsf.methods.parametrization import held_still
from lsf.models.batches import TokenScores, autocasting, by_length, collate_numbered, score_tokens
from lsf.models.devices import in_halves, input_device
from lsf.models.loading import LoadedModel
from lsf.models.writing import GeneralText, generate
from lsf.progress import do_nothing
from lsf.runs.result import Metrics
from lsf.runs.spec import RunSpec
from lsf.training.prefix import Prefix
from lsf.training.processes import n_processes
from lsf.wording import counted

SPARE_TOKENS = 4
"""Tokens a greedy answer may have beyond its target."""
LONGEST_ANSWER = 48
"""Tokens of a greedy answer at most, however long its target."""
N_SAMPLES = 6
"""Test examples whose answers are kept."""
BATCH_SIZE = 16
"""Texts per forward pass."""
SHOWN = 80
"""Characters of a text, its last ones, in a sentence."""
Written = tuple[str, bool]
"""What a model wrote, and whether it came to an end within the tokens it had."""


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
    ends = ends_of(row, tokenizer)
    end = list(ends) if len(ends) > 1 else next(iter(ends), None)
    with held_still(model), autocasting(model, base_dtype):
        ids = generate(model, prompt, n_new, end, check=check).cpu()
    given = tokenizer.decode(row.ids[: row.asked], skip_special_tokens=True)
    return tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix(given)


def spread_out(n_rows: int, limit: int) -> list[int]:
    """Return at most `limit` row numbers, ascending, drawn once and for all: the same in every run on the same data."""
    if n_rows <= limit:
        return list(range(n_rows))
    return sorted(np.random.default_rng(0).permutation(n_rows)[:limit].tolist())


def sampled(rows: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Return the few test rows whose answers are kept, the same in every run."""
    return [rows[index] for index in spread_out(len(rows), N_SAMPLES)]


def answers_of(model: Any, loaded: LoadedModel, rows: Sequence[EncodedExample], check: Callable[[], None]) -> list[str]:
    """Return a model's greedy answers to the sampled rows; `check` is called before each token."""
    return [answer(model, loaded.tokenizer, row, loaded.context, loaded.info.dtype, check) for row in sampled(rows)]


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


@dataclass(frozen=True)
class Asked:
    """What a run's share right by generation is read on."""

    rows: tuple[EncodedExample, ...] = ()
    """Test rows; the model is given each up to its last answer."""
    answers: tuple[str, ...] = ()
    """Of each, the answer the pattern finds in its completion."""
    facts: tuple[str, ...] = ()
    """Sentences on rows that are left out."""


NOTHING = Asked()
"""No answers are generated."""


def unheard(_done: float, _total: float) -> None:
    """Tell nobody how far the generation is."""


def asked_for(tokenizer: Any, spec: RunSpec, test: Sequence[EncodedExample]) -> Asked:
    """Return the rows that answers are generated to: the same in every run; none where the spec has no pattern.

    Args:
        tokenizer: of the model.
        spec: pattern, and rows at most.
        test: encoded without end-of-text.

    Raises:
        DataError: no test rows, plain text among them, or an answer in none of them.
    """
    if spec.answer_pattern is None:
        return NOTHING
    rows = [test[index] for index in spread_out(len(test), spec.generate_limit)]
    if not rows:
        raise DataError("answer_pattern needs test examples and the data has none; leave it out.")
    if text := next((row for row in rows if row.is_text), None):
        raise DataError(f"answer_pattern needs rows that are asked something, and {_name(text)} is plain text.")
    texts = [tokenizer.decode(row.ids[row.asked :], skip_special_tokens=True) for row in rows]
    answers = [answer_in(text, spec.answer_pattern) for text in texts]
    kept = tuple((row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None)
    if not kept:
        raise DataError(
            f"answer_pattern {spec.answer_pattern!r} is found in none of the {counted(len(rows), 'test answer')}; the "
            f"first, of {_name(rows[0])}, ends in {texts[0][-SHOWN:]!r}."
        )
    lacking = len(rows) - len(kept)
    have, are = ("has", "is") if lacking == 1 else ("have", "are")
    of = f"{lacking} of {counted(len(rows), 'test answer')}"
    fact = f"{of} {have} none by answer_pattern and {are} left out of generated_match."
    found, answers = zip(*kept, strict=True)
    return Asked(found, answers, (fact,) if lacking else ())


def _name(row: EncodedExample) -> str:
    return row.example.where or "an example"


def with_match(metrics: Metrics, spec: RunSpec, asked: Asked, written: Sequence[Written]) -> Metrics:
    """Return metrics with the share of texts whose answer equals the one wanted; as they are where none are asked."""
    if spec.answer_pattern is None:
        return metrics
    right = [
        answer_in(text, spec.answer_pattern) == answer for (text, _), answer in zip(written, asked.answers, strict=True)
    ]
    unended = sum(not ended for _, ended in written)
    return replace(metrics, generated_match=sum(right) / len(right), n_generated=len(right), n_unended=unended)


def ends_of(row: EncodedExample, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end what a model writes to a row: end-of-text, and what ends the row's own turns."""
    return tuple(sorted({row.ids[place] for place in row.ends} | ({tokenizer.eos_token_id} - {None})))


def batches_of(
    rows: Sequence[EncodedExample], tokenizer: Any, n_new: int, context: int
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """Yield row numbers that are written to together, with what ends a text: rows near the context's end stand alone.

    Args:
        rows: any.
        tokenizer: says what ends a text.
        n_new: tokens to be written at most.
        context: tokens the model takes at most.
    """
    ends = [ends_of(row, tokenizer) for row in rows]

    def alike(index: int) -> tuple[tuple[int, ...], bool]:
        return ends[index], rows[index].asked + n_new > context

    order = sorted(range(len(rows)), key=lambda index: (*alike(index), rows[index].asked, index))
    for (ending, crowded), group in groupby(order, key=alike):
        numbers, size = list(group), 1 if crowded else BATCH_SIZE
        yield from ((numbers[start : start + size], ending) for start in range(0, len(numbers), size))


@torch.no_grad()
def write_answers(
    model: Any,
    loaded: LoadedModel,
    rows: Sequence[EncodedExample],
    n_new: int,
    check: Callable[[], None] = do_nothing,
    tell: Callable[[float, float], None] = unheard,
) -> list[Written]:
    """Return what a model writes greedily to each row, in their order; prompts are padded on the left.

    Where memory does not suffice for a batch, its halves are written to.

    Args:
        model: the base or a tuned model.
        loaded: the base: tokenizer, context, dtype.
        rows: any.
        n_new: tokens of each at most; fewer where the context ends.
        check: called before each token; may raise to end the writing.
        tell: called with batches done, in parts, and how many there are.
    """
    written: dict[int, Written] = {}
    batches = list(batches_of(rows, loaded.tokenizer, n_new, loaded.context))
    for done, (numbers, ends) in enumerate(batches):
        tell(done, len(batches))

        def work(some: Sequence[int], ends: tuple[int, ...] = ends) -> dict[int, Written]:
            return dict(zip(some, _written(model, loaded, [rows[i] for i in some], n_new, ends, check), strict=True))

        with held_still(model), autocasting(model, loaded.info.dtype):
            for part in in_halves(numbers, work):
                written |= part
    return [written[index] for index in range(len(rows))]


def _written(
    model: Any,
    loaded: LoadedModel,
    rows: Sequence[EncodedExample],
    n_new: int,
    ends: tuple[int, ...],
    check: Callable[[], None],
) -> list[Written]:
    width, device = max(row.asked for row in rows), input_device(model)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, width - row.asked :] = torch.tensor(row.ids[: row.asked])
        mask[place, width - row.asked :] = 1
    room = min(n_new, loaded.context - width)
    if room < 1:
        return [("", False)] * len(rows)
    found = generate(model, ids.to(device), room, list(ends) or None, check=check, mask=mask.to(device))
    texts = found[:, width:].tolist()
    return [
        (loaded.tokenizer.decode(text, skip_special_tokens=True), any(one in ends for one in text)) for text in texts
    ]
