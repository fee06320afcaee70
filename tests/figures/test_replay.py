"""An analysis as it was on the way: what a replay shows, and in which order."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lsf.app.paths import analysis_facts
from lsf.criteria.result import MOST_DEPTHS, Analysis, moments, part_of
from lsf.figures.deviation import draw_deviation
from lsf.figures.trajectories import draw_paths


def test_the_first_example_goes_through_the_layers_and_then_come_the_others(analysis: Analysis) -> None:
    assert moments(analysis) == ((1, 1), (1, 2), (1, 3), (1, 4), (2, 4))


def test_every_picture_has_a_state_or_an_example_that_the_one_before_had_not(analysis: Analysis) -> None:
    assert analysis.trajectories is not None
    many = replace(analysis.trajectories, examples=analysis.trajectories.examples * 20)
    deep = replace(analysis, states=analysis.states * 8, trajectories=many)  # 32 states, 40 examples
    shown = moments(deep)
    assert len(shown) >= 10
    assert sum(count == 1 for count, _ in shown) <= MOST_DEPTHS
    assert shown[-1] == (40, 32)
    for before, after in pairwise(shown):
        assert after > before
        assert all(one >= other for one, other in zip(after, before, strict=True))


def test_a_part_holds_what_was_recorded_and_nothing_more(analysis: Analysis) -> None:
    part = part_of(analysis, (1, 3))
    assert [row.deviation for row in part.states] == [0.0, 0.2, 0.5, None]
    assert part.scores("deviation") == (0.2, 0.5, None)
    assert part.trajectories is not None
    assert len(part.trajectories.factual) == 3
    assert part.data.n_examples == 1
    assert part.states[1].top_tokens == analysis.trajectories.examples[0].top_tokens[1]  # type: ignore[union-attr]


def test_all_examples_are_their_mean(analysis: Analysis) -> None:
    assert analysis.trajectories is not None
    part = part_of(analysis, (2, 4))
    assert part.trajectories is not None
    for state in range(4):
        mean = [sum(one.factual[state][axis] for one in analysis.trajectories.examples) / 2 for axis in range(3)]
        assert list(part.trajectories.factual[state]) == pytest.approx(mean)


def test_several_positions_of_one_example_are_told_as_one_example(analysis: Analysis) -> None:
    assert analysis.trajectories is not None
    first, second = analysis.trajectories.examples
    again = [replace(first, target_token=word) for word in (" a", " b")]  # further in the same completion
    kept = replace(analysis.trajectories, examples=(first, *again, second))
    data = replace(analysis.data, n_examples=8, n_positions=30, n_dropped=2, n_rows=400, n_taken=10, positions="all")
    several = replace(analysis, data=data, trajectories=kept)
    assert "8 of 400 examples (train), 30 positions" in analysis_facts(several)
    part = part_of(several, (3, 4))
    assert (part.data.n_examples, part.data.n_positions) == (1, 3)
    assert "1 of 400 examples (train), 3 positions" in analysis_facts(part)
    assert "2 of 400 examples (train), 4 positions" in analysis_facts(part_of(several, (4, 4)))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_moment_can_be_drawn(analysis: Analysis, dimensions: int) -> None:
    for moment in moments(analysis):
        part = part_of(analysis, moment)
        paths = draw_paths(part, dimensions=dimensions, animated=False)
        assert len(paths.table) == 2 * moment[1]
        bars: Any = draw_deviation(part).figure
        assert sum(value is not None for value in bars.data[0].y) == moment[1]
