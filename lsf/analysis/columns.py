"""Numbers of every position read so far, in memory that is asked for seldom."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import numpy as np

from lsf.analysis.measurements import Readings
from lsf.analysis.transitions import Bearings

FIRST_ROWS = 4096
"""Rows of a column before it grows the first time."""
SAMPLED_POSITIONS = 256
"""Positions whose raw states are kept where a criterion compares positions with each other (`cka`)."""


class Column:
    """Rows put one behind the other into one block of memory, which doubles when it is full.

    A small array kept from every batch would lie between the large ones of the next pass and hold the allocator's freed
    memory apart (measured: 40 MB over 10,000 examples of a model of 1 MB).
    """

    def __init__(self) -> None:
        """Start empty."""
        self._memory: np.ndarray | None = None
        self._n = 0

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._n

    @property
    def rows(self) -> np.ndarray:
        """The rows so far, not copied."""
        return np.empty(0) if self._memory is None else self._memory[: self._n]

    def extend(self, rows: np.ndarray) -> None:
        """Put rows of the same shape and kind behind the others."""
        end = self._n + len(rows)
        if self._memory is None or end > len(self._memory):
            grown = np.empty((max(FIRST_ROWS, 2 * end), *rows.shape[1:]), rows.dtype)
            grown[: self._n] = self.rows if self._memory is not None else 0
            self._memory = grown
        self._memory[self._n : end] = rows
        self._n = end

    def chosen(self, wanted: np.ndarray) -> "Column":
        """Return a column of the rows for which a mask, which may be longer, is true."""
        part = Column()
        if self._n:
            part.extend(self.rows[wanted[: self._n]])
        return part


@dataclass
class Recorded:
    """A few numbers per position and state, never a vector; in the order they were read."""

    batch: Column = field(default_factory=Column)
    """Number of the batch."""
    examples: Column = field(default_factory=Column)
    """Index of the example in the data."""
    to_start: Column = field(default_factory=Column)
    to_heading: Column = field(default_factory=Column)
    to_target: Column = field(default_factory=Column)
    angle: Column = field(default_factory=Column)
    """As in `Bearings`."""
    probability: Column = field(default_factory=Column)
    rank: Column = field(default_factory=Column)
    neighbour_cosine: Column = field(default_factory=Column)
    semantic_loss: Column = field(default_factory=Column)
    """As in `Readings`; empty where it was not taken."""
    states: Column = field(default_factory=Column)
    """Raw states at the positions of the first examples of the data; a half has none."""
    states_of: Column = field(default_factory=Column)
    """Index of the example of each of them."""

    def add(self, readings: Readings) -> None:
        """Put one batch behind the others."""
        self.batch.extend(np.full(len(readings.examples), self.n_batches))
        self.examples.extend(readings.examples)
        for name in ("to_start", "to_heading", "to_target", "angle"):
            getattr(self, name).extend(getattr(readings, name).astype(np.float64))
        self.probability.extend(readings.target_probability.astype(np.float64))
        self.rank.extend(readings.target_rank)
        self.neighbour_cosine.extend(readings.neighbour_cosine.astype(np.float64))
        if readings.semantic_loss is not None:
            self.semantic_loss.extend(readings.semantic_loss.astype(np.float64))
        if readings.states is not None and readings.states_of is not None:
            self.states.extend(readings.states)
            self.states_of.extend(readings.states_of)

    @property
    def sample(self) -> np.ndarray | None:
        """Raw states at `SAMPLED_POSITIONS` positions at most, in the order of the data; None where none were kept.

        The same whatever the batches were: it is of the first examples, as the tangent kernels are.
        """
        order = np.argsort(self.states_of.rows, kind="stable")[:SAMPLED_POSITIONS]
        return self.states.rows[order] if len(self.states) else None

    @property
    def n_batches(self) -> int:
        """How many batches were added."""
        return int(self.batch.rows[-1]) + 1 if len(self.batch) else 0

    @property
    def n_examples(self) -> int:
        """How many examples were read."""
        return len(np.unique(self.examples.rows))

    @property
    def any_right(self) -> bool:
        """True where the base model answers some position right."""
        return len(self.rank) > 0 and bool((self.rank.rows[:, -1] == 1).any())

    @property
    def bearings(self) -> Bearings:
        """The bearings of every position so far."""
        return Bearings(self.to_start.rows, self.to_heading.rows, self.to_target.rows, self.angle.rows)

    def half(self, which: int) -> "Recorded":
        """Return every other batch: 0 the even ones, 1 the odd ones."""
        wanted = self.batch.rows % 2 == which
        names = [item.name for item in fields(self) if item.name not in ("states", "states_of")]
        return Recorded(**{name: getattr(self, name).chosen(wanted) for name in names})


def examples_for_sample(examples: Iterable[np.ndarray]) -> int:
    """Return how many of the first examples have `SAMPLED_POSITIONS` positions together, or all.

    Args:
        examples: per batch, the index of each position's example.
    """
    counts = np.bincount(np.concatenate([*examples]))
    return int(np.searchsorted(counts.cumsum(), SAMPLED_POSITIONS)) + 1
