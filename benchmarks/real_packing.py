"""What is measured of the sweep on a real model, put into the package."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.real_plans import (
    ALL_ROWS,
    BASE,
    BATCH,
    BUDGET,
    CELLS,
    LORA,
    PASSES,
    RANDOM_SETS,
    READINGS,
    SCORES,
    TASKS,
    TRAIN,
    WHOLE,
    Cell,
    Scored,
    depth_plans,
    read_lines,
    size_of,
)
from benchmarks.real_truth import EXACT, Truth, half_way, rates_of, regrets, truth_of
from lsf.evidence.real import LOOKED_AT, RealSets, RealTask, pack_real
from lsf.plans.plan import format_blocks

WORDS = {
    "trec": LOOKED_AT,
    "sst2": "SST-2, film reviews",
    "gsm8k": "GSM8K, reasoning",
    "alpaca": "alpaca, chat",
    "text": "Shakespeare, plain text",
    "facts": "changed facts",
}
"""Task -> what the app calls it."""
DIGITS = 5


def real_tasks_of(
    cells: Sequence[Cell], scored: Sequence[Scored], model: str, weights: str, n_blocks: int = 30
) -> list[RealTask]:
    """Return the tasks of which every single block, the whole model and LoRA are measured, as the package has them.

    The one that had been looked at is the last: none is shown before those that count.

    Args:
        cells: of the sweep.
        scored: its analyses.
        model: its name.
        weights: SHA-256 of its weights.
        n_blocks: L.
    """
    found = []
    for task in sorted(TASKS, key=lambda one: WORDS[one] == LOOKED_AT):
        truth, mine = truth_of(task, cells, scored, n_blocks), [one for one in scored if one.task == task]
        if truth is None or not regrets(truth, mine, 1):
            continue
        own = [cell for cell in cells if cell.task == task and cell.plan != BASE]
        rates = rates_of(own)
        tried = {size: {cell.rate or 0.0 for cell in own if size_of(cell.plan) == size} for size in ("1", WHOLE, LORA)}
        ends = [size for size, all_of in tried.items() if rates[size] in (min(all_of), max(all_of))]
        read = {one.placebo: one.scores for one in mine if one.reading == READINGS[0]}
        values = (truth.base, truth.floor, *(truth.of(plan) or 0.0 for plan in (WHOLE, LORA)))
        base, floor, whole, lora = (round(value, DIGITS) for value in values)
        top = round(max(float(np.mean(scores)) for scores in truth.scores.values()), DIGITS)
        alone = tuple(round(truth.at(1)[str(block)], DIGITS) for block in range(n_blocks))
        by_exact, half = task in EXACT, half_way(own)
        found.append(
            RealTask(
                model, weights, WORDS[task], "exact_match" if by_exact else "loss", STEPS[task],
                min(len(truth.scores[str(block)]) for block in range(n_blocks)), base, floor, whole, lora, top, alone,
                _rounded(read[False]), _rounded(read[True]), tuple(SIZES[size] for size in ends),
                tuple(half.get(str(block)) for block in range(n_blocks)), _sets_of(truth, mine, half),
            )
        )  # fmt: skip
    return found


def _sets_of(truth: Truth, mine: Sequence[Scored], half: Mapping[str, float]) -> RealSets | None:
    """Return the sets of `BUDGET` blocks as the package has them; None until all of them are measured."""
    if not regrets(truth, mine, BUDGET):
        return None
    fixed = depth_plans(truth.n_blocks)
    drawn = tuple(format_blocks(fixed[f"random {number}"]) for number in range(RANDOM_SETS))
    scores = {plan: round(score, DIGITS) for plan, score in truth.at(BUDGET).items()}
    stopped = tuple(plan for plan in truth.stopped if size_of(plan) == str(BUDGET))
    seeds = min(len(truth.scores[plan]) for plan in scores)
    windows = [format_blocks(blocks) for name, blocks in fixed.items() if name.startswith("window")]
    return RealSets(BUDGET, seeds, scores, drawn, stopped, {plan: round(half[plan], DIGITS) for plan in windows})


def pack_measured(folder: str) -> None:
    """Put into the package what is measured to its end, with the hash of the model's weights as an analysis has it."""
    from lsf.models.loading import load_model, weights_hash  # noqa: PLC0415 torch

    weights = weights_hash(load_model(folder, "float32", "cpu").model)
    pack_real(real_tasks_of(read_lines(CELLS, Cell), read_lines(SCORES, Scored), MODEL, weights))


MODEL = "SmolLM2-135M-Instruct (rounded to 4 bits)"
SIZES = {"1": "single blocks", WHOLE: "the whole model", LORA: "LoRA"}
STEPS = {task: PASSES * ALL_ROWS.get(task, TRAIN) // BATCH for task in TASKS}
"""Task -> steps of a run."""


def _rounded(scores: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(float(f"{score:.6g}") for score in own) for name, own in scores.items()}
