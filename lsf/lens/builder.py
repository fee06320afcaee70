"""Folding batches of readings into one analysis, at any time of the stream the same type as at its end."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from lsf.criteria.agreement import LEAST_EXAMPLES, kernel_samples, rank_correlation, settled
from lsf.criteria.registry import CRITERIA, Scores, score_blocks
from lsf.criteria.result import Analysis, BlockRow, DataInfo, Sample, StateRow, Timing, is_mark, is_power_of_two
from lsf.criteria.scores import Measurements
from lsf.criteria.transitions import Interval, Readings, calibrated_fractions, even_fractions, mean_interval
from lsf.data.task import Example
from lsf.errors import BadInputError
from lsf.lens.trajectories import ExampleTrajectories, Recorded
from lsf.models.info import ModelInfo

KEPT_TOKENS = 5
"""Lens tokens kept per state."""


class AnalysisBuilder:
    """Takes readings batch by batch; keeps numbers per position, never states, except a few for the pictures."""

    def __init__(
        self,
        model: ModelInfo,
        data: DataInfo,
        block_params: Sequence[int],
        examples: Sequence[Example],
        token_text: Callable[[int], str],
        read_at: Callable[[int, int], str],
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
            read_at: index of an example and of a position of its own -> the end of the text that is read there.
            criteria: names to score.
            seed: of the random control.
            environment: versions and machine.
        """
        self._model, self._data, self._environment = model, data, environment
        self._block_params, self._examples, self._token_text = block_params, examples, token_text
        self._criteria, self._seed = criteria, seed
        self._numbers = Recorded()
        self._token_mass: list[dict[int, float]] = [{} for _ in range(model.n_blocks + 1)]
        self._recorded: dict[str, Any] = {}
        self._trajectories = ExampleTrajectories(examples, token_text, read_at)
        self._growing = tuple(name for name in criteria if CRITERIA[name].needs in ("forward", "path", "vocabulary"))
        self._growth: list[Sample] = []

    def add(self, readings: Readings) -> None:
        """Fold in one batch of readings."""
        self._numbers.add(readings)
        for state, mass in enumerate(self._token_mass):
            for token, share in zip(
                readings.top_tokens[:, state].ravel().tolist(),
                readings.top_probabilities[:, state].ravel().tolist(),
                strict=True,
            ):
                mass[token] = mass.get(token, 0.0) + share
        self._trajectories.add(readings)
        if is_mark(self._numbers.n_batches) and self._growing and self.ready:
            self._growth.append(self._sample())

    def record(self, **measured: Any) -> None:
        """Add what other passes measured, by the names of `Measurements`' fields."""
        self._recorded |= measured
        if "kernels" in measured:
            names = tuple(name for name in self._criteria if CRITERIA[name].needs == "kernel")
            self._growth += kernel_samples(measured["kernels"], names)
            self._data = replace(self._data, kernel_examples=measured["kernels"].shape[1])

    def mark_ablated(self, n_positions: int) -> None:
        """Note how many positions were read without a block each."""
        self._data = replace(self._data, ablation_positions=n_positions)

    def mark_settled(self) -> None:
        """Note that reading ended because the ranking had settled."""
        self._data = replace(self._data, settled=True)

    def mark_tokens(self, counts: Mapping[str, Any]) -> None:
        """Note the fields on tokens of the examples that were read; until then they are those of all examples."""
        self._data = replace(self._data, **counts)

    def mark_short(self, sentence: str) -> None:
        """Note which criteria memory did not suffice for."""
        self._data = replace(self._data, short=sentence)

    def mark_jittered(self) -> None:
        """Note that the head's Gram matrix was singular, and that its bases rest on a jitter."""
        self._data = replace(self._data, jittered=True)

    @property
    def ready(self) -> bool:
        """True once `result` can be asked for: something was read, and where it is needed, something right."""
        return self._numbers.n_batches > 0 and (self._data.virtual == "even" or self._numbers.any_right)

    def result(self, timing: Timing) -> Analysis:
        """Return the analysis of everything read so far; at least one batch must have been added.

        Raises:
            BadInputError: the virtual transition is to be calibrated, and no position is answered right.
        """
        numbers = self._numbers
        examples, where = numbers.examples.rows, numbers.arc_projections
        fractions = self._fractions(numbers)
        deviation = mean_interval(where.deviation(fractions), examples)
        target = mean_interval(1.0 - np.clip(where.to_target, -1.0, 1.0), examples)
        scores = score_blocks(self._criteria, self._measured(numbers))
        counts = {"n_examples": numbers.n_examples, "n_positions": len(examples)}
        sample = numbers.sample
        return Analysis(
            model=self._model,
            data=replace(self._data, **counts, sampled_positions=None if sample is None else len(sample)),
            states=self._state_rows(deviation, target),
            blocks=tuple(
                BlockRow(b, n, {name: _known(s, b) for name, s in scores.items()})
                for b, n in enumerate(self._block_params)
            ),
            timing=timing,
            environment=self._environment,
            trajectories=self._trajectories.trajectories(fractions),
            growth=tuple(self._growth) or None,
        )

    def _sample(self) -> Sample:
        """Return what everything read so far says of the blocks, and how far two halves of it agree."""
        scores = score_blocks(self._growing, self._measured(self._numbers))
        known = {name: tuple(score.tolist()) for name, score in scores.items() if score is not None}
        halves = {name: self.halves(name) for name in known}
        n_examples = self._numbers.n_examples
        looks = n_examples >= LEAST_EXAMPLES and is_power_of_two(self._numbers.n_batches)
        return Sample(
            n_examples,
            known,
            {name: None if pair is None else rank_correlation(*pair, "kendall") for name, pair in halves.items()},
            {name: settled(*pair) if looks and pair is not None else None for name, pair in halves.items()},
        )

    def halves(self, criterion: str) -> tuple[list[float], list[float]] | None:
        """Return a forward criterion's scores from the even and the odd batches; None where they cannot be told."""
        if self._numbers.n_batches < 2:
            return None
        parts = [self._numbers.half(which) for which in (0, 1)]
        if self._data.virtual != "even" and not all(part.any_right for part in parts):
            return None
        scores = [score_blocks((criterion,), self._measured(part))[criterion] for part in parts]
        one, other = (None if score is None else score.tolist() for score in scores)
        return None if one is None or other is None else (one, other)

    def _measured(self, numbers: Recorded) -> Measurements:
        where = numbers.arc_projections
        return Measurements(
            n_blocks=self._model.n_blocks,
            seed=self._seed,
            deviation=where.deviation(self._fractions(numbers)).mean(axis=0),
            target_deviation=1.0 - where.to_target.mean(axis=0),
            neighbour_cosine=numbers.neighbour_cosine.rows.mean(axis=0),
            semantic_loss=numbers.semantic_loss.rows.mean(axis=0) if len(numbers.semantic_loss) else None,
            sampled_states=numbers.sample,
            mean_path=numbers.mean_path,
            **self._recorded,
        )

    def _state_rows(self, deviation: Interval, target: Interval) -> tuple[StateRow, ...]:
        probability = self._numbers.probability.rows
        rank = np.median(self._numbers.rank.rows, axis=0)
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

    def _fractions(self, numbers: Recorded) -> Float[np.ndarray, " states"]:
        if self._data.virtual == "even":
            return even_fractions(self._model.n_blocks)
        if not numbers.any_right:
            raise BadInputError(
                "The base model answers none of these examples right, so the virtual transition cannot be calibrated; "
                "accepted is: even."
            )
        right = numbers.rank.rows[:, -1] == 1
        return calibrated_fractions(numbers.arc_projections.progress()[right])


def _at(values: np.ndarray | None, state: int) -> float | None:
    return None if values is None else float(values[state])


def _known(scores: Scores | None, block: int) -> float | None:
    """Return a block's score; None where it is not a finite number, as it is in the file."""
    return float(scores[block]) if scores is not None and math.isfinite(scores[block]) else None
