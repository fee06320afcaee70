"""The bars of the training engine: time and memory of selective tuning against transformers' Trainer and peft's LoRA.

python benchmarks/train.py [--only llama|gpt2|live] [--quick]

All contestants of a race take turns, one optimizer step each, so that a busy machine disturbs them alike. Ratios of
steps are medians over neighbouring turns; ratios of whole runs are sums over all turns. The law is METHOD.md's cost
model, head counted.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bars import Bar, markdown
from benchmarks.models import SHAPES, model_folder, word_rows
from benchmarks.racing import megabytes, rows_file
from benchmarks.turns import Contestant, race
from lsf.bundled import MODEL_FOLDER
from lsf.data.sources import load_task


@dataclass(frozen=True)
class Race:
    """One model and how long it is tuned."""

    name: str
    """Key of SHAPES."""
    n_blocks: int
    """L."""
    width: int
    """d."""
    vocabulary: int
    """V."""
    block_params: int
    """Parameters in matrices of a block."""
    tokens: int
    """Of an example."""
    batch: int
    """Examples per step."""
    steps_per_epoch: int
    """Steps that see every example once."""
    epochs: int
    """Passes of a whole run."""
    at_once: int
    """Plans in one race, as far as memory goes."""

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        return self.steps_per_epoch * self.epochs

    def cells(self) -> dict[str, tuple[int, ...]]:
        """Return the plans: deepest half, deepest quarter, the last block, and scattered blocks."""
        total = self.n_blocks
        return {
            "top 50 %": tuple(range(total // 2, total)),
            "top 25 %": tuple(range(total - total // 4, total)),
            "1 block": (total - 1,),
            "scattered": tuple(range(2, total, 4)),
        }

    def law(self, blocks: tuple[int, ...], cached: bool) -> float:
        """Return FLOPs per token of a step that tunes `blocks` (empty: everything), by METHOD.md."""
        head, matrix = 2.0 * self.width * self.vocabulary, 2.0 * self.block_params
        attention = 2.0 * self.width * self.tokens
        if not blocks:
            return self.n_blocks * (3 * matrix + 3 * attention) + 3 * head
        above = self.n_blocks - min(blocks)
        forward = (above if cached else self.n_blocks) * (matrix + attention) + head
        return forward + head + above * (matrix + 2 * attention) + len(blocks) * matrix


RACES = {
    "llama": Race("llama", 12, 384, 8000, 4 * 384**2 + 3 * 384 * 1024, 128, 8, 3, 5, 4),
    "gpt2": Race("gpt2", 12, 768, 50257, 12 * 768**2, 64, 4, 2, 5, 1),
}


def measure(one: Race) -> list[Bar]:
    """Race all contestants of one model and return its bars."""
    rows = rows_file(
        f"{one.name}-train", [_split(row) for row in word_rows(one.name, one.batch * one.steps_per_epoch, one.tokens)]
    )
    with tempfile.TemporaryDirectory() as scratch:
        entries: dict[str, list[str]] = {"trainer full": ["trainer"], "ours full": ["ours"]}
        for cell, blocks in one.cells().items():
            chosen = ["--blocks", ",".join(map(str, blocks))]
            entries[f"trainer {cell}"] = ["trainer", *chosen]
            entries[f"lora {cell}"] = ["lora", *chosen]
            entries[f"ours {cell}"] = ["ours", *chosen]
            entries[f"cached {cell}"] = ["ours", *chosen, "--cache", "memory"]
        runs = {}
        for group in _groups(list(entries), 4 * one.at_once):
            runs |= _race(one, rows, scratch, {name: entries[name] for name in group})
    return _bars(one, runs)


def _groups(names: list[str], size: int) -> list[list[str]]:
    """Split contestants into races: full ones run in each, so that ratios come from one race."""
    full, others = names[:2], names[2:]
    return [full + others[start : start + size] for start in range(0, len(others), size)]


def _split(row: tuple[str, str]) -> tuple[str, str]:
    words = row[0].split()
    return words[0], " " + " ".join(words[1:])


def _race(one: Race, rows: str, scratch: str, entries: dict[str, list[str]]) -> dict[str, Contestant]:
    cells = {name.partition(" ")[2] for name in entries if not name.endswith("full")}
    started = contestants_of(entries, str(model_folder(one.name)), rows, one.steps, one.batch, scratch)
    runs = dict(zip(entries, started, strict=True))
    race(started)
    for name in ("trainer full", "ours full"):
        whole = runs.pop(name)
        runs |= {f"{name} | {cell}": whole for cell in sorted(cells)}
    for label, run in runs.items():
        print(
            f"  {one.name} {label}: {sum(run.seconds):.1f} s in {len(run.seconds)} steps, "
            f"peak {megabytes(run.result['peak'])}",
            file=sys.stderr,
            flush=True,
        )
    return runs


def contestants_of(
    entries: dict[str, list[str]], model: str, rows: str, steps: int, batch: int, scratch: str
) -> list[Contestant]:
    """Start one of `benchmarks.tuners` per entry: its label -> who it is and what it tunes."""
    shared = ["--steps", str(steps), "--batch", str(batch), "--scratch", scratch]
    return [
        Contestant(label.replace("%", ""), sys.executable, "benchmarks.tuners", who, model, rows, *more, *shared)
        for label, (who, *more) in entries.items()
    ]


def step_ratio(run: Contestant, other: Contestant, start: int = 1) -> float:
    """Return how many times as long a step takes as another's: the median over neighbouring turns."""
    return statistics.median(a / b for a, b in zip(run.seconds[start:], other.seconds[start:], strict=True))


def _whole(run: Contestant) -> float:
    """Return seconds of a whole run; its first step, which warms up, counts as long as the second of the same epoch."""
    return sum(run.seconds[1:]) + run.seconds[1]


def _bars(one: Race, runs: dict[str, Contestant]) -> list[Bar]:
    label = SHAPES[one.name].label
    fulls = [cell for cell in one.cells()]
    bars = [
        Bar(
            f"{label}: our full step / Trainer's full step",
            statistics.median(
                step_ratio(runs[f"ours full | {cell}"], runs[f"trainer full | {cell}"]) for cell in fulls
            ),
            1.05,
        )
    ]
    law_full = one.law((), False)
    for cell, blocks in one.cells().items():
        full, ours_full = runs[f"trainer full | {cell}"], runs[f"ours full | {cell}"]
        plain, cached, frozen, lora = (runs[f"{who} {cell}"] for who in ("ours", "cached", "trainer", "lora"))
        allowed = one.law(blocks, False) / law_full
        measured = step_ratio(plain, ours_full)
        bars.append(
            Bar(
                f"{label}, {cell}: our step without cache, share of our full step / what the law allows",
                measured / allowed,
                1.10,
                note=f"measured {measured:.3f}, law {allowed:.3f}",
            )
        )
        epochs = (one.law(blocks, False) + (one.epochs - 1) * one.law(blocks, True)) / one.epochs
        for other, base in ((full, law_full), (frozen, one.law(blocks, False))):
            who = "Trainer full" if other is full else "Trainer, same blocks"
            law, speed = base / epochs, _whole(other) / _whole(cached)
            bars.append(
                Bar(
                    f"{label}, {cell}, {one.epochs} epochs with cache: speed-up over {who} / what the law allows",
                    speed / law,
                    0.9,
                    at_least=True,
                    note=f"measured {speed:.2f}x, law {law:.2f}x, LoRA {_whole(other) / _whole(lora):.2f}x",
                )
            )
        final = (sum(run.result["losses"][-one.steps_per_epoch :]) / one.steps_per_epoch for run in (cached, plain))
        first, second = final
        what = f"{label}, {cell}: final loss with and without cache, difference"
        bars.append(Bar(what, abs(first - second), 1e-3, unit=" nats", note=f"{first:.4f} nats"))
        memory = Bar(
            f"{label}, {cell}: peak memory with cache / Trainer full",
            cached.result["peak"] / full.result["peak"],
            0.5 if cell == "top 25 %" else None,
            note=f"{megabytes(cached.result['peak'])} of {megabytes(full.result['peak'])}; without cache "
            f"{megabytes(plain.result['peak'])}, Trainer same blocks {megabytes(frozen.result['peak'])}, LoRA "
            f"{megabytes(lora.result['peak'])}",
        )
        bars.append(memory)
    return bars


def live_bars() -> list[Bar]:
    """Compare the bundled model's steps with and without live metrics: the worst case, its steps being the shortest."""
    task = load_task("lesson:facts")
    rows = rows_file("live-train", [(row.prompt, row.completion) for row in task.train])
    with tempfile.TemporaryDirectory() as scratch:
        shared = ["ours", str(MODEL_FOLDER), rows, "--blocks", "6,7", "--steps", "100", "--batch", "16"]
        runs = [
            Contestant(name, sys.executable, "benchmarks.tuners", *shared, "--scratch", scratch, *more)
            for name, more in (("silent", ()), ("live", ("--live",)))
        ]
        race(runs)
    silent, live = runs
    what = "bundled model, blocks 6-7: steps with live metrics / without"
    return [Bar(what, step_ratio(live, silent), 1.03, note=f"{1000 * statistics.median(silent.seconds):.1f} ms a step")]


def main() -> int:
    """Print the table; exit 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=(*RACES, "live"), action="append")
    parser.add_argument("--quick", action="store_true", help="two epochs of two steps: does it run at all")
    asked = parser.parse_args()
    bars = []
    for name in asked.only or (*RACES, "live"):
        if name == "live":
            bars += live_bars()
            continue
        one = RACES[name]
        if asked.quick:
            one = Race(**{**vars(one), "steps_per_epoch": 2, "epochs": 2, "batch": 2})
        bars += measure(one)
    print(markdown(bars))
    return int(any(bar.held is False for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
