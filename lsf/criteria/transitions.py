"""Factual and virtual transitions, the straight path on the sphere between two meanings, and means with intervals."""

from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float, Int

Vectors = Float[np.ndarray, "*batch width"]


def unit(vectors: Vectors) -> Float[np.ndarray, "*batch width"]:
    """Return directions: each vector divided by its Euclidean norm, in float64; a zero vector stays zero."""
    exact = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(exact, axis=-1, keepdims=True)
    return np.divide(exact, norms, out=np.zeros_like(exact), where=norms > 0)


@dataclass(frozen=True)
class Arc:
    """The great circle from one direction towards another: start, the direction it leaves in, and how far it goes."""

    start: Float[np.ndarray, "positions width"]
    """Unit vectors the walk starts from."""
    heading: Float[np.ndarray, "positions width"]
    """Unit vectors orthogonal to `start`; zero where both ends coincide."""
    angle: Float[np.ndarray, " positions"]
    """Radians from one end to the other, in [0, pi]."""

    def at(self, fractions: Float[np.ndarray, " states"]) -> Float[np.ndarray, "positions states width"]:
        """Return the unit vectors at shares of the way: start cos(t w) + heading sin(t w), which is slerp."""
        turned = self.angle[:, None] * fractions
        path = np.cos(turned)[..., None] * self.start[:, None] + np.sin(turned)[..., None] * self.heading[:, None]
        return unit(path)


def arc(start: Float[np.ndarray, "positions width"], end: Float[np.ndarray, "positions width"]) -> Arc:
    """Return the arcs between pairs of directions.

    Where both nearly coincide the arc has no length. Where they are nearly opposite the great circle is not unique; it
    then goes through the coordinate axis on which `start` is smallest, made orthogonal to it.
    """
    start, end = unit(start), unit(end)
    angle = np.arccos(np.clip((start * end).sum(axis=-1), -1.0, 1.0))
    heading = end - np.cos(angle)[:, None] * start
    opposite = np.pi - angle < 1e-6
    if opposite.any():
        axis = np.eye(start.shape[1])[np.abs(start[opposite]).argmin(axis=-1)]
        heading[opposite] = axis - (axis * start[opposite]).sum(axis=-1, keepdims=True) * start[opposite]
    return Arc(start, unit(heading), angle)


def even_fractions(n_blocks: int) -> Float[np.ndarray, " states"]:
    """Return l / L for l = 0 .. L: the even pace of the virtual transition."""
    return np.arange(n_blocks + 1) / n_blocks


@dataclass(frozen=True)
class ArcProjections:
    """Where readings lie relative to their arcs: all that deviations need, whatever the pace, without the vectors."""

    to_start: Float[np.ndarray, "positions states"]
    """cos(f_l, a_0)."""
    to_heading: Float[np.ndarray, "positions states"]
    """cos(f_l, heading of the arc)."""
    to_target: Float[np.ndarray, "positions states"]
    """cos(f_l, s_y)."""
    angle: Float[np.ndarray, " positions"]
    """Angle between a_0 and s_y, radians."""

    def deviation(self, fractions: Float[np.ndarray, " states"]) -> Float[np.ndarray, "positions states"]:
        """Return 1 - cos(f_l, v_l), v_l at the given shares of the way, in [0, 2]."""
        turned = self.angle[:, None] * fractions
        cosine = self.to_start * np.cos(turned) + self.to_heading * np.sin(turned)
        return 1.0 - np.clip(cosine, -1.0, 1.0)

    def progress(self) -> Float[np.ndarray, "positions states"]:
        """Return the share of the way to the target already gone: 1 - angle(f_l, s_y) / angle(a_0, s_y), at most 1.

        Below 0 where a state is farther from the target than the way's start was.
        """
        left = np.arccos(np.clip(self.to_target, -1.0, 1.0))
        return 1.0 - left / np.maximum(self.angle[:, None], 1e-9)


def calibrated_fractions(progress: Float[np.ndarray, "positions states"]) -> Float[np.ndarray, " states"]:
    """Return t_l: mean progress of positions the model answers right, made monotone by isotonic regression.

    With these the deviation shows what is particular to the task, and not the architecture's usual curve.

    Args:
        progress: `ArcProjections.progress` of the positions answered right; at least one.
    """
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - half a second, which a run need not wait for

    mean = progress.mean(axis=0)
    return np.asarray(IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(np.arange(len(mean)), mean))


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


def mean_interval(
    values: Float[np.ndarray, "positions states"],
    examples: Int[np.ndarray, " positions"],
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean over positions and its interval over examples, of 95 % where no other share is asked for.

    Positions of one example are not independent, so the spread is taken over examples: the mean is the ratio of two
    sums over examples, its variance n/(n-1) sum_i (sum of example i - m_i mean)^2 / (sum_i m_i)^2 with m_i positions in
    example i (the ratio estimator's; with one position each, the ordinary standard error), and the interval Student's t
    with n-1 degrees of freedom.

    Args:
        values: one number per position and state.
        examples: which example each position belongs to.
        confidence: share of such intervals that hold the true mean, in (0, 1).
    """
    mean = values.mean(axis=0)
    groups, member = np.unique(examples, return_inverse=True)
    n = len(groups)
    if n < 2:
        return Interval(mean, None, None)
    residuals = np.zeros((n, values.shape[1]))
    np.add.at(residuals, member, values - mean)
    standard_error = np.sqrt(n / (n - 1) * (residuals**2).sum(axis=0)) / len(values)
    margin = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * standard_error
    return Interval(mean, mean - margin, mean + margin)
