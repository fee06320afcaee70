"""Sets of blocks that are not neighbours, on the sweep of a real model: beside neighbours, and tried; no torch.

Announced in docs/findings/2026-11-30-scattered-announced.md, 2026-12-01-evenly-spaced-announced.md and
2026-12-01-tried-sets-announced.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.real_plans import BUDGET, RANDOM_SETS, WHOLE, Cell, Scored, depth_plans
from benchmarks.real_truth import LOOKED_AT, Truth, half_way, interval, recommended, regrets, tried_plan
from lsf.plans.plan import format_blocks

DRAWN = 5
"""Random sets that are tried."""
SETS, WINDOWS = f"tried: {DRAWN} random sets", "tried: 5 windows"
CONTROLS = "tried: evenly spaced, first, middle, last"
UNTRIED, EVEN = "a random set, untried", "evenly spaced, untried"
NEAR = 2
"""Blocks by which the lowest blocks of a set and of a window may differ, where they are compared as pairs."""
SEEN = "facts"
"""The task on which sets were seen to beat windows before that was announced."""


def sets_lost(truth: Truth, own: Sequence[Cell], scored: Sequence[Scored]) -> dict[str, float]:
    """Return words of a way of choosing `BUDGET` blocks -> its regret; empty until all of them are measured.

    Args:
        truth: of a task.
        own: its cells.
        scored: its analyses.
    """
    known, read = regrets(truth, scored, BUDGET), half_way(own)
    if not known:
        return {}
    fixed = {name: format_blocks(blocks) for name, blocks in depth_plans(truth.n_blocks).items()}
    lost = {plan: truth.regret(plan) or 0.0 for plan in {*truth.at(BUDGET), *truth.stopped}}
    drawn = [fixed[f"random {number}"] for number in range(RANDOM_SETS)]
    controls = [fixed[name] for name in ("evenly spaced", "first", "middle", "last")]
    return {
        SETS: expected_of_tried(drawn, lost, read, truth.stopped, DRAWN),
        CONTROLS: lost[min(controls, key=lambda plan: read[plan])],
        WINDOWS: lost[tried_plan(truth, own, BUDGET)],
        UNTRIED: known["at random"],
        EVEN: known["evenly spaced"],
        recommended(BUDGET): known[recommended(BUDGET)],
    }


def expected_of_tried(
    plans: Sequence[str], lost: Mapping[str, float], read: Mapping[str, float], stopped: Sequence[str], draws: int
) -> float:
    """Return the mean loss over all draws of so many plans, in each that of the least reading, a stopped one last."""
    order = sorted(plans, key=lambda plan: (plan in stopped, read[plan]))
    counts = [math.comb(len(order) - 1 - place, draws - 1) for place in range(len(order))]
    return sum(count * lost[plan] for count, plan in zip(counts, order, strict=True)) / math.comb(len(order), draws)


def set_tries(truths: Sequence[Truth], cells: Sequence[Cell], scored: Sequence[Scored]) -> Iterator[str]:
    """Yield a table of what sets lost, tried and untried, and the differences between ways, paired by task."""
    found = {truth.task: sets_lost(truth, *_of(truth.task, cells, scored)) for truth in truths}
    found = {task: lost for task, lost in found.items() if lost}
    judged = [lost for task, lost in found.items() if task != LOOKED_AT]
    if not judged:
        return
    yield "| way of choosing | mean but TREC | " + " | ".join(found) + " |"
    yield "|" + "---|" * (len(found) + 2)
    for way in judged[0]:
        each = " | ".join(f"{lost[way]:.1%}" for lost in found.values())
        yield f"| {way} | {np.mean([lost[way] for lost in judged]):.1%} | {each} |"
    for way in (SETS, CONTROLS, EVEN):
        for other in (WINDOWS, UNTRIED, recommended(BUDGET)):
            yield f"\n{other} lost more than {way}: {interval([lost[other] - lost[way] for lost in judged])}"


def scattered(truths: Sequence[Truth], scored: Sequence[Scored]) -> Iterator[str]:
    """Yield by how much random sets end below windows, in test loss over the gain of the whole model.

    Args:
        truths: of all tasks by the loss.
        scored: their analyses.
    """
    yield "| task | random sets, nats | windows, nats | sets better by, of the whole's gain | lowest blocks alike |"
    yield "|---|---|---|---|---|"
    announced = list[float]()
    for truth in truths:
        if not regrets(truth, [one for one in scored if one.task == truth.task], BUDGET):
            continue
        sets, windows = _losses(truth, "random"), _losses(truth, "window")
        ends = [float(np.mean([loss for _, loss in own])) for own in (sets, windows)]
        alike = [of_window - of_set for low, of_set in sets for start, of_window in windows if abs(low - start) <= NEAR]
        gain = (truth.of(WHOLE) or 0.0) - truth.floor
        better, as_low = (ends[1] - ends[0]) / gain, float(np.mean(alike)) / gain
        yield f"| {truth.task} | {ends[0]:.3f} | {ends[1]:.3f} | {better:.1%} | {as_low:.1%} |"
        if truth.task != SEEN:
            announced.append(better)
    if announced:
        yield f"\nwithout the {SEEN}, which were seen before: {interval(announced)}"


def _losses(truth: Truth, kind: str) -> list[tuple[int, float]]:
    """Return the lowest block and the test loss of each plan of a kind."""
    plans = [blocks for name, blocks in depth_plans(truth.n_blocks).items() if name.startswith(kind)]
    return [(blocks[0], -(truth.of(format_blocks(blocks)) or 0.0)) for blocks in plans]


def _of(task: str, cells: Sequence[Cell], scored: Sequence[Scored]) -> tuple[list[Cell], list[Scored]]:
    return [one for one in cells if one.task == task], [one for one in scored if one.task == task]
