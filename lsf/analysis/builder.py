"""Folding batches of readings into one analysis, at any time of the stream the same type as at its end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

from lsf.analysis.criteria import score_blocks
from lsf.analysis.deviation import Interval, mean_interval
from lsf.analysis.measurements import Measurements, Readings
from lsf.analysis.result import Analysis, BlockRow, DataInfo, ExamplePath, ModelInfo, StateRow, Timing, Trajectories
from lsf.analysis.transitions import cosine_distance, even_fractions, unit, virtual_transition
from lsf.data.task import Example

KEPT_EXAMPLES = 40
"""Examples whose paths are kept for pictures: those first in the data."""
KEPT_TOKENS = 5
"""Lens tokens kept per state."""
SAMPLED_POSITIONS = 256
"""Positions whose raw states are kept where a criterion compares positions with each other (`cka`)."""
COMPONENTS = 3
"""Principal components of the pictures."""


@dataclass
class PositionNumbers:
    """Numbers of every position read so far: small, a few per state."""

    examples: list[np.ndarray]
    deviation: list[np.ndarray]
    target_deviation: list[np.ndarray]
    probability: list[np.ndarray]
    rank: list[np.ndarray]
    neighbour_cosine: list[np.ndarray]
    semantic_loss: list[np.ndarray]
    states: list[np.ndarray]


class AnalysisBuilder:
    """Takes readings batch by batch; keeps numbers per position, never states, except a few for the pictures."""

    def __init__(
        self,
        model: ModelInfo,
        data: DataInfo,
        block_params: Sequence[int],
        examples: Sequence[Example],
        token_text: Callable[[int], str],
        criteria: tuple[str, ...],
        seed: int,
        environment: Mapping[str, str | None],
    ) -> None:
        """Start an empty analysis.

        Args:
            model: what is measured.
            data: how; its counts are replaced by what was really read.
            block_params: parameters of each block.
            examples: the examples, indexed as in the readings.
            token_text: token id -> how it is written in pictures.
            criteria: names to score.
            seed: of the random control.
            environment: versions and machine.
        """
        self._model, self._data, self._environment = model, data, environment
        self._block_params, self._examples, self._token_text = block_params, examples, token_text
        self._criteria, self._seed = criteria, seed
        self._numbers = PositionNumbers([], [], [], [], [], [], [], [])
        self._token_mass: list[dict[int, float]] = [{} for _ in range(model.n_blocks + 1)]
        self._recorded: dict[str, Any] = {}
        self._pca: PCA | None = None
        self._sums: list[np.ndarray] = []
        self._paths: dict[int, list[ExamplePath]] = {}

    def add(self, readings: Readings) -> None:
        """Fold in one batch of readings."""
        factual = unit(readings.factual)
        virtual = virtual_transition(readings.anchor, readings.basis, even_fractions(self._model.n_blocks))
        numbers = self._numbers
        numbers.examples.append(readings.examples)
        numbers.deviation.append(cosine_distance(factual, virtual))
        numbers.target_deviation.append(cosine_distance(factual, readings.basis[:, None]))
        numbers.probability.append(readings.target_probability.astype(np.float64))
        numbers.rank.append(readings.target_rank)
        numbers.neighbour_cosine.append(readings.neighbour_cosine.astype(np.float64))
        if readings.semantic_loss is not None:
            numbers.semantic_loss.append(readings.semantic_loss.astype(np.float64))
        if readings.states is not None and sum(map(len, numbers.states)) < SAMPLED_POSITIONS:
            numbers.states.append(readings.states)
        for state, mass in enumerate(self._token_mass):
            for token, share in zip(
                readings.top_tokens[:, state].ravel().tolist(),
                readings.top_probabilities[:, state].ravel().tolist(),
                strict=True,
            ):
                mass[token] = mass.get(token, 0.0) + share
        self._keep_paths(readings, factual, virtual)

    def record(self, **measured: Any) -> None:
        """Add what other passes measured, by the names of `Measurements`' fields."""
        self._recorded |= measured

    def result(self, timing: Timing) -> Analysis:
        """Return the analysis of everything read so far; at least one batch must have been added."""
        numbers = self._numbers
        examples = np.concatenate(numbers.examples)
        deviation = mean_interval(np.concatenate(numbers.deviation), examples)
        target = mean_interval(np.concatenate(numbers.target_deviation), examples)
        measured = Measurements(
            n_blocks=self._model.n_blocks,
            seed=self._seed,
            deviation=deviation.mean,
            target_deviation=target.mean,
            neighbour_cosine=np.concatenate(numbers.neighbour_cosine).mean(axis=0),
            semantic_loss=np.concatenate(numbers.semantic_loss).mean(axis=0) if numbers.semantic_loss else None,
            sampled_states=np.concatenate(numbers.states)[:SAMPLED_POSITIONS] if numbers.states else None,
            **self._recorded,
        )
        scores = score_blocks(self._criteria, measured)
        return Analysis(
            model=self._model,
            data=replace(self._data, n_examples=len(np.unique(examples)), n_positions=len(examples)),
            states=self._state_rows(deviation, target),
            blocks=tuple(
                BlockRow(b, n, {name: None if s is None else float(s[b]) for name, s in scores.items()})
                for b, n in enumerate(self._block_params)
            ),
            timing=timing,
            environment=self._environment,
            trajectories=self._trajectories(),
        )

    def _state_rows(self, deviation: Interval, target: Interval) -> tuple[StateRow, ...]:
        probability = np.concatenate(self._numbers.probability)
        rank = np.median(np.concatenate(self._numbers.rank), axis=0)
        return tuple(
            StateRow(
                state=state,
                deviation=float(deviation.mean[state]),
                deviation_low=_at(deviation.low, state),
                deviation_high=_at(deviation.high, state),
                target_deviation=float(target.mean[state]),
                target_deviation_low=_at(target.low, state),
                target_deviation_high=_at(target.high, state),
                target_probability=float(probability[:, state].mean()),
                target_rank_median=float(rank[state]),
                top_tokens=tuple(
                    (self._token_text(token), share / len(probability))
                    for token, share in sorted(mass.items(), key=lambda item: -item[1])[:KEPT_TOKENS]
                ),
            )
            for state, mass in enumerate(self._token_mass)
        )

    def _keep_paths(
        self,
        readings: Readings,
        factual: Float[np.ndarray, "positions states width"],
        virtual: Float[np.ndarray, "positions states width"],
    ) -> None:
        if self._pca is None:
            cloud = np.concatenate([factual, virtual]).reshape(-1, factual.shape[-1])
            self._pca = PCA(n_components=min(COMPONENTS, *cloud.shape), random_state=0).fit(cloud)
            self._sums = [np.zeros(factual.shape[1:]), np.zeros(factual.shape[1:])]
        self._sums[0] += factual.sum(axis=0)
        self._sums[1] += virtual.sum(axis=0)
        for position in np.flatnonzero(readings.examples < KEPT_EXAMPLES).tolist():
            path = self._path(readings, position, factual[position], virtual[position])
            self._paths.setdefault(int(readings.examples[position]), []).append(path)

    def _path(
        self,
        readings: Readings,
        position: int,
        factual: Float[np.ndarray, "states width"],
        virtual: Float[np.ndarray, "states width"],
    ) -> ExamplePath:
        example = self._examples[int(readings.examples[position])]
        return ExamplePath(
            row=example.row,
            prompt=example.prompt,
            completion=example.completion,
            current_token=self._token_text(int(readings.current_tokens[position])),
            target_token=self._token_text(int(readings.target_tokens[position])),
            factual=self._project(factual),
            virtual=self._project(virtual),
            deviation=tuple(cosine_distance(factual, virtual).tolist()),
            target_deviation=tuple(cosine_distance(factual, readings.basis[position][None]).tolist()),
            target_probability=tuple(readings.target_probability[position].tolist()),
            target_rank=tuple(readings.target_rank[position].tolist()),
            top_tokens=tuple(
                tuple(zip(map(self._token_text, tokens), shares, strict=True))
                for tokens, shares in zip(
                    readings.top_tokens[position].tolist(), readings.top_probabilities[position].tolist(), strict=True
                )
            ),
        )

    def _project(self, vectors: Float[np.ndarray, "states width"]) -> tuple[tuple[float, ...], ...]:
        assert self._pca is not None
        points = self._pca.transform(vectors)
        missing = np.zeros((len(points), COMPONENTS - points.shape[1]))  # a width below 3 has fewer components
        return tuple(tuple(point) for point in np.hstack([points, missing]).tolist())

    def _trajectories(self) -> Trajectories | None:
        if self._pca is None:
            return None
        n_positions = sum(map(len, self._numbers.examples))
        return Trajectories(
            explained_variance=tuple(self._pca.explained_variance_ratio_.tolist()),
            factual=self._project(self._sums[0] / n_positions),
            virtual=self._project(self._sums[1] / n_positions),
            examples=tuple(path for example in sorted(self._paths) for path in self._paths[example])[:KEPT_EXAMPLES],
        )


def _at(values: np.ndarray | None, state: int) -> float | None:
    return None if values is None else float(values[state])
