"""The budget curve."""

from typing import Any

from lsf.figures.budget import BudgetPoint, RunPoint, draw_budget, runs_words
from lsf.figures.palette import CHOSEN, Picture

POINTS = [BudgetPoint(1, 0.4, 2e6), BudgetPoint(2, 0.6, 4e6), BudgetPoint(3, 0.9, None)]
RUNS = [RunPoint(2, "choice", "blocks 1-2", 0.9), RunPoint(3, "full", "whole model", 1.0)]


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def test_compute_and_memory_stand_against_the_blocks_and_the_plans_number_is_marked() -> None:
    picture = draw_budget(POINTS, POINTS[1], 3, limit=3e6)
    compute, own, memory, least = drawn(picture).data
    assert list(compute.y) == [0.4, 0.6, 0.9]
    assert list(memory.y) == [2.0, 4.0, None]
    assert [(mark.x[0], mark.y[0]) for mark in (own, least)] == [(2, 0.6), (2, 4.0)]
    assert own.marker.symbol == CHOSEN.symbol != compute.marker.symbol
    assert [line.y0 for line in drawn(picture).layout.shapes] == [3.0]
    assert picture.title == "2 of 3 blocks: a step costs 60 % of full fine-tuning's"
    assert "from 1 to 3 blocks it goes from 40 % to 90 %" in picture.alt


def test_what_a_pass_took_stands_above_the_least_with_its_number() -> None:
    own = BudgetPoint(2, 0.6, 4e6, tried_bytes=7.5e6)
    tried = drawn(draw_budget(POINTS, own, 3)).data[4]
    assert (list(tried.x), list(tried.y), list(tried.text)) == ([2, 2], [4.0, 7.5], ["", "7.5 MB"])
    assert tried.marker.symbol == CHOSEN.symbol
    assert "With activations 2 blocks take 7.5 MB." in draw_budget(POINTS, own, 3).alt
    assert len(drawn(draw_budget(POINTS, POINTS[1], 3)).data) == 4


def test_the_marks_of_runs_are_named() -> None:
    assert runs_words([]) == ""
    assert runs_words(RUNS).endswith("get right; diamond choice, circle whole model.")


def test_numbers_under_the_pointer_have_the_unit_of_their_axis() -> None:
    compute, own, memory, least, tried = drawn(draw_budget(POINTS, BudgetPoint(1, 0.4, 2e6, 3e6), 3)).data
    assert compute.hovertemplate == "%{text}: %{y:.1%} of a full step<extra></extra>"
    assert list(compute.text) == ["1 block", "2 blocks", "3 blocks"]
    assert own.hovertemplate == "the plan, 1 block: %{y:.1%} of a full step<extra></extra>"
    assert memory.hovertemplate == "%{text}: %{y:.3g} MB<extra></extra>"
    assert least.hovertemplate == "the plan, 1 block: %{y:.3g} MB<extra></extra>"
    assert tried.hovertemplate == "1 block, with activations: %{y:.3g} MB<extra></extra>"


def test_blocks_chosen_by_hand_are_told_and_marked_at_their_own_cost_and_counted_of_the_model() -> None:
    by_hand = BudgetPoint(2, 0.97, 4e6)
    picture = draw_budget(POINTS[:1], by_hand, 8)  # a policy whose plans all have one block
    assert picture.title == "2 of 8 blocks: a step costs 97 % of full fine-tuning's"
    assert picture.alt == f"{picture.title}."
    assert (drawn(picture).data[1].x[0], drawn(picture).data[1].y[0]) == (2, 0.97)
    assert picture.table["plan"].tolist() == ["by the criterion", "at hand"]


def test_a_limit_far_away_is_told_and_not_drawn() -> None:
    picture = draw_budget(POINTS[:2], POINTS[0], 3, limit=5e9)
    assert not drawn(picture).layout.shapes
    assert "at most 2 blocks fit this machine's memory" in picture.alt


def test_runs_have_a_panel_of_their_own_once_there_are_any() -> None:
    picture = draw_budget(POINTS, POINTS[0], 3, runs=RUNS)
    titles = [note.text for note in drawn(picture).layout.annotations]
    assert titles == ["compute of a step", "memory, at least (MB)", "right answers"]
    assert [(trace.x[0], trace.y[0]) for trace in drawn(picture).data[4:]] == [(2, 0.9), (3, 1.0)]
    assert picture.alt.endswith("Right answers of runs: blocks 1-2 90 %; whole model 100 %.")
    assert picture.table["quality"].dropna().tolist() == [0.9, 1.0]
