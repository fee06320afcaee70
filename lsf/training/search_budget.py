"""What a search for a learning rate may cost, in steps of the run it serves; no torch."""

import math
from dataclasses import dataclass

SHARE = 0.2
"""Of the run's predicted FLOPs that a search may take, its readings included."""
LEAST_STEPS, MOST_STEPS = 5, 100
"""Fewest steps a trial says something after, and the most it needs."""
TRIALS = 3
"""Rates tried first: the default, a third of it and three times it."""


@dataclass(frozen=True)
class SearchBudget:
    """How long each trial of a search is, and how many there may be."""

    steps: int
    """Optimizer steps of a trial."""
    trials: int
    """Trials at most, `TRIALS` or more."""
    reading: float
    """What reading one trial costs, in optimizer steps of the run."""
    step: float = 1.0
    """What one of its steps costs, in optimizer steps of the run."""

    def share(self, trials: int, steps: int) -> float:
        """Return what so many trials cost over a run of `steps`."""
        return trials * (self.steps * self.step + self.reading) / steps


def search_budget(steps: int, reading: float, step: float = 1.0) -> SearchBudget | None:
    """Return the longest trials that can be paid, or None where they would be too short to say anything.

    As long as four can be paid, else three.

    Args:
        steps: of the run.
        reading: what reading validation and general loss once costs, in optimizer steps of the run.
        step: what a step of a trial costs, in optimizer steps of the run.
    """
    allowed = SHARE * steps
    for count in (TRIALS + 1, TRIALS):
        each = min(MOST_STEPS, steps, math.floor((allowed / count - reading) / step))
        if each >= LEAST_STEPS:
            return SearchBudget(each, math.floor(allowed / (each * step + reading)), reading, step)
    return None


def best_of(losses: dict[float, list[float]], general: dict[float, float], forgets: float = 1.0) -> float | None:
    """Return the rate a search takes; None where every trial was lost.

    The least validation loss counts; of the rates within noise of it (a paired difference of at most twice its standard
    error over the rows) none that forgets more than `forgets` nats more than another of them, and of the rest the one
    of the least validation loss.

    Args:
        losses: rate -> loss of each validation row in nats, the same rows for every rate; lost trials are left out.
        general: rate -> loss on the base model's own text, in nats per token.
        forgets: nats per token.
    """
    if not losses:
        return None
    means = {rate: math.fsum(rows) / len(rows) for rate, rows in losses.items()}
    best = min(sorted(means), key=lambda rate: means[rate])
    near = [rate for rate in sorted(losses) if _within_noise(losses[rate], losses[best])]
    least = min(general[rate] for rate in near)
    spared = [rate for rate in near if general[rate] <= least + forgets]
    return min(spared, key=lambda rate: means[rate])


def _within_noise(one: list[float], other: list[float]) -> bool:
    """Say whether the mean of a difference over rows is within two standard errors of zero."""
    apart = [a - b for a, b in zip(one, other, strict=True)]
    mean = math.fsum(apart) / len(apart)
    if len(apart) < 2:
        return mean <= 0.0
    variance = math.fsum((value - mean) ** 2 for value in apart) / (len(apart) - 1)
    return abs(mean) <= 2.0 * math.sqrt(variance / len(apart))
