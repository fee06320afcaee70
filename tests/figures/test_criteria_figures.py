"""Criteria side by side, their rank correlations, and how many examples suffice."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from lsf.criteria.agreement import stability
from lsf.criteria.result import Analysis, BlockRow, Sample
from lsf.figures.criteria import draw_agreement, draw_criteria, draw_growth, leaders, measured_scores
from lsf.figures.palette import DARK, LIGHT, Picture, template
from lsf.figures.report import analysis_page

SCORES = {
    "deviation": (1.0, 2.0, 4.0, 3.0),
    "reduction": (4.0, 3.0, 1.0, 2.0),
    "cka": (0.5, 0.5, 0.5, 0.5),
    "fisher": (1.0, 2.0, 4.0, 3.0),
    "last": (1.0, 2.0, 3.0, 4.0),
}


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def test_every_criterion_has_a_panel_of_its_own() -> None:
    figure = drawn(draw_criteria(SCORES))
    panels = [trace for trace in figure.data if trace.showlegend is False]
    assert [list(panel.y) for panel in panels] == [list(scores) for scores in SCORES.values()]
    assert len({(panel.xaxis, panel.yaxis) for panel in panels}) == len(SCORES)
    titles = [note.text for note in figure.layout.annotations]
    assert titles[:3] == ["Deviation", "Reduction", "Change of similarity (ranks nothing)"]


def test_leading_blocks_differ_by_colour_symbol_and_size() -> None:
    marker = drawn(draw_criteria(SCORES)).data[0].marker
    for looks in (marker.color, marker.symbol, marker.size):
        assert [look == looks[2] for look in looks] == [False, False, True, False]


def test_a_criterion_without_differences_has_no_leaders() -> None:
    assert leaders(SCORES["cka"]) == ()
    assert len(set(drawn(draw_criteria(SCORES)).data[2].marker.symbol)) == 1


def test_blocks_are_named_in_the_order_of_their_scores() -> None:
    eight = {"alignment": (0.0, 0.1, 0.2, 0.3, 0.4, 0.8, 0.5, 0.9)}
    assert draw_criteria(eight, "alignment").title.startswith("Gradient alignment puts blocks 7, 5 first")
    many = {"alignment": tuple(block / 32 for block in range(32))}
    assert "puts blocks 31, 30, 29, 28, 27 and 3 more first" in draw_criteria(many, "alignment").title


def test_a_click_anywhere_in_a_panel_finds_its_criterion() -> None:
    figure = drawn(draw_criteria(SCORES))
    assert figure.layout.hovermode == "x"
    assert [set(trace.customdata) for trace in figure.data[: len(SCORES)]] == [{name} for name in SCORES]


def test_the_chosen_criterion_is_named_in_bold_and_words() -> None:
    titles = [note.text for note in drawn(draw_criteria(SCORES, "reduction")).layout.annotations]
    assert [title for title in titles if "<b>" in title] == ["<b>▸ Reduction (chosen)</b>"]


def test_the_finding_counts_criteria_and_leaves_controls_out() -> None:
    plain, picture = draw_criteria(SCORES), draw_criteria(SCORES, "deviation")
    assert picture.title == "Deviation puts block 2 first, as 1 of the other 2 criteria do"
    assert plain.title == "5 criteria side by side: block 2 is in the first quarter of 2 of the 3 measured"
    assert "Deviation (chosen): block 2" in picture.alt
    assert "Change of similarity: ranks nothing" in picture.alt
    assert "(controls not counted): block 2 in 2, block 0 in 1." in picture.alt
    assert picture.table["first quarter of"].tolist() == [1, 0, 2, 0]
    assert picture.table["fisher"].tolist() == list(SCORES["fisher"])


def test_only_what_was_measured_for_every_block_is_shown(analysis: Analysis) -> None:
    blocks = tuple(BlockRow(row.block, 1, {**row.scores, "fisher": None}) for row in analysis.blocks)
    assert list(measured_scores(replace(analysis, blocks=blocks))) == ["deviation", "last"]


def test_the_matrix_has_a_fixed_symmetric_range_and_says_what_is_unknown() -> None:
    picture = draw_agreement(SCORES, "spearman", "fisher")
    heat, unknown = drawn(picture).data
    assert (heat.zmin, heat.zmax, heat.autocolorscale) == (-1, 1, True)
    assert heat.z[0][3] == pytest.approx(1.0)
    assert heat.z[0][1] == pytest.approx(-1.0)
    assert heat.z[2][0] is None
    assert len(unknown.x) == 2 * len(SCORES) - 1
    assert set(unknown.text) == {"?"}
    assert "Unknown for Change of similarity" in picture.alt
    assert "most alike are Deviation and Fisher with 1.00, least alike" in picture.alt
    assert heat.y[3] == "<b>Fisher</b>"
    assert [row[0] for row in heat.customdata] == list(SCORES)


def test_the_matrix_as_a_table_names_each_pair_once_by_both_measures() -> None:
    table = draw_agreement(SCORES, "kendall").table
    assert len(table) == len(SCORES) * (len(SCORES) - 1) // 2
    rows = {(row["criterion"], row["other"]): row for row in table.to_dict("records")}
    assert rows["deviation", "last"]["spearman"] == pytest.approx(0.8)
    assert rows["deviation", "last"]["kendall"] == pytest.approx(4 / 6)
    assert all(pd.isna(row["spearman"]) for pair, row in rows.items() if "cka" in pair)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_diverging_colours_begin_and_end_apart_and_meet_in_the_middle(theme: Any) -> None:
    scale = template(theme)["layout"]["colorscale"]["diverging"]
    assert [stop for stop, _ in scale] == [0.0, 0.25, 0.5, 0.75, 1.0]
    middle = sum(int(scale[2][1][place : place + 2], 16) for place in (1, 3, 5)) / 3
    assert middle > 240 if theme is LIGHT else middle < 50


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_in_the_dark_every_cell_is_dark_enough_for_the_white_text_that_plotly_writes_on_it() -> None:
    for _, colour in (*DARK.scale, *DARK.diverging):
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        assert (299 * red + 587 * green + 114 * blue) / 1000 < 128, colour  # lighter ones get dark grey
        assert 1.05 / (_luminance(colour) + 0.05) > 4.5, colour


def _grown(analysis: Analysis) -> Analysis:
    """Samples of 64, 96 and 128 of 200 examples; the first ranks otherwise, auto would stop at 128."""
    rows = [
        (64, (3.0, 1.0, 2.0), 0.3, False),
        (96, (0.3, 0.8, 0.5), 1.0, None),
        (128, (0.2, 0.7, 0.5), 1.0, True),
    ]
    growth = tuple(
        Sample(n, {"deviation": scores}, {"deviation": halves}, {"deviation": stop}) for n, scores, halves, stop in rows
    )
    return replace(analysis, growth=growth, data=replace(analysis.data, n_examples=200))


def test_growing_samples_are_compared_with_all_examples_and_in_halves(analysis: Analysis) -> None:
    rows = stability(_grown(analysis), "deviation")
    assert [row.n_examples for row in rows] == [64, 96, 128, 200]
    assert [row.tau for row in rows] == pytest.approx([-1.0, 1.0, 1.0, 1.0])
    assert [row.shared for row in rows] == [0.0, 1.0, 1.0, 1.0]
    assert [row.halves for row in rows] == [0.3, 1.0, 1.0, None]
    assert [row.agrees for row in rows] == [False, True, True, True]
    assert stability(_grown(analysis), "last") == ()
    assert stability(analysis, "deviation") == ()


def test_the_curve_says_from_where_on_nothing_changes_and_where_auto_would_stop(analysis: Analysis) -> None:
    picture = draw_growth(_grown(analysis), "deviation")
    assert picture.title == "Examples that suffice for Deviation: 96 of 200 rank the blocks as all do"
    assert "From 96 examples on" in picture.alt
    assert "would stop at 128" in picture.alt
    assert [shape.x0 for shape in drawn(picture).layout.shapes if shape.x0 == shape.x1] == [128]
    assert picture.table["auto stops"].tolist() == [False, None, True, None]
    dashes = {trace.line.dash for trace in drawn(picture).data}
    assert len(dashes) == len(drawn(picture).data) == 3


def test_the_note_where_it_settled_stands_at_its_line_and_does_not_stretch_the_axis(analysis: Analysis) -> None:
    figure: Any = draw_growth(_grown(analysis), "deviation").figure
    (note,) = [one for one in figure.layout.annotations if one.text.startswith("settled: ")]
    (line,) = [one for one in figure.layout.shapes if one.x0 == one.x1]
    assert note.text == f"settled: {line.x0}"
    assert 10**note.x == pytest.approx(line.x0)  # Plotly takes the logarithm for notes, the value for lines


def test_where_no_sample_agrees_the_title_says_so(analysis: Analysis) -> None:
    grown = _grown(analysis)
    picture = draw_growth(replace(grown, growth=(grown.growth or ())[:1]), "deviation")
    assert "unknown, no part of the 200 ranks the blocks as all do" in picture.title
    assert "would not have stopped" in picture.alt


def test_a_curve_of_what_was_not_recorded_is_refused(analysis: Analysis) -> None:
    with pytest.raises(ValueError, match="no growing samples of last"):
        draw_growth(_grown(analysis), "last")


def test_the_report_holds_every_picture_and_asks_no_other_machine(analysis: Analysis) -> None:
    page = analysis_page(_grown(analysis))
    for title in (" first, as ", "Rank correlation between", "Examples that suffice", "Logit lens of"):
        assert title in page
    assert page.count("plotly.js v") == 1
    assert 'src="http' not in page
    assert "Examples that suffice" not in analysis_page(analysis)
