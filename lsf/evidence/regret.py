"""Regret: what a choice of blocks loses against the best that a sweep measured at the same budget."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy

from lsf.criteria.agreement import rank_correlation, top_k
from lsf.errors import BadInputError
from lsf.evidence.sweep import BASE, FULL, Cell, Score, Sweep
from lsf.plans.plan import format_blocks
from lsf.plans.policies import window
from lsf.runs.verdict import SHORT_ANSWERS

Blocks = tuple[int, ...]
Metric = Literal["exact_match", "loss"]
METRICS: tuple[Metric, ...] = ("exact_match", "loss")
ROUNDING = 1e-9
"""Scores that differ by no more are equal: what is left comes of rounding in floating-point sums."""
DIGITS = 5
"""Decimal places of scores as they are packed with the package."""


@dataclass(frozen=True)
class Truth:
    """What a sweep measured, as scores of which the higher is the better."""

    n_blocks: int
    """L of the model."""
    base: float
    """Score of the base model."""
    full: tuple[float, ...]
    """Score of full fine-tuning, one per seed."""
    scores: Mapping[Blocks, tuple[float, ...]]
    """Tuned blocks -> score per seed; only plans that were measured for every seed."""
    missing: Mapping[Blocks, str]
    """Plans that were asked for and lack a seed -> why."""
    prior: float | None = None
    """Score of the best answer that ignores the prompt (`lsf.data.report`); None where the sweep does not hold it."""
    beside: float | None = None
    """Mean score of the best plan that was measured too and is not among `scores`; None where there is none."""

    def mean(self, blocks: Blocks) -> float:
        """Return a plan's mean score over seeds.

        Raises:
            BadInputError: the sweep does not hold the plan.
        """
        if blocks in self.missing:
            raise BadInputError(f"The sweep lacks blocks {format_blocks(blocks)}: {self.missing[blocks]}")
        if blocks not in self.scores:
            raise BadInputError(f"Blocks {format_blocks(blocks)} were not part of the sweep; {_measured(self)}.")
        return self._means[blocks]

    @cached_property
    def _means(self) -> dict[Blocks, float]:
        """Plan -> mean score, asked for again and again; exact, while numpy's mean of three times 0.1 is above 0.1."""
        return {blocks: float(statistics.mean(own)) for blocks, own in self.scores.items()}

    def spread(self, blocks: Blocks) -> float | None:
        """Return the sample standard deviation of a plan's scores over seeds; None below two seeds."""
        return _spread(self.scores[blocks])

    @property
    def floor(self) -> float:
        """What a plan has to beat before anything is its gain: the better of the base model and the prior."""
        return self.base if self.prior is None else max(self.base, self.prior)

    @property
    def full_mean(self) -> float:
        """Mean score of full fine-tuning over seeds."""
        return float(statistics.mean(self.full))

    @property
    def full_spread(self) -> float | None:
        """Sample standard deviation of full fine-tuning's scores over seeds; None below two seeds."""
        return _spread(self.full)

    @cached_property
    def range(self) -> float:
        """What the best of all measured plans, the whole model among them, gains over the floor.

        The unit of relative regret, where it is one (`gains`).
        """
        beside = [] if self.beside is None else [self.beside]
        return max(self.full_mean, *beside, *self._means.values()) - self.floor

    @property
    def gains(self) -> bool:
        """Whether some plan gains anything over the floor; False where only what needs no prompt was learned."""
        return self.range > ROUNDING

    def best(self, plans: Iterable[Blocks]) -> Blocks:
        """Return the plan of the highest mean score; of equal ones that of the fewest blocks, then the deepest.

        Args:
            plans: of the sweep, at least one.
        """
        means = {blocks: self.mean(blocks) for blocks in plans}
        top = max(means.values())
        level = (blocks for blocks, own in means.items() if top - own <= ROUNDING)
        return max(level, key=lambda blocks: (-len(blocks), blocks))

    def differ(self, plans: Iterable[Blocks]) -> bool:
        """Whether the mean scores of any two of these plans differ beyond rounding."""
        means = [self.mean(blocks) for blocks in plans]
        return max(means, default=0.0) - min(means, default=0.0) > ROUNDING

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of tuned blocks for which two plans or more were measured and none is missing."""
        sizes = [len(blocks) for blocks in self.scores]
        lacking = {len(blocks) for blocks in self.missing}
        return tuple(size for size in sorted(set(sizes)) if sizes.count(size) > 1 and size not in lacking)

    def plans(self, budget: int) -> tuple[Blocks, ...]:
        """Return the plans of a budget, in ascending order.

        Raises:
            BadInputError: the sweep holds no such plan, or one of them is missing.
        """
        lacking = [blocks for blocks in self.missing if len(blocks) == budget]
        if lacking:
            raise BadInputError(
                f"The sweep lacks blocks {format_blocks(lacking[0])} ({self.missing[lacking[0]]}), one of "
                f"{len(lacking)} missing plans of {budget} blocks; what is best there is not known until then."
            )
        found = sorted(blocks for blocks in self.scores if len(blocks) == budget)
        if not found:
            raise BadInputError(f"The sweep holds no plan of {budget} blocks; {_measured(self)}.")
        return tuple(found)


@dataclass(frozen=True)
class Regret:
    """One choice beside the best of its budget."""

    choice: Blocks
    """Blocks chosen."""
    best: Blocks
    """Blocks of the best mean score; of equal ones the deepest."""
    regret: float
    """Best mean score minus the choice's; at least 0 for a plan of the sweep."""
    relative: float | None
    """Regret over what the best of all measured plans gains over the floor; None where none gains anything."""


def truth_of(sweep: Sweep, metric: str, n_seeds: int | None = None) -> Truth:
    """Read a sweep by one metric; a loss is turned round, so that higher is better.

    Args:
        sweep: whole, or interrupted: what lacks a seed is missing.
        metric: exact_match or loss.
        n_seeds: take only the first so many seeds; None takes all that were asked for.

    Raises:
        BadInputError: an unknown metric, or the base model or full fine-tuning is missing.
    """
    if metric not in METRICS:
        raise BadInputError(f"A sweep cannot be judged by {metric!r}; accepted are: {', '.join(METRICS)}.")
    seeds = sweep.spec.seeds if n_seeds is None else n_seeds
    groups: dict[str, list[Cell]] = {}
    for cell in sweep.cells:
        if cell.seed < seeds:
            groups.setdefault(cell.plan, []).append(cell)
    values = {plan: [_score(cell.after, metric) for cell in cells] for plan, cells in groups.items()}
    for name in (BASE, FULL):
        if any(value is None for value in values[name]):
            reason = next(cell.reason for cell in groups[name] if cell.after is None)
            raise BadInputError(f"The sweep lacks the {name} model ({reason}); regret is relative to it.")
    scores: dict[Blocks, tuple[float, ...]] = {}
    missing: dict[Blocks, str] = {}
    for plan, cells in groups.items():
        known = tuple(value for value in values[plan] if value is not None)
        if plan not in (BASE, FULL) and len(known) == len(cells):
            scores[cells[0].blocks] = known
        elif plan not in (BASE, FULL):
            missing[cells[0].blocks] = next(cell.reason or "no score" for cell in cells if cell.after is None)
    base, full = ([value for value in values[name] if value is not None] for name in (BASE, FULL))
    return Truth(sweep.n_blocks, base[0], tuple(full), scores, missing, _score(sweep.prior, metric))


def can_judge(truth: Truth, metric: Metric) -> bool:
    """Say whether a sweep on any data can be judged by a metric: exact match takes a range of `SHORT_ANSWERS`.

    Below it one answer of many would be a great part of the unit of regret; the loss always can.
    """
    return metric == "loss" or truth.range >= SHORT_ANSWERS - ROUNDING


def complete_seeds(sweep: Sweep) -> int:
    """Return how many seeds, counted from 0, were measured for the base model, the whole one and every single block."""
    cells = [cell for cell in sweep.cells if cell.plan == FULL or len(cell.blocks) == 1]
    lacking = [cell.seed for cell in cells if cell.after is None]
    return min(lacking, default=sweep.spec.seeds)


def choose(scores: Sequence[float], budget: int) -> Blocks:
    """Choose blocks by a criterion's scores: the best one, or the best run of neighbours, which a sweep can hold."""
    return top_k(scores, 1) if budget == 1 else window(scores, budget)


def regret(truth: Truth, choice: Blocks) -> Regret:
    """Compare a choice with the best plan of as many blocks.

    Raises:
        BadInputError: the sweep does not hold the choice, or another plan of its budget is missing.
    """
    plans = truth.plans(len(choice))
    chosen = truth.mean(choice)
    lost = max(map(truth.mean, plans)) - chosen
    return Regret(choice, truth.best(plans), lost, relative(truth, lost))


def relative(truth: Truth, lost: float) -> float | None:
    """Return a difference of scores over what the best of all plans gains; None where none gains anything."""
    return lost / truth.range if truth.gains else None


def contributions(truth: Truth) -> tuple[float | None, ...] | None:
    """Return C(b) = (score of block b alone - base) / (score of full fine-tuning - base), block 0 first.

    Returns:
        None for a block that was not measured alone; None in all where full fine-tuning does not gain more over the
        base model than it differs over seeds, which one seed cannot show. Above 1 where a block alone is better than
        the whole model.

    Source: arXiv 2607.01232, there of reinforcement learning.
    """
    gained, spread = truth.full_mean - truth.base, truth.full_spread
    if spread is None or gained <= max(spread, ROUNDING):
        return None
    alone = [(block,) for block in range(truth.n_blocks)]
    return tuple((truth.mean(one) - truth.base) / gained if one in truth.scores else None for one in alone)


def random_regret(truth: Truth, budget: int) -> float:
    """Return the regret of a plan drawn at random, exactly: the mean over every plan of the budget."""
    means = [truth.mean(blocks) for blocks in truth.plans(budget)]
    return max(means) - float(statistics.mean(means))


def full_regret(truth: Truth, budget: int) -> float:
    """Return what full fine-tuning loses against the best plan of a budget; negative where it is better."""
    return max(truth.mean(blocks) for blocks in truth.plans(budget)) - truth.full_mean


def cliff(truth: Truth) -> int | None:
    """Return the largest frozen prefix, in blocks, whose suffix scores within one deviation over seeds of full tuning.

    Returns:
        0 .. L-1; 0 where every measured suffix falls short; None where no suffix was measured, or with one seed.
    """
    allowance = truth.full_spread
    suffixes = [blocks for blocks in truth.scores if blocks[-1] == truth.n_blocks - 1 and _consecutive(blocks)]
    if allowance is None or not suffixes:
        return None
    least = truth.full_mean - allowance
    return max((blocks[0] for blocks in suffixes if truth.mean(blocks) >= least), default=0)


def rank_agreement(truth: Truth, scores: Sequence[float]) -> tuple[float | None, float | None]:
    """Return Spearman's rho and the weighted Kendall tau between a criterion and the truth of single blocks.

    The weighted tau counts exchanges near the top more (hyperbolic weights, mean of both rankings). None where the
    scores or the truth rank nothing.
    """
    measured = [truth.mean(blocks) for blocks in truth.plans(1)]
    rho = rank_correlation(list(scores), measured)
    if rho is None:
        return None, None
    found: Any = scipy.stats.weightedtau(np.asarray(measured), np.asarray(scores, dtype=float))
    tau = float(found.statistic)
    return rho, None if math.isnan(tau) else tau


def seed_agreement(truth: Truth) -> float | None:
    """Return how alike two seeds rank the single blocks: the mean Spearman rho over pairs; None where it is unknown."""
    profiles = list(zip(*(truth.scores[blocks] for blocks in truth.plans(1)), strict=True))
    pairs = [(one, other) for place, one in enumerate(profiles) for other in profiles[place + 1 :]]
    found = [rank_correlation(one, other) for one, other in pairs]
    known = [rho for rho in found if rho is not None]
    return float(np.mean(known)) if known else None


def _score(measured: Score | None, metric: str) -> float | None:
    value = None if measured is None else getattr(measured, metric)
    return None if value is None else -value if metric == "loss" else value


def _spread(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; 0 below the last digit that is packed, None below two values.

    Packing rounds to `DIGITS`. Equal scores stay equal; scores that it makes equal lie within one last digit of each
    other, so that their deviation was below it. A sweep and its packed form therefore agree on which plans' seeds
    differ, unless a deviation is about as small as that digit; the least of the study's is forty times as large.
    """
    if len(values) < 2:
        return None
    found = float(statistics.stdev(values))
    return found if found >= 10**-DIGITS else 0.0


def _consecutive(blocks: Blocks) -> bool:
    return blocks == tuple(range(blocks[0], blocks[-1] + 1))


def _measured(truth: Truth) -> str:
    sizes = sorted({len(blocks) for blocks in truth.scores})
    return f"it holds plans of {', '.join(map(str, sizes)) or 'no'} blocks"
