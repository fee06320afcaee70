"""What was measured on one task of the sweep on a real model, as scores, and what each way of choosing loses there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.real_plans import (
    BASE,
    LORA,
    RANDOM_SETS,
    READINGS,
    SEEDS,
    STRIDE,
    WHOLE,
    Cell,
    Scored,
    blocks_of,
    depth_plans,
    plans_of,
    rules,
    seeds_of,
    size_of,
)
from lsf.plans.plan import format_blocks
from lsf.plans.policies import RECOMMENDED
from lsf.plans.tries import DEPTHS as TRIED

EXACT = ("trec", "sst2", "facts")
"""Tasks of short answers, judged by exact match; the others by the loss."""


LOOKED_AT = "trec"
"""The task that a first look was taken at: reported apart."""


@dataclass(frozen=True)
class Truth:
    """What was measured on one task, as scores of which the higher is the better."""

    task: str
    """One of `TASKS`."""
    base: float
    """Of the base model."""
    floor: float
    """The better of the base model and the prior."""
    scores: Mapping[str, tuple[float, ...]]
    """Plan -> score per seed, at the rate of its size."""
    forgotten: Mapping[str, float]
    """Plan -> nats per token forgotten, mean over seeds."""
    seconds: Mapping[str, float]
    """Plan -> seconds of a run, mean over seeds."""
    stopped: tuple[str, ...]
    """Plans that were hopeless and ended half-way."""
    missing: tuple[str, ...]
    """Plans that are asked for and lack one of the first seeds."""
    n_blocks: int
    """L."""

    def of(self, plan: str) -> float | None:
        """Return a plan's mean score; a stopped one takes the worst measured of its size; None where it is unknown."""
        if plan in self.scores:
            return float(np.mean(self.scores[plan]))
        known = self.at(len(blocks_of(plan))) if plan in self.stopped else {}
        return min(known.values(), default=None)

    def at(self, budget: int) -> dict[str, float]:
        """Return plan -> mean score of those of a budget that were measured to their end."""
        return {plan: float(np.mean(own)) for plan, own in self.scores.items() if size_of(plan) == str(budget)}

    def regret(self, plan: str) -> float | None:
        """Return (best of the budget - the plan's score) / (best of all - floor); None where something is unknown.

        METHOD's regret: full fine-tuning may end below the base model, and most of any gain is learning the format.
        """
        score, top = self.of(plan), max((float(np.mean(own)) for own in self.scores.values()), default=self.floor)
        if score is None or top <= self.floor:
            return None
        return (max(self.at(len(blocks_of(plan))).values()) - score) / (top - self.floor)

    def mean_regret(self, plans: Sequence[str]) -> float | None:
        """Return the mean regret of several plans; None where one is unknown."""
        found = [self.regret(plan) for plan in plans]
        return None if None in found or not found else float(np.mean([one for one in found if one is not None]))


def truth_of(
    task: str, cells: Sequence[Cell], scored: Sequence[Scored], n_blocks: int, exact: Sequence[str] = EXACT
) -> Truth | None:
    """Read one task's cells; None where the base model is missing.

    Tasks named in `exact` are judged by exact match, the others by the loss. The rate
    of a size is that of the cells of seed 0 that most of its plans have: the others were tried by judges only. Seeds
    count for a size once all its plans were tuned under them: until then some plans would be means over more seeds.
    """
    own = [cell for cell in cells if cell.task == task]
    base = next((cell for cell in own if cell.plan == BASE), None)
    if base is None or base.prior is None:
        return None
    general = {cell.text: cell.general or 0.0 for cell in own if cell.plan == BASE}
    mine = [one for one in scored if one.task == task]
    asked = plans_of(mine, n_blocks)
    rates = rates_of(own)
    taken = [cell for cell in own if cell.plan != BASE and rates[size_of(cell.plan)] == cell.rate]
    tried = {(cell.plan, cell.seed) for cell in taken}
    lacking = {(plan, seed) for plan in asked for seed in seeds_of(plan, mine, n_blocks) if (plan, seed) not in tried}
    begun = {(size_of(plan), seed) for plan, seed in lacking if seed != SEEDS[0]}
    taken = [cell for cell in taken if (size_of(cell.plan), cell.seed) not in begun]
    plans = [*dict.fromkeys(cell.plan for cell in taken)]
    scores, forgotten, seconds = dict[str, tuple[float, ...]](), dict[str, float](), dict[str, float]()
    for plan in plans:
        ended = [cell for cell in taken if cell.plan == plan and cell.loss is not None]
        if ended:
            scores[plan] = tuple(score_of(cell, task in exact) for cell in ended)
            forgotten[plan] = float(
                np.mean([(cell.general or np.inf) - general.get(cell.text, math.nan) for cell in ended])
            )
            seconds[plan] = float(np.mean([cell.seconds for cell in ended]))
    stopped = tuple(plan for plan in plans if plan not in scores and any(c.stopped for c in taken if c.plan == plan))
    missing = tuple(plan for plan in asked if any(plan == lacked for lacked, _ in lacking))
    prior = base.prior[1] if task in exact else -base.prior[0]
    at_base = score_of(base, task in exact)
    floor = max(at_base, prior)
    return Truth(task, at_base, floor, scores, forgotten, seconds, stopped, missing, n_blocks)


def rates_of(own: Sequence[Cell]) -> dict[str, float | None]:
    """Return size -> the rate that its plans share: that of most of its cells, of several the one that judges chose."""
    counts: dict[str, dict[float | None, tuple[int, float]]] = {}
    for cell in own:
        if cell.plan != BASE:
            rates = counts.setdefault(size_of(cell.plan), {})
            n, total = rates.get(cell.rate, (0, 0.0))
            rates[cell.rate] = n + 1, total + (np.inf if cell.validation is None else cell.validation)
    return {
        size: max(rates, key=lambda rate: (rates[rate][0], -rates[rate][1] / rates[rate][0]))
        for size, rates in counts.items()
    }


def half_way(own: Sequence[Cell]) -> dict[str, float]:
    """Return plan -> validation loss after half of the steps, under the first seed and at the rate of its size."""
    rates = rates_of(own)
    taken = [
        cell for cell in own if cell.plan != BASE and cell.seed == SEEDS[0] and rates[size_of(cell.plan)] == cell.rate
    ]
    return {cell.plan: cell.half_way for cell in taken if cell.half_way is not None}


def tried_plan(truth: Truth, own: Sequence[Cell], budget: int) -> str:
    """Return what trying takes: of neighbours at the depths tried, those of the least validation loss half-way.

    Args:
        truth: of the task.
        own: its cells.
        budget: number of blocks, of which every run of neighbours is measured.
    """
    read, plans = half_way(own), [planned_at(depth, budget, truth.n_blocks) for depth in TRIED]
    return min(plans, key=lambda plan: (read.get(plan, np.inf), -blocks_of(plan)[0]))


def interval(differences: Sequence[float]) -> str:
    """Write a mean with its 95 % interval over tasks (Student's t)."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return f"{mean:.1%} (one task)"
    half = stats.t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / len(differences) ** 0.5
    return f"{mean:.1%} ({mean - half:.1%} to {mean + half:.1%})"


def score_of(cell: Cell, exact: bool) -> float:
    """Return what a run reached, the higher the better: exact match, or minus the loss."""
    return (cell.exact_match or 0.0) if exact else -(cell.loss if cell.loss is not None else np.inf)


def regrets(truth: Truth, scored: Sequence[Scored], budget: int) -> dict[str, float]:
    """Return words of a way of choosing -> its regret on one task at a budget.

    Empty until the whole model, LoRA and every plan of the budget are measured: the best of some is not the best.
    """
    head, mine = f"{budget}: ", [one for one in scored if one.task == truth.task]
    if unmeasured(truth, mine, budget):
        return {}
    named = rules(mine, truth.n_blocks)
    ways = {name.removeprefix(head): [format_blocks(blocks)] for name, blocks in named.items() if name.startswith(head)}
    if budget == 1:
        middle = truth.n_blocks // 2
        ways |= {"first": ["0"], "middle": [str(middle)], "last": [str(truth.n_blocks - 1)]}
        ways["at random"] = [str(block) for block in range(truth.n_blocks)]
    else:
        fixed = {name: format_blocks(blocks) for name, blocks in depth_plans(truth.n_blocks).items()}
        ways |= {name: [fixed[name]] for name in ("first", "middle", "last", "evenly spaced")}
        ways["at random"] = [fixed[f"random {number}"] for number in range(RANDOM_SETS)]
    found = {name: truth.mean_regret(plans) for name, plans in ways.items()}
    return {name: lost for name, lost in found.items() if lost is not None}


def unmeasured(truth: Truth, scored: Sequence[Scored], budget: int) -> list[str]:
    """Return the plans of a budget, with the whole model and LoRA, of which no run is known.

    Args:
        truth: of one task.
        scored: of the same task; a task without is not measured.
        budget: number of blocks.
    """
    sizes, known = (WHOLE, LORA, str(budget)), {*truth.scores, *truth.stopped}
    wanted = [plan for plan in plans_of(scored, truth.n_blocks) if size_of(plan) in sizes]
    return [plan for plan in wanted if plan not in known]


def recommended(budget: int) -> str:
    """Return the words of today's recommendation among the ways of choosing."""
    return f"{RECOMMENDED[0]}, {READINGS[0]}" if budget == 1 else f"{RECOMMENDED[0]}, neighbours, {READINGS[0]}"


def planned_at(depth: float, budget: int, n_blocks: int) -> str:
    """Return the plan at a relative depth that the sweep measured: of several blocks, the nearest at `STRIDE`."""
    stride = STRIDE if budget > 1 else 1
    start = stride * math.floor(depth * (n_blocks - budget) / stride + 0.5)
    return format_blocks(range(start, start + budget))
