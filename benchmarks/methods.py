"""What each tuning method stores, costs at inference and in memory, and how few dimensions a lesson needs.

`python benchmarks/methods.py [--parts storage,memory,fastfood,rates,d90] [--seeds 3]` prints the bars, measured on
the bundled model; what methods of biases store and cost, on a GPT-2 of the same size with random weights.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.cells import BATCH_SIZE, Cell, best_rate, bundled, measure, rows_of
from lsf.analysis.plan import Plan, full_plan
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel, load_model
from lsf.training.artefacts import load_tuned, save_weights
from lsf.training.catalogue import CATALOGUE, describe, options_of
from lsf.training.fitting import FitSettings, fit
from lsf.training.memory import PeakMemory
from lsf.training.merging import forward_on, merge, time_in_turn
from lsf.training.methods import METHODS, Scene
from lsf.training.methods.projections import Fastfood

PLAN = Plan("bundled", 8, (6, 7))
VARIANTS: tuple[tuple[str, dict[str, object]], ...] = (
    *((name, {}) for name in METHODS),
    ("adapter", {"kind": "pfeiffer"}),
    ("hiwi", {"form": "bias"}),
)
SECONDS = 4.0
"""Time a latency ratio may take."""
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def biased(folder: Path) -> LoadedModel:
    """Return a GPT-2 of the bundled model's width and depth with random weights and the bundled tokenizer."""
    base = bundled()
    config = GPT2Config(
        vocab_size=base.info.vocab_size, n_embd=128, n_layer=8, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.02)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return load_model(str(folder), "float32", "cpu")


def storage_and_latency() -> None:
    """Print bytes stored against full tuning's of the same plan, and latency against the base, per method."""
    with tempfile.TemporaryDirectory() as folder:
        other, rows = biased(Path(folder)), rows_of("facts").train
        full = {id(base): 4 * METHODS["full"].count(base, PLAN, None) for base in (bundled(), other)}
        print(f"{'method':<26}{'base':<8}{'tuned':>9}{'bytes':>10}{'of full':>9}{'latency':>9}")
        for name, given in VARIANTS:
            base = other if name == "bitfit" or given.get("form") == "bias" else bundled()
            place = Path(tempfile.mkdtemp(dir=folder))
            scene = Scene(options_of(name, given), rows[:64], 0, BATCH_SIZE)
            model = METHODS[name].prepare(base, PLAN, scene)
            with torch.no_grad():
                for value in model.parameters():
                    if value.requires_grad:
                        value.add_(1e-3)
            spec = RunSpec("bundled", "lesson:facts", PLAN, method=name, options=given)
            stored = save_weights(model, base, spec, place)
            tuned = load_tuned(place, base)
            tuned = merge(tuned, base) if CATALOGUE[name].merges else tuned
            ratio = time_in_turn(forward_on(tuned, base), forward_on(base.model, base), SECONDS, 400)
            count = METHODS[name].count(base, PLAN, scene.options)
            kind = "llama" if base is bundled() else "gpt2"
            share = stored / full[id(base)]
            print(f"{describe(name, given):<26}{kind:<8}{count:>9}{stored:>10}{share:>9.2%}{ratio:>9.3f}", flush=True)


def memory() -> None:
    """Print the peak memory of tuning the whole model by full, did and said, each in a process of its own."""
    peaks = {}
    for name in ("full", "did", "said"):
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True)
        peaks[name] = int(done.stdout.split()[-1])
        print(f"{name:<6}{peaks[name] / 1e6:>8.1f} MB  {peaks[name] / peaks['full']:.2f} x full", flush=True)


def one_peak(name: str) -> None:
    """Print the peak memory of ten steps on the whole bundled model by one method, in bytes."""
    base, rows = bundled(), rows_of("facts").train
    settings = FitSettings(1e-3, 10, BATCH_SIZE, 0, 0.0, 0, "float32")
    warm = METHODS["full"].prepare(base, PLAN, Scene())
    with tempfile.TemporaryDirectory() as folder:
        fit(warm, rows, settings, Path(folder), lambda _row: None, lambda: None)
        del warm
        with PeakMemory(base.device) as peak:
            scene = Scene(options_of(name, {}), rows)
            model = METHODS[name].prepare(base, full_plan("bundled", 8), scene)
            fit(model, rows, settings, Path(folder), lambda _row: None, lambda: None)
    print(peak.bytes)


def fastfood() -> None:
    """Print the time of one projection against D, and per D log2 D, which an O(D log D) transform keeps level."""
    print(f"{'D':>9}{'ms':>9}{'ns per D log2 D':>17}")
    for power in range(12, 23, 2):
        size = 1 << power
        projection, v = Fastfood(200, size, "bench"), torch.randn(200)
        seconds = min(_timed(lambda p=projection, x=v: p.apply(x)) for _ in range(5))
        print(f"{size:>9}{seconds * 1e3:>9.2f}{seconds / size / power * 1e9:>17.2f}", flush=True)


def _timed(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def rates(lessons: Sequence[str]) -> None:
    """Print the validation loss of every method at every rate on two plans: what the default rates come from."""
    print(f"{'method':<15}{'plan':<6}{'lesson':<9}" + "".join(f"{rate:>9g}" for rate in RATES) + "  best")
    for name in METHODS:
        if name == "bitfit":
            continue
        for plan in (PLAN, full_plan("bundled", 8)):
            for lesson in lessons:
                best, found = best_rate(Cell(lesson, plan, name), RATES)
                losses = "".join(f"{found[rate].validation_loss:>9.3f}" for rate in RATES)
                print(f"{name:<15}{'all' if plan.is_full else '6, 7':<6}{lesson:<9}{losses}  {best:g}", flush=True)


def d90(lessons: Sequence[str], seeds: int, grid: Sequence[int]) -> None:
    """Print exact match against d, rate searched per d, and the smallest d of the grid that reaches 90 % of full's."""
    for lesson in lessons:
        best, found = best_rate(Cell(lesson, PLAN, "full"), (3e-3, 1e-2))
        target = 0.9 * mean(
            [found[best].test, *(measure(Cell(lesson, PLAN, "full"), best, s).test for s in range(1, seeds))]
        )
        for name in ("did", "said"):
            curve: dict[int, float] = {}
            for d in grid:
                cell = Cell(lesson, PLAN, name, (("d", d),))
                rate, tried = best_rate(cell, (1e-2, 3e-2, 1e-1, 3e-1))
                curve[d] = mean([tried[rate].test, *(measure(cell, rate, seed).test for seed in range(1, seeds))])
            reached = min((d for d, value in curve.items() if value >= target), default=math.inf)
            points = " ".join(f"{d}:{value:.3f}" for d, value in curve.items())
            print(f"{lesson:<9}{name:<6}90 % of full = {target:.3f}  d_90 = {reached}  {points}", flush=True)


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="storage,memory,fastfood,rates,d90")
    parser.add_argument("--lessons", default="facts,labels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grid", default="30,100,300,1000,3000,10000,30000")
    parser.add_argument("--one", help="print one method's peak memory")
    asked = parser.parse_args()
    if asked.one:
        return one_peak(asked.one)
    lessons = asked.lessons.split(",")
    parts: dict[str, Callable[[], None]] = {
        "storage": storage_and_latency,
        "memory": memory,
        "fastfood": fastfood,
        "rates": lambda: rates(lessons),
        "d90": lambda: d90(lessons, asked.seeds, [int(d) for d in asked.grid.split(",")]),
    }
    for part in asked.parts.split(","):
        print(f"\n{part}")
        parts[part]()
    return None


if __name__ == "__main__":
    main()
