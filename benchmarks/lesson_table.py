"""Which depth is right for each lesson, measured: every block tuned alone, and the whole model, over several seeds.

`python -m benchmarks.lesson_table [--lessons facts,sums] [--seeds 3] [--json FILE]` prints the table of
docs/findings. With `--json`, what is measured is written as it comes, and a second start goes on where the first ended.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lsf.data.encode import EncodedExample, encode
from lsf.data.lessons import BATCH_SIZE, LESSONS, Lesson, load_lesson
from lsf.files import read_json, write_json
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import Plan, full_plan
from lsf.training.evaluation import evaluate
from lsf.training.fitting import fit
from lsf.training.trainer import DivergedError, FitSettings

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates tried for the whole model and for every block alike."""
BEYOND = 3e-2
"""Tried too where the highest of `RATES` is the best."""
WARMUP_SHARE = 0.1
"""Share of the steps in which the rate rises."""
EVALUATION_BATCH = 64
"""Examples per forward pass of an evaluation."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Rows:
    """A lesson, tokenised."""

    train: tuple[EncodedExample, ...]
    """With end-of-text."""
    validation: tuple[EncodedExample, ...]
    """Chooses the rate."""
    test: tuple[EncodedExample, ...]
    """Gives the table's numbers."""


@dataclass(frozen=True)
class Outcome:
    """What one tuned model came to."""

    validation: tuple[float, float]
    """Exact match, and minus the loss (nats per token): the greater, the better the rate."""
    test: float
    """Exact match on the test split, in [0, 1]."""


LOST = Outcome((0.0, -math.inf), 0.0)
"""A run whose loss became infinite."""


@dataclass(frozen=True)
class Place:
    """What tuning one place came to."""

    learning_rate: float
    """Best on validation with seed 0, from the whole number of steps."""
    test: tuple[float, ...]
    """Test exact match, one per seed, in [0, 1]."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.test))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for one seed."""
        return float(np.std(self.test, ddof=1)) if len(self.test) > 1 else None

    @property
    def told(self) -> str:
        """Mean and spread in words."""
        return f"{self.mean:.2f}" + ("" if self.spread is None else f" ± {self.spread:.2f}")


def read_rows(loaded: LoadedModel, lesson: Lesson) -> Rows:
    """Tokenise a lesson for the model."""
    task = load_lesson(lesson.name)
    held_out = (encode(loaded.tokenizer, split, loaded.context).rows for split in (task.validation, task.test))
    return Rows(encode(loaded.tokenizer, task.train, loaded.context, append_eos=True).rows, *held_out)


def tuned(loaded: LoadedModel, lesson: Lesson, rows: Rows, plan: Plan, rate: float, seed: int) -> Outcome:
    """Tune one plan at one rate and measure it; the loaded model is not changed."""
    settings = FitSettings(
        learning_rate=rate,
        steps=lesson.steps,
        batch_size=BATCH_SIZE,
        warmup_steps=round(WARMUP_SHARE * lesson.steps),
        weight_decay=0.0,
        seed=seed,
        base_dtype=loaded.info.dtype,
    )
    model = METHODS["full"].prepare(loaded, plan, MethodContext())
    with TemporaryDirectory() as folder:
        try:
            fit(model, rows.train, settings, Path(folder), watch=lambda row: None, stop=lambda: None)
        except DivergedError:
            return LOST
    validation, test = (evaluate(model, part, EVALUATION_BATCH) for part in (rows.validation, rows.test))
    if validation.loss is None or not math.isfinite(validation.loss):
        return LOST
    return Outcome((validation.exact_match or 0.0, -validation.loss), test.exact_match or 0.0)


def measure_place(loaded: LoadedModel, lesson: Lesson, rows: Rows, plan: Plan, seeds: int) -> Place:
    """Choose the plan's own best rate on validation with seed 0, then tune at that rate with every seed."""
    found = {rate: tuned(loaded, lesson, rows, plan, rate, 0) for rate in RATES}
    rate = max(found, key=lambda rate: found[rate].validation)
    if rate == max(RATES):
        found[BEYOND] = tuned(loaded, lesson, rows, plan, BEYOND, 0)
        rate = max((rate, BEYOND), key=lambda rate: found[rate].validation)
    others = [tuned(loaded, lesson, rows, plan, rate, seed).test for seed in range(1, seeds)]
    return Place(rate, (found[rate].test, *others))


def measure_lessons(names: Sequence[str], seeds: int, out: Path | None, progress: Progress) -> dict[str, dict]:
    """Measure every place of every lesson; return lesson -> {"before": ..., place: {"learning_rate", "test"}}.

    Args:
        names: of lessons.
        seeds: data orders, 0 .. seeds-1.
        out: JSON written after each place; what it already holds for as many seeds is not measured again.
        progress: told of each place.
    """
    loaded = load_model("bundled", dtype="float32")
    count = loaded.info.n_blocks
    plans = {"full": full_plan("bundled", count)} | {str(b): Plan("bundled", count, (b,)) for b in range(count)}
    table: dict[str, dict] = read_json(out, "a lesson table") if out and out.exists() else {}
    for name in names:
        lesson, rows = LESSONS[name], read_rows(loaded, LESSONS[name])
        entry = table.setdefault(name, {})
        entry["steps"] = lesson.steps
        entry["before"] = evaluate(loaded.model, rows.test, EVALUATION_BATCH).exact_match
        for place, plan in plans.items():
            if len(entry.get(place, {}).get("test", ())) != seeds:
                measured = measure_place(loaded, lesson, rows, plan, seeds)
                entry[place] = {"learning_rate": measured.learning_rate, "test": measured.test}
                progress(f"{name} {place}: {measured.told} at {measured.learning_rate:g}")
            if out:
                write_json(out, table)
    return table


def format_table(table: dict[str, dict]) -> str:
    """Return the measured table as Markdown: one row per lesson, one column per block, the best one bold."""
    blocks = sorted({place for entry in table.values() for place in entry if place.isdigit()}, key=int)
    lines = [
        "| lesson | steps | before | full | " + " | ".join(f"block {b}" for b in blocks) + " | best | worst |",
        "|---" * (len(blocks) + 6) + "|",
    ]
    for name, entry in table.items():
        places = {key: Place(entry[key]["learning_rate"], tuple(entry[key]["test"])) for key in ("full", *blocks)}
        ranked = sorted(blocks, key=lambda b: places[b].mean)
        shown = {key: place.told for key, place in places.items()}
        cells = [f"**{shown[b]}**" if b == ranked[-1] else shown[b] for b in blocks]
        lines.append(
            f"| {name} | {entry['steps']} | {entry['before']:.2f} | {shown['full']} | "
            + " | ".join(cells)
            + f" | block {ranked[-1]} | block {ranked[0]} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure from the command line; the table goes to standard output, progress to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", default=",".join(LESSONS), help="names, separated by commas; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="data orders per place; default: 3")
    parser.add_argument("--json", type=Path, help="file to write as it goes, and to go on from")
    options = parser.parse_args(arguments)
    table = measure_lessons(options.lessons.split(","), options.seeds, options.json, _tell)
    sys.stdout.write(format_table(table))


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
