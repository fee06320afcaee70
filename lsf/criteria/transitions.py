"""Factual and virtual transitions, the straight path on the sphere between two meanings, and means with intervals.

Readings are what a forward pass hands over of one batch of positions.
"""

from dataclasses import dataclass, fields
from typing import Any

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


@dataclass(frozen=True)
class Readings:
    """One batch of positions as they were read in every latent space; arrays off the device, vectors of a few only."""

    examples: Int[np.ndarray, " positions"]
    """Index of each position's example."""
    current_tokens: Int[np.ndarray, " positions"]
    """Token id at the position."""
    target_tokens: Int[np.ndarray, " positions"]
    """Token id to be predicted there."""
    to_start: Float[np.ndarray, "positions states"]
    """cos(f_l, a_0)."""
    to_heading: Float[np.ndarray, "positions states"]
    """cos(f_l, heading of the arc)."""
    to_target: Float[np.ndarray, "positions states"]
    """cos(f_l, s_y)."""
    angle: Float[np.ndarray, " positions"]
    """Angle between a_0 and s_y, radians."""
    neighbour_cosine: Float[np.ndarray, "positions blocks"]
    """cos(h_b, h_(b+1)) of the raw states."""
    target_probability: Float[np.ndarray, "positions states"]
    """Lens probability of the target token."""
    target_rank: Int[np.ndarray, "positions states"]
    """Lens rank of the target token; 1 is the top."""
    top_tokens: Int[np.ndarray, "positions states k"]
    """Lens's best token ids, best first."""
    top_probabilities: Float[np.ndarray, "positions states k"]
    """Their probabilities."""
    pictured: Int[np.ndarray, " pictured"]
    """Positions, by their place in the batch, whose readings are here as vectors, to be drawn."""
    factual: Float[np.ndarray, "pictured states head_width"]
    """Their readings f_0 .. f_L, not yet of unit length, float32."""
    anchor: Float[np.ndarray, "pictured head_width"]
    """Their a_0, the current token's embedding read the same way."""
    basis: Float[np.ndarray, "pictured head_width"]
    """Their s_y, the semantic basis of the target token."""
    semantic_loss: Float[np.ndarray, "positions states"] | None = None
    """Cross-entropy of softmax(cos(f_l, s_v) / tau) over all v at the target; None where it was not asked for."""
    states: Float[np.ndarray, "sampled states width"] | None = None
    """Raw states h_0 .. h_L at the positions of the first examples; None where they were not asked for."""
    states_of: Int[np.ndarray, " sampled"] | None = None
    """Index of the example of each of them."""
    state_sums: Float[np.ndarray, "parts states width"] | None = None
    """Sums over the positions of raw states h_0 .. h_L, one per part of the batch that was read by itself; None where
    they were not asked for."""

    def joined(self, other: "Readings") -> "Readings":
        """Return these readings and, after them, those of another batch."""
        values: dict[str, Any] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if item.name == "pictured":
                theirs = theirs + len(self.examples)
            values[item.name] = None if mine is None else np.concatenate([mine, theirs])
        return Readings(**values)

    def only(self, picture: int) -> "Readings":
        """Return a copy of one pictured position's readings, without raw states, so that the batch can be let go.

        Args:
            picture: its place in `pictured`.
        """
        values: dict[str, Any] = {}
        for item in fields(self):
            place = picture if item.name in ("factual", "anchor", "basis") else int(self.pictured[picture])
            value = None if item.name in ("states", "states_of", "state_sums") else getattr(self, item.name)
            values[item.name] = None if value is None else value[place : place + 1].copy()
        return Readings(**values | {"pictured": np.zeros(1, dtype=np.int64)})


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
