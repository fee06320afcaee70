"""Means over positions with an interval over examples."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

CONFIDENCE = 0.95
"""Of every interval shown."""


@dataclass(frozen=True)
class Interval:
    """A mean per state with its 95 % interval."""

    mean: Float[np.ndarray, " states"]
    """Mean over positions."""
    low: Float[np.ndarray, " states"] | None
    """Lower end; None where there is a single example."""
    high: Float[np.ndarray, " states"] | None
    """Upper end; None where there is a single example."""


def mean_interval(values: Float[np.ndarray, "positions states"], examples: Int[np.ndarray, " positions"]) -> Interval:
    """Return the mean over positions and its 95 % interval over examples.

    Positions of one example are not independent, so the spread is taken over examples: the mean is the ratio of two
    sums over examples, its variance n/(n-1) sum_i (sum of example i - m_i mean)^2 / (sum_i m_i)^2 with m_i positions in
    example i (the ratio estimator's; with one position each, the ordinary standard error), and the interval Student's t
    with n-1 degrees of freedom.

    Args:
        values: one number per position and state.
        examples: which example each position belongs to.
    """
    mean = values.mean(axis=0)
    groups, member = np.unique(examples, return_inverse=True)
    n = len(groups)
    if n < 2:
        return Interval(mean, None, None)
    residuals = np.zeros((n, values.shape[1]))
    np.add.at(residuals, member, values - mean)
    standard_error = np.sqrt(n / (n - 1) * (residuals**2).sum(axis=0)) / len(values)
    margin = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * standard_error
    return Interval(mean, mean - margin, mean + margin)
