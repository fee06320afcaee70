"""The logit lens: table and heat maps."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.criteria.result import Analysis, ExamplePath, Trajectories
from lsf.errors import UnknownNameError
from lsf.figures.lens import VIEWS, draw_lens, draw_targets, grouped, lens_table
from lsf.figures.palette import Picture


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def _paths(analysis: Analysis) -> Trajectories:
    assert analysis.trajectories is not None
    return analysis.trajectories


def test_lens_table_has_one_row_per_state_with_visible_spaces(analysis: Analysis) -> None:
    table = lens_table(analysis)
    assert len(table) == 4
    assert table["most likely tokens (share where among the top 5)"].tolist()[0] == "␣Lun 0.40"


def test_target_map_is_state_by_example(analysis: Analysis) -> None:
    picture = draw_targets(_paths(analysis).examples, view="probability")
    heat = drawn(picture).data[0]
    assert [round(10**value, 6) for value in heat.z[3]] == [0.8, 0.2]
    assert list(heat.z[0]) == [-5, -5]
    assert [[list(cell) for cell in row] for row in heat.customdata[:2]] == [[[0, 0], [1, 0]], [[0, 1], [1, 1]]]
    assert picture.title == "Logit lens: the last state puts the target first at 1 of 2 positions"
    assert "rises most into state 2" in picture.alt
    assert drawn(picture).layout.coloraxis.cmax == 0


def test_a_probability_that_falls_all_the_way_is_not_told_to_rise(analysis: Analysis) -> None:
    examples = [replace(one, target_probability=(1e-3, 1e-4, 1e-5, 2e-6)) for one in _paths(analysis).examples]
    picture = draw_targets(examples)
    assert "from 0.1 % at state 0 to < 0.1 % at state 3; it never rises." in picture.alt
    assert "probability 2e-06, rank 1" in drawn(picture).data[0].hovertext[3][0]  # not 0.000


def test_the_selected_example_is_framed(analysis: Analysis) -> None:
    shapes = drawn(draw_targets(_paths(analysis).examples, selected=1)).layout.shapes
    assert [(shape.x0, shape.x1) for shape in shapes] == [(0.5, 1.5)]
    (cell,) = drawn(draw_targets(_paths(analysis).examples, selected=1, state=2)).layout.shapes
    assert (cell.y0, cell.y1) == (1.5, 2.5)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_the_map_colours_within_its_bar(analysis: Analysis, view: str) -> None:
    figure = drawn(draw_targets(_paths(analysis).examples, view=view))
    colours, heat = figure.layout.coloraxis, figure.data[0]
    assert all(colours.cmin <= value <= colours.cmax for row in heat.z for value in row)
    assert len(colours.colorbar.tickvals) == len(colours.colorbar.ticktext)
    assert heat.z[3][0] > heat.z[0][0]  # the last state is nearer to the target, in whatever view


def test_the_rank_view_is_fullest_at_rank_one(analysis: Analysis) -> None:
    heat = drawn(draw_targets(_paths(analysis).examples, view="rank")).data[0]
    assert heat.z[3][0] == 0
    assert heat.z[0][0] == pytest.approx(-0.9542, abs=1e-4)  # rank 9


def deep(example: ExamplePath, n_states: int, target: str = " Lun") -> ExamplePath:
    """The same example of a model with more states."""
    tokens = tuple(((target, 0.5), (f" t{state}", 0.1)) for state in range(n_states))
    ranks, masses = tuple(range(n_states, 0, -1)), tuple(0.5 for _ in range(n_states))
    return replace(example, target_token=target, top_tokens=tokens, target_rank=ranks, target_probability=masses)


@pytest.mark.parametrize("n_states", [9, 31, 81])
def test_maps_of_any_depth_fit_a_screen_and_every_row_of_text_can_be_read(analysis: Analysis, n_states: int) -> None:
    example = deep(_paths(analysis).examples[0], n_states)
    wide, one = drawn(draw_targets([example] * 40)), drawn(draw_lens(example, state=5))
    assert wide.layout.height <= 570
    assert one.layout.height <= 570
    heat = one.data[0]
    assert len(heat.z) <= 34
    states = [row[0] for row in heat.customdata]
    assert {0, 5, n_states - 1} <= set(states)
    assert heat.text[states.index(5)][1].startswith("␣t5")
    assert one.layout.yaxis.ticktext[states.index(5)] == "▸ 5"


def test_columns_of_one_target_stand_side_by_side_and_its_name_stands_once_and_level(analysis: Analysis) -> None:
    example = _paths(analysis).examples[0]
    examples = [deep(example, 4, target) for target in (" Lun", " Mar", " Lun", " Mar", " Lun")]
    assert grouped(examples) == [0, 2, 4, 1, 3]
    figure = drawn(draw_targets(examples, selected=1))
    assert list(figure.layout.xaxis.ticktext) == ["␣Lun", "␣Mar"]
    assert list(figure.layout.xaxis.tickvals) == [1.0, 3.5]
    assert figure.layout.xaxis.tickangle == 0
    assert [cell[0] for cell in figure.data[0].customdata[0]] == [0, 2, 4, 1, 3]
    lines = [shape for shape in figure.layout.shapes if shape.type == "line"]
    (frame,) = (shape for shape in figure.layout.shapes if shape.type == "rect")
    assert ([line.x0 for line in lines], (frame.x0, frame.x1)) == ([2.5], (2.5, 3.5))


def test_names_that_do_not_fit_are_left_to_the_pointer(analysis: Analysis) -> None:
    example = _paths(analysis).examples[0]
    figure = drawn(draw_targets([deep(example, 4, f" target number {index}") for index in range(40)]))
    assert set(figure.layout.xaxis.ticktext) == {""}
    assert "under the pointer" in figure.layout.xaxis.title.text
    assert not figure.layout.shapes
    assert "␣target␣number␣7" in figure.data[0].hovertext[0][7]


def test_an_unknown_view_is_answered_with_the_known_ones(analysis: Analysis) -> None:
    with pytest.raises(UnknownNameError, match="rank, probability"):
        draw_targets(_paths(analysis).examples, view="size")


def test_lens_of_an_example_frames_its_target_and_says_where_it_settles(analysis: Analysis) -> None:
    first, second = _paths(analysis).examples
    picture = draw_lens(first)
    assert picture.title == "Logit lens of ␣Lun: first from state 2 on"
    assert len(drawn(picture).layout.shapes) == 4
    assert draw_lens(second).title == "Logit lens of ␣Mar: rank 2 in the last state"
    assert "80 % at the last state" in picture.alt
