"""The paths: what is drawn, how it moves, what is said of it."""

from collections.abc import Sequence
from typing import Any

import pytest

from lsf.criteria.result import Analysis
from lsf.figures.palette import DARK, FACTUAL, Picture
from lsf.figures.trajectories import draw_paths, state_labels


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def _trace(picture, name):
    return next(trace for trace in drawn(picture).data if trace.name == name)


def test_both_paths_have_one_point_per_state(analysis: Analysis) -> None:
    picture = draw_paths(analysis)
    for name in ("virtual", "factual"):
        assert len(_trace(picture, name).x) == 4
        assert list(_trace(picture, name).text) == ["0", "1", "2", "3"]
    assert list(_trace(picture, "virtual").y) == [0.0, 1.5, 2.5, 3.0]


def test_virtual_and_factual_differ_by_more_than_colour(analysis: Analysis) -> None:
    picture = draw_paths(analysis)
    virtual, factual = _trace(picture, "virtual"), _trace(picture, "factual")
    assert virtual.line.dash != factual.line.dash
    assert virtual.marker.symbol != factual.marker.symbol
    assert virtual.line.color == "#0072B2"
    assert factual.line.color == "#D55E00"


def test_one_link_per_state_joins_factual_to_virtual(analysis: Analysis) -> None:
    links = _trace(draw_paths(analysis), "from factual to virtual")
    assert list(links.x)[3:6] == [1.0, 1.0, None]
    assert list(links.y)[3:6] == [0.5, 1.5, None]
    assert len(links.x) == 3 * 4


def test_arrows_have_a_head_where_they_end_and_none_without_length(analysis: Analysis) -> None:
    arrows = _trace(draw_paths(analysis), "from factual to virtual").marker
    assert (arrows.symbol, arrows.angleref) == ("arrow", "previous")
    heads = list(arrows.size)
    assert [bool(size) for size in heads[:6]] == [False, False, False, False, True, False]  # both paths begin together


def test_every_frame_names_the_three_traces_it_touches(analysis: Analysis) -> None:
    figure = drawn(draw_paths(analysis))
    names = [trace.name for trace in figure.data]
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3"]
    for state, frame in enumerate(figure.frames):
        assert [names[trace] for trace in frame.traces] == ["from factual to virtual", "virtual", "factual"]
        assert len(frame.data[1].x) == state + 1
    button = figure.layout.updatemenus[0].buttons[0]
    assert button.args[1]["frame"]["redraw"] is False


def test_axes_tell_the_explained_variance(analysis: Analysis) -> None:
    figure = drawn(draw_paths(analysis))
    assert "60 %" in figure.layout.xaxis.title.text
    assert "25 %" in figure.layout.yaxis.title.text


def test_space_shows_three_components_with_arrows_and_plays(analysis: Analysis) -> None:
    figure = drawn(draw_paths(analysis, dimensions=3))
    assert {trace.type for trace in figure.data} == {"scatter3d", "cone"}
    assert "10 %" in figure.layout.scene.zaxis.title.text
    names = [(trace.type, trace.name) for trace in figure.data]
    for state, frame in enumerate(figure.frames):
        touched = [names[trace] for trace in frame.traces]
        assert touched == names[-4:]
        assert [part.type for part in frame.data] == [kind for kind, _ in touched]
        assert len(frame.data[2].x) == len(frame.data[1].u) == state + 1
    assert figure.layout.updatemenus[0].buttons[0].args[1]["frame"]["redraw"] is True


def test_heads_in_space_point_from_factual_to_virtual(analysis: Analysis) -> None:
    heads = next(trace for trace in drawn(draw_paths(analysis, dimensions=3)).data if trace.type == "cone")
    assert (heads.u[0], heads.v[0], heads.w[0]) == (0.0, 0.0, 0.0)
    assert heads.u[1] == 0.0  # state 1 goes from (1, 0.5, 0.1) to (1, 1.5, 0)
    assert heads.v[1] == pytest.approx(1 / 1.01**0.5, abs=1e-4)
    assert heads.w[1] == pytest.approx(-0.1 / 1.01**0.5, abs=1e-4)
    assert 1.4 < heads.y[1] < 1.5


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_path_after_tuning_stands_whole_while_the_one_before_plays(analysis: Analysis, dimensions: int) -> None:
    assert analysis.trajectories is not None
    before = analysis.trajectories.factual
    after = (*before[:2], *(tuple(value + 0.1 * state for value in point) for state, point in enumerate(before[2:], 2)))
    picture = draw_paths(analysis, dimensions=dimensions, after=after)
    trace = _trace(picture, "factual after tuning")
    assert list(trace.x) == [point[0] for point in after]
    names = [one.name for one in drawn(picture).data]
    touched = {names[index] for frame in drawn(picture).frames for index in frame.traces}
    assert "factual after tuning" not in touched
    assert touched >= {"virtual", "factual"}
    assert "After tuning it is furthest from the path before at state 3" in picture.alt
    assert list(picture.table["path"]).count("factual after tuning") == len(before)


def test_no_play_button_while_an_analysis_still_runs(analysis: Analysis) -> None:
    assert not drawn(draw_paths(analysis, dimensions=3, animated=False)).frames
    assert not drawn(draw_paths(analysis, animated=False)).layout.updatemenus


def test_title_and_alt_text_carry_the_finding(analysis: Analysis) -> None:
    picture = draw_paths(analysis)
    assert picture.title == "Mean of the first 2 positions: furthest from the virtual path at state 2"
    assert "greatest at state 2 with 0.50" in picture.alt
    assert "85 %" in picture.alt


def test_an_example_has_its_own_path_and_no_backdrop(analysis: Analysis) -> None:
    picture = draw_paths(analysis, example=1)
    assert "␣Mar" in picture.title
    assert _trace(picture, "their last state").visible is False


def test_end_points_can_be_clicked_to_pick_an_example(analysis: Analysis) -> None:
    assert list(_trace(draw_paths(analysis), "their last state").customdata) == [0, 1]


def test_the_table_holds_what_was_drawn(analysis: Analysis) -> None:
    table = draw_paths(analysis).table
    assert len(table) == 8
    assert table["deviation"].tolist()[:4] == [0.0, 0.2, 0.5, 0.4]


def test_nothing_to_draw_is_refused(analysis: Analysis) -> None:
    with pytest.raises(ValueError, match="dimensions 4"):
        draw_paths(analysis, dimensions=4)


def test_deep_models_label_every_few_states() -> None:
    labels = state_labels([(float(state), 0.0) for state in range(33)], 32.0)
    assert labels[:4] == ["0", "", "", "3"]
    assert labels[-1] == "32"
    assert sum(bool(label) for label in labels) <= 13


def test_states_that_lie_together_are_named_once() -> None:
    path = [(0.0, 0.0), (1.0, 0.0), (1.01, 0.0), (2.0, 0.0)]
    assert state_labels(path, 2.0) == ["0", "1", "", "3"]
    assert state_labels(path, 20.0) == ["0", "", "", "3"]  # among paths that are much longer
    assert state_labels(path, 60.0) == ["", "", "", "3"]


def _light(colour: Sequence[float]) -> float:
    return sum(weight * (part / 255) ** 2.2 for weight, part in zip((0.2126, 0.7152, 0.0722), colour, strict=True))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_single_paths_can_be_seen_on_a_dark_page_behind_the_mean(analysis: Analysis, dimensions: int) -> None:
    faint = _trace(draw_paths(analysis, dimensions=dimensions), "single examples")
    pairs = [(int(FACTUAL.color[k : k + 2], 16), int(DARK.background[k : k + 2], 16)) for k in (1, 3, 5)]
    mixed = [faint.opacity * line + (1 - faint.opacity) * ground for line, ground in pairs]
    assert 1.5 < (_light(mixed) + 0.05) / (_light([ground for _, ground in pairs]) + 0.05) < 3
