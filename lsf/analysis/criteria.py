"""Criteria: one score per block, higher = tune it first; each a pure function of recorded measurements."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from lsf.analysis.measurements import Measurements
from lsf.registry import Registry

Scores = Float[np.ndarray, " blocks"]
Need = Literal["nothing", "forward", "backward"]
OURS = "ours, after arXiv 2406.11753"


@dataclass(frozen=True)
class Criterion:
    """One rule that scores blocks."""

    name: str
    """Key in files and options."""
    label: str
    """Short name on charts."""
    meaning: str
    """One sentence: what a high score says."""
    unit: str
    """Unit and range of the score."""
    needs: Need
    """What has to be measured for it."""
    source: str
    """Who proposed it."""
    score: Callable[[Measurements], Scores | None]
    """Measurements -> one score per block; None where what it needs was not measured."""


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

    For each a the best c and t are linear; a itself is found on a grid over [0, 10] refined by bounded minimisation.
    """
    values = target_deviation[1:]
    depth = np.arange(1, len(values) + 1, dtype=np.float64)

    def fit(exponent: float) -> Scores:
        shape = np.stack([depth**-exponent, np.ones_like(depth)], axis=1)
        return shape @ np.linalg.lstsq(shape, values, rcond=None)[0]

    def error(exponent: float) -> float:
        return float(((values - fit(exponent)) ** 2).sum())

    grid = np.linspace(0.0, 10.0, 201)
    best = grid[np.argmin([error(exponent) for exponent in grid])]
    near: Any = minimize_scalar(error, bounds=(max(0.0, best - 0.05), min(10.0, best + 0.05)), method="bounded")
    return fit(float(near.x) if near.fun <= error(best) else best)


def block_influence(m: Measurements) -> Scores | None:
    """Return 1 - mean cos(h_b, h_(b+1)): how much block b turns the residual stream."""
    return None if m.neighbour_cosine is None else 1.0 - m.neighbour_cosine


def gradient_norm(m: Measurements) -> Scores | None:
    """Return the norm of the block's gradient of the mean loss, all its tensors taken as one vector."""
    if m.gradients is None:
        return None
    return np.array([np.linalg.norm(block.gradient_norms) for block in m.gradients])


def relative_gradient(m: Measurements) -> Scores | None:
    """Return the mean over the block's tensors of gradient norm / weight norm; tensors that are zero are left out."""
    if m.gradients is None:
        return None
    ratios = [
        [g / w for g, w in zip(block.gradient_norms, block.weight_norms, strict=True) if w > 0] for block in m.gradients
    ]
    return np.array([np.mean(ratio) if ratio else 0.0 for ratio in ratios])


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


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    (
        Criterion(
            "deviation",
            "Deviation",
            "The state leaving the block is far from the virtual transition.",
            "1 - cos, 0 to 2",
            "forward",
            OURS,
            deviation,
        ),
        Criterion(
            "deviation_growth",
            "Deviation growth",
            "The block moves the state away from the virtual transition.",
            "1 - cos, 0 to 2",
            "forward",
            OURS,
            deviation_growth,
        ),
        Criterion(
            "law_headroom",
            "Headroom over the law",
            "The block leaves the state further from its target than the model's own power law over depth promises.",
            "1 - cos, 0 to 2",
            "forward",
            OURS,
            law_headroom,
        ),
        Criterion(
            "reduction",
            "Reduction",
            "The block already brings the state nearer to its target.",
            "1 - cos, -2 to 2",
            "forward",
            OURS,
            reduction,
        ),
        Criterion(
            "block_influence",
            "Block influence",
            "The block turns the residual stream strongly.",
            "1 - cos, 0 to 2",
            "forward",
            "ShortGPT, arXiv 2403.03853",
            block_influence,
        ),
        Criterion(
            "gradient_norm",
            "Gradient norm",
            "The loss reacts strongly to the block's weights.",
            "nats per unit of weight",
            "backward",
            "common practice",
            gradient_norm,
        ),
        Criterion(
            "relative_gradient",
            "Relative gradient",
            "The loss reacts strongly to a relative change of the block's weights.",
            "nats per squared unit of weight",
            "backward",
            "Auto-RGN, arXiv 2210.11466",
            relative_gradient,
        ),
        Criterion("first", "First", "Control: the block lies near the input.", "rank", "nothing", "control", first),
        Criterion("last", "Last", "Control: the block lies near the output.", "rank", "nothing", "control", last),
        Criterion("middle", "Middle", "Control: the block lies mid-way.", "blocks", "nothing", "control", middle),
        Criterion("random", "Random", "Control: drawn by lot from the seed.", "0 to 1", "nothing", "control", random),
    ),
)


def score_blocks(names: tuple[str, ...], measured: Measurements) -> dict[str, Scores | None]:
    """Score every block by the named criteria.

    Raises:
        UnknownNameError: a name that is no criterion.
    """
    return {name: CRITERIA[name].score(measured) for name in names}
