"""Deviation bars and criterion bars."""

from dataclasses import replace
from typing import Any

from lsf.criteria.result import Analysis
from lsf.figures.deviation import axis_beginning, draw_deviation, draw_scores, score_intervals
from lsf.figures.palette import Picture


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def test_deviation_bars_have_one_interval_per_state(analysis: Analysis) -> None:
    bar = drawn(draw_deviation(analysis)).data[0]
    assert list(bar.y) == [0.0, 0.25, 0.75, 0.5]
    assert [round(value, 3) for value in bar.error_y.array] == [0.1] * 4
    assert [round(value, 3) for value in bar.error_y.arrayminus] == [0.05] * 4


def test_deviations_that_lie_close_are_drawn_on_an_axis_where_they_differ_which_says_so(analysis: Analysis) -> None:
    assert axis_beginning(analysis.states) == 0.0  # 0.2 to 1.0: zero is near enough
    close = [replace(row, deviation=1.06 + 0.03 * row.state, deviation_low=None) for row in analysis.states]
    close = [replace(row, deviation_high=None, target_deviation=1.0 - 0.02 * row.state) for row in close]
    close[0] = replace(close[0], deviation=5.7e-17)
    layout = drawn(draw_deviation(replace(analysis, states=tuple(close)))).layout
    axis = layout.yaxis
    assert [note.text for note in layout.annotations] == ["0"]  # of the state whose bar lies below the axis
    assert axis.title.text == "1 - cos (the axis begins at 0.9)"
    assert (axis.range[0], round(axis.range[1], 3)) == (0.9, round(1.02 * 1.15, 3))


def test_a_missing_interval_is_no_whisker(analysis: Analysis) -> None:
    target = drawn(draw_deviation(analysis)).data[1]
    assert list(target.error_y.array) == [0.0] * 4


def test_the_finding_names_state_value_and_interval(analysis: Analysis) -> None:
    picture = draw_deviation(analysis)
    assert picture.title == "Deviation is greatest at state 2"
    assert "state 2 with 0.75 (95 % interval 0.70 to 0.85)" in picture.alt


def test_chosen_blocks_differ_by_colour_pattern_and_word() -> None:
    picture = draw_scores((0.1, 0.9, 0.5), {1}, "Deviation", "")
    frozen, tuned = drawn(picture).data
    assert list(frozen.x) == [0, 2]
    assert list(tuned.x) == [1]
    assert frozen.marker.color != tuned.marker.color
    assert tuned.marker.pattern.shape == "/"
    assert not frozen.marker.pattern.shape
    assert list(tuned.text) == ["tuned"]


def test_score_bars_have_whiskers_where_the_interval_is_known(analysis: Analysis) -> None:
    intervals = score_intervals(analysis, "deviation")
    picture = draw_scores(analysis.scores("deviation"), {1}, "Deviation", "", intervals=intervals)
    frozen, tuned = drawn(picture).data
    assert [round(value, 3) for value in (*frozen.error_y.array, *tuned.error_y.array)] == [0.1] * 3
    assert picture.table["low"].tolist() == [row.deviation_low for row in analysis.states[1:]]
    assert score_intervals(analysis, "last") is None
    plain = draw_scores(analysis.scores("last"), {1}, "Last", "")
    assert drawn(plain).data[0].error_y.array is None
    assert "low" not in plain.table


def test_bars_carry_their_block_for_clicks() -> None:
    frozen, tuned = drawn(draw_scores((0.1, 0.9, 0.5), {1}, "Deviation", "")).data
    assert list(frozen.customdata) + list(tuned.customdata) == [0, 2, 1]


def test_scores_alt_text_names_the_extremes_and_the_choice() -> None:
    picture = draw_scores((0.1, 0.9, None), {1, 2}, "Deviation", "cos")
    assert "highest 0.9 at block 1, lowest 0.1 at block 0" in picture.alt
    assert "blocks 1-2 of 3" in picture.alt
    assert picture.title == "Deviation: blocks 1-2 of 3 chosen"
    assert picture.table["tuned"].tolist() == [False, True, True]


def test_axes_of_deep_models_name_some_states_level_and_long_titles_are_cut_to_the_unit(analysis: Analysis) -> None:
    deep = replace(analysis, states=tuple(replace(analysis.states[1], state=state) for state in range(81)))
    axis = drawn(draw_deviation(deep)).layout.xaxis
    assert (len(axis.tickvals), axis.tickangle) == (17, 0)
    pictures = [draw_scores((0.1,), (), "Gradient alignment", unit) for unit in ("cos", "u" * 30)]
    titles = [drawn(picture).layout.yaxis.title.text for picture in pictures]
    assert titles == ["Gradient alignment (cos)", "u" * 30]
