"""Pictures of d_90."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.dimension.study import Curve, DimensionSettings, Point, Study
from lsf.figures.dimension import draw_blocks, draw_gap, draw_progress, draw_study, draw_tasks, fewer, published_table
from lsf.figures.palette import Picture
from lsf.plans.plan import Plan, full_plan


def study(said: dict[int, float], did: dict[int, float], model: str = "bundled", data: str = "lesson:facts") -> Study:
    curves = [
        Curve(method, 0, 0.9, tuple(Point(d, 0.1, test, test, 1.0, 1.0) for d, test in points.items()))
        for method, points in (("said", said), ("did", did))
        if points
    ]
    full = (Point(1000, 1e-3, 1.0, 1.0, 1.0, 1.0),)
    return Study(model, data, full_plan("bundled", 8), DimensionSettings(), 100, full, tuple(curves))


ONE = study({300: 0.95, 30: 0.2, 100: 0.5}, {300: 0.4, 1000: 0.96})
OTHER = study({30: 0.1}, {30: 0.92}, data="lesson:sums")


def traces(picture: Picture) -> Any:
    return picture.figure.data


def test_a_study_is_drawn_by_ascending_d_with_a_ring_at_d_90() -> None:
    picture = draw_study(ONE)
    said, ring = traces(picture)[0], traces(picture)[1]
    assert (list(said.x), list(said.y)) == ([30, 100, 300], [0.2, 0.5, 0.95])
    assert (list(ring.x), list(ring.y)) == ([300], [0.95])
    assert picture.title == "d_90 of Capitals that moved: SAID 300, 1 seed, no interval; DID 1,000, 1 seed, no interval"
    assert picture.figure.layout["shapes"][1]["y0"] == pytest.approx(0.9)
    assert picture.table["method"].tolist() == ["full", "said", "said", "said", "did", "did"]


def test_the_bound_ends_at_one_and_the_words_say_from_where() -> None:
    picture = draw_gap(ONE)
    assert list(traces(picture)[-1].y) == [pytest.approx(0.3**0.5), 1.0, 1.0, 1.0]
    assert "From d = 100 on the bound is above 1" in picture.alt
    assert picture.table["gap"].tolist()[0] == pytest.approx(0.05)


def test_lessons_stand_side_by_side_and_one_not_reached_has_no_bar() -> None:
    picture = draw_tasks([ONE, OTHER])
    said, did = traces(picture)
    assert list(said.text) == ["300", "none"]
    assert list(did.text) == ["1,000", "≤ 30"]
    assert fewer([ONE, OTHER]) == 1
    assert picture.title == "How few numbers suffice (d_90): SAID needs fewer than DID on 1 of 2 lessons"
    assert published_table([ONE])["whose"].tolist() == ["published"] * 4 + ["ours"]


def test_a_checkpoint_not_reached_ranks_above_all_others_where_it_still_rose_and_nowhere_where_it_fell() -> None:
    along = [
        study({300: 0.95}, {}, "pretraining step 60"),
        study({1000: 0.95}, {}, "pretraining step 120"),
        study({30: 0.95}, {}, "pretraining step 600"),
        study({30: 0.1}, {}, "pretraining step 0"),
        study({30: 0.1, 100: 0.0}, {}, "pretraining step 30"),
    ]
    picture = draw_progress(along)
    assert list(traces(picture)[0].x) == [60, 120, 600]
    assert "<extra>Capitals that moved</extra>" in traces(picture)[0].hovertemplate  # as in the legend
    missed = traces(picture)[1]
    assert list(missed.x) == [0, 30] and min(missed.y) > 1000  # above every d that was tried
    assert list(missed.text) == ["not reached up to 30", "not reached up to 100 (best 10 % at 30)"]
    assert "Spearman: Capitals that moved -0.80 (4 checkpoints, chance reaches 1.00)" in picture.title


def test_along_pretraining_the_median_over_seeds_stands_between_the_least_and_the_most() -> None:
    one = study({300: 0.95}, {}, "pretraining step 60")
    others = [
        replace(one.curves[0], seed=seed, points=(Point(d, 0.1, 0.95, 0.9, 1.0, 1.0),))
        for seed, d in ((1, 100), (2, 1000))
    ]
    line = traces(draw_progress([replace(one, curves=(*one.curves, *others))]))[0]
    assert list(line.y) == [300]
    assert (list(line.error_y.array), list(line.error_y.arrayminus)) == ([700], [200])


def test_the_gap_has_one_line_per_search() -> None:
    again = replace(ONE.curves[0], seed=1, points=(Point(100, 0.1, 0.4, 0.4, 1.0, 1.0),))
    lines = traces(draw_gap(replace(ONE, curves=(*ONE.curves, again), settings=DimensionSettings(seeds=2))))
    assert [line.name for line in lines[:-1]] == ["SAID, seed 0", "DID, seed 0", "SAID, seed 1"]
    assert list(lines[0].x) == [30, 100, 300]


def test_blocks_that_may_move_stand_by_their_values_under_as_many_seeds_each() -> None:
    few = replace(
        ONE,
        plan=Plan("bundled", 8, (7,)),
        curves=tuple(replace(c, points=(Point(3000, 0.1, 0.95, 0.9, 1.0, 1.0),)) for c in ONE.curves),
    )
    again = replace(ONE.curves[0], seed=1, points=(Point(10_000, 0.1, 0.95, 0.9, 1.0, 1.0),))
    whole = replace(ONE, curves=(*ONE.curves, again), full=ONE.full * 2, settings=DimensionSettings(seeds=2))
    assert whole.d_90("said") == 5150
    picture = draw_blocks([few, whole.of_seeds(1)])
    assert list(traces(picture)[0].y) == [3000, 300]
    assert traces(picture)[0].x[0] == "block 7,<br>1,000 values"
    told = "d_90 of Capitals that moved by the blocks that may move: SAID 3,000 on block 7, 300 on "
    assert picture.title.startswith(told)
