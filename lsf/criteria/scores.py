"""Scores of blocks: pure functions of measurements of forward passes, gradients and spectra, and of position.

What was measured comes first: the one record that every score is a function of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float


@dataclass(frozen=True)
class BlockGradient:
    """Gradient of the mean loss over the probed positions with respect to one block."""

    gradient_norms: tuple[float, ...]
    """Euclidean norm of the gradient of each tensor of the block, in the model's order."""
    weight_norms: tuple[float, ...]
    """Euclidean norm of each of these tensors."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one weight matrix."""

    values: Float[np.ndarray, " rank"]
    """In descending order."""
    shape: tuple[int, int]
    """Of the matrix."""


@dataclass(frozen=True)
class Measurements:
    """Everything criteria are pure functions of; what was not measured is None."""

    n_blocks: int
    """L."""
    seed: int = 0
    """Of the random control."""
    deviation: Float[np.ndarray, " states"] | None = None
    """D_l."""
    target_deviation: Float[np.ndarray, " states"] | None = None
    """T_l."""
    neighbour_cosine: Float[np.ndarray, " blocks"] | None = None
    """Mean over positions of cos(h_b, h_(b+1))."""
    semantic_loss: Float[np.ndarray, " states"] | None = None
    """S_l, nats."""
    sampled_states: Float[np.ndarray, "positions states width"] | None = None
    """Raw states at positions of the first examples, at most `columns.SAMPLED_POSITIONS`."""
    mean_path: Float[np.ndarray, "states width"] | None = None
    """Mean over positions of raw states h_0 .. h_L."""
    ablation_rise: Float[np.ndarray, " blocks"] | None = None
    """Rise of the mean loss over the probed positions where block b's output is replaced by its input, nats."""
    gradients: tuple[BlockGradient, ...] | None = None
    """One per block, block 0 first."""
    fisher: Float[np.ndarray, " blocks"] | None = None
    """Mean over a block's parameters and the examples of the squared per-example gradient."""
    kernels: Float[np.ndarray, "blocks examples examples"] | None = None
    """K_b: inner products of the probe examples' loss gradients with respect to block b."""
    first_order_drop: Float[np.ndarray, " blocks"] | None = None
    """-sum(g1 . dw): what one trial step of the block promises to first order, nats."""
    spectra: tuple[tuple[Spectrum, ...], ...] | None = None
    """Per block the spectra of its matrices."""
    probe_drop: Float[np.ndarray, " blocks"] | None = None
    """Drop of the validation loss after a few real steps on the block alone, nats."""


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

    Misleads on models of one or two blocks, where the law passes through every point and the headroom is zero.
    """
    if m.target_deviation is None:
        return None
    return np.maximum(0.0, m.target_deviation[1:] - power_law(m.target_deviation))


def power_law(target_deviation: Float[np.ndarray, " states"]) -> Scores:
    """Fit T_l = c l^-a + t over l = 1 .. L by least squares with a >= 0, and return the fit at l = 1 .. L.

    For each a the best c and t are those of a straight line through (l^-a, T_l); a itself is found on a grid over
    [0, 10] refined by bounded minimisation. At a = 0 stands the law's limit, c log l + t: c grows without bound there.
    """
    values = target_deviation[1:]
    depth = np.log(np.arange(1, len(values) + 1, dtype=np.float64))
    centred = values - values.mean()

    def fits(exponents: Float[np.ndarray, " exponents"]) -> Float[np.ndarray, "exponents blocks"]:
        scale = np.maximum(exponents, np.finfo(np.float64).tiny)[:, None]
        shape = -np.expm1(-scale * depth) / scale  # (1 - l^-a) / a, which is log l at a = 0
        shape -= shape.mean(axis=1, keepdims=True)
        spread = (shape**2).sum(axis=1)
        slope = np.divide(shape @ centred, spread, out=np.zeros_like(spread), where=spread > 0)
        return values.mean() + slope[:, None] * shape

    def errors(exponents: Float[np.ndarray, " exponents"]) -> Float[np.ndarray, " exponents"]:
        return ((values - fits(exponents)) ** 2).sum(axis=1)

    grid = np.linspace(0.0, 10.0, 201)
    on_grid = errors(grid)
    best = grid[np.argmin(on_grid)]
    bounds = (max(0.0, best - 0.05), min(10.0, best + 0.05))
    near: Any = scipy.optimize.minimize_scalar(
        lambda exponent: errors(np.array([exponent]))[0], bounds=bounds, method="bounded"
    )
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


def polyline(m: Measurements) -> Scores | None:
    """Return the distance at which Ramer-Douglas-Peucker would drop state b+1 from the mean path of hidden states.

    The algorithm keeps a path's ends and, between them, the point farthest from their chord where it lies beyond a
    tolerance; then the same on both sides of it. A point is thus dropped at its own distance, or already where one that
    was split at before it is. The last state is an end, which no tolerance drops: it has the greatest of the others'
    distances.

    Source: after RDP-LoRA, arXiv 2604.19321.
    """
    if m.mean_path is None:
        return None
    path = m.mean_path.astype(np.float64)
    dropped = np.zeros(len(path))
    spans = [(0, len(path) - 1, np.inf)]
    while spans:
        start, end, bound = spans.pop()
        if end - start < 2:
            continue
        inner, chord = path[start + 1 : end] - path[start], path[end] - path[start]
        along = np.clip(inner @ chord / max(float(chord @ chord), np.finfo(np.float64).tiny), 0.0, 1.0)
        distances = np.linalg.norm(inner - along[:, None] * chord, axis=1)
        turn = start + 1 + int(distances.argmax())
        dropped[turn] = min(bound, distances.max())
        spans += [(start, turn, dropped[turn]), (turn, end, dropped[turn])]
    dropped[-1] = dropped.max()
    return dropped[1:]


def ablation(m: Measurements) -> Scores | None:
    """Return the rise of the loss where block b is bypassed: how much the model needs it; may be negative."""
    return m.ablation_rise


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


NTK_HORIZON = 300.0
"""T of `ntk`, in steps."""


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


def fisher(m: Measurements) -> Scores | None:
    """Return the mean over the block's parameters of the empirical Fisher: squared per-example gradients."""
    return m.fisher


def ntk(m: Measurements, horizon: float = NTK_HORIZON) -> Scores | None:
    """Return kernel flow: the share of the training signal block b can fit at its own stable rate in T steps.

    With eigenpairs (lambda_i, u_i) of K_b: 1/N sum_i (u_i . 1)^2 (1 - exp(-T lambda_i / lambda_max)), T = 300, in
    [0, 1]. Known to mislead where kernels saturate: when every block can fit, it does not tell them apart.
    """
    if m.kernels is None:
        return None
    scores = []
    for kernel in m.kernels:
        values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
        values = np.clip(values, 0.0, None)
        if values[-1] == 0:
            scores.append(0.0)
            continue
        fitted = 1.0 - np.exp(-horizon * values / values[-1])
        scores.append(float((vectors.sum(axis=0) ** 2 * fitted).sum() / len(kernel)))
    return np.array(scores)


def stiffness(m: Measurements) -> Scores | None:
    """Return the mean cosine between two examples' loss gradients in the block: -1 to 1.

    Source: Fort et al., arXiv 1901.09491, there of the whole model.
    """
    return _mean_over_pairs(m, lambda cosine: cosine)


def alignment(m: Measurements) -> Scores | None:
    """Return the mean squared cosine between two examples' loss gradients in the block: 0 to 1.

    With N examples, at most 64, whose gradients are not zero it is (N / r - 1) / (N - 1), r being the effective number
    of directions among them, which is the participation ratio of the kernel of unit gradients. Opposite gradients share
    their direction: of two classes, each pushes the other's answer away.
    """
    return _mean_over_pairs(m, np.square)


def _mean_over_pairs(m: Measurements, of: Callable[[np.ndarray], np.ndarray]) -> Scores | None:
    """Return the mean of a function of the cosines of all pairs; 0 for an example that the block does nothing to."""
    if m.kernels is None or m.kernels.shape[1] < 2:
        return None
    lengths = np.sqrt(np.clip(np.diagonal(m.kernels, axis1=1, axis2=2), 0.0, None))
    scale = lengths[:, :, None] * lengths[:, None, :]
    cosines = np.divide(m.kernels, scale, out=np.zeros_like(m.kernels), where=scale > 0)
    pairs = ~np.eye(m.kernels.shape[1], dtype=bool)
    return of(cosines[:, pairs]).mean(axis=1)


def first_order_drop(m: Measurements) -> Scores | None:
    """Return -sum(g1 . dw): what one trial AdamW step of the block promises, by the gradient after it."""
    return m.first_order_drop


def snr(m: Measurements) -> Scores | None:
    """Return the median over the block's matrices of signal to noise among singular values.

    sigma = IQR(S) / 1.349, eps = sigma (1 + sqrt(min/max dim)); sum of S > eps, over the sum of the others, over max S.
    Where no value lies below eps the smallest one stands for the noise (our choice).

    Source: Spectrum, arXiv 2406.06623.
    """
    if m.spectra is None:
        return None
    return np.array([np.median([_signal_to_noise(spectrum) for spectrum in block]) for block in m.spectra])


def _signal_to_noise(spectrum: Spectrum) -> float:
    values = spectrum.values.astype(np.float64)
    low, high = np.percentile(values, [25, 75])
    threshold = (high - low) / 1.349 * (1.0 + np.sqrt(min(spectrum.shape) / max(spectrum.shape)))
    noise = values[values <= threshold].sum() or values[-1]
    return float(values[values > threshold].sum() / max(noise, 1e-12) / max(values[0], 1e-12))


def condition(m: Measurements) -> Scores | None:
    """Return minus the mean of max S / (min S + 1e-8) over the block's matrices: well-conditioned blocks first."""
    if m.spectra is None:
        return None
    return np.array([-np.mean([s.values[0] / (s.values[-1] + 1e-8) for s in block]) for block in m.spectra])


def probe(m: Measurements) -> Scores | None:
    """Return the drop of the validation loss after a few real steps on block b alone, same start, same data."""
    return m.probe_drop
