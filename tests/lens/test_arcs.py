"""Projections onto arcs, taken with the readings in float64 (CPU) and float32 (accelerators)."""

import numpy as np
import pytest
import torch

import lsf.lens.semantics
from lsf.criteria.transitions import ArcProjections, arc, calibrated_fractions, even_fractions, unit
from lsf.lens.semantics import projections


def arc_projections(factual: np.ndarray, anchor: np.ndarray, basis: np.ndarray) -> ArcProjections:
    found = projections(*(torch.from_numpy(part) for part in (factual, anchor, basis)))
    return ArcProjections(**{name: value.double().numpy() for name, value in found.items()})


def cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 1.0 - np.clip((unit(a) * unit(b)).sum(axis=-1), -1.0, 1.0)


def random_vectors(n: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width))


@pytest.fixture(params=[torch.float64, torch.float32], ids=["as on a CPU", "as on an accelerator"])
def error(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(lsf.lens.semantics, "exact", lambda value: value.to(request.param))
    return 1e-9 if request.param == torch.float64 else 2e-6


def test_projections_give_the_deviation_without_the_vectors(error: float) -> None:
    rng = np.random.default_rng(4)
    factual, anchor, basis = rng.normal(size=(6, 5, 16)), random_vectors(6, 16, 1), random_vectors(6, 16, 2)
    anchor[5] = -basis[5]  # opposite ends
    anchor[4] = 3 * basis[4]  # equal ends
    where = arc_projections(factual, anchor, basis)
    for fractions in (even_fractions(4), np.array([0.0, 0.1, 0.1, 0.7, 1.0])):
        expected = cosine_distance(factual, arc(anchor, basis).at(fractions))
        np.testing.assert_allclose(where.deviation(fractions), expected, atol=error)
    np.testing.assert_allclose(1 - where.to_target, cosine_distance(factual, basis[:, None]), atol=error)


def test_small_angles_keep_their_digits(error: float) -> None:
    start = random_vectors(4, 12, 3)
    aside = random_vectors(4, 12, 4)
    where = arc_projections(start[:, None], start, start + 1e-3 * aside)
    exact = arc(start, start + 1e-3 * aside).angle
    np.testing.assert_allclose(where.angle, exact, rtol=2e-3 if error > 1e-8 else 1e-6)


def test_a_state_that_is_zero_is_at_right_angles_to_everything(error: float) -> None:
    where = arc_projections(np.zeros((1, 2, 8)), random_vectors(1, 8, 5), random_vectors(1, 8, 6))
    np.testing.assert_array_equal(where.deviation(even_fractions(1)), 1.0)


def test_a_model_that_walks_the_arc_at_its_own_pace_is_calibrated_to_no_deviation(error: float) -> None:
    pace = np.array([0.0, 0.05, 0.1, 0.6, 1.0])
    anchor, basis = unit(random_vectors(7, 12, 5)), unit(random_vectors(7, 12, 6))
    where = arc_projections(arc(anchor, basis).at(pace), anchor, basis)
    fractions = calibrated_fractions(where.progress())
    np.testing.assert_allclose(fractions, pace, atol=1e-9 if error < 1e-8 else 1e-3)
    np.testing.assert_allclose(where.deviation(fractions), 0, atol=error)
    assert where.deviation(even_fractions(4)).max() > 0.05
