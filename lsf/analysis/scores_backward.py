"""Scores of blocks from gradients, from the weights' spectra, and from short runs: pure functions of measurements."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lsf.analysis.measurements import Measurements, Spectrum

Scores = Float[np.ndarray, " blocks"]
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
