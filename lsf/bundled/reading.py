"""Statements as token ids, and how well a model says them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsf.bundled.corpus import Statement


def encode(tokenizer: Any, statements: Sequence[Statement]) -> Tensor:
    """Return ids of the statements with begin and end, padded at the right; int64, shape (statements, longest)."""
    rows = tokenizer([statement.text + tokenizer.eos_token for statement in statements]).input_ids
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = torch.tensor(row)
    return ids


def language_loss(model: Any, ids: Tensor, pad: int) -> tuple[Tensor, int]:
    """Return the summed next-token loss in nats over real tokens, and their number.

    Padding stands at the right of causal attention, so no mask is needed.
    """
    logits = model(input_ids=ids[:, :-1]).logits
    targets = ids[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum")
    return loss, int((targets != pad).sum())


@torch.no_grad()
def mean_loss(model: Any, ids: Tensor, pad: int) -> float:
    """Return the mean next-token loss in nats over all real tokens."""
    totals = [language_loss(model, part, pad) for part in ids.split(512)]
    return sum(loss.item() for loss, _ in totals) / sum(count for _, count in totals)


@torch.no_grad()
def exactly_completed(model: Any, tokenizer: Any, statements: Sequence[Statement]) -> np.ndarray:
    """Return which statements the model completes word for word, then ends; bool, shape (statements,).

    Greedy decoding is right exactly where each token of the completion is the likeliest after those before it, so one
    pass over the whole statement decides.
    """
    right: list[bool] = []
    for start in range(0, len(statements), 512):
        part = statements[start : start + 512]
        ids = encode(tokenizer, part)
        best = model(input_ids=ids).logits.argmax(-1)
        begins = map(len, tokenizer([statement.prompt for statement in part]).input_ids)
        ends = map(len, tokenizer([statement.text for statement in part]).input_ids)
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            right.append(bool((best[row, begin - 1 : end - 1] == ids[row, begin:end]).all()))
    return np.array(right)


def by_relation(right: np.ndarray, statements: Sequence[Statement]) -> dict[str, float]:
    """Return the share of right answers per relation."""
    relations = np.array([statement.relation for statement in statements])
    return {str(name): round(float(right[relations == name].mean()), 4) for name in dict.fromkeys(relations.tolist())}
