"""Policies: from one score per block to the tuned blocks, under a number of blocks or, exactly, under a cost.

And the recommended choice of blocks: which rule the study of evidence left standing, and the plan it makes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from lsf.criteria.agreement import Scores, top_k
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.errors import PlanError
from lsf.plans.cost import cost_shares, full_flops, predict, predict_full, training_bytes, training_flops
from lsf.plans.plan import Plan, format_blocks
from lsf.registry import Registry
from lsf.wording import counted

CHOSEN_BY_HAND = "chosen by hand"


@dataclass(frozen=True)
class Policy:
    """One way of turning scores into blocks."""

    name: str
    """Key in files and options."""
    label: str
    """Short name in the app."""
    meaning: str
    """One sentence."""
    choose: Callable[[Scores, int], tuple[int, ...]]
    """Scores and a number of blocks -> blocks, ascending."""
    scored: bool = True
    """Whether the scores matter, or only how many blocks there are."""


def suffix(scores: Scores, budget: int, already: bool = True) -> tuple[int, ...]:
    """Freeze up to and with the block of the greatest score, tune the deeper ones, at most the budget's deepest.

    Where the greatest score is the last block's nothing would be left to tune; then the last block is tuned.

    Args:
        scores: one per block.
        budget: number of blocks.
        already: whether they say what a block already does; those that say what is to be tuned begin at their peak.
    """
    peak = max(range(len(scores)), key=lambda block: (scores[block], block))
    first_tuned = min(max(peak + already, len(scores) - budget), len(scores) - 1)
    return tuple(range(first_tuned, len(scores)))


def window(scores: Scores, budget: int) -> tuple[int, ...]:
    """Tune the consecutive blocks of the greatest sum."""
    starts = range(len(scores) - budget + 1)
    start = max(starts, key=lambda begin: (math.fsum(scores[begin : begin + budget]), begin))
    return tuple(range(start, start + budget))


def evenly_spaced(n_blocks: int, budget: int) -> tuple[int, ...]:
    """Return so many blocks evenly spaced from the first to the last, which takes no measurement; one: the middle one.

    They are round(i (L - 1) / (budget - 1)) for i = 0 .. budget - 1, halves to the even number.

    Args:
        n_blocks: L of the model.
        budget: 1 .. L.
    """
    if budget == 1:
        return (n_blocks // 2,)
    return tuple(round(place * (n_blocks - 1) / (budget - 1)) for place in range(budget))


EVENLY_SPACED, FIXED_DEPTH, BY_RULE = "evenly_spaced", "fixed_depth", "recommended_rule"
"""Policies of plans that no single criterion chose."""
_ORIGINS = {
    EVENLY_SPACED: "evenly spaced",
    FIXED_DEPTH: "at a depth fixed beforehand",
    BY_RULE: "chosen by the recommended rule",
    None: CHOSEN_BY_HAND,
}


def how_chosen(plan: Plan) -> str:
    """Say what chose a plan's blocks, to be read after a comma: a criterion, trying, a fixed choice, or a person."""
    if plan.criterion is not None:
        return f"chosen by {CRITERIA[plan.criterion].label if plan.criterion in CRITERIA else plan.criterion}"
    return "chosen by trying" if plan.rates else _ORIGINS.get(plan.policy, f"chosen by {plan.policy}")


POLICIES: Registry[Policy] = Registry(
    "policy",
    (
        Policy("top_k", "Best anywhere", "Tune the blocks of the greatest scores, wherever they lie.", top_k),
        Policy("window", "Best range of neighbours", "Tune the consecutive blocks of the greatest sum.", window),
        Policy(
            "suffix",
            "Everything from the peak up",
            "Tune from the block of the greatest score up, at most the budget; by Reduction from the block behind it.",
            suffix,
        ),
        Policy(
            EVENLY_SPACED,
            "Evenly spaced",
            "Tune blocks spread evenly from the first to the last; no score is looked at.",
            lambda scores, budget: evenly_spaced(len(scores), budget),
            scored=False,
        ),
    ),
)


def check_budget(blocks: int, n_blocks: int) -> None:
    """Refuse a budget of no block or of more than there are.

    Raises:
        PlanError: one sentence with the range.
    """
    if not 1 <= blocks <= n_blocks:
        raise PlanError(f"The budget is {counted(blocks, 'block')}; this model allows 1 to {n_blocks}.")


def known_scores(analysis: Analysis, criterion: str) -> list[float]:
    """Return one criterion's score of every block.

    Raises:
        UnknownNameError: no such criterion.
        PlanError: it was not measured in this analysis (the sentence lists those that were), or a block has no score.
    """
    found = analysis.scores(CRITERIA[criterion].name)
    scores = [score for score in found if score is not None]
    if scores and len(scores) < len(found):
        unknown = format_blocks([block for block, score in enumerate(found) if score is None])
        why = ", whose states are all the same there (prompts that end alike)" if criterion == "cka" else ""
        raise PlanError(
            f"{criterion!r} is not defined at block {unknown} for these examples{why}; choose by another criterion."
        )
    if not scores:
        has = f"This analysis has no scores for {criterion!r}; it has: {', '.join(analysis.criteria) or 'none'}."
        raise PlanError(" ".join(filter(None, (has, analysis.data.short))))
    return scores


def make_plan(analysis: Analysis, criterion: str, policy: str, blocks: int) -> Plan:
    """Choose blocks by a criterion and a policy under a number of blocks; evenly spaced ones are no criterion's.

    Raises:
        UnknownNameError: no such criterion or policy.
        PlanError: the budget is out of range, or the criterion was not measured in this analysis.
    """
    entry, rule = CRITERIA[criterion], POLICIES[policy]
    check_budget(blocks, analysis.model.n_blocks)
    if not rule.scored:
        return spaced_plan(analysis, blocks)
    scores = known_scores(analysis, criterion)
    chosen = rule.choose(scores, blocks) if policy != "suffix" else suffix(scores, blocks, entry.already)
    ranked = sorted(range(len(scores)), key=lambda block: (scores[block], block), reverse=True)
    reasons = {
        str(block): f"{entry.label} {scores[block]:.4g}, rank {ranked.index(block) + 1} of {len(scores)}"
        for block in chosen
    }
    return Plan(
        model=analysis.model.name,
        n_blocks=analysis.model.n_blocks,
        blocks=chosen,
        criterion=criterion,
        policy=policy,
        budget={"blocks": blocks},
        reasons=reasons,
        predicted=predict(analysis, chosen),
    )


def spaced_plan(analysis: Analysis, budget: int) -> Plan:
    """Return the plan of evenly spaced blocks, which no criterion chose.

    Raises:
        PlanError: the budget is out of range.
    """
    n_blocks = analysis.model.n_blocks
    check_budget(budget, n_blocks)
    blocks = evenly_spaced(n_blocks, budget)
    return Plan(
        model=analysis.model.name,
        n_blocks=n_blocks,
        blocks=blocks,
        policy=EVENLY_SPACED,
        budget={"blocks": budget},
        reasons={str(block): "evenly spaced from the first block to the last" for block in blocks},
        predicted=predict(analysis, blocks),
    )


def largest_within(analysis: Analysis, plan_of: Callable[[int], Plan], share: float, unit: str) -> Plan | None:
    """Return the plan of the greatest budget that is predicted to cost at most a share of full fine-tuning.

    Args:
        analysis: of the model.
        plan_of: number of blocks -> plan, which may tune fewer.
        share: in (0, 1].
        unit: of what: a key of `cost_shares`.
    """
    full = predict_full(analysis)
    for blocks in range(analysis.model.n_blocks, 0, -1):
        plan = plan_of(blocks)
        cost = cost_shares(plan.predicted, full)[unit]
        if cost is not None and cost <= share:
            return plan
    return None


def plan_by_hand(analysis: Analysis, blocks: Sequence[int]) -> Plan:
    """Make a plan of blocks a person named.

    Raises:
        PlanError: no block, or one the model does not have.
    """
    plan = Plan(
        model=analysis.model.name,
        n_blocks=analysis.model.n_blocks,
        blocks=tuple(blocks),
        budget={"blocks": len(set(blocks))},
        reasons={str(block): CHOSEN_BY_HAND for block in sorted(set(blocks))},
    )
    return Plan(**{**vars(plan), "predicted": predict(analysis, plan.blocks)})


KNAPSACK = "knapsack"
ROUNDING = 1.0 + 1e-9
"""A plan that costs exactly the budget is within it, whatever the last bit says."""


@dataclass(frozen=True)
class Load:
    """A set of blocks on the way to a plan."""

    cost: float
    value: float
    blocks: tuple[int, ...]
    """Descending, so that comparing two tuples prefers the deeper."""


def best_load(
    scores: Sequence[float], item_costs: Sequence[float], reach_costs: Sequence[float], capacity: float
) -> tuple[int, ...]:
    """Choose at least one block for the greatest sum of scores.

    The cost of a set is `reach_costs[lowest block] + sum(item_costs)`. For each lowest block, which is then tuned, the
    deeper ones are filled in by a dynamic programme over loads that no other load beats in both cost and value (or, of
    equal value, depth): exact for any real costs, and fast, since real models have few different block sizes.

    Args:
        scores: one per block; blocks of score 0 or less, which only cost, are taken only where nothing else fits.
        item_costs: what tuning a block adds.
        reach_costs: what backward down to a block costs.
        capacity: the budget, in the costs' unit.

    Returns:
        Blocks, ascending; of sets of the same sum the deeper. Empty where not even one fits.
    """

    def rank(load: Load) -> tuple[float, int, tuple[int, ...]]:
        return load.value, -sum(scores[block] == 0 for block in load.blocks), load.blocks

    best: Load | None = None
    for lowest in range(len(scores)):
        start = Load(reach_costs[lowest] + item_costs[lowest], scores[lowest], (lowest,))
        if start.cost > capacity * ROUNDING:
            continue
        loads = [start]
        for block in range(lowest + 1, len(scores)):
            if scores[block] > 0:
                more = [
                    Load(load.cost + item_costs[block], load.value + scores[block], (block, *load.blocks))
                    for load in loads
                    if load.cost + item_costs[block] <= capacity * ROUNDING
                ]
                loads = _undominated(loads + more)
        top = max(loads, key=rank)
        if best is None or rank(top) > rank(best):
            best = top
    return tuple(sorted(best.blocks)) if best else ()


def _undominated(loads: list[Load]) -> list[Load]:
    kept: list[Load] = []
    for load in sorted(loads, key=lambda load: (load.cost, -load.value, [-block for block in load.blocks])):
        if not kept or (load.value, load.blocks) > (kept[-1].value, kept[-1].blocks):
            kept.append(load)
    return kept


def make_knapsack_plan(
    analysis: Analysis, criterion: str, flops: float | None = None, memory: float | None = None
) -> Plan:
    """Choose blocks by a criterion under a share of full fine-tuning's FLOPs, or a number of bytes.

    Args:
        analysis: with scores for the criterion.
        criterion: name.
        flops: FLOPs per token over those of full fine-tuning, in (0, 1].
        memory: bytes of weights, gradients and optimizer state.

    Raises:
        PlanError: neither or both budgets, one out of range, or no block fits (the least that would is named).
        UnknownNameError: no such criterion.
    """
    if (flops is None) == (memory is None):
        raise PlanError("The knapsack takes one budget: a share of FLOPs, or bytes of memory.")
    scores = known_scores(analysis, criterion)
    blocks = range(analysis.model.n_blocks)
    params = [block.n_params for block in analysis.blocks]
    if flops is not None:
        if not 0 < flops <= 1:
            raise PlanError(
                f"The budget is {flops:g} of full fine-tuning's FLOPs; it must lie above 0 and at most at 1."
            )
        whole = full_flops(analysis)
        items = [2.0 * n / whole for n in params]
        reach = [training_flops(analysis, [block]) / whole - items[block] for block in blocks]
        budget, capacity = {"flops": flops}, flops
    else:
        assert memory is not None
        base = float(training_bytes(analysis, 0))
        items = [float(training_bytes(analysis, n)) - base for n in params]
        reach = [base] * len(params)
        budget, capacity = {"memory": memory}, memory
    chosen = best_load(scores, items, reach, capacity)
    if not chosen:
        least = min(cost + item for cost, item in zip(reach, items, strict=True))
        asked = f"{capacity:,.0f} bytes" if flops is None else f"{capacity:.4g} of full fine-tuning's FLOPs"
        shown = f"{math.ceil(least):,}" if flops is None else f"{math.ceil(least * 1e4) / 1e4:.4f}"
        raise PlanError(f"No block fits a budget of {asked}; the least is {shown}.")
    label, why = CRITERIA[criterion].label, "in the best set the budget pays for"
    if max(scores) <= 0:
        why = "the best that the budget pays for; one block at any budget, since no score is above 0"
    return Plan(
        model=analysis.model.name,
        n_blocks=analysis.model.n_blocks,
        blocks=chosen,
        criterion=criterion,
        policy=KNAPSACK,
        budget=budget,
        reasons={str(b): f"{label} {scores[b]:.4g}, {why}" for b in chosen},
        predicted=predict(analysis, chosen),
    )


def both_ends(n_blocks: int, budget: int) -> tuple[int, ...]:
    """Return so many blocks from both ends, the odd one from the deeper: 0 and L-1; 0, L-2 and L-1; and so on.

    Args:
        n_blocks: L of the model.
        budget: 1 .. L.
    """
    return tuple(range(budget // 2)) + tuple(range(n_blocks - (budget - budget // 2), n_blocks))


RECOMMENDED: tuple[str, ...] = ("alignment",)
"""Criterion of the recommendation, or several whose ranks are averaged; chosen by `benchmarks/evidence.py --report`."""
RECOMMENDED_POLICY = "window"
"""How its scores become blocks: the study measured runs of neighbours."""
ENDS_FROM: int | None = None
"""From so many blocks on, both ends of the model are recommended; None: the criterion decides for every budget."""


def rank_average(parts: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean rank of each block over several criteria; higher = tune it first, ties share their rank."""
    return [float(value) for value in np.mean([scipy.stats.rankdata(part) for part in parts], axis=0)]


def lacking(analysis: Analysis, criteria: tuple[str, ...] = RECOMMENDED) -> tuple[str, ...]:
    """Return the criteria that the recommendation needs and this analysis did not measure."""
    return tuple(name for name in criteria if name not in analysis.criteria)


def recommended_plan(analysis: Analysis, budget: int, criteria: tuple[str, ...] = RECOMMENDED) -> Plan:
    """Return the plan that is recommended for a number of blocks.

    Args:
        analysis: has the scores.
        budget: number of blocks.
        criteria: others where sweeps of the user's own say so (`lsf.evidence.own.standing_rule`).

    Raises:
        PlanError: the budget is out of range, or a criterion that is needed was not measured in this analysis.
    """
    n_blocks = analysis.model.n_blocks
    check_budget(budget, n_blocks)
    if criteria == RECOMMENDED and ENDS_FROM is not None and budget >= ENDS_FROM:
        blocks = both_ends(n_blocks, budget)
        reasons = {str(block): "both ends of the model: recommended from two blocks on" for block in blocks}
    else:
        parts = [known_scores(analysis, name) for name in criteria]
        blocks = window(parts[0] if len(parts) == 1 else rank_average(parts), budget)
        labels = " and ".join(CRITERIA[name].label for name in criteria)
        reasons = {str(block): f"recommended by {labels}" for block in blocks}
    return Plan(
        model=analysis.model.name,
        n_blocks=n_blocks,
        blocks=blocks,
        policy=BY_RULE,
        budget={"blocks": budget},
        reasons=reasons,
        predicted=predict(analysis, blocks),
    )
