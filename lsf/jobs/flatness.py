"""When a validation loss is flat, so that a run that is to end there ends; no torch."""

from collections.abc import Sequence

from lsf.jobs.spec import RunSpec

READINGS = 3
"""Readings in a row without a gain that end a run."""
GAIN = 0.01
"""Nats per completion token below the best reading before them that count as a gain."""


def flat_interval(spec: RunSpec, steps: int) -> int:
    """Return the steps between two readings of a run that ends when flat: as asked, else a twentieth of its cap."""
    return spec.eval_every or max(1, steps // 20)


def is_flat(losses: Sequence[float | None]) -> bool:
    """Say whether none of the last three readings is 0.01 nats below the best before them.

    The same rule for every method, at the same steps (`eval_every`), so that each gets the steps it needs. A slow
    start counts as flat too: below three readings after the first nothing is said.

    Args:
        losses: validation losses in the order they were read, the one before the first step included; None where it was
            not finite, which is no gain.
    """
    if len(losses) <= READINGS:
        return False
    earlier = [loss for loss in losses[:-READINGS] if loss is not None]
    latest = [loss for loss in losses[-READINGS:] if loss is not None]
    if not earlier:
        return not latest
    return all(loss > min(earlier) - GAIN for loss in latest)
