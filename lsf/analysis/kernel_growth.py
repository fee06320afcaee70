"""Growing samples of tangent kernels: what fewer examples would have said of the blocks."""

import numpy as np
from jaxtyping import Float

from lsf.analysis.agreement import rank_correlation
from lsf.analysis.criteria import score_blocks
from lsf.analysis.growth import Sample, is_mark
from lsf.analysis.measurements import Measurements

KERNEL_EXAMPLES = 64
"""Examples whose tangent kernel is taken, at most: the first of the data."""
LEAST = 8
"""Examples of the smallest sample: four in each half."""


def kernel_samples(kernels: Float[np.ndarray, "blocks examples examples"], criteria: tuple[str, ...]) -> list[Sample]:
    """Return what the first examples alone say, and how far two halves of them agree, up to all of them.

    Args:
        kernels: K_b, examples in the order of the data.
        criteria: those that need kernels.
    """
    n = kernels.shape[1]
    sizes = [size for size in range(LEAST, n) if is_mark(size)] + [n] * (n >= LEAST)
    found = []
    for size in sizes if criteria else []:
        scores = _scores(kernels[:, :size, :size], criteria)
        parts = [_scores(kernels[:, first:size:2, first:size:2], criteria) for first in (0, 1)]
        halves = {name: rank_correlation(parts[0][name], parts[1][name], "kendall") for name in criteria}
        found.append(Sample(size, scores, halves, dict.fromkeys(criteria)))
    return found


def _scores(kernels: np.ndarray, criteria: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    scored = score_blocks(criteria, Measurements(len(kernels), kernels=kernels))
    return {name: tuple(score.tolist()) for name, score in scored.items() if score is not None}
