"""The virtual transition and the deviation, by hand and by invariants."""

import numpy as np
import pytest

from lsf.analysis.deviation import mean_interval
from lsf.analysis.transitions import (
    arc,
    bearings,
    calibrated_fractions,
    cosine_distance,
    even_fractions,
    slerp,
    unit,
)


def random_units(n: int, width: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, width)))


def test_a_quarter_turn_is_walked_evenly() -> None:
    path = slerp(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([0.0, 1 / 3, 0.5, 1.0]))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(path[0], [[1, 0], [np.sqrt(0.75), 0.5], [half, half], [0, 1]], atol=1e-12)


def test_steps_of_the_virtual_transition_are_equal_angles() -> None:
    path = arc(random_units(5, 16, 0) * 7, random_units(5, 16, 1) * 3).at(even_fractions(6))
    steps = np.arccos(1 - cosine_distance(path[:, :-1], path[:, 1:]))
    np.testing.assert_allclose(steps, steps[:, :1].repeat(6, axis=1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=1e-12)


def test_the_walk_stays_finite_between_equal_and_between_opposite_meanings() -> None:
    here = np.array([[0.6, 0.8, 0.0]])
    same = slerp(here, here, even_fractions(4))
    np.testing.assert_allclose(same, np.repeat(here[:, None], 5, axis=1), atol=1e-12)
    opposite = slerp(here, -here, even_fractions(4))
    np.testing.assert_allclose(opposite[:, [0, -1]], np.stack([here, -here], axis=1), atol=1e-12)
    np.testing.assert_allclose((opposite[:, 2] * here).sum(), 0, atol=1e-12)


def test_cosine_distance_is_scale_free_bounded_and_one_for_zero_vectors() -> None:
    a, b = random_units(9, 4, 2), random_units(9, 4, 3)
    np.testing.assert_allclose(cosine_distance(5 * a, 0.1 * b), cosine_distance(a, b))
    assert ((cosine_distance(a, b) >= 0) & (cosine_distance(a, b) <= 2)).all()
    assert cosine_distance(a, -a) == pytest.approx(np.full(9, 2.0))
    assert cosine_distance(np.zeros((1, 4)), a[:1]) == 1.0


def test_the_interval_of_single_positions_is_students() -> None:
    values = np.array([[1.0], [2.0], [4.0], [5.0]])
    found = mean_interval(values, np.arange(4))
    margin = 3.182446 * float(np.std(values, ddof=1)) / 2
    assert found.low is not None and found.high is not None
    np.testing.assert_allclose([found.mean[0], found.low[0], found.high[0]], [3, 3 - margin, 3 + margin], rtol=1e-5)


def test_positions_of_one_example_do_not_count_as_independent() -> None:
    values = np.random.default_rng(0).normal(size=(6, 2))
    once = mean_interval(values, np.arange(6))
    copied = mean_interval(np.repeat(values, 10, axis=0), np.repeat(np.arange(6), 10))
    np.testing.assert_allclose(copied.mean, once.mean)
    np.testing.assert_allclose(copied.low, once.low)  # type: ignore[arg-type]
    naive = mean_interval(np.repeat(values, 10, axis=0), np.arange(60))
    assert naive.low is not None and once.low is not None
    assert (naive.low > once.low).all()


def test_a_single_example_has_no_interval() -> None:
    assert mean_interval(np.ones((3, 2)), np.zeros(3, dtype=int)).low is None


def test_bearings_give_the_deviation_without_the_vectors() -> None:
    rng = np.random.default_rng(4)
    factual, anchor, basis = rng.normal(size=(6, 5, 16)), rng.normal(size=(6, 16)), rng.normal(size=(6, 16))
    anchor[5] = -basis[5]  # opposite ends
    anchor[4] = 3 * basis[4]  # equal ends
    where = bearings(factual, anchor, basis)
    for fractions in (even_fractions(4), np.array([0.0, 0.1, 0.1, 0.7, 1.0])):
        expected = cosine_distance(factual, arc(anchor, basis).at(fractions))
        np.testing.assert_allclose(where.deviation(fractions), expected, atol=1e-9)
    np.testing.assert_allclose(1 - where.to_target, cosine_distance(factual, basis[:, None]), atol=1e-12)


def test_a_model_that_walks_the_arc_at_its_own_pace_is_calibrated_to_no_deviation() -> None:
    pace = np.array([0.0, 0.05, 0.1, 0.6, 1.0])
    anchor, basis = random_units(7, 12, 5), random_units(7, 12, 6)
    where = bearings(arc(anchor, basis).at(pace), anchor, basis)
    fractions = calibrated_fractions(where.progress())
    np.testing.assert_allclose(fractions, pace, atol=1e-9)
    np.testing.assert_allclose(where.deviation(fractions), 0, atol=1e-9)
    assert where.deviation(even_fractions(4)).max() > 0.05


def test_calibrated_fractions_never_go_back() -> None:
    fractions = calibrated_fractions(np.array([[0.0, 0.5, 0.3, 0.2, 0.9]]))
    assert (np.diff(fractions) >= 0).all()
    backwards = calibrated_fractions(np.array([[0.0, -0.2, 0.5, 1.0], [0.0, 0.4, 0.3, 1.0]]))  # means 0, 0.1, 0.4, 1
    np.testing.assert_allclose(backwards, [0, 0.1, 0.4, 1.0])
    np.testing.assert_allclose(fractions, [0, 1 / 3, 1 / 3, 1 / 3, 0.9])
