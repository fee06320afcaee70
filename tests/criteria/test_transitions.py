"""The virtual transition and the deviation, by hand and by invariants."""

import numpy as np

from lsf.criteria.transitions import arc, calibrated_fractions, even_fractions, mean_interval, unit


def random_units(n: int, width: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, width)))


def test_a_quarter_turn_is_walked_evenly() -> None:
    path = arc(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).at(np.array([0.0, 1 / 3, 0.5, 1.0]))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(path[0], [[1, 0], [np.sqrt(0.75), 0.5], [half, half], [0, 1]], atol=1e-12)


def test_steps_of_the_virtual_transition_are_equal_angles() -> None:
    path = arc(random_units(5, 16, 0) * 7, random_units(5, 16, 1) * 3).at(even_fractions(6))
    steps = np.arccos((path[:, :-1] * path[:, 1:]).sum(axis=-1))
    np.testing.assert_allclose(steps, steps[:, :1].repeat(6, axis=1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=1e-12)


def test_the_walk_stays_finite_between_equal_and_between_opposite_meanings() -> None:
    here = np.array([[0.6, 0.8, 0.0]])
    same = arc(here, here).at(even_fractions(4))
    np.testing.assert_allclose(same, np.repeat(here[:, None], 5, axis=1), atol=1e-12)
    opposite = arc(here, -here).at(even_fractions(4))
    np.testing.assert_allclose(opposite[:, [0, -1]], np.stack([here, -here], axis=1), atol=1e-12)
    np.testing.assert_allclose((opposite[:, 2] * here).sum(), 0, atol=1e-12)


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


def test_calibrated_fractions_never_go_back() -> None:
    fractions = calibrated_fractions(np.array([[0.0, 0.5, 0.3, 0.2, 0.9]]))
    assert (np.diff(fractions) >= 0).all()
    backwards = calibrated_fractions(np.array([[0.0, -0.2, 0.5, 1.0], [0.0, 0.4, 0.3, 1.0]]))  # means 0, 0.1, 0.4, 1
    np.testing.assert_allclose(backwards, [0, 0.1, 0.4, 1.0])
    np.testing.assert_allclose(fractions, [0, 1 / 3, 1 / 3, 1 / 3, 0.9])
