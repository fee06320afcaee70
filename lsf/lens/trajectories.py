"""The few examples kept whole, to be drawn in one common PCA; and growable arrays of numbers per position."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from lsf.criteria.result import ExamplePath, Trajectories
from lsf.criteria.transitions import ArcProjections, Readings, arc, even_fractions, unit
from lsf.data.task import Example

FIRST_ROWS = 4096
"""Rows of a column before it grows the first time."""
SAMPLED_POSITIONS = 256
"""Positions whose raw states are kept where a criterion compares positions with each other (`cka`)."""


class GrowableArray:
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

    def chosen(self, wanted: np.ndarray) -> "GrowableArray":
        """Return a column of the rows for which a mask, which may be longer, is true."""
        part = GrowableArray()
        if self._n:
            part.extend(self.rows[wanted[: self._n]])
        return part


@dataclass
class Recorded:
    """A few numbers per position and state, never a vector; in the order they were read."""

    batch: GrowableArray = field(default_factory=GrowableArray)
    """Number of the batch."""
    examples: GrowableArray = field(default_factory=GrowableArray)
    """Index of the example in the data."""
    to_start: GrowableArray = field(default_factory=GrowableArray)
    to_heading: GrowableArray = field(default_factory=GrowableArray)
    to_target: GrowableArray = field(default_factory=GrowableArray)
    angle: GrowableArray = field(default_factory=GrowableArray)
    """As in `ArcProjections`."""
    probability: GrowableArray = field(default_factory=GrowableArray)
    rank: GrowableArray = field(default_factory=GrowableArray)
    neighbour_cosine: GrowableArray = field(default_factory=GrowableArray)
    semantic_loss: GrowableArray = field(default_factory=GrowableArray)
    """As in `Readings`; empty where it was not taken."""
    states: GrowableArray = field(default_factory=GrowableArray)
    """Raw states at the positions of the first examples of the data; a half has none."""
    states_of: GrowableArray = field(default_factory=GrowableArray)
    """Index of the example of each of them."""
    state_sums: dict[int, np.ndarray] = field(default_factory=dict)
    """Sums of raw states over positions: of the even batches (0) and of the odd ones (1); empty where not taken."""

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
        if readings.state_sums is not None:
            which, added = (self.n_batches - 1) % 2, readings.state_sums.sum(axis=0, dtype=np.float64)
            self.state_sums[which] = self.state_sums.get(which, 0.0) + added

    @property
    def mean_path(self) -> np.ndarray | None:
        """Mean over positions of raw states, (states, width); None where they were not read."""
        return np.sum([*self.state_sums.values()], axis=0) / len(self.examples) if self.state_sums else None

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
    def arc_projections(self) -> ArcProjections:
        """The arc projections of every position so far."""
        return ArcProjections(self.to_start.rows, self.to_heading.rows, self.to_target.rows, self.angle.rows)

    def half(self, which: int) -> "Recorded":
        """Return every other batch: 0 the even ones, 1 the odd ones."""
        wanted = self.batch.rows % 2 == which
        names = [item.name for item in fields(self) if item.name not in ("states", "states_of", "state_sums")]
        sums = {number: summed for number, summed in self.state_sums.items() if number == which}
        return Recorded(**{name: getattr(self, name).chosen(wanted) for name in names}, state_sums=sums)


def examples_for_sample(examples: Iterable[np.ndarray]) -> int:
    """Return how many of the first examples have `SAMPLED_POSITIONS` positions together, or all.

    Args:
        examples: per batch, the index of each position's example.
    """
    counts = np.bincount(np.concatenate([*examples]))
    return int(np.searchsorted(counts.cumsum(), SAMPLED_POSITIONS)) + 1


KEPT_EXAMPLES = 40
"""Examples whose paths are kept: those first in the data."""
COMPONENTS = 3
"""Principal components of the pictures."""

Points = tuple[tuple[float, ...], ...]


class ExampleTrajectories:
    """Keeps positions of the first examples; fits the PCA once, on the first batch, so that pictures do not jump."""

    def __init__(
        self, examples: Sequence[Example], token_text: Callable[[int], str], read_at: Callable[[int, int], str]
    ) -> None:
        """Start empty.

        Args:
            examples: the examples, indexed as in the readings.
            token_text: token id -> how it is written.
            read_at: index of an example and of a position of its own -> the end of the text that is read there.
        """
        self._examples, self._token_text, self._read_at = examples, token_text, read_at
        self._pca: Any = None
        self._kept: dict[int, list[Readings]] = {}
        self._drawn: tuple[bytes, Trajectories] | None = None

    def fit(self, readings: Readings) -> None:
        """Fit the PCA to one batch, unless it is fitted already."""
        if self._pca is None:
            drawn = random.getstate()  # an import of it draws a number
            from sklearn.decomposition import PCA  # noqa: PLC0415 - half a second, which a run need not wait for

            random.setstate(drawn)
            virtual = arc(readings.anchor, readings.basis).at(even_fractions(readings.factual.shape[1] - 1))
            cloud = np.concatenate([unit(readings.factual), virtual]).reshape(-1, virtual.shape[-1])
            self._pca = PCA(n_components=min(COMPONENTS, *cloud.shape), random_state=0).fit(cloud)

    def add(self, readings: Readings) -> None:
        """Keep what is to be drawn of one batch; the rest is let go."""
        self.fit(readings)
        for picture, example in enumerate(readings.examples[readings.pictured].tolist()):
            if example < KEPT_EXAMPLES:
                self._kept.setdefault(example, []).append(readings.only(picture))
                self._drawn = None

    def trajectories(self, fractions: Float[np.ndarray, " states"]) -> Trajectories | None:
        """Return the kept paths and their mean, the virtual ones at the given pace; None where nothing was kept yet."""
        placed = [(alone, nth) for example in sorted(self._kept) for nth, alone in enumerate(self._kept[example])]
        placed = placed[:KEPT_EXAMPLES]
        kept = [alone for alone, _ in placed]
        if self._pca is None or not kept:
            return None
        if self._drawn is not None and self._drawn[0] == fractions.tobytes():
            return self._drawn[1]
        factual = [unit(alone.factual[0]) for alone in kept]
        virtual = [arc(alone.anchor, alone.basis).at(fractions)[0] for alone in kept]
        paths = zip(placed, factual, virtual, strict=True)
        drawn = Trajectories(
            explained_variance=tuple(self._pca.explained_variance_ratio_.tolist()),
            factual=self._project(np.mean(factual, axis=0)),
            virtual=self._project(np.mean(virtual, axis=0)),
            examples=tuple(self._path(alone, nth, fractions, f, v) for (alone, nth), f, v in paths),
        )
        self._drawn = (fractions.tobytes(), drawn)
        return drawn

    def _path(
        self,
        alone: Readings,
        nth: int,
        fractions: Float[np.ndarray, " states"],
        factual: Float[np.ndarray, "states width"],
        virtual: Float[np.ndarray, "states width"],
    ) -> ExamplePath:
        index = int(alone.examples[0])
        example = self._examples[index]
        where = ArcProjections(alone.to_start, alone.to_heading, alone.to_target, alone.angle)
        tokens, shares = alone.top_tokens[0].tolist(), alone.top_probabilities[0].tolist()
        return ExamplePath(
            row=example.row,
            prompt=example.prompt,
            completion=example.completion,
            current_token=self._token_text(int(alone.current_tokens[0])),
            target_token=self._token_text(int(alone.target_tokens[0])),
            factual=self._project(factual),
            virtual=self._project(virtual),
            deviation=tuple(where.deviation(fractions)[0].tolist()),
            target_deviation=tuple((1.0 - where.to_target[0]).tolist()),
            target_probability=tuple(alone.target_probability[0].tolist()),
            target_rank=tuple(alone.target_rank[0].tolist()),
            top_tokens=tuple(
                tuple(zip(map(self._token_text, row), share, strict=True))
                for row, share in zip(tokens, shares, strict=True)
            ),
            read=self._read_at(index, nth),
        )

    def _project(self, vectors: Float[np.ndarray, "states width"]) -> Points:
        assert self._pca is not None and self._pca.components_ is not None
        # What PCA.transform does, without its checks of the input, which cost more than the product here.
        points = (vectors - self._pca.mean_) @ self._pca.components_.T
        missing = np.zeros((len(points), COMPONENTS - points.shape[1]))  # a width below 3 has fewer components
        return tuple(tuple(point) for point in np.hstack([points, missing]).tolist())
