"""Trying instead of predicting: neighbours at a few depths, then rates, each tuned briefly, and what came out best."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import check_budget
from lsf.schema import JsonRecord
from lsf.wording import counted

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Relative depths that are tried: 0 for the first blocks, 1 for the last."""
FACTORS = (0.5, 2.0)
"""Of the rate of the depths: what is tried beside it at the best of them."""
SHARE = 0.5
"""Of the run's steps that a try takes: after a quarter, the choice was no better than chance (docs/evidence.md)."""

MEASURED = 18
"""Fewest steps of a try where trying was measured on a real model; after 9 the choice was no better than chance."""


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


def short_words(steps: int) -> str | None:
    """Say that tries of so few steps are not known to choose well; None where they are long enough."""
    if steps >= MEASURED:
        return None
    return (
        f"A try of {counted(steps, 'step')} says little: after 9 the choice was no better than chance where trying was "
        f"measured, and what it lost was measured with {MEASURED} or more, for runs of {round(MEASURED / SHARE)}."
    )


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
    """The depths, the first blocks first."""
    seconds: float
    """Wall seconds of all of it."""
    rates: tuple[Try, ...] = ()
    """The best depth at `FACTORS` of its rate; none where a rate was given, or every depth diverged."""
    method: str = "full"
    """By which all of them were tuned."""
    schema_version: Literal[1] = 1

    @property
    def best(self) -> Try | None:
        """The best depth at the rate of the least loss, of equal ones the lowest; None where all diverged."""
        depth = best_of(self.tries)
        return None if depth is None else best_of((depth, *self.rates))

    @property
    def plan(self) -> Plan | None:
        """The plan of the best try, with its rate, and the reason at each block; None where all diverged."""
        depth, best = best_of(self.tries), self.best
        if depth is None or best is None:
            return None
        depths = ", ".join(f"{format_blocks(one.blocks)} {_loss(one)}" for one in self.tries if one is not depth)
        rates = ", ".join(f"{one.learning_rate:g} {_loss(one)}" for one in (depth, *self.rates) if one is not best)
        reason = f"tried: validation loss {_loss(depth)} after {counted(self.steps, 'step')}" + (
            f", the least of {len(self.tries)} depths ({depths})" if depths else ""
        )
        if rates:
            told = f"{_loss(best)}, the least of {1 + len(self.rates)} rates ({rates})"
            reason += f"; at the rate {best.learning_rate:g} {told}"
        return Plan(
            self.model,
            self.n_blocks,
            best.blocks,
            budget={"blocks": len(best.blocks)},
            reasons={str(block): reason for block in best.blocks},
            rates={self.method: best.learning_rate},
        )

    @property
    def gained(self) -> bool:
        """Whether the best try ended below the base model's loss."""
        return self.best is not None and (self.best.loss or 0.0) < self.base_loss


def best_of(tries: Iterable[Try]) -> Try | None:
    """Return the try of the least loss, of equal ones the deepest at the lowest rate; None where all diverged."""
    known = [one for one in tries if one.loss is not None]
    return min(known, key=lambda one: (one.loss, -one.blocks[0], one.learning_rate), default=None)


def _loss(one: Try) -> str:
    return "diverged" if one.loss is None else f"{one.loss:.3f}"
