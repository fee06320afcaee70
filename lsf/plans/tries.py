"""Trying instead of predicting: neighbours at a few depths, each tuned briefly, and which of them came out best."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import check_budget
from lsf.schema import JsonRecord
from lsf.wording import counted

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Relative depths that are tried: 0 for the first blocks, 1 for the last."""
SHARE = 0.5
"""Of the run's steps that a try takes: after a quarter, the choice was no better than chance (docs/evidence.md)."""


def neighbours_at(depth: float, budget: int, n_blocks: int) -> tuple[int, ...]:
    """Return the neighbours at a relative depth.

    Args:
        depth: from the first blocks at 0 to the last at 1.
        budget: how many, 1 .. L.
        n_blocks: L of the model.
    """
    start = math.floor(depth * (n_blocks - budget) + 0.5)
    return tuple(range(start, start + budget))


def tried_sets(n_blocks: int, budget: int) -> tuple[tuple[int, ...], ...]:
    """Return the neighbours at each of `DEPTHS`, each set once, the first blocks first.

    Raises:
        PlanError: the budget is out of range.
    """
    check_budget(budget, n_blocks)
    return tuple(dict.fromkeys(neighbours_at(depth, budget, n_blocks) for depth in DEPTHS))


def tried_steps(steps: int) -> int:
    """Return how many steps of a run a try takes."""
    return max(1, math.ceil(SHARE * steps))


@dataclass(frozen=True)
class Try:
    """The first steps of a run that tunes some neighbours."""

    blocks: tuple[int, ...]
    """Tuned blocks, ascending."""
    learning_rate: float
    """Peak rate."""
    loss: float | None
    """On the validation examples afterwards, in nats per completion token; None where it diverged."""


@dataclass(frozen=True)
class Tries(JsonRecord):
    """What trying came to, on one model and task."""

    noun: ClassVar = "file of tries"
    model: str
    """Name of the model."""
    n_blocks: int
    """L of the model."""
    data: str
    """Name of the data."""
    steps: int
    """Optimizer steps of each try, the first ones of a run of `run_steps`."""
    run_steps: int
    """Steps of the run they serve."""
    examples: int
    """Validation examples that judge."""
    base_loss: float
    """Of the base model on them, in nats per completion token."""
    tries: tuple[Try, ...]
    """The first blocks first."""
    seconds: float
    """Wall seconds of all of it."""
    schema_version: Literal[1] = 1

    @property
    def best(self) -> Try | None:
        """The try of the least loss, of equal ones the deepest; None where all diverged."""
        known = [one for one in self.tries if one.loss is not None]
        return min(known, key=lambda one: (one.loss, -one.blocks[0]), default=None)

    @property
    def plan(self) -> Plan | None:
        """The plan of the best try, with the reason at each block; None where all diverged."""
        best = self.best
        if best is None:
            return None
        others = ", ".join(f"{format_blocks(one.blocks)} {_loss(one)}" for one in self.tries if one is not best)
        reason = f"tried: validation loss {_loss(best)} after {counted(self.steps, 'step')}" + (
            f", the least of {len(self.tries)} depths ({others})" if others else ""
        )
        reasons = {str(block): reason for block in best.blocks}
        return Plan(self.model, self.n_blocks, best.blocks, budget={"blocks": len(best.blocks)}, reasons=reasons)

    @property
    def gained(self) -> bool:
        """Whether the best try ended below the base model's loss."""
        return self.best is not None and (self.best.loss or 0.0) < self.base_loss


def _loss(one: Try) -> str:
    return "diverged" if one.loss is None else f"{one.loss:.3f}"
