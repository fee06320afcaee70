"""Where readings lie relative to their arcs, taken where the readings are: numbers leave the device, not vectors."""

import torch
from jaxtyping import Float
from torch import Tensor

from lsf.measure.devices import exact

OPPOSITE = 1e-6
"""Sine of an angle below which two directions that point apart count as opposite: the great circle is not unique."""


def projections(
    factual: Float[Tensor, "positions states width"],
    anchor: Float[Tensor, "positions width"],
    basis: Float[Tensor, "positions width"],
) -> dict[str, Tensor]:
    """Project readings onto the arcs from what the current token means to what the target means.

    The arc leaves `anchor` in the direction of `basis` made orthogonal to it; where both are nearly opposite, in that
    of the coordinate axis on which `anchor` is smallest. The arithmetic is float64 on the CPU, float32 elsewhere; the
    angle comes from sine and cosine together, since either alone loses half its digits where it is flat.

    Returns:
        The fields of `Readings` of these names: to_start, to_heading, to_target (positions, states), cosines, and angle
        (positions), radians in [0, pi].
    """
    start, end = _unit(exact(anchor)), _unit(exact(basis))
    cosine = (start * end).sum(dim=-1)
    aside = end - cosine[:, None] * start
    sine = aside.norm(dim=-1)
    axis = torch.nn.functional.one_hot(start.abs().argmin(dim=-1), start.shape[1]).to(start)
    axis = axis - (axis * start).sum(dim=-1, keepdim=True) * start
    opposite = (sine < OPPOSITE) & (cosine < 0)
    heading = _unit(torch.where(opposite[:, None], axis, aside))
    along = _unit(exact(factual)) @ torch.stack([start, heading, end], dim=-1)
    to_start, to_heading, to_target = along.unbind(dim=-1)
    return {
        "to_start": to_start,
        "to_heading": to_heading,
        "to_target": to_target,
        "angle": torch.atan2(sine, cosine),
    }


def _unit(vectors: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Return directions; a zero vector stays zero."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / norms.where(norms > 0, 1.0)
