"""Which d is tried next, and what a study keeps."""

import math
from pathlib import Path

import pytest

from lsf.analysis.plan import Plan
from lsf.errors import BadInputError
from lsf.jobs.dimensions import (
    Curve,
    DimensionSettings,
    Point,
    Study,
    bound,
    load_study,
    next_d,
    rates_for,
)


def search(truth: dict[int, float], target: float, grid: tuple[int, ...], bisections: int) -> list[int]:
    """Follow the search over a metric that is known: the largest d at or below gives its value."""
    values: dict[int, float] = {}
    while (d := next_d(values, target, grid, bisections)) is not None:
        values[d] = max(value for at, value in truth.items() if at <= d)
    return list(values)


def test_the_grid_is_climbed_until_the_target_then_halved_on_a_logarithmic_scale() -> None:
    truth = {1: 0.0, 400: 0.95}
    assert search(truth, 0.9, (10, 100, 1000, 10000), 0) == [10, 100, 1000]
    assert search(truth, 0.9, (10, 100, 1000, 10000), 2) == [10, 100, 1000, 316, 562]
    assert search(truth, 0.9, (500, 1000), 3) == [500]  # nothing below is known to fail: the grid's end is the answer
    assert search(truth, 0.99, (10, 1000), 3) == [10, 1000]  # never reached


def test_halving_ends_where_no_whole_number_is_left_between() -> None:
    assert search({1: 0.0, 3: 1.0}, 0.5, (1, 4), 9) == [1, 4, 2, 3]


def test_the_grid_has_two_values_per_decade_and_ends_at_the_planned_values() -> None:
    settings = DimensionSettings(low=30, high=3000)
    assert settings.grid(10**6) == (30, 100, 300, 1000, 3000)
    assert settings.grid(500) == (30, 100, 300, 500)
    assert DimensionSettings(low=50, high=200).grid(10**6) == (50, 100, 200)


def test_rates_follow_the_square_root_of_how_many_values_one_number_moves() -> None:
    assert rates_for(100, 1_000_000, 2) == (0.15, 0.06)
    assert rates_for(10_000, 1_000_000, 1) == (0.015,)
    assert max(rates_for(1, 10**9, 5)) == 1.0  # AdamW's rate stays within what a run accepts


def point(d: int, test: float) -> Point:
    return Point(d, 0.1, test, 0.5, 0.9, 1.0)


def test_d_90_is_the_smallest_that_reaches_the_target_and_unknown_where_none_does() -> None:
    curve = Curve("said", 0, 0.9).with_point(point(1000, 0.95)).with_point(point(10, 0.2)).with_point(point(316, 0.9))
    assert curve.d_90 == 316
    assert Curve("did", 0, 0.9, (point(10, 0.2),)).d_90 is None
    assert point(10, 0.2).gap == pytest.approx(0.7)
    assert bound(25, 100) == pytest.approx(0.5)
    assert math.isclose(bound(400, 100), 2.0)


def test_a_study_is_the_same_after_its_file(tmp_path: Path) -> None:
    curve = Curve("said", 0, 0.9, (point(10, 0.2), point(100, 0.95)))
    settings = DimensionSettings(projection="sparse", seeds=2)
    study = Study("m", "lesson:facts", Plan("m", 4, (1, 2)), settings, 144, (point(500, 1.0),), (curve,))
    study.save(tmp_path / "d.json")
    assert load_study(tmp_path / "d.json") == study


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{}", "not a whole study of dimensions"), ('{"schema_version": 7}', "has schema_version 7; 1 was expected")],
)
def test_a_file_that_is_no_study_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(BadInputError, match=sentence):
        load_study(tmp_path / "d.json")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"low": 100, "high": 10}, "low is 100 and high is 10"), ({"share": 1.5}, "share is 1.5; it must lie between")],
)
def test_settings_out_of_range_are_refused(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        DimensionSettings(**given)  # type: ignore[arg-type]
