"""What the sweep on a real model is made of: its records, its plans, the rates they share, when one is ended; no torch.

All of it was announced in docs/findings/2026-11-29-real-sweeps-announced.md; `benchmarks/real_sweep.py` measures it.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_tasks import SWEPT
from lsf.criteria.agreement import top_k
from lsf.criteria.registry import CRITERIA
from lsf.plans.plan import format_blocks
from lsf.plans.policies import evenly_spaced, suffix, window

CELLS = Path(__file__).with_name("real_sweep.jsonl")
SCORES = CELLS.with_name("real_scores.jsonl")
TRAIN, PASSES, BATCH, VALIDATION = 96, 3, 8, 48
"""Training rows, how often each is seen, rows of a step, and rows that find the rate and end hopeless runs."""
ALL_ROWS = {"facts": 160}
"""Tasks with more training rows: those that test what was trained, in few tokens."""
BUDGET, STRIDE, RANDOM_SETS, SEEDS = 8, 2, 20, (0, 1)
"""Blocks of a set; between the starts of windows; sets drawn at random; data orders (a third where plans are near)."""
JUDGES = 5
"""Plans of a size, spread over the depth, that find the rate all plans of that size take."""
FACTORS = (1.0, 0.5, 2.0)
"""Rates tried, over the default one of the size."""
MOST_RATES = 8
"""Rates that a control's search may be widened to."""
LEAST_KNOWN, SPREADS = 8, 2.0
"""A window or random set is hopeless where its validation loss half-way exceeds the median of at least so many plans of
its size, at the same place under the same seed, by so many interquartile ranges of theirs."""
TEXTS = 16
"""Texts in the base model's own words that forgetting is read on."""
WHOLE, LORA, BASE = "full", "lora", "base"
READINGS = ("lens",)
TOO_DEAR = ("runs",)
"""Needs of criteria that are not compared."""
TASKS = tuple(SWEPT)
"""In the order in which they are measured."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    task: str
    """One of `SWEPT`."""
    plan: str
    """Tuned blocks as ranges, or `full`, `lora`, `base`."""
    seed: int
    """Of the data order."""
    rate: float | None
    """AdamW's peak rate; None of the base model."""
    loss: float | None
    """Test, nats per completion token; None where it diverged or was stopped."""
    exact_match: float | None
    """Share of test rows."""
    validation: float | None
    """Nats per completion token on the validation rows at the end; None where it diverged or was stopped."""
    half_way: float | None
    """The same after half of the steps; None of the base model."""
    general: float | None
    """Nats per token on the base model's own text."""
    prior: tuple[float, float] | None
    """Loss and exact match of the answer that ignores the prompt; None but of the base model."""
    seconds: float
    """CPU seconds of the run: steps, prefix and readings."""
    stopped: bool = False
    """Whether it was hopeless."""
    text: str | None = None
    """Hash of the tokens that `general` was read on; None before 2026-11-30, when they hung on the CPU threads."""

    @property
    def key(self) -> tuple[str, str, int, float | None]:
        """What is measured once."""
        return self.task, self.plan, self.seed, self.rate


@dataclass(frozen=True)
class Scored:
    """What criteria say on one task."""

    task: str
    """One of `SWEPT`."""
    reading: str
    """Of states."""
    placebo: bool
    """Whether the completions were shuffled among the training rows."""
    scores: dict[str, tuple[float, ...]]
    """Criterion -> score of each block."""
    seconds: float
    """CPU seconds of the analysis."""


def read_lines(path: Path, kind: Callable[..., Any]) -> list[Any]:
    """Return the records of a file of lines; none where there is no file."""
    return [kind(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(path: Path, record: Any) -> None:
    """Put one record behind the others."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def blocks_of(plan: str) -> tuple[int, ...]:
    """Return the blocks that a plan's ranges name."""
    parts = (part.partition("-") for part in plan.split(","))
    return tuple(block for first, _, last in parts for block in range(int(first), int(last or first) + 1))


def size_of(plan: str) -> str:
    """Return which plans share a rate with this one: those of as many blocks, or itself."""
    return plan if plan in (WHOLE, LORA, BASE) else str(len(blocks_of(plan)))


def spread_out(n_blocks: int, budget: int) -> list[tuple[int, ...]]:
    """Return `JUDGES` runs of neighbours from the first to the last blocks."""
    starts = np.linspace(0, n_blocks - budget, JUDGES).round().astype(int).tolist()
    return [tuple(range(start, start + budget)) for start in dict.fromkeys(starts)]


def depth_plans(n_blocks: int, budget: int = BUDGET) -> dict[str, tuple[int, ...]]:
    """Return what is measured whatever criteria say, beside single blocks: name -> blocks."""
    draw = np.random.default_rng(22)
    named = {
        f"window {start}": tuple(range(start, start + budget)) for start in range(0, n_blocks - budget + 1, STRIDE)
    }
    for number in range(RANDOM_SETS):
        named[f"random {number}"] = tuple(sorted(draw.choice(n_blocks, budget, replace=False).tolist()))
    start = (n_blocks - budget) // 2
    named |= {
        "first": tuple(range(budget)),
        "middle": tuple(range(start, start + budget)),
        "last": tuple(range(n_blocks - budget, n_blocks)),
        "evenly spaced": evenly_spaced(n_blocks, budget),
        "middle 20 to 80 %": tuple(range(round(0.2 * n_blocks), round(0.8 * n_blocks))),
    }
    return named


def rules(scored: Iterable[Scored], n_blocks: int, budget: int = BUDGET) -> dict[str, tuple[int, ...]]:
    """Return what every compared rule names on one task: its words -> blocks.

    At one block, and at `budget` blocks as a run of neighbours; the paper's rule in both our readings; and the upper
    half by gradient norm. A placebo's rules end in `(placebo)`.
    """
    named: dict[str, tuple[int, ...]] = {}
    for one in scored:
        end = f", {one.reading}" + (" (placebo)" if one.placebo else "")
        for name, scores in one.scores.items():
            if CRITERIA[name].needs == "nothing":
                continue
            named[f"1: {name}{end}"] = top_k(scores, 1)
            named[f"{budget}: {name}, neighbours{end}"] = window(scores, budget)
            if name == "ablation":
                least = [-score for score in scores]
                named[f"1: least ablation{end}"] = top_k(least, 1)
                named[f"{budget}: least ablation, neighbours{end}"] = window(least, budget)
        if "reduction" in one.scores:
            named[f"{budget}: SALF by reduction{end}"] = suffix(one.scores["reduction"], budget)
        if "law_headroom" in one.scores:
            start = max(top_k(one.scores["law_headroom"], 1)[0], n_blocks - budget)
            named[f"{budget}: SALF by law_headroom{end}"] = tuple(range(start, n_blocks))
        if "gradient_norm" in one.scores and one.reading == READINGS[0]:
            named[f"half: gradient_norm{end}"] = top_k(one.scores["gradient_norm"], n_blocks // 2)
    return named


def plans_of(scored: Sequence[Scored], n_blocks: int, budget: int = BUDGET) -> list[str]:
    """Return every plan of a task, in the order in which they are measured; those with a rule's blocks once.

    Sets follow each other by their first block: the states below one begin those below the next.
    """
    blocks = [(block,) for block in range(n_blocks)]
    sets = sorted([*depth_plans(n_blocks, budget).values(), *rules(scored, n_blocks, budget).values()])
    return [*dict.fromkeys([*map(format_blocks, blocks), WHOLE, LORA, *map(format_blocks, sets)])]


def seeds_of(plan: str, scored: Sequence[Scored], n_blocks: int, budget: int = BUDGET) -> tuple[int, ...]:
    """Return the seeds a plan is asked for under: a plan that only a placebo names has the first alone."""
    return SEEDS if plan in plans_of([one for one in scored if not one.placebo], n_blocks, budget) else SEEDS[:1]


def may_stop(plan: str, scored: Sequence[Scored], n_blocks: int, budget: int = BUDGET) -> bool:
    """Say whether a plan may be ended early: a window or a random set that no rule and no control names."""
    fixed = depth_plans(n_blocks, budget)
    free = {format_blocks(blocks) for name, blocks in fixed.items() if name.startswith(("window", "random"))}
    kept = [blocks for name, blocks in fixed.items() if not name.startswith(("window", "random"))]
    kept += [*spread_out(n_blocks, budget), *rules(scored, n_blocks, budget).values()]
    return plan in free - {format_blocks(blocks) for blocks in kept}


def hopeless(half_way: float, others: Sequence[float]) -> bool:
    """Say whether a run is to be ended half-way, by the validation losses of others of its size at that place."""
    if len(others) < LEAST_KNOWN:
        return False
    low, middle, high = np.percentile(others, [25, 50, 75])
    return half_way > middle + SPREADS * (high - low)


def shared_rate(cells: Iterable[Cell], task: str, plans: Sequence[str], rates: Sequence[float]) -> float | None:
    """Return the rate of the lowest mean validation loss over the judging plans; None where one is not measured.

    A rate at which a run diverged is out; where all did, the lowest one is taken.
    """
    known = {cell.key: cell.validation for cell in cells}
    found = {rate: [known.get((task, plan, 0, rate), math.nan) for plan in plans] for rate in rates}
    if any(loss is not None and math.isnan(loss) for losses in found.values() for loss in losses):
        return None
    means = {rate: np.mean([math.inf if loss is None else loss for loss in losses]) for rate, losses in found.items()}
    return min(rates, key=lambda rate: (means[rate], rate))


def widened(cells: Iterable[Cell], task: str, plan: str, rates: Sequence[float]) -> list[float]:
    """Return a control's rates, with half the least or twice the greatest while that one is the best of those tried.

    The best then lies between others, or at the end of `MOST_RATES`: whoever is compared with is not held back by
    where the search began.
    """
    found = {cell.rate: cell.validation for cell in cells if (cell.task, cell.plan, cell.seed) == (task, plan, 0)}
    tried = sorted(rates)
    while len(tried) < MOST_RATES and all(rate in found for rate in tried):
        losses = [math.inf if (loss := found[rate]) is None else loss for rate in tried]
        best = losses.index(min(losses))
        if best == 0:
            tried.insert(0, float(f"{tried[0] / 2:.3g}"))
        elif best == len(tried) - 1:
            tried.append(float(f"{tried[-1] * 2:.3g}"))
        else:
            break
    return tried


def near(cells: Mapping[tuple[str, int], float], plans: Sequence[str]) -> list[str]:
    """Return the plans of a budget whose mean is as near to the best's as seeds differ; they get a third seed.

    Args:
        cells: (plan, seed) -> score, of the first seeds.
        plans: of one budget.
    """
    scores = {plan: [cells[plan, seed] for seed in SEEDS] for plan in plans if all((plan, s) in cells for s in SEEDS)}
    if len(scores) < 2:
        return []
    spread = math.sqrt(np.mean([np.var(values, ddof=1) for values in scores.values()]))
    best = max(np.mean(values) for values in scores.values())
    found = [plan for plan, values in scores.items() if best - np.mean(values) <= spread]
    return found if len(found) > 1 else []
