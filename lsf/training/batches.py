"""From encoded examples to the loss: the one forward path of training and evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from lsf.axes import QUANTISED
from lsf.data.encode import EncodedExample
from lsf.measure.batches import MOST_LOGITS
from lsf.measure.offload import input_device

IGNORED = -100
"""Label of a token that is not predicted: prompt and padding."""


@dataclass(frozen=True)
class TokenScores:
    """How well each token of the completions was predicted."""

    nll: Float[Tensor, "examples kept"]
    """Negative log-likelihood in nats; 0 where `counted` is False."""
    hit: Bool[Tensor, "examples kept"]
    """True where the token is the arg-max."""
    counted: Bool[Tensor, "examples kept"]
    """True on completion tokens (and end-of-text where it was appended)."""

    def on_host(self) -> "TokenScores":
        """Return them in main memory, in one copy: sums are taken there in float64, which not every device has."""
        nll, hit, counted = torch.stack([self.nll, self.hit.float(), self.counted.float()]).cpu()
        return TokenScores(nll, hit.bool(), counted.bool())


def collate(rows: Sequence[EncodedExample]) -> dict[str, Any]:
    """Pad rows to the right into one batch.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (examples, tokens), labels being -100 outside the completion;
        `scored`, (predictions, 3): example, position and number in the example of every prediction that counts; and
        `most`, how many an example has at most.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for index, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        ids[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
        labels[index, row.n_prompt : len(tokens)] = tokens[row.n_prompt :]
    scored = [
        (index, row.n_prompt - 1 + number, number)
        for index, row in enumerate(rows)
        for number in range(len(row.ids) - row.n_prompt)
    ]
    most = max(len(row.ids) - row.n_prompt for row in rows)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "scored": torch.tensor(scored), "most": most}


def collate_numbered(items: Sequence[tuple[int, EncodedExample]]) -> dict[str, Any]:
    """Pad numbered rows into one batch: what `collate` returns, and `numbers`, which row each one is."""
    return {**collate([row for _, row in items]), "numbers": [number for number, _ in items]}


def by_length(rows: Sequence[EncodedExample], batch_size: int, vocabulary: int) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length.

    Args:
        rows: encoded examples.
        batch_size: rows per batch at most; fewer where the logits of its completions would be more than `MOST_LOGITS`.
        vocabulary: logits per token.
    """
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    while order:
        size = min(batch_size, len(order))
        while size > 1 and _n_scored([rows[number] for number in order[:size]]) * vocabulary > MOST_LOGITS:
            size -= 1
        yield order[:size]
        order = order[size:]


def _n_scored(rows: Sequence[EncodedExample]) -> int:
    """Return how many predictions of a batch count."""
    return sum(len(row.ids) - row.n_prompt for row in rows)


def score_tokens(model: Any, batch: dict[str, Any], call: Any = None) -> TokenScores:
    """Run a batch through a causal LM and score every token of the completions; the head reads nothing else.

    Args:
        model: a transformers causal LM; gradients flow where it wants them.
        batch: from `collate`.
        call: what is called for the logits: the model itself, or what wraps it (DDP).
    """
    device = input_device(model)
    examples, places, numbers = batch["scored"].unbind(dim=1)
    with _head_reading(model, examples, places):
        logits = (model if call is None else call)(
            input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device), use_cache=False
        ).logits[0]
    targets = batch["labels"][examples, places + 1].to(logits.device)
    nll = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    hit = logits.detach().argmax(-1) == targets
    shape = len(batch["labels"]), batch["most"]
    at = (examples * shape[1] + numbers).to(logits.device)
    return TokenScores(*(_spread(values, at, shape) for values in (nll, hit, torch.ones_like(hit))))


def _spread(
    values: Shaped[Tensor, " predictions"], at: Int[Tensor, " predictions"], shape: tuple[int, int]
) -> Shaped[Tensor, "examples kept"]:
    """Return values in their places of a table that is 0 elsewhere."""
    return values.new_zeros(shape[0] * shape[1]).index_copy(0, at, values).view(shape)


@contextmanager
def _head_reading(
    model: Any, examples: Int[Tensor, " predictions"], places: Int[Tensor, " predictions"]
) -> Iterator[None]:
    """Let the head read the states at some positions, as one row; what follows it works on each logit by itself."""

    def pick(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = args[0]
        return (states[examples.to(states.device), places.to(states.device)][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def autocasting(model: Any, base_dtype: str) -> AbstractContextManager[Any]:
    """Return the context of a forward pass: bfloat16 autocast over a bfloat16 base, nothing over a float32 one.

    A quantised base is read as its other tensors are, among them the embedding, which no method tunes then.

    Base and tuned models are read under the same context. Float32 copies of a bfloat16 base still read a little
    differently: what autocast leaves in float32, such as norms, is not rounded in them.
    """
    if base_dtype in QUANTISED:  # what is not quantised, the embedding among it, has the type that is computed in
        halved = next(model.get_input_embeddings().parameters()).dtype == torch.bfloat16
    else:
        halved = base_dtype == "bfloat16"
    if not halved:
        return nullcontext()
    return torch.autocast(input_device(model).type, dtype=torch.bfloat16)


def training_order(n_rows: int, n_wanted: int, seed: int) -> np.ndarray:
    """Return row numbers to train on, in order: one permutation per pass, drawn from the seed and the pass alone.

    Args:
        n_rows: rows there are.
        n_wanted: steps times batch size.
        seed: of the run.

    Returns:
        Integers in 0 .. n_rows-1, shape (n_wanted,); a batch may span two passes, so every batch is full.
    """
    passes = -(-n_wanted // n_rows)
    order = [np.random.default_rng([seed, number]).permutation(n_rows) for number in range(passes)]
    return np.concatenate(order)[:n_wanted]


class OrderedRows(Dataset[tuple[int, EncodedExample]]):
    """Rows in the order they are trained on, with their numbers; a sequential sampler replays it exactly."""

    def __init__(self, rows: Sequence[EncodedExample], order: np.ndarray) -> None:
        """Keep the rows and their order; nothing is copied."""
        self._rows, self._order = rows, order

    def __len__(self) -> int:
        """Return how many rows are visited."""
        return len(self._order)

    def __getitem__(self, index: int) -> tuple[int, EncodedExample]:
        """Return the number of the row visited at `index`, and the row."""
        number = int(self._order[index])
        return number, self._rows[number]

    def tokens_after_batch(self, batch_size: int) -> np.ndarray:
        """Return real tokens seen after each batch, cumulative; padding not counted."""
        lengths = np.array([len(row.ids) for row in self._rows])[self._order]
        return lengths.reshape(-1, batch_size).sum(axis=1).cumsum()
