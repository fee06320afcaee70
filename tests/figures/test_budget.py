"""The budget curve."""

from typing import Any

from lsf.figures.budget import BudgetPoint, RunPoint, draw_budget
from lsf.figures.palette import CHOSEN, Picture

POINTS = [BudgetPoint(1, 0.4, 2e6), BudgetPoint(2, 0.6, 4e6), BudgetPoint(3, 0.9, None)]
RUNS = [RunPoint(2, "choice", "blocks 1-2", 0.9), RunPoint(3, "full", "whole model", 1.0)]


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def test_compute_and_memory_stand_against_the_blocks_and_the_plans_number_is_marked() -> None:
    picture = draw_budget(POINTS, 2, limit=3e6)
    compute, memory = drawn(picture).data
    assert list(compute.y) == [0.4, 0.6, 0.9]
    assert list(memory.y) == [2.0, 4.0, None]
    assert [symbol == CHOSEN.symbol for symbol in memory.marker.symbol] == [False, True, False]
    assert [line.y0 for line in drawn(picture).layout.shapes] == [3.0]
    assert picture.title == "2 of 3 blocks: a step costs 60 % of full fine-tuning's"
    assert "From 1 to 3 blocks it goes from 40 % to 90 %" in picture.alt


def test_what_a_pass_took_stands_above_the_least_with_its_number() -> None:
    points = [*POINTS[:1], BudgetPoint(2, 0.6, 4e6, tried_bytes=7.5e6)]
    tried = drawn(draw_budget(points, 2)).data[2]
    assert (list(tried.x), list(tried.y), list(tried.text)) == ([2, 2], [4.0, 7.5], ["", "7.5 MB"])
    assert tried.marker.symbol == CHOSEN.symbol
    assert "With activations 2 blocks take 7.5 MB." in draw_budget(points, 2).alt
    assert len(drawn(draw_budget(POINTS, 2)).data) == 2


def test_a_limit_far_away_is_told_and_not_drawn() -> None:
    picture = draw_budget(POINTS[:2], 1, limit=5e9)
    assert not drawn(picture).layout.shapes
    assert "at most 2 blocks fit this machine's memory" in picture.alt


def test_runs_have_a_panel_of_their_own_once_there_are_any() -> None:
    picture = draw_budget(POINTS, 1, runs=RUNS)
    titles = [note.text for note in drawn(picture).layout.annotations]
    assert titles == ["compute of a step", "memory, at least (MB)", "right answers"]
    assert [(trace.x[0], trace.y[0]) for trace in drawn(picture).data[2:]] == [(2, 0.9), (3, 1.0)]
    assert picture.alt.endswith("Right answers of runs: blocks 1-2 90 %; whole model 100 %.")
    assert picture.table["quality"].dropna().tolist() == [0.9, 1.0]
