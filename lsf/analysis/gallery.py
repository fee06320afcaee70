"""The few examples that are kept whole, so that their paths can be drawn in one common PCA."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from lsf.analysis.measurements import Readings
from lsf.analysis.result import ExamplePath, Trajectories
from lsf.analysis.transitions import Bearings, arc, even_fractions, unit
from lsf.data.task import Example

KEPT_EXAMPLES = 40
"""Examples whose paths are kept: those first in the data."""
COMPONENTS = 3
"""Principal components of the pictures."""

Points = tuple[tuple[float, ...], ...]


class Gallery:
    """Keeps positions of the first examples; fits the PCA once, on the first batch, so that pictures do not jump."""

    def __init__(self, examples: Sequence[Example], token_text: Callable[[int], str]) -> None:
        """Start empty.

        Args:
            examples: the examples, indexed as in the readings.
            token_text: token id -> how it is written.
        """
        self._examples, self._token_text = examples, token_text
        self._pca: PCA | None = None
        self._kept: dict[int, list[Readings]] = {}
        self._drawn: tuple[bytes, Trajectories] | None = None

    def add(self, readings: Readings) -> None:
        """Keep what is to be drawn of one batch; the rest is let go."""
        if self._pca is None:
            virtual = arc(readings.anchor, readings.basis).at(even_fractions(readings.factual.shape[1] - 1))
            cloud = np.concatenate([unit(readings.factual), virtual]).reshape(-1, virtual.shape[-1])
            self._pca = PCA(n_components=min(COMPONENTS, *cloud.shape), random_state=0).fit(cloud)
        for picture, example in enumerate(readings.examples[readings.pictured].tolist()):
            if example < KEPT_EXAMPLES:
                self._kept.setdefault(example, []).append(readings.only(picture))
                self._drawn = None

    def trajectories(self, fractions: Float[np.ndarray, " states"]) -> Trajectories | None:
        """Return the kept paths and their mean, the virtual ones at the given pace; None where nothing was kept yet."""
        kept = [alone for example in sorted(self._kept) for alone in self._kept[example]][:KEPT_EXAMPLES]
        if self._pca is None or not kept:
            return None
        if self._drawn is not None and self._drawn[0] == fractions.tobytes():
            return self._drawn[1]
        factual = [unit(alone.factual[0]) for alone in kept]
        virtual = [arc(alone.anchor, alone.basis).at(fractions)[0] for alone in kept]
        paths = zip(kept, factual, virtual, strict=True)
        drawn = Trajectories(
            explained_variance=tuple(self._pca.explained_variance_ratio_.tolist()),
            factual=self._project(np.mean(factual, axis=0)),
            virtual=self._project(np.mean(virtual, axis=0)),
            examples=tuple(self._path(alone, fractions, f, v) for alone, f, v in paths),
        )
        self._drawn = (fractions.tobytes(), drawn)
        return drawn

    def _path(
        self,
        alone: Readings,
        fractions: Float[np.ndarray, " states"],
        factual: Float[np.ndarray, "states width"],
        virtual: Float[np.ndarray, "states width"],
    ) -> ExamplePath:
        example = self._examples[int(alone.examples[0])]
        where = Bearings(alone.to_start, alone.to_heading, alone.to_target, alone.angle)
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
        )

    def _project(self, vectors: Float[np.ndarray, "states width"]) -> Points:
        assert self._pca is not None and self._pca.components_ is not None
        # What PCA.transform does, without its checks of the input, which cost more than the product here.
        points = (vectors - self._pca.mean_) @ self._pca.components_.T
        missing = np.zeros((len(points), COMPONENTS - points.shape[1]))  # a width below 3 has fewer components
        return tuple(tuple(point) for point in np.hstack([points, missing]).tolist())
