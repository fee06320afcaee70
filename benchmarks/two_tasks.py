"""What a second task costs the first: the two-task forgetting ratio of top, random and bottom sets of blocks.

`python benchmarks/two_tasks.py [--pairs facts:labels,...] [--seeds 2] [--size 2]` tunes the whole bundled model on task
A; scores the tuned model's blocks on task B's training rows; then tunes B in so many blocks of the greatest score, of
the least, and drawn at random, and in the whole model, each from the same start, for the lesson's steps at the default
rate of its size. Printed are the loss on A's test rows before and after, what the set forgot over what the whole model
forgot (the ratio), and B's own test.
"""

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lsf.criteria.agreement import top_k
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import LESSONS, load_lesson
from lsf.environment import settle_torch, spare_imports
from lsf.plans.plan import Plan, format_blocks, full_plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec

PAIRS = "facts:labels,labels:facts,aliases:facts"
SCORED = ("alignment", "ablation", "deviation")
"""The recommended criterion, the need for a block, and the idea's own."""
RANDOM_SETS = 3
BATCH, LIMIT = 16, 128
"""Rows of a step, and test rows read."""


@dataclass(frozen=True)
class Kept:
    """One set of blocks, tuned on B."""

    way: str
    """Which set."""
    blocks: tuple[int, ...]
    """Tuned."""
    first_loss: float
    """Nats per token on A's test rows, mean over seeds."""
    second_loss: float
    """On B's test rows."""
    second_exact: float
    """Share of B's test answers right."""


def rows_of(loaded: Any, name: str) -> Any:
    """Return a lesson's rows as runs read them."""
    from lsf.training.splits import encode_splits  # noqa: PLC0415 loads torch

    plan = full_plan(loaded.info.name, loaded.info.n_blocks)
    spec = RunSpec(model=loaded.info.name, data=f"lesson:{name}", plan=plan, batch_size=BATCH, eval_limit=LIMIT)
    return encode_splits(loaded, load_lesson(name), spec)


def tuned(loaded: Any, plan: Plan, rows: Any, steps: int, seed: int) -> Any:
    """Return a model tuned in what a plan names; `loaded` is not changed."""
    from lsf.methods.context import MethodContext  # noqa: PLC0415
    from lsf.methods.registry import METHODS  # noqa: PLC0415
    from lsf.training.fitting import short_run  # noqa: PLC0415
    from lsf.training.short_runs import own_rate  # noqa: PLC0415
    from lsf.training.trainer import FitSettings  # noqa: PLC0415

    model = METHODS["full"].prepare(loaded, plan, MethodContext())
    settings = FitSettings(own_rate(loaded, plan), steps, BATCH, steps // 10, 0.0, seed, loaded.info.dtype)
    short_run(model, rows.train, settings)
    return model


def sets_of(loaded: Any, second: str, size: int) -> dict[str, tuple[int, ...]]:
    """Return way -> blocks: whole model, top and bottom by each criterion, and sets drawn at random."""
    from lsf.lens.analyze import analyze  # noqa: PLC0415

    found = analyze(loaded, load_lesson(second), AnalysisSettings(criteria=SCORED, split="train", limit=64), Silent())
    n_blocks = loaded.info.n_blocks
    sets = {"whole model": tuple(range(n_blocks))}
    for name in SCORED:
        scores = [score or 0.0 for score in found.scores(name)]
        sets[f"top, {CRITERIA[name].label}"] = top_k(scores, size)
        sets[f"bottom, {CRITERIA[name].label}"] = top_k([-score for score in scores], size)
    draw = random.Random(0)
    return sets | {f"random {n + 1}": tuple(sorted(draw.sample(range(n_blocks), size))) for n in range(RANDOM_SETS)}


def measure(first: str, second: str, size: int, seeds: int) -> tuple[float, list[Kept]]:
    """Return A's test loss before B, and what every set came to."""
    from lsf.models.loading import load_model, wrap_model  # noqa: PLC0415
    from lsf.training.evaluation import evaluate  # noqa: PLC0415

    base = load_model("bundled", "float32", "cpu")
    n_blocks = base.info.n_blocks
    whole, old, new = full_plan(base.info.name, n_blocks), rows_of(base, first), rows_of(base, second)
    loaded = wrap_model(tuned(base, whole, old, LESSONS[first].steps, 0), base.tokenizer, f"bundled after {first}")
    before = evaluate(loaded.model, old.test, 64).loss or 0.0
    sets, known = sets_of(loaded, second, size), dict[tuple[int, ...], list[float]]()
    for blocks in dict.fromkeys(sets.values()):
        plan = whole if len(blocks) == n_blocks else Plan(loaded.info.name, n_blocks, blocks)
        values = []
        for seed in range(seeds):
            model = tuned(loaded, plan, new, LESSONS[second].steps, seed)
            there, here = evaluate(model, old.test, 64), evaluate(model, new.test, 64)
            values.append((there.loss or 0.0, here.loss or 0.0, here.exact_match or 0.0))
        known[blocks] = [mean(column) for column in zip(*values, strict=True)]
    return before, [Kept(way, blocks, *known[blocks]) for way, blocks in sets.items()]


def main() -> None:
    """Print a table per pair, and the mean ratios over pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default=PAIRS, help=f"first:second, separated by commas [default: {PAIRS}]")
    parser.add_argument("--seeds", type=int, default=2, help="data orders of the second task [default: 2]")
    parser.add_argument("--size", type=int, default=2, help="blocks of a set [default: 2]")
    arguments = parser.parse_args()
    settle_torch()
    spare_imports()
    ratios: dict[str, list[float]] = {}
    for pair in arguments.pairs.split(","):
        first, second = pair.split(":")
        before, kept = measure(first, second, arguments.size, arguments.seeds)
        whole = kept[0].first_loss - before
        print(f"\n{first}, then {second}: loss on {first} before {before:.3f}, after the whole model's {whole:+.3f}")
        print(
            "| set | blocks | loss on the first | ratio | loss on the second | exact match |\n|---|---|---|---|---|---|"
        )
        for one in kept:
            ratio = (one.first_loss - before) / whole
            ratios.setdefault(one.way.rstrip(" 123"), []).append(ratio)
            told = f"{one.first_loss:.3f} | {ratio:.2f} | {one.second_loss:.3f} | {one.second_exact:.0%}"
            print(f"| {one.way} | {format_blocks(one.blocks)} | {told} |", flush=True)
    print("\nmean ratio: " + "; ".join(f"{way} {mean(values):.2f}" for way, values in ratios.items()))


if __name__ == "__main__":
    main()
