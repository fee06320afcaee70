"""The logit lens: table and heat maps."""

from typing import Any

import pytest

from lsf.criteria.result import Analysis, Trajectories
from lsf.errors import UnknownNameError
from lsf.figures.lens import VIEWS, draw_lens, draw_targets, lens_table
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
    picture = draw_targets(_paths(analysis).examples)
    heat = drawn(picture).data[0]
    assert [round(10**value, 6) for value in heat.z[3]] == [0.8, 0.2]
    assert list(heat.z[0]) == [-5, -5]
    assert [[list(cell) for cell in row] for row in heat.customdata[:2]] == [[[0, 0], [1, 0]], [[0, 1], [1, 1]]]
    assert picture.title == "Logit lens: the last state puts the target first at 1 of 2 positions"
    assert "rises most into state 2" in picture.alt
    assert drawn(picture).layout.coloraxis.cmax == 0


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


def test_the_best_tokens_are_written_where_they_fit_and_marked_where_they_do_not(analysis: Analysis) -> None:
    two = _paths(analysis).examples
    narrow, wide = (drawn(draw_targets(examples, view="best")) for examples in (two, two * 10))
    assert narrow.data[0].texttemplate == "%{text}"
    assert narrow.data[0].text[0][0] == "␣Lun"
    assert not wide.data[0].texttemplate
    assert {(x, y) for x, y in zip(wide.data[1].x, wide.data[1].y, strict=True) if x < 2} == {(0, 2), (0, 3)}


def test_an_unknown_view_is_answered_with_the_known_ones(analysis: Analysis) -> None:
    with pytest.raises(UnknownNameError, match="probability, rank, best"):
        draw_targets(_paths(analysis).examples, view="size")


def test_lens_of_an_example_frames_its_target_and_says_where_it_settles(analysis: Analysis) -> None:
    first, second = _paths(analysis).examples
    picture = draw_lens(first)
    assert picture.title == "Logit lens of ␣Lun: first from state 2 on"
    assert len(drawn(picture).layout.shapes) == 4
    assert draw_lens(second).title == "Logit lens of ␣Mar: at place 2 in the last state"
    assert "0.800" in picture.alt
