"""What trying loses where the rate is the default, and where it is tried too, on the sweep of a real model; no torch.

Announced in docs/findings/2026-12-01-tried-rates-announced.md. It needs the runs of the judges alone, which were made
at the default rate, at half and at twice of it, and the truth of a size.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.real_plans import FACTORS, SEEDS, Cell, Scored, blocks_of, spread_out
from benchmarks.real_truth import EXACT, LOOKED_AT, Truth, regrets, score_of
from lsf.plans.plan import format_blocks

FIXED, TRIED, EVERY = "depth tried, default rate", "depth tried, then two more rates", "every depth at every rate"
DRAWN, DRAWN_TRIED, BEST = (
    "a depth at random, default rate",
    "a depth at random, then two more rates",
    "depth tried, best rate",
)


def rates_lost(truth: Truth, own: Sequence[Cell], budget: int) -> dict[str, float]:
    """Return words of a way of choosing depth and rate -> what its run loses, of the whole range from the floor.

    Against the best of all plans of the size at their shared rate and of the judges at any of theirs.

    Args:
        truth: of a task whose plans of the budget are all measured.
        own: its cells.
        budget: number of blocks.
    """
    plans = [format_blocks(blocks) for blocks in spread_out(truth.n_blocks, budget)]
    runs = {(c.plan, c.rate): c for c in own if c.plan in plans and c.seed == SEEDS[0] and c.rate is not None}
    known = [rate for rate in sorted({rate for _, rate in runs}) if all((plan, rate) in runs for plan in plans)]
    if len(known) != len(FACTORS):
        return {}
    low, default, high = known
    scores = {key: score_of(cell, truth.task in EXACT) for key, cell in runs.items()}
    best = max([*truth.at(budget).values(), *scores.values()])
    top = max([*(float(np.mean(one)) for one in truth.scores.values()), *scores.values()])
    if top <= truth.floor:
        return {}

    def lost(key: tuple[str, float]) -> float:
        return (best - scores[key]) / (top - truth.floor)

    def read(key: tuple[str, float]) -> tuple[float, int, float]:
        half = runs[key].half_way
        return (np.inf if half is None else half, -blocks_of(key[0])[0], key[1])

    depth = min(((plan, default) for plan in plans), key=read)[0]
    rated = {plan: min(((plan, rate) for rate in known), key=read) for plan in plans}
    return {
        FIXED: lost((depth, default)),
        TRIED: lost(rated[depth]),
        EVERY: lost(min(((plan, rate) for plan in plans for rate in known), key=read)),
        BEST: min(lost((depth, rate)) for rate in (low, default, high)),
        DRAWN: float(np.mean([lost((plan, default)) for plan in plans])),
        DRAWN_TRIED: float(np.mean([lost(rated[plan]) for plan in plans])),
    }


def rate_tries(truths: Sequence[Truth], cells: Sequence[Cell], scored: Sequence[Scored], budget: int) -> Iterator[str]:
    """Yield a table of what depth and rate together lose, by way of choosing."""
    found = {
        truth.task: rates_lost(truth, [cell for cell in cells if cell.task == truth.task], budget)
        for truth in truths
        if regrets(truth, scored, budget)
    }
    found = {task: lost for task, lost in found.items() if lost}
    yield "| depth and rate | mean but TREC | " + " | ".join(found) + " |"
    yield "|" + "---|" * (len(found) + 2)
    for way in (TRIED, FIXED, EVERY, BEST, DRAWN_TRIED, DRAWN):
        values = [lost[way] for task, lost in found.items() if task != LOOKED_AT]
        if values:
            each = " | ".join(f"{lost[way]:.1%}" for lost in found.values())
            yield f"| {way} | {np.mean(values):.1%} of {len(values)} tasks | {each} |"
