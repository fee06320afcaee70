"""How many examples are enough: when two halves of what was read rank the blocks alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from lsf.analysis.agreement import first_quarter, rank_correlation, shared_top
from lsf.analysis.criteria import CRITERIA
from lsf.analysis.policies import top_k
from lsf.analysis.result import Analysis

AGREEMENT = 0.95
"""Kendall's tau between the halves' rankings that must be exceeded."""
LEAST_EXAMPLES = 64
"""Examples read at least."""


@dataclass(frozen=True)
class Stability:
    """How far a sample already ranks the blocks as all examples do."""

    n_examples: int
    """Of the sample."""
    tau: float | None
    """Kendall's tau between its ranking and that of all examples, in [-1, 1]; None where one of them ranks nothing."""
    shared: float
    """Share of the first quarter of blocks that it has in common with all examples', in [0, 1]."""
    halves: float | None
    """Kendall's tau between two halves of the sample, which do not overlap; None where it is unknown."""
    settled: bool | None
    """Whether `--limit auto` would stop here; None where it does not look."""

    @property
    def agrees(self) -> bool:
        """True where the first quarter is that of all examples, and tau exceeds `AGREEMENT`."""
        return self.shared == 1.0 and self.tau is not None and self.tau > AGREEMENT


def stability(analysis: Analysis, criterion: str) -> tuple[Stability, ...]:
    """Compare what growing samples say of the blocks with what all examples say.

    The samples are parts of the whole, so the comparison ends in agreement by construction; the halves do not overlap.

    Returns:
        The samples, the smallest first, and all examples last; empty where none was recorded for this criterion.
    """
    samples = [sample for sample in analysis.growth or () if criterion in sample.scores]
    whole = [score for score in analysis.scores(criterion) if score is not None]
    n_blocks, n_examples = len(analysis.blocks), analysis.data.n_examples
    if not samples or len(whole) < n_blocks:
        return ()
    k = first_quarter(n_blocks)
    rows = [
        Stability(
            sample.n_examples,
            rank_correlation(sample.scores[criterion], whole, "kendall"),
            shared_top(sample.scores[criterion], whole, k),
            sample.halves.get(criterion),
            sample.settled.get(criterion),
        )
        for sample in samples
    ]
    if rows[-1].n_examples < n_examples and CRITERIA[criterion].needs != "kernel":  # whose last sample is the whole
        rows.append(Stability(n_examples, rank_correlation(whole, whole, "kendall"), 1.0, None, None))
    return tuple(rows)


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
