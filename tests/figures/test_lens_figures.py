"""The logit lens: table and heat maps."""

from typing import Any

from lsf.analysis.result import Analysis, Trajectories
from lsf.figures.lens import draw_lens, draw_targets, lens_table
from lsf.figures.picture import Picture


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def _paths(analysis: Analysis) -> Trajectories:
    assert analysis.trajectories is not None
    return analysis.trajectories


def test_lens_table_has_one_row_per_state_with_visible_spaces(analysis: Analysis) -> None:
    table = lens_table(analysis)
    assert len(table) == 4
    assert table["most likely tokens"].tolist()[0] == "␣Lun 0.40"


def test_target_map_is_state_by_example(analysis: Analysis) -> None:
    picture = draw_targets(_paths(analysis).examples)
    heat = drawn(picture).data[0]
    assert [round(10**value, 6) for value in heat.z[3]] == [0.8, 0.2]
    assert list(heat.z[0]) == [-5, -5]
    assert list(heat.customdata[0]) == [0, 1]
    assert picture.title == "The last state puts the target first in 1 of 2 examples"
    assert "rises most into state 2" in picture.alt
    assert drawn(picture).layout.coloraxis.cmax == 0


def test_the_selected_example_is_framed(analysis: Analysis) -> None:
    shapes = drawn(draw_targets(_paths(analysis).examples, selected=1)).layout.shapes
    assert [(shape.x0, shape.x1) for shape in shapes] == [(0.5, 1.5)]


def test_lens_of_an_example_frames_its_target_and_says_where_it_settles(analysis: Analysis) -> None:
    first, second = _paths(analysis).examples
    picture = draw_lens(first)
    assert picture.title == "The target ␣Lun is first from state 2 on"
    assert len(drawn(picture).layout.shapes) == 4
    assert draw_lens(second).title == "The target ␣Mar is at place 2 in the last state"
    assert "0.800" in picture.alt
