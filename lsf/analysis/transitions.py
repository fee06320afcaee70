"""Factual and virtual transitions: directions of readings, and the even walk on the sphere between two meanings."""

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "*batch width"]


def unit(vectors: Vectors) -> Float[np.ndarray, "*batch width"]:
    """Return directions: each vector divided by its Euclidean norm, in float64; a zero vector stays zero."""
    exact = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(exact, axis=-1, keepdims=True)
    return np.divide(exact, norms, out=np.zeros_like(exact), where=norms > 0)


def cosine_distance(a: Vectors, b: Float[np.ndarray, "*#batch width"]) -> Float[np.ndarray, "*batch"]:
    """Return 1 - cos(a, b) along the last axis, in [0, 2]; 1 where a vector is zero. `b` is broadcast over `a`."""
    return 1.0 - np.clip((unit(a) * unit(b)).sum(axis=-1), -1.0, 1.0)


def slerp(
    start: Float[np.ndarray, "positions width"],
    end: Float[np.ndarray, "positions width"],
    fractions: Float[np.ndarray, " states"],
) -> Float[np.ndarray, "positions states width"]:
    """Walk on the sphere from `start` to `end`, both of unit length.

    slerp(a, b, t) = (sin((1-t) w) a + sin(t w) b) / sin(w), w the angle between a and b. Where both nearly coincide the
    walk is the straight line. Where they are nearly opposite the great circle is not unique; the walk then goes through
    the coordinate axis on which `start` is smallest, made orthogonal to it.

    Args:
        start: unit vectors.
        end: unit vectors.
        fractions: shares of the way, in [0, 1].

    Returns:
        Unit vectors, one per position and fraction.
    """
    start, end = unit(start), unit(end)
    angle = np.arccos(np.clip((start * end).sum(axis=-1), -1.0, 1.0))
    tangent = end - np.cos(angle)[:, None] * start
    opposite = np.pi - angle < 1e-6
    if opposite.any():
        axis = np.eye(start.shape[1])[np.abs(start[opposite]).argmin(axis=-1)]
        tangent[opposite] = axis - (axis * start[opposite]).sum(axis=-1, keepdims=True) * start[opposite]
    turned = angle[:, None] * fractions
    # a cos(t w) + n sin(t w), n the unit tangent: the same walk as the sine quotient, and exact at both ends.
    path = np.cos(turned)[..., None] * start[:, None] + np.sin(turned)[..., None] * unit(tangent)[:, None]
    return unit(path)


def even_fractions(n_blocks: int) -> Float[np.ndarray, " states"]:
    """Return l / L for l = 0 .. L: the even pace of the virtual transition."""
    return np.arange(n_blocks + 1) / n_blocks


def virtual_transition(
    anchor: Float[np.ndarray, "positions width"],
    basis: Float[np.ndarray, "positions width"],
    fractions: Float[np.ndarray, " states"],
) -> Float[np.ndarray, "positions states width"]:
    """Return v_l = slerp(unit(a_0), unit(s_y), t_l): from what the current token means to what the target token means.

    Args:
        anchor: a_0, the reading of the current token's embedding.
        basis: s_y, the semantic basis of the target token.
        fractions: t_l, usually `even_fractions(L)`.

    Source: after arXiv 2406.11753; this even walk is our reading of it.
    """
    return slerp(unit(anchor), unit(basis), fractions)
