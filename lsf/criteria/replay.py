"""An analysis as it was on the way: fewer states of the first example, then fewer examples; from what it recorded."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lsf.criteria.result import Analysis, ExamplePath, StateRow, Trajectories

MOST_DEPTHS = 11
"""Moments in which the first example goes through the model; deeper models take several states at once."""
PER_STATE = (
    "factual", "virtual", "deviation", "target_deviation", "target_probability", "target_rank", "top_tokens",
)  # fmt: skip
"""What an `ExamplePath` holds for every state."""
Moment = tuple[int, int]
"""How many examples, and how many states of each, were read."""


def moments(analysis: Analysis) -> tuple[Moment, ...]:
    """Return what is shown one after the other: layer by layer within the first example, then example by example.

    Args:
        analysis: finished or partial, with trajectories.
    """
    assert analysis.trajectories is not None
    n_states, n_examples = len(analysis.states), len(analysis.trajectories.examples)
    if not n_examples:
        return ()
    step = -(-n_states // MOST_DEPTHS)
    depths = [*range(step, n_states, step), n_states]
    counts = [*(2**power for power in range(1, n_examples.bit_length()) if 2**power < n_examples), n_examples]
    more = [(count, n_states) for count in counts if count > 1]
    return (*((1, depth) for depth in depths), *more)


def part_of(analysis: Analysis, moment: Moment) -> Analysis:
    """Return an analysis of the first examples that were kept and of the first states; what is not in it is None.

    Scores are of the criterion `deviation` alone, which needs nothing else; intervals are left out.
    """
    assert analysis.trajectories is not None
    n_examples, n_states = moment
    examples = tuple(_cut(one, n_states) for one in analysis.trajectories.examples[:n_examples])
    states = tuple(_state(row.state, examples, n_states) for row in analysis.states)
    blocks = tuple(replace(row, scores={"deviation": states[row.block + 1].deviation}) for row in analysis.blocks)
    paths = {name: _mean_path([getattr(one, name) for one in examples]) for name in ("factual", "virtual")}
    return replace(
        analysis,
        data=replace(analysis.data, n_examples=n_examples, n_positions=n_examples),
        states=states,
        blocks=blocks,
        trajectories=Trajectories(analysis.trajectories.explained_variance, examples=examples, **paths),
        growth=None,
    )


def _cut(example: ExamplePath, n_states: int) -> ExamplePath:
    cut: dict[str, Any] = {name: getattr(example, name)[:n_states] for name in PER_STATE}
    return replace(example, **cut)


def _state(state: int, examples: Sequence[ExamplePath], n_states: int) -> StateRow:
    def mean(name: str) -> float | None:
        return float(np.mean([getattr(one, name)[state] for one in examples])) if state < n_states else None

    ranks = [one.target_rank[state] for one in examples] if state < n_states else []
    return StateRow(
        state=state,
        deviation=mean("deviation"),
        deviation_low=None,
        deviation_high=None,
        target_deviation=mean("target_deviation"),
        target_deviation_low=None,
        target_deviation_high=None,
        target_probability=mean("target_probability"),
        target_rank_median=float(np.median(ranks)) if ranks else None,
        top_tokens=examples[0].top_tokens[state] if ranks and len(examples) == 1 else (),
    )


def _mean_path(paths: Iterable[Sequence[Sequence[float]]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(point) for point in np.mean([np.asarray(path) for path in paths], axis=0).tolist())
