"""The page of criteria: side by side, rank correlations, how many examples suffice, and what is chosen there."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lsf.app.state import Session
from lsf.app.work import Analysed
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import DEFAULT_CRITERIA
from tests.pages.conftest import Driver, as_read


@pytest.fixture
def criteria(app: Driver, known: Callable[..., Analysed]) -> Driver:
    app.look_at(known(), "criteria")
    return app


def headings(app: Driver) -> list[str]:
    return [as_read(element.value) for element in app.at.subheader]


def test_the_page_shows_three_pictures_with_their_data_and_names_what_was_not_measured(criteria: Driver) -> None:
    assert not criteria.at.exception
    found = headings(criteria)
    assert any(title.startswith("Gradient alignment puts block") for title in found)
    assert "Next: choose the blocks." in criteria.shown()
    assert any(title.startswith("Rank correlation between 12 criteria (Spearman") for title in found)
    assert any(title.startswith("Examples that suffice for Gradient alignment") for title in found)
    tables = [frame.value for frame in criteria.at.dataframe]
    assert [len(table) for table in tables[:2]] == [4, 12 * 11 // 2]  # blocks, pairs
    assert tables[2]["examples"].tolist()[-1] == 24
    assert tables[2]["tau to all"].tolist()[-1] == pytest.approx(1.0)
    assert set(tables[1]["criterion"]) | set(tables[1]["other"]) == set(tables[0]) - {"block", "first quarter of"}
    missing = "Semantic loss, Change of similarity, Turn of the path, Need, Fisher"
    assert f"Not measured in this analysis: {missing}" in criteria.shown()
    criteria.at.session_state["correlation"] = "kendall"
    criteria.at.run()
    assert any("(Kendall's tau)" in title for title in headings(criteria))


def test_a_criterion_chosen_here_scores_the_blocks_on_the_next_page_in_place_of_those_chosen_by_hand(
    criteria: Driver,
) -> None:
    criteria.go("choose")
    criteria.brush(0, 2)
    assert "chosen by hand" in criteria.shown()
    criteria.go("criteria")
    criteria.at.selectbox(key="criterion").set_value("block_influence").run()
    assert any(title.startswith("Examples that suffice for Block influence") for title in headings(criteria))
    at = criteria.go("choose")
    assert not at.exception
    assert "chosen by hand" not in criteria.shown()
    assert at.selectbox(key="criterion").value == "block_influence"
    assert any(title.startswith("Block influence: block") for title in headings(criteria))
    here: Session = criteria.at.session_state["lsf"]
    assert here.plan is not None
    assert here.plan.criterion == "block_influence"


def test_what_no_sample_was_recorded_for_is_unknown_and_not_drawn(criteria: Driver) -> None:
    criteria.at.selectbox(key="criterion").set_value("gradient_norm").run()
    assert not criteria.at.exception
    assert f"suffice for {CRITERIA['gradient_norm'].label} is unknown" in criteria.shown()
    assert not any(title.startswith("Examples that suffice") for title in headings(criteria))


def test_what_a_bound_left_out_is_said_where_it_is_missed(app: Driver, known: Callable[..., Analysed]) -> None:
    found = known()
    why = "alignment: not measured, since gradients of expert tensors take 4.5 GiB."
    blocks = tuple(replace(row, scores={**row.scores, "alignment": None}) for row in found.analysis.blocks)
    analysis = replace(found.analysis, blocks=blocks, data=replace(found.analysis.data, short=why))
    at = app.look_at(replace(found, analysis=analysis), "criteria")
    assert not at.exception
    assert f"{why} The next analysis can include the others." in app.shown()
    assert not app.go("choose").exception
    assert f"Gradient alignment, which this analysis did not measure. {why}" in app.shown()


def test_need_is_drawn_beside_the_chosen_criterion_where_it_was_measured(
    app: Driver, known: Callable[..., Analysed]
) -> None:
    at = app.look_at(known("ablation"), "criteria")
    at.selectbox(key="criterion").set_value("deviation").run()
    assert not at.exception
    assert any("deviation" in title and "chance" in title for title in headings(app))  # of four blocks
    assert "what tuning the block really gained" in app.shown()
    assert any({"block", "need", "deviation"} == set(frame.value) for frame in at.dataframe)
    at.selectbox(key="criterion").set_value("ablation").run()
    assert "Need is drawn beside another criterion" in app.shown()


def test_without_a_criterion_nothing_starts(app: Driver) -> None:
    at = app.to_the_input()
    at.multiselect(key="settings-criteria").set_value([]).run()
    assert at.button(key="analyse").disabled
    assert "No criterion is chosen" in app.errors()[0]
    assert at.session_state["lsf"].request.settings.criteria == DEFAULT_CRITERIA
    at.multiselect(key="settings-criteria").set_value(["first"]).run()
    assert not at.button(key="analyse").disabled
