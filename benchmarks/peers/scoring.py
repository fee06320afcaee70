"""Deviations from readings, for every peer alike: torch only, nothing of LSF.

Peers are given the sparing way of doing it (one Gram matrix, no pseudo-inverse, no loop over positions), so that what
is compared is how they get at the states.
"""

from typing import Any

import torch


@torch.no_grad()
def semantic_bases(head: Any, targets: Any) -> Any:
    """Return the columns of the head's pseudo-inverse that belong to the targets, (positions, width), float64."""
    exact = head.double()
    return torch.linalg.solve(exact.T @ exact, exact[targets].T).T


@torch.no_grad()
def deviation(readings: Any, anchor: Any, bases: Any) -> tuple[Any, Any]:
    """Return deviation and target deviation of each position and state.

    Args:
        readings: (positions, states, width).
        anchor: (positions, width), the current token's embedding read the same way.
        bases: (positions, width).
    """
    factual, start, end = (torch.nn.functional.normalize(value.double(), dim=-1) for value in (readings, anchor, bases))
    angle = torch.arccos((start * end).sum(-1).clamp(-1, 1))[:, None]
    share = torch.linspace(0, 1, readings.shape[1], dtype=torch.float64)
    along = (
        torch.sin((1 - share) * angle)[..., None] * start[:, None] + torch.sin(share * angle)[..., None] * end[:, None]
    )
    virtual = along / torch.sin(angle)[..., None]
    return 1 - (factual * virtual).sum(-1), 1 - (factual * end[:, None]).sum(-1)
