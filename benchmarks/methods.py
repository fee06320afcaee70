"""What each tuning method stores, costs at inference and in memory, and how well it does at its best rate.

`python benchmarks/methods.py [--parts storage,memory,fastfood,quality,dimension] [--seeds 3]` prints the bars, measured
on the bundled model, and exits 1 where one does not hold. How many dimensions a lesson needs takes hours: `dimension`
reads what `benchmarks/dimension.py` measured and kept.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.bars import Bar, markdown
from benchmarks.cells import Cell, best_rate, bundled, measure, rows_of
from lsf.criteria.agreement import chance_level
from lsf.data.lessons import BATCH_SIZE
from lsf.dimension.study import along_pretraining, over_lessons
from lsf.figures.dimension import fewer, progress_points, spearman
from lsf.methods.catalogue import CATALOGUE, describe, options_of
from lsf.methods.context import MethodContext
from lsf.methods.intrinsic import Fastfood
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan, full_plan
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import load_tuned, merge, save_weights
from lsf.training.attempts import PeakMemory
from lsf.training.fitting import fit
from lsf.training.measured_pass import forward_on, time_in_turn
from lsf.training.short_runs import first_tuning, own_rate
from lsf.training.trainer import FitSettings

PLAN = Plan("bundled", 8, (6, 7))
VARIANTS: tuple[tuple[str, dict[str, object]], ...] = (
    *((name, {}) for name in METHODS),
    ("adapter", {"kind": "pfeiffer"}),
    ("hiwi", {"form": "bias"}),
)
SECONDS, PAIRS, CLOSE = 15.0, 2000, 0.004
"""Time and pairs of forward passes a latency ratio may take, and how narrow an interval ends it."""
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Learning rates that may be tried; each method begins at its default."""
LEVEL = 3.0
"""Times that a projection's time per D log2 D may differ between sizes: where the cache ends it costs twice as much."""


def storage_and_latency() -> list[Bar]:
    """Print bytes stored against full tuning's of the same plan, and latency against the base, per method."""
    bars = []
    with tempfile.TemporaryDirectory() as folder:
        base, rows = bundled(), rows_of("facts").train
        full = 4 * METHODS["full"].count(base, PLAN, None)
        print(f"{'method':<26}{'tuned':>9}{'bytes':>10}{'of full':>9}{'latency':>9}")
        for name, given in VARIANTS:
            place = Path(tempfile.mkdtemp(dir=folder))
            context = MethodContext(options_of(name, given), rows[:64], 0, BATCH_SIZE, first_tuning=first_tuning)
            model = METHODS[name].prepare(base, PLAN, context)
            with torch.no_grad():
                for value in model.parameters():
                    if value.requires_grad:
                        value.add_(1e-3)
            spec = RunSpec("bundled", "lesson:facts", PLAN, method=name, options=given)
            stored = save_weights(model, base, spec, place)
            tuned = load_tuned(place, base)
            tuned = merge(tuned, base) if CATALOGUE[name].merges else tuned
            latency = time_in_turn(forward_on(tuned, base), forward_on(base.model, base), SECONDS, PAIRS, CLOSE)
            count = METHODS[name].count(base, PLAN, context.options)
            told = describe(name, given)
            print(
                f"{told:<26}{count:>9}{stored:>10}{stored / full:>9.2%}{latency.ratio:>9.3f}"
                f" ({latency.low:.3f} to {latency.high:.3f})",
                flush=True,
            )
            bars += [_stored(told, stored, full, promised(name, given, base))]
            off = abs(latency.ratio - 1.0) if CATALOGUE[name].merges else latency.ratio
            limit = 0.03 if CATALOGUE[name].merges else None
            what = f"{told}: forward pass, merged, its ratio to the base's less 1" if limit else f"{told}: forward pass"
            bars += [Bar(what, off, limit, unit="" if limit else "x")]
    return bars


def promised(name: str, given: Mapping[str, object], base: LoadedModel) -> float | None:
    """Return the most bytes a method may store; None where nothing was promised."""
    if name == "pafi":
        return 0.005 * 4 * METHODS["full"].count(base, PLAN, None)
    if given.get("form") == "bias":
        biases = {
            key: value for key, value in base.model.named_parameters() if ".mlp." in key and key.endswith(".bias")
        }
        return 4.0 * sum(biases[key].numel() for key in biases for block in PLAN.blocks if f".layers.{block}." in key)
    return 4.0 * 200 if name in ("did", "said") else None


def _stored(told: str, stored: int, full: int, limit: float | None) -> Bar:
    note = f"{stored:,} bytes, {stored / full:.2%} of full's {full:,}"
    return Bar(f"{told}: bytes stored", float(stored), limit, note=note, unit="")


def memory() -> list[Bar]:
    """Measure the peak memory of tuning the whole model by full, did and said, each in a process of its own."""
    peaks = {}
    for name in ("full", "did", "said"):
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True)
        peaks[name] = int(done.stdout.split()[-1])
    notes = {name: f"{peaks[name] / 1e6:.1f} MB / {peaks['full'] / 1e6:.1f} MB" for name in peaks}
    what = "peak memory of ten steps on the whole model, {} / full"
    return [Bar(what.format(name), peaks[name] / peaks["full"], 1.5, note=notes[name]) for name in ("did", "said")]


def one_peak(name: str) -> None:
    """Print the peak memory of ten steps on the whole bundled model by one method, in bytes."""
    base, rows = bundled(), rows_of("facts").train
    settings = FitSettings(1e-3, 10, BATCH_SIZE, 0, 0.0, 0, "float32")
    warm = METHODS["full"].prepare(base, PLAN, MethodContext())
    with tempfile.TemporaryDirectory() as folder:
        fit(warm, rows, settings, Path(folder), lambda _row: None, lambda: None)
        del warm
        with PeakMemory(base.device) as peak:
            context = MethodContext(options_of(name, {}), rows, first_tuning=first_tuning)
            model = METHODS[name].prepare(base, full_plan("bundled", 8), context)
            fit(model, rows, settings, Path(folder), lambda _row: None, lambda: None)
    print(peak.bytes)


def fastfood() -> list[Bar]:
    """Print the time of one projection against D, and per D log2 D, which an O(D log D) transform keeps level."""
    print(f"{'D':>9}{'ms':>9}{'ns per D log2 D':>17}")
    each = {}
    for power in range(12, 23, 2):
        size = 1 << power
        projection, v = Fastfood(200, size, "bench"), torch.randn(200)
        seconds = min(_timed(lambda p=projection, x=v: p.apply(x)) for _ in range(5))
        each[size] = seconds / size / power * 1e9
        print(f"{size:>9}{seconds * 1e3:>9.2f}{each[size]:>17.2f}", flush=True)
    large = [value for size, value in each.items() if size >= 1 << 16]  # below, what every call costs shows
    note = ", ".join(f"2^{size.bit_length() - 1}: {value:.1f}" for size, value in each.items())
    what = "one Fastfood projection: ns per D log2 D, greatest / least from 2^16 to 2^22"
    return [Bar(what, max(large) / min(large), LEVEL, note=f"ns, {note}")]


def _timed(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def quality(lessons: Sequence[str], plans: Sequence[Plan], seeds: int) -> list[Bar]:
    """Print what every method reaches at its best rate: the rate has seed 0 and validation, the figures are of test.

    Each goes on until its validation loss is flat, by the same rule (`lsf.runs.spec`), and its steps are shown.
    """
    heads = f"{'rate':>6}{'steps':>7}{'exact match (least to most)':>30}"
    print(f"{'method':<15}{'plan':<6}{'lesson':<9}{heads}  validation loss")
    for plan in plans:
        for name in METHODS:
            for lesson in lessons:
                cell = Cell(lesson, plan, name, flat=True)
                best, found = best_rate(cell, own_rate(bundled(), plan, name, options_of(name, {})), LADDER)
                tests = [found[best].test, *(measure(cell, best, seed).test for seed in range(1, seeds))]
                told = f"{100 * mean(tests):.1f} % ({100 * min(tests):.1f} to {100 * max(tests):.1f})"
                losses = ", ".join(f"{rate:g}: {found[rate].validation_loss:.3f}" for rate in sorted(found))
                where = "all" if plan.is_full else "6, 7"
                print(
                    f"{name:<15}{where:<6}{lesson:<9}{best:>6g}{found[best].steps:>7}{told:>30}  {losses}", flush=True
                )
    return []


def dimension() -> list[Bar]:
    """Read the bars of d_90 from the studies that are kept with the bundled model."""
    lessons, along = over_lessons(), along_pretraining()
    told = "; ".join(
        f"{s.data.removeprefix('lesson:')} {s.d_90('said') or '-'} / {s.d_90('did') or '-'}" for s in lessons
    )
    what = f"lessons of {len(lessons)} on which SAID's d_90 is below DID's"
    bars = [Bar(what, fewer(lessons), 4, at_least=True, unit="", note=f"SAID / DID: {told}; see docs/results")]
    for task in dict.fromkeys(study.data for study in along):
        points = progress_points(along, task)
        rho, chance = spearman(points), chance_level(len(points))
        if rho is not None:
            found = ", ".join(f"{step:g}: {d:g}" for step, d in points)
            beyond = "the bar is what chance reaches" if chance else "too few checkpoints to be beyond chance"
            what = f"Spearman of d_90 with steps of pre-training, {task}; {beyond}"
            bars.append(Bar(what, rho, None if chance is None else -chance, unit="", note=f"step: d_90: {found}"))
    return bars


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="storage,memory,fastfood,quality,dimension")
    parser.add_argument("--lessons", default="facts,labels")
    parser.add_argument("--plans", default="6-7,all", help="of `quality`: 6-7, all, or both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", help="print one method's peak memory")
    asked = parser.parse_args()
    if asked.one:
        one_peak(asked.one)
        return
    plans = [{"6-7": PLAN, "all": full_plan("bundled", 8)}[name] for name in asked.plans.split(",")]
    parts: dict[str, Callable[[], list[Bar]]] = {
        "storage": storage_and_latency,
        "memory": memory,
        "fastfood": fastfood,
        "dimension": dimension,
        "quality": lambda: quality(asked.lessons.split(","), plans, asked.seeds),
    }
    bars: list[Bar] = []
    for part in asked.parts.split(","):
        print(f"\n{part}")
        bars += parts[part]()
    print(f"\n{markdown(bars)}")
    sys.exit(int(any(bar.held is False for bar in bars)))


if __name__ == "__main__":
    main()
