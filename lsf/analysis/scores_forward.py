"""Scores of blocks from one forward pass, and from position alone: pure functions of measurements."""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from lsf.analysis.measurements import Measurements

Scores = Float[np.ndarray, " blocks"]
ALIKE = 1e-6
"""States differ by rounding alone where no entry is farther from the mean than so much of the largest entry."""


def deviation(m: Measurements) -> Scores | None:
    """Return D_(b+1): how far the state that leaves block b is from the virtual transition."""
    return None if m.deviation is None else m.deviation[1:]


def deviation_growth(m: Measurements) -> Scores | None:
    """Return max(0, D_(b+1) - D_b): the deviation block b adds."""
    return None if m.deviation is None else np.maximum(0.0, np.diff(m.deviation))


def reduction(m: Measurements) -> Scores | None:
    """Return T_b - T_(b+1): how much nearer to the target block b already brings the state; may be negative."""
    return None if m.target_deviation is None else -np.diff(m.target_deviation)


def law_headroom(m: Measurements) -> Scores | None:
    """Return max(0, T_(b+1) - the model's own power law at b+1): what block b would win by keeping the law.

    Misleads on models of one to three blocks, where the law passes through every point and the headroom is zero.
    """
    if m.target_deviation is None:
        return None
    return np.maximum(0.0, m.target_deviation[1:] - power_law(m.target_deviation))


def power_law(target_deviation: Float[np.ndarray, " states"]) -> Scores:
    """Fit T_l = c l^-a + t over l = 1 .. L by least squares with a >= 0, and return the fit at l = 1 .. L.

    For each a the best c and t are those of a straight line through (l^-a, T_l); a itself is found on a grid over
    [0, 10] refined by bounded minimisation.
    """
    values = target_deviation[1:]
    depth = np.arange(1, len(values) + 1, dtype=np.float64)
    centred = values - values.mean()

    def fits(exponents: Float[np.ndarray, " exponents"]) -> Float[np.ndarray, "exponents blocks"]:
        shape = depth ** -exponents[:, None]
        shape -= shape.mean(axis=1, keepdims=True)
        spread = (shape**2).sum(axis=1)
        slope = np.divide(shape @ centred, spread, out=np.zeros_like(spread), where=spread > 1e-20)  # flat at a = 0
        return values.mean() + slope[:, None] * shape

    def errors(exponents: Float[np.ndarray, " exponents"]) -> Float[np.ndarray, " exponents"]:
        return ((values - fits(exponents)) ** 2).sum(axis=1)

    grid = np.linspace(0.0, 10.0, 201)
    on_grid = errors(grid)
    best = grid[np.argmin(on_grid)]
    bounds = (max(0.0, best - 0.05), min(10.0, best + 0.05))
    near: Any = minimize_scalar(lambda exponent: errors(np.array([exponent]))[0], bounds=bounds, method="bounded")
    return fits(np.array([near.x if near.fun <= on_grid.min() else best]))[0]


def semantic_loss(m: Measurements) -> Scores | None:
    """Return S_(b+1): cross-entropy of the softmax over semantic similarities at the target, as block b leaves it."""
    return None if m.semantic_loss is None else m.semantic_loss[1:]


def block_influence(m: Measurements) -> Scores | None:
    """Return 1 - mean cos(h_b, h_(b+1)): how much block b turns the residual stream."""
    return None if m.neighbour_cosine is None else 1.0 - m.neighbour_cosine


def cka(m: Measurements) -> Scores | None:
    """Return 1 - linear CKA(h_b, h_(b+1)) over positions: how much block b changes which positions are alike.

    CKA(X, Y) = <K, L> / (|K| |L|) with centred Gram matrices K, L; NaN, unknown, where the positions are all alike in a
    state, within rounding. Source: Kornblith et al., arXiv 1905.00414.
    """
    if m.sampled_states is None:
        return None
    grams = []
    for state in np.moveaxis(m.sampled_states.astype(np.float64), 1, 0):
        centred = state - state.mean(axis=0)
        gram = centred @ centred.T
        alike = np.abs(centred).max() <= ALIKE * np.abs(state).max()
        grams.append(np.full_like(gram, np.nan) if alike else gram / np.linalg.norm(gram))
    return np.array([1.0 - (a * b).sum() for a, b in pairwise(grams)])


def first(m: Measurements) -> Scores:
    """Return L - b: the shallowest blocks first."""
    return np.arange(m.n_blocks, 0, -1, dtype=np.float64)


def last(m: Measurements) -> Scores:
    """Return b + 1: the deepest blocks first."""
    return np.arange(1, m.n_blocks + 1, dtype=np.float64)


def middle(m: Measurements) -> Scores:
    """Return minus the distance to the middle of the stack."""
    return 0.0 - np.abs(np.arange(m.n_blocks) - (m.n_blocks - 1) / 2)


def random(m: Measurements) -> Scores:
    """Return a uniform random score per block, drawn from the seed."""
    return np.random.default_rng(m.seed).random(m.n_blocks)
