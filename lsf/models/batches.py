"""Batches of encoded examples, and the loss of one: the one forward path of training and evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from lsf.data.encode import EncodedExample
from lsf.errors import OutOfMemoryError
from lsf.models.devices import give_back_cached, input_device
from lsf.settings import QUANTISED
from lsf.wording import counted

MOST_PADDING = 0.05
"""Share of the tokens computed that may be padding: batches of examples of unequal length are made smaller."""

MOST_LOGITS = 2**26
"""Logits held at a time, where not those of a single row are more: 256 MB in float32."""


def rows_at_once(logits_per_row: int, wanted: int) -> int:
    """Return how many rows go through the head together: as many as are wanted and `MOST_LOGITS` allows, at least 1."""
    return max(1, min(wanted, MOST_LOGITS // logits_per_row))


@dataclass(frozen=True)
class Batch:
    """Examples of about the same length, padded on the right; causal models need no attention mask for that."""

    ids: Int[Tensor, "batch tokens"]
    """Token ids, cut behind the last position needed; padding repeats id 0 and is never read."""
    rows: Int[Tensor, " positions"]
    """Row in the batch of each position."""
    host_rows: Int[np.ndarray, " positions"]
    """The same in main memory, so that nobody waits for the device to ask it."""
    places: Int[Tensor, " positions"]
    """Place in the row of each position."""
    targets: Int[Tensor, " positions"]
    """Token to be predicted at each position."""
    examples: Int[np.ndarray, " positions"]
    """Index of each position's example in the data."""
    n_tokens: int
    """Real tokens, padding not counted."""

    @property
    def n_positions_of(self) -> Int[Tensor, " batch"]:
        """Positions of each example, on the device."""
        return torch.from_numpy(np.bincount(self.host_rows, minlength=len(self.ids))).to(self.ids.device)

    @property
    def current(self) -> Int[Tensor, " positions"]:
        """Token at each position."""
        return self.ids[self.rows, self.places]

    def halves(self) -> tuple["Batch", "Batch"]:
        """Return the first and the second half of the examples as batches of their own; at least two are needed."""
        middle = len(self.ids) // 2
        return self._part(0, middle), self._part(middle, len(self.ids))

    def _part(self, first: int, end: int) -> "Batch":
        inside = np.flatnonzero((self.host_rows >= first) & (self.host_rows < end))
        mine = torch.from_numpy(inside).to(self.rows.device)
        rows, places = self.rows[mine] - first, self.places[mine]
        lengths = torch.zeros(end - first, dtype=torch.long, device=rows.device)
        lengths = lengths.scatter_reduce(0, rows, places + 1, "amax")
        return Batch(
            ids=self.ids[first:end, : int(lengths.max())],
            rows=rows,
            host_rows=self.host_rows[inside] - first,
            places=places,
            targets=self.targets[mine],
            examples=self.examples[inside],
            n_tokens=int(lengths.sum()),
        )


def halves_of(batch: Batch) -> tuple[Batch, Batch]:
    """Return the halves of a batch that did not fit.

    Raises:
        OutOfMemoryError: it is a single example.
    """
    give_back_cached()
    if len(batch.ids) == 1:
        raise OutOfMemoryError(
            f"{batch.ids.device} has too little memory for one example of {counted(batch.ids.shape[1], 'token')}; "
            "take shorter examples (max_length), a smaller dtype or another device."
        )
    return batch.halves()


def probed(row: EncodedExample, positions: str) -> Sequence[int]:
    """Return the places of an example whose next token is probed: `first`, `all` targets, or `every:K`-th one."""
    return row.looked_at(positions)


def make_batches(
    rows: Sequence[EncodedExample],
    positions: str,
    batch_size: int,
    seed: int,
    device: torch.device,
    most_padding: float = 1.0,
) -> list[Batch]:
    """Sort examples by length, cut them into batches, and shuffle the batches, so that early results are not biased.

    Args:
        rows: encoded examples without end-of-text.
        positions: `first`, `all` or `every:K`.
        batch_size: examples per batch, at most.
        seed: of the batches' order.
        device: where the tensors go.
        most_padding: share of all tokens computed that may be padding; batches are made smaller to keep it.
    """
    lengths = [probed(row, positions)[-1] + 1 for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (lengths[index], index))
    groups = _groups(order, lengths, batch_size, most_padding)
    np.random.default_rng(seed).shuffle(groups)  # type: ignore[arg-type]
    return [_batch([(index, rows[index]) for index in group], positions, device) for group in groups]


def _groups(order: list[int], lengths: list[int], batch_size: int, most_padding: float) -> list[list[int]]:
    """Cut rows in ascending order of length into batches, ending one early where it would pad too much.

    What counts is the padding of all batches so far: rows that differ much may use what equal ones have left.
    """
    groups: list[list[int]] = []
    needed, computed = 0, 0  # tokens, over all batches so far
    for index in order:
        length = lengths[index]
        if groups and len(groups[-1]) < batch_size:
            # The batch gets as long as its new, longest row.
            widened = computed + (length - lengths[groups[-1][-1]]) * len(groups[-1]) + length
            if widened - needed - length <= most_padding * widened:
                groups[-1].append(index)
                needed, computed = needed + length, widened
                continue
        groups.append([index])
        needed, computed = needed + length, computed + length
    return groups


def _batch(group: list[tuple[int, EncodedExample]], positions: str, device: torch.device) -> Batch:
    spans = [probed(row, positions) for _, row in group]
    lengths = [span[-1] + 1 for span in spans]
    ids = torch.zeros(len(group), max(lengths), dtype=torch.long)
    for place, ((_, row), length) in enumerate(zip(group, lengths, strict=True)):
        ids[place, :length] = torch.tensor(row.ids[:length])
    picks = [(place, at) for place, span in enumerate(spans) for at in span]
    return Batch(
        ids=ids.to(device),
        rows=torch.tensor([place for place, _ in picks], device=device),
        host_rows=np.array([place for place, _ in picks]),
        places=torch.tensor([at for _, at in picks], device=device),
        targets=torch.tensor([group[place][1].ids[at + 1] for place, at in picks], device=device),
        examples=np.array([group[place][0] for place, _ in picks]),
        n_tokens=sum(lengths),
    )


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
        for start, end in row.spans or ((row.n_prompt, len(tokens)),):
            labels[index, start:end] = tokens[start:end]
    scored = [(index, place - 1, number) for index, row in enumerate(rows) for number, place in enumerate(row.targets)]
    most = max(row.n_targets for row in rows)
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
    return sum(row.n_targets for row in rows)


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


def training_order(n_rows: int, n_wanted: int, seed: int, n_general: int = 0, general_share: float = 0.0) -> np.ndarray:
    """Return row numbers to train on, in order: one permutation per pass, drawn from the seed and the pass alone.

    General rows have passes of their own and stand in even distances, so that of any rows in a row, such as a step's,
    their share is met to within one row; the others come in the order in which they come without.

    Args:
        n_rows: rows there are.
        n_wanted: steps times batch size.
        seed: of the run.
        n_general: how many of the rows, the last ones, are general data.
        general_share: of the rows wanted that are general.

    Returns:
        Integers in 0 .. n_rows-1, shape (n_wanted,); a batch may span two passes, so every batch is full.
    """
    if not n_general:
        return _passes(n_rows, n_wanted, seed)
    general = np.diff(np.floor(general_share * np.arange(n_wanted + 1) + 0.5)) > 0
    own, order = n_rows - n_general, np.empty(n_wanted, dtype=np.int64)
    order[~general] = _passes(own, int((~general).sum()), seed)
    order[general] = own + _passes(n_general, int(general.sum()), seed, GENERAL)
    return order


GENERAL = 1
"""Behind seed and pass, what the order of general rows is drawn from: not that of the others."""


def _passes(n_rows: int, n_wanted: int, seed: int, *more: int) -> np.ndarray:
    passes = max(1, -(-n_wanted // n_rows))
    order = [np.random.default_rng([seed, number, *more]).permutation(n_rows) for number in range(passes)]
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
