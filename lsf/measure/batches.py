"""Which tokens are computed: no padding to speak of, nothing behind the last position needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lsf.data.encode import EncodedExample

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


def probed(row: EncodedExample, positions: str) -> range:
    """Return the places of an example whose next token is probed: `first`, or `all` completion tokens."""
    last = row.n_prompt + (row.n_completion if positions == "all" else 1)
    return range(row.n_prompt - 1, last - 1)


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
        positions: `first` or `all`.
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
