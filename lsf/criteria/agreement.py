"""How far criteria rank the blocks alike, and how many examples are enough for a ranking."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float

from lsf.criteria.registry import CRITERIA, score_blocks
from lsf.criteria.result import Analysis, Sample, is_mark
from lsf.criteria.scores import Measurements

Scores = Sequence[float]


def top_k(scores: Scores, budget: int) -> tuple[int, ...]:
    """Tune the blocks of the greatest scores, anywhere."""
    ranked = sorted(range(len(scores)), key=lambda block: (scores[block], block), reverse=True)
    return tuple(sorted(ranked[:budget]))


CHANCE = 0.05
"""Share of unrelated pairs that lie beyond `chance_level`, at most."""
LEAST_BLOCKS = 5
"""Below so many blocks no rank correlation is beyond chance: of four, one order in twelve is the same or reversed."""
COUNTED = 8
"""Up to so many blocks every order is looked at."""
METHODS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"spearman": lambda *pair: scipy.stats.spearmanr(*pair), "kendall": lambda *pair: scipy.stats.kendalltau(*pair)}
)
"""Name of a rank correlation -> how it is taken; both in [-1, 1], tied scores share their mean rank (tau-b)."""


def rank_correlation(
    one: Sequence[float | None], other: Sequence[float | None], method: str = "spearman"
) -> float | None:
    """Return how alike two scores rank the blocks, in [-1, 1].

    Args:
        one: score per block.
        other: the same by another criterion.
        method: a key of `METHODS`.

    Returns:
        None where it is unknown: a score is missing, or one of both ranks nothing, since all its scores are equal.
    """
    if None in one or None in other or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    found = float(METHODS[method](one, other).statistic)
    return None if math.isnan(found) else max(-1.0, min(1.0, found))


def correlation_matrix(
    scores: Mapping[str, Sequence[float | None]], method: str = "spearman"
) -> list[list[float | None]]:
    """Return the rank correlation of each criterion with each, in the order of `scores`."""
    return [[rank_correlation(one, other, method) for other in scores.values()] for one in scores.values()]


def chance_level(n_blocks: int, method: str = "spearman") -> float | None:
    """Return the size of a rank correlation that unrelated rankings exceed in at most one of twenty pairs.

    Without ties. Up to `COUNTED` blocks by counting all orders. Above, for Spearman's rho, the least size it can have
    that meets this by the Edgeworth series of Best and Roberts (1975; up to 15 blocks the same as counting); for
    Kendall's tau the normal approximation, or the exact level where that falls short of it.

    Returns:
        A number in (0, 1); None below `LEAST_BLOCKS` blocks.
    """
    if n_blocks < LEAST_BLOCKS:
        return None
    if n_blocks <= COUNTED:
        return _counted_level(n_blocks, method)
    if method == "spearman":
        return _series_level(n_blocks)
    spread = math.sqrt(2 * (2 * n_blocks + 5) / (9 * n_blocks * (n_blocks - 1)))
    return max(_exact_tau_level(n_blocks), float(scipy.stats.norm.ppf(1 - CHANCE / 2)) * spread)


@cache
def _counted_level(n_blocks: int, method: str) -> float:
    """Return the least size that at most a share of `CHANCE` of all orders exceed."""
    orders = np.array(list(permutations(range(n_blocks))))
    if method == "spearman":
        off = ((orders - np.arange(n_blocks)) ** 2).sum(1)
        found = 1 - 6 * off / (n_blocks * (n_blocks**2 - 1))
    else:
        pairs = list(combinations(range(n_blocks), 2))
        found = sum(np.sign(orders[:, later] - orders[:, earlier]) for earlier, later in pairs) / len(pairs)
    sizes = np.sort(np.abs(found).round(9))
    return float(next(size for size in np.unique(sizes) if (sizes > size).mean() <= CHANCE))


@cache
def _series_level(n_blocks: int) -> float:
    """Return the least value of Spearman's rho that at most a share of `CHANCE` of unrelated pairs exceed in size.

    By the Edgeworth series of Best and Roberts (Applied Statistics 24, 377-379, 1975), good from about 8 blocks on; a
    value stands for half the distance to its neighbours.
    """
    n_steps, b = n_blocks * (n_blocks**2 - 1) // 6, 1 / n_blocks  # rho is 1 - 2 k / n_steps

    def share_reaching(k: int) -> float:
        x = (1 - (2 * k + 1) / n_steps) * math.sqrt(n_blocks - 1)
        y = x * x
        inner = 0.0879 + 0.0151 * b - y * (0.0072 - 0.0831 * b + y * b * (0.0131 - 4.6e-4 * y))
        outer = y * (-0.0758 + b * (0.1033 + 0.3932 * b) - y * b * inner)
        series = x * b * (0.2274 + b * (0.2531 + 0.1745 * b) + outer)
        return 2 * (series / math.exp(y / 2) + float(scipy.stats.norm.sf(x)))

    # The first that too many reach: only those that reach its greater neighbour exceed it.
    k = bisect_left(range(n_steps // 2), True, key=lambda k: share_reaching(k) > CHANCE)
    return 1 - 2 * k / n_steps


@cache
def _exact_tau_level(n_blocks: int) -> float:
    """Return the least size of Kendall's tau that at most a share of `CHANCE` of all orders exceed."""
    shares = np.ones(1)  # of the orders of so many blocks, by their number of inversions
    for size in range(2, n_blocks + 1):
        shares = np.convolve(shares, np.ones(size) / size)
    sizes = np.abs(1 - 2 * np.arange(len(shares)) / (len(shares) - 1)).round(9)
    return float(next(size for size in np.unique(sizes) if shares[sizes > size].sum() <= CHANCE))


def first_quarter(n_blocks: int) -> int:
    """Return how many blocks the first quarter of a ranking holds, at least one."""
    return max(1, n_blocks // 4)


def shared_top(one: Sequence[float], other: Sequence[float], k: int) -> float:
    """Return the share of the k best blocks that two scores have in common, in [0, 1]."""
    return len(set(top_k(one, k)) & set(top_k(other, k))) / k


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
        The samples, the smallest first, and all examples last; one in which a score overflowed is left out; empty where
        none was recorded for this criterion.
    """
    samples = [
        (sample, [float(score) for score in scores if score is not None and math.isfinite(score)])
        for sample in analysis.growth or ()
        if (scores := sample.scores.get(criterion)) is not None
    ]
    whole = [score for score in analysis.scores(criterion) if score is not None]
    n_blocks, n_examples = len(analysis.blocks), analysis.data.n_examples
    samples = [(sample, scores) for sample, scores in samples if len(scores) == n_blocks]
    if not samples or len(whole) < n_blocks:
        return ()
    k = first_quarter(n_blocks)
    rows = [
        Stability(
            sample.n_examples,
            rank_correlation(scores, whole, "kendall"),
            shared_top(scores, whole, k),
            sample.halves.get(criterion),
            sample.settled.get(criterion),
        )
        for sample, scores in samples
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
