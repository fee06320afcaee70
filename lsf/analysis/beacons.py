"""Which training examples to keep or to see more often, by how far each is from its target in the last latent space.

Inspired by "Semantics as beacons" (Wang & Li 2024, arXiv 2405.18292), whose formulas are not available to us: all
formulas here are our choice. A random subset of the same size is the control. `drawn` weighs once, from the base
model's states, for any trainer; `tune --reweight-tau` weighs the loss, anew at every pass (`training/reweighting`).
"""

import math

import numpy as np
from jaxtyping import Float, Int

from lsf.errors import BadInputError


def filtered(distance: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " count"]:
    """Return examples chosen greedily for a small mean and a large variance of their distance.

    The nearest example comes first; each further one is that which makes variance minus mean of the chosen greatest.

    Args:
        distance: 1 - cos between an example's last state and its target, in [0, 2].
        count: how many are kept.

    Returns:
        Indices in the order they were chosen.

    Raises:
        BadInputError: more are asked for than there are, or none.
    """
    _check(len(distance), count)
    chosen = [int(np.argmin(distance))]
    left = np.ones(len(distance), bool)
    left[chosen[0]] = False
    total, squares = float(distance[chosen[0]]), float(distance[chosen[0]]) ** 2
    while len(chosen) < count:
        size = len(chosen) + 1
        mean = (total + distance) / size
        variance = (squares + distance**2) / size - mean**2
        best = int(np.argmax(np.where(left, variance - mean, -np.inf)))
        chosen.append(best)
        left[best] = False
        total, squares = total + float(distance[best]), squares + float(distance[best]) ** 2
    return np.array(chosen)


def weights(distance: Float[np.ndarray, " n"], tau: float) -> Float[np.ndarray, " n"]:
    """Return softmax(distance / tau) x n: mean 1, the further an example is from its target the heavier.

    Raises:
        BadInputError: tau is not a number above zero.
    """
    if not (math.isfinite(tau) and tau > 0):
        raise BadInputError(f"tau is {tau}; a number above zero was expected.")
    raised = np.exp((distance - distance.max()) / tau)
    return len(distance) * raised / raised.sum()


def drawn(distance: Float[np.ndarray, " n"], count: int, tau: float, seed: int) -> Int[np.ndarray, " count"]:
    """Return examples drawn with replacement, each as often as its weight says: re-weighting for any trainer."""
    _check(max(len(distance), count), count)
    share = weights(distance, tau) / len(distance)
    return np.random.default_rng(seed).choice(len(distance), count, p=share)


def control(n: int, count: int, seed: int) -> Int[np.ndarray, " count"]:
    """Return a random subset of the same size."""
    _check(n, count)
    return np.random.default_rng(seed).permutation(n)[:count]


def fell(before: Float[np.ndarray, " n"], after: Float[np.ndarray, " n"]) -> float:
    """Return the share of examples whose distance fell, in [0, 1]."""
    return float(np.mean(after < before))


def _check(n: int, count: int) -> None:
    if not 1 <= count <= n:
        raise BadInputError(f"{count} examples are to be kept; the data has {n}, so 1 to {n} can be.")
