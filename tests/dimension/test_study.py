"""Which d is tried next, and what a study keeps."""

import math
from pathlib import Path

import pytest

from lsf.dimension.search import first_at, full_first, next_d, next_rate, rates_at
from lsf.dimension.study import (
    Curve,
    DimensionSettings,
    Point,
    Study,
    Try,
    best_rate,
    bound,
    smallest,
)
from lsf.errors import BadInputError
from lsf.methods.optimization import Tuned, exact_rate, spread_of
from lsf.plans.plan import Plan


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
    assert DimensionSettings(low=50, high=200).grid(10**6, least=20) == (50, 100, 200)
    assert settings.grid(10**6, least=33) == (33, 100, 300, 1000, 3000)
    assert DimensionSettings(low=5, high=20).grid(10**6, least=33) == (20,)  # which the method refuses


def test_rates_follow_the_square_root_of_how_many_values_one_number_moves() -> None:
    def own(d: int, values: int, tensors: int) -> float:
        return exact_rate("said", Tuned(128, 1_377_408, 1.0, spread_of(d, values, tensors)))

    assert first_at(own(100, 1_000_000, 169)) == (0.1, 0.04)
    assert rates_at(own(100, 1_000_000, 169)) == (0.016, 0.04, 0.1, 0.25, 0.63)
    assert first_at(own(10_000, 1_000_000, 169)) == (0.01, 0.004)
    assert first_at(own(10_000, 1_000_000, 169 * 4)) == (0.005, 0.002)  # more tensors, each with its own projection
    assert max(rates_at(own(1, 10**9, 1))) == 1.0  # AdamW's rate stays within what a run accepts


def test_full_fine_tuning_begins_at_its_default_and_the_rung_above() -> None:
    assert full_first(1e-3) == (3e-3, 1e-3)
    assert full_first(4.7e-4) == (1e-3, 3e-4)
    assert full_first(1e-9) == (1e-4, 3e-5)  # below the ladder: its lowest three rungs


def tried(**losses: float | None) -> dict[float, Try]:
    """Return tries by what they came to: r10=0.5 is rate 10 with half of validation right, None diverged."""
    return {
        float(name[1:]): Try(None, None, None, None, 1.0) if right is None else Try(right, 1.0, right, right, 1.0)
        for name, right in losses.items()
    }


def test_two_rates_are_tried_then_outwards_as_often_as_asked_and_further_down_only_while_all_are_lost() -> None:
    ladder, first = (1.0, 2.0, 4.0, 8.0, 16.0), (8.0, 4.0)
    assert next_rate({}, first, ladder, 3) == 8.0
    assert next_rate(tried(r8=0.5), first, ladder, 3) == 4.0
    assert next_rate(tried(r8=0.5), first, ladder, 1) is None
    assert next_rate(tried(r8=0.5, r4=0.7), first, ladder, 2) is None
    assert next_rate(tried(r8=0.5, r4=0.7), first, ladder, 3) == 2.0
    assert next_rate(tried(r8=0.7, r4=0.5), first, ladder, 3) == 16.0
    assert next_rate(tried(r8=0.5, r4=0.7, r2=0.6), first, ladder, 5) is None
    assert next_rate(tried(r8=None, r4=None), first, ladder, 2) == 2.0
    assert next_rate(tried(r8=None, r4=None, r2=None, r1=None), first, ladder, 2) is None
    assert best_rate(tried(r8=None, r4=0.2, r2=0.3)) == 2.0
    assert best_rate(tried(r8=None)) is None
    same = {1.0: Try(0.5, 2.0, 0.0, 0.0, 1.0), 2.0: Try(0.5, 1.5, 0.0, 0.0, 1.0)}
    assert best_rate(same) == 2.0  # of equal shares the lower loss


def point(d: int, test: float) -> Point:
    return Point(d, 0.1, test, 0.5, 0.9, 1.0)


def test_d_90_is_the_smallest_that_reaches_the_target_and_unknown_where_none_does() -> None:
    curve = Curve("said", 0, 0.9).with_point(point(1000, 0.95)).with_point(point(10, 0.2)).with_point(point(316, 0.9))
    assert curve.d_90 == 316
    assert Curve("did", 0, 0.9, (point(10, 0.2),)).d_90 is None
    assert curve.summary == "316"
    assert not curve.at_most
    lowest = Curve("said", 0, 0.1).with_point(point(10, 0.2))
    assert (lowest.d_90, lowest.at_most, lowest.summary) == (10, True, "at most 10")
    rising = Curve("said", 0, 0.9, (point(10, 0.2), point(1000, 0.5)))
    assert (rising.falls, rising.summary) == (False, "not reached up to 1,000")
    falling = Curve("said", 0, 0.9, (point(10, 0.2), point(1000, 0.5), point(3000, 0.1)))
    assert (falling.falls, falling.summary) == (True, "not reached up to 3,000 (best 50 % at 1,000)")
    assert point(10, 0.2).gap == pytest.approx(0.7)
    assert bound(25, 100) == pytest.approx(0.5)
    assert math.isclose(bound(400, 100), 2.0)


def of_seeds(*tests: dict[int, float]) -> Study:
    """Return a study of SAID with one curve per seed, d -> test."""
    curves = [
        Curve("said", seed, 0.9, tuple(point(d, test) for d, test in one.items())) for seed, one in enumerate(tests)
    ]
    return Study("m", "t", Plan("m", 4, (1,)), DimensionSettings(seeds=3), 10, (), tuple(curves))


def test_over_seeds_the_median_and_the_range_are_told_where_every_seed_reached_it() -> None:
    low, high, never = {10: 0.2, 100: 0.95}, {10: 0.1, 1000: 0.95}, {10: 0.1, 1000: 0.2}
    assert (of_seeds(low).summary("said"), of_seeds(low).d_90("said")) == ("100, 1 seed, no interval", 100)
    several = of_seeds(low, high, low)
    assert several.d_90("said") == 100
    assert several.summary("said") == "100, the median of 3 seeds (100 to 1,000)"
    assert of_seeds(low, {10: 0.95}).summary("said") == "at most 55, the median of 2 seeds (10 to 100)"
    least = {10: 0.95}
    assert of_seeds(low, least, low).summary("said") == "100, the median of 3 seeds (10 to 100)"  # whatever it needs
    assert of_seeds(least, least, low).summary("said") == "at most 10, the median of 3 seeds (10 to 100)"
    assert of_seeds(low, never).d_90("said") is None
    assert of_seeds(low, never).summary("said") == "not reached under 1 of 2 seeds, else 100 to 100"
    assert of_seeds(never, never).summary("said") == "not reached up to 1,000 under any of 2 seeds"
    assert of_seeds().summary("did") == "not measured yet"


def test_a_study_is_the_same_after_its_file(tmp_path: Path) -> None:
    curve = Curve("said", 0, 0.9, (point(10, 0.2), point(100, 0.95)))
    settings = DimensionSettings(projection="sparse", seeds=2)
    study = Study("m", "lesson:facts", Plan("m", 4, (1, 2)), settings, 144, (point(500, 1.0),), (curve,))
    study.save(tmp_path / "d.json")
    assert Study.load(tmp_path / "d.json") == study


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "not a whole study of dimensions"),
        ('{"schema_version": 7}', "has schema_version 7; a study of dimensions of schema_version 1 was"),
    ],
)
def test_a_file_that_is_no_study_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(BadInputError, match=sentence):
        Study.load(tmp_path / "d.json")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"low": 100, "high": 10}, "low is 100 and high is 10"), ({"share": 1.5}, "share is 1.5; it must lie between")],
)
def test_settings_out_of_range_are_refused(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        DimensionSettings(**given)  # type: ignore[arg-type]


def test_a_share_reaches_its_target_by_counting_whatever_rounding_says() -> None:
    full = 70 / 75
    assert 0.9 * full > 63 / 75  # in floating point
    assert smallest({100: 63 / 75, 300: 1.0}, 0.9 * full) == 100
    assert smallest({100: 62 / 75, 300: 1.0}, 0.9 * full) == 300
