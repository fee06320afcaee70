"""How far two criteria rank the blocks alike: rank correlations, and what they share at the top."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations, permutations
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from lsf.analysis.policies import top_k

CHANCE = 0.05
"""Share of unrelated pairs that lie beyond `chance_level`, at most."""
LEAST_BLOCKS = 5
"""Below so many blocks no rank correlation is beyond chance: of four, one order in twelve is the same or reversed."""
COUNTED = 8
"""Up to so many blocks every order is looked at."""
METHODS: Mapping[str, Callable[..., Any]] = MappingProxyType({"spearman": stats.spearmanr, "kendall": stats.kendalltau})
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

    Without ties. Up to `COUNTED` blocks by counting all orders; above, Student's t for Spearman's rho and the normal
    approximation for Kendall's tau.

    Returns:
        A number in (0, 1); None below `LEAST_BLOCKS` blocks.
    """
    if n_blocks < LEAST_BLOCKS:
        return None
    if n_blocks <= COUNTED:
        return _counted_level(n_blocks, method)
    if method == "spearman":
        t = float(stats.t.ppf(1 - CHANCE / 2, n_blocks - 2))
        return t / math.sqrt(n_blocks - 2 + t * t)
    spread = math.sqrt(2 * (2 * n_blocks + 5) / (9 * n_blocks * (n_blocks - 1)))
    return min(1.0, float(stats.norm.ppf(1 - CHANCE / 2)) * spread)


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


def first_quarter(n_blocks: int) -> int:
    """Return how many blocks the first quarter of a ranking holds, at least one."""
    return max(1, n_blocks // 4)


def shared_top(one: Sequence[float], other: Sequence[float], k: int) -> float:
    """Return the share of the k best blocks that two scores have in common, in [0, 1]."""
    return len(set(top_k(one, k)) & set(top_k(other, k))) / k
