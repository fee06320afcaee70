"""The best answer that ignores the prompt, and the floor that it and the base model set; no torch."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lsf.data.encode import EncodedExample
from lsf.data.task import Example

Ids = tuple[int, ...]
LABELS, TOKENS = "label frequencies", "token frequencies"
"""What a prior knows of the training completions."""


@dataclass(frozen=True)
class Prior:
    """How well held-out completions are told without a look at their prompts."""

    kind: str
    """`label frequencies` where every held-out completion occurs in training, else `token frequencies`."""
    loss: float
    """Nats per completion token; an end-of-text that is appended in training is not counted, a typed one is."""
    exact_match: float
    """Share of held-out completions that are the commonest one of training, in [0, 1]."""


@dataclass(frozen=True)
class Floor:
    """What a run has to beat before anything can be called its gain: the better of base model and prior."""

    loss: float
    """Nats per completion token."""
    exact_match: float
    """Share of examples wholly right, in [0, 1]."""
    prior: Prior
    """The best answer that ignores the prompt."""


def completion_ids(rows: Sequence[EncodedExample]) -> tuple[Ids, ...]:
    """Return the ids of each completion, all its targets as they are scored; of a chat those of all its answers.

    The end-of-text that is appended to training rows is left out: held-out rows have none. One that the completion
    itself ends in stays, since it is scored there too.
    """
    return tuple(tuple(row.ids[place] for place in row.targets)[: -1 if row.appended else None] for row in rows)


LABELS_READ = 20_000
"""Training rows whose completions are counted as labels, at most; drawn once and for all."""


def labels_of(
    examples: Sequence[Example], held_out: Sequence[EncodedExample]
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Return completions as texts, of a training split and held out; None where a training row is no pair of texts.

    Of a large split a run encodes a part that its seed draws, in which a rare label may be missing, and of two labels
    that are nearly as common either may lead; these are the same for every run on it.
    """
    numbers = np.sort(np.random.default_rng(0).permutation(len(examples))[:LABELS_READ])
    found = []
    for number in numbers.tolist():
        example = examples[number]
        if len(example.identity) > 2:
            return None
        found.append(example.completion)
    return found, [row.example.completion for row in held_out]


def prior_of(
    train: Sequence[Ids],
    held_out: Sequence[Ids],
    vocabulary: int,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Prior:
    """Return the prior of held-out completions, fitted on training completions alone.

    Label-like completions, those of which every held-out one occurs in training: p(completion) = its frequency there,
    whose surprise is spread over its tokens. Else each token by its frequency among the training tokens, with one
    imaginary token spread evenly over the vocabulary: p(t) = (n_t + 1 / V) / (n + 1). Of labels that are equally common
    the first in training counts as the commonest.

    Args:
        train: ids of each training completion, at least one.
        held_out: ids of each held-out completion, at least one.
        vocabulary: V.
        texts: from `labels_of`, where `train` is a part that a seed drew: labels are counted among these instead.
    """
    known, asked = texts or (train, held_out)
    labels, tokens = Counter(known), sum(len(ids) for ids in held_out)
    commonest = labels.most_common(1)[0][0]
    exact = sum(one == commonest for one in asked) / len(held_out)
    if all(one in labels for one in asked):
        surprise = 0.0 - sum(math.log(labels[one] / len(known)) for one in asked)
        return Prior(LABELS, surprise / tokens, exact)
    counts = Counter(token for ids in train for token in ids)
    total = counts.total() + 1.0
    surprise = -sum(math.log((counts[token] + 1.0 / vocabulary) / total) for ids in held_out for token in ids)
    return Prior(TOKENS, surprise / tokens, exact)


def floor_of(prior: Prior, base_loss: float, base_exact_match: float) -> Floor:
    """Return the floor: the better of the base model and the prior, loss and exact match each for itself.

    Args:
        prior: on the held-out examples.
        base_loss: the base model's there, in nats per completion token.
        base_exact_match: its share wholly right there, in [0, 1].
    """
    return Floor(min(prior.loss, base_loss), max(prior.exact_match, base_exact_match), prior)
