"""How many examples are enough: when two halves of what was read rank the blocks alike."""

from collections.abc import Sequence

from lsf.analysis.agreement import first_quarter, rank_correlation
from lsf.analysis.policies import top_k

AGREEMENT = 0.95
"""Kendall's tau between the halves' rankings that must be exceeded."""
LEAST_EXAMPLES = 64
"""Examples read at least."""


def settled(one_half: Sequence[float], other_half: Sequence[float]) -> bool:
    """Say whether a ranking of blocks has settled.

    It has when both halves put the same blocks into the first quarter (at least one block), and Kendall's tau between
    their scores exceeds `AGREEMENT`.

    Args:
        one_half: score per block, from every other batch.
        other_half: the same from the batches between.
    """
    k = first_quarter(len(one_half))
    if top_k(one_half, k) != top_k(other_half, k):
        return False
    if len(one_half) == 1:
        return True
    tau = rank_correlation(one_half, other_half, "kendall")
    return tau is not None and tau > AGREEMENT
