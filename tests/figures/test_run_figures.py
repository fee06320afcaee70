"""Curves, trade-off and the page that stands alone."""

from typing import Any

import pytest

from lsf.criteria.result import Analysis
from lsf.figures.deviation import draw_deviation, draw_scores
from lsf.figures.palette import LIGHT, Picture, themed, without_hints
from lsf.figures.report import Section, html_report
from lsf.figures.runs import Curve, Outcome, draw_curves, draw_tradeoff, thin
from lsf.figures.trajectories import draw_paths


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def test_shares_are_told_in_percent_under_the_pointer_too_and_costs_with_their_unit() -> None:
    curve = Curve("block 3", "choice", (1, 2), (0.125, 0.5))
    picture = draw_curves([curve], "test exact match", "steps", False, share=True)
    assert drawn(picture).data[0].hovertemplate == "%{y:.1%}<extra>block 3</extra>"
    assert "block 3 went from 12 % to 50 % over 2 steps" in picture.alt
    outcomes = [Outcome("block 3", "choice", (2.5,), (0.5,))]
    for share, told in ((True, "%{y:.1%}"), (False, "%{y:.4g}")):
        (mark,) = drawn(draw_tradeoff(outcomes, (0,), "quality", "training time (s)", share=share)).data
        assert f"<br>{told} at %{{x:.4g}} s<br>" in mark.hovertemplate


def test_a_figure_that_nothing_can_be_clicked_in_does_not_say_what_a_click_does() -> None:
    picture = draw_scores([0.1, 0.2], (1,), "Deviation", "")
    assert "click" in drawn(picture).data[0].hovertemplate
    for still in (without_hints(picture.figure.to_dict()), themed(picture.figure, LIGHT).to_dict()):
        assert [trace["hovertemplate"] for trace in still["data"]] == [
            "block %{x}<br>Deviation %{y:.4g}<extra></extra>"
        ] * 2
    nested = {"data": [{"hovertext": [["a<br>click for b", None], ("c",)]}]}
    assert without_hints(nested)["data"][0]["hovertext"] == [["a", None], ["c"]]


def test_thinning_keeps_ends_and_every_spike() -> None:
    values = [1.0] * 10_000
    values[4321], values[7777] = 9.0, -9.0
    thinned = thin(Curve("run", "full", tuple(map(float, range(10_000))), tuple(values)))
    assert len(thinned.x) <= 600
    assert (thinned.x[0], thinned.x[-1]) == (0.0, 9999.0)
    assert {max(thinned.y), min(thinned.y)} == {9.0, -9.0}
    assert list(thinned.x) == sorted(thinned.x)


def test_short_curves_are_drawn_whole() -> None:
    curve = Curve("run", "full", (1.0, 2.0), (3.0, 4.0))
    assert thin(curve) is curve


def test_curves_of_two_roles_differ_by_more_than_colour() -> None:
    curves = [Curve("block 3", "choice", (1, 2), (3.0, 1.0)), Curve("full", "full", (1, 2), (3.0, 2.0))]
    picture = draw_curves(curves, "training loss", "steps")
    choice, full = drawn(picture).data
    assert choice.line.dash != full.line.dash
    assert choice.marker.symbol != full.marker.symbol
    assert picture.title == "Training loss: block 3 lowest with 1"
    assert "block 3 went from 3 to 1 over 2 steps" in picture.alt
    assert len(picture.table) == 4


def test_a_run_without_readings_is_listed_and_draws_nothing() -> None:
    picture = draw_curves([Curve("block 3", "choice", (), ())], "training loss", "steps")
    assert picture.title == "Training loss: nothing measured yet"
    assert len(drawn(picture).data) == 1


def test_tradeoff_shows_each_run_its_seeds_and_the_front() -> None:
    outcomes = [
        Outcome("block 3", "choice", (1.0, 3.0), (0.8, 1.0)),
        Outcome("full", "full", (4.0,), (0.95,)),
        Outcome("block 0", "first", (2.5,), (0.1,)),
    ]
    picture = draw_tradeoff(outcomes, [0, 1], "exact match", "seconds", baseline=0.05)
    front, choice, full, _ = drawn(picture).data
    assert list(front.x) == [2.0, 4.0]
    assert choice.error_y.visible is True
    assert [round(value, 6) for value in choice.error_y.array] == [0.1]
    assert full.error_y.visible is False
    assert "1 seed, no interval" in full.hovertemplate
    assert picture.title == "Best exact match: full, 0.95 at 4 seconds"
    assert "first blocks: block 0 0.1 at 2.5" in picture.alt
    assert picture.table["not beaten"].tolist() == [True, True, False]


def test_report_stands_alone_and_escapes_what_users_wrote(analysis: Analysis) -> None:
    sections = [
        Section("", "Two sentences.", draw_paths(analysis)),
        Section("Bars", picture=draw_deviation(analysis), table=draw_deviation(analysis).table),
    ]
    page = html_report("<script>x</script>", "lead", sections, "LSF")
    assert "<script>x</script>" not in page
    assert page.count("plotly.js v") == 1
    assert 'src="http' not in page
    assert "0.75 (95 % interval 0.70 to 0.85)" in page


def test_low_shares_have_an_axis_on_which_they_differ() -> None:
    def top(best: float) -> float:
        curve = Curve("a", "choice", (0.0, 4.0), (0.0, best))
        return float(drawn(draw_curves([curve], "exact match", "steps", False, True)).layout.yaxis.range[1])

    assert (top(0.04), top(0.5)) == (pytest.approx(0.15), 1.04)
