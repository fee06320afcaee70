"""How far two criteria rank the blocks alike: rank correlations, and what they share at the top."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from scipy import stats

from lsf.analysis.policies import top_k

CHANCE = 0.05
"""Share of unrelated pairs that lie beyond `chance_level`."""
LEAST_BLOCKS = 4
"""Below so many blocks no rank correlation is beyond chance."""
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
    """Return the size of a rank correlation that unrelated rankings exceed in one of twenty pairs.

    Student's t for Spearman's rho, the normal approximation for Kendall's tau; both without ties, and rough for few
    blocks.

    Returns:
        A number in (0, 1]; None below `LEAST_BLOCKS` blocks.
    """
    if n_blocks < LEAST_BLOCKS:
        return None
    if method == "spearman":
        t = float(stats.t.ppf(1 - CHANCE / 2, n_blocks - 2))
        return t / math.sqrt(n_blocks - 2 + t * t)
    spread = math.sqrt(2 * (2 * n_blocks + 5) / (9 * n_blocks * (n_blocks - 1)))
    return min(1.0, float(stats.norm.ppf(1 - CHANCE / 2)) * spread)


def first_quarter(n_blocks: int) -> int:
    """Return how many blocks the first quarter of a ranking holds, at least one."""
    return max(1, n_blocks // 4)


def shared_top(one: Sequence[float], other: Sequence[float], k: int) -> float:
    """Return the share of the k best blocks that two scores have in common, in [0, 1]."""
    return len(set(top_k(one, k)) & set(top_k(other, k))) / k
