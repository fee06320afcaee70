"""What holds on a real language model: rates, waiting, forecasts, steps and memory, on SmolLM2-135M-Instruct.

`python benchmarks/real.py --model FOLDER [--tasks trec,...] [--seconds 600]` measures the cells that are missing, and
can be ended and started at any time; `--report` prints what the committed cells (benchmarks/real_cells.jsonl) say.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bars import markdown
from benchmarks.real_tasks import LENGTH, TASKS, WHOLE, real_task
from lsf.analysis.plan import Plan, full_plan
from lsf.environment import environment, spare_imports

CELLS = Path(__file__).with_name("real_cells.jsonl")
STEPS, BATCH = 30, 16
PLACES = {
    "whole": "full",
    "quarter": "full",
    "one": "full",
    "lora": "lora",
}
"""Where -> how."""
RATES = {
    "whole": (5e-4, 2e-4, 1e-3, 1e-4, 2e-3),
    "quarter": (5e-4, 1e-3, 2e-4, 2e-3, 1e-4),
    "one": (1e-3, 5e-4, 2e-3, 2e-4, 5e-3),
    "lora": (2e-3, 1e-3, 5e-3, 5e-4, 1e-2),
}
"""The grid, in the order in which it is measured."""


@dataclass(frozen=True)
class Cell:
    """One tuning that was measured."""

    task: str
    """One of `TASKS`."""
    place: str
    """One of `PLACES`, or `base`."""
    learning_rate: float | None
    """AdamW's peak rate; None of the base model."""
    seed: int
    """Of the data order."""
    steps: int
    """Optimizer steps."""
    loss: float | None
    """Test, nats per completion token; None where it diverged."""
    exact_match: float | None
    """Share of test rows."""
    validation_loss: float | None
    """The same on the validation rows."""
    general_loss: float | None
    """Nats per token on the base model's own text."""
    prior_loss: float | None
    """Of the answer that ignores the prompt, nats per completion token; None but of the base model."""
    seconds: float
    """Wall seconds of the steps, on a shared machine."""
    about: dict[str, str | None]
    """Versions."""

    @property
    def key(self) -> tuple[str, str, float | None, int, int]:
        """What is measured once."""
        return self.task, self.place, self.learning_rate, self.seed, self.steps


def read_cells() -> dict[tuple[str, str, float | None, int, int], Cell]:
    """Return the committed cells by key."""
    if not CELLS.exists():
        return {}
    cells = (Cell(**json.loads(line)) for line in CELLS.read_text(encoding="utf-8").splitlines())
    return {cell.key: cell for cell in cells}


def plan_of(place: str, n_blocks: int) -> Plan:
    """Return where a place tunes: a quarter is the middle one, one block the middle one."""
    if place == "whole":
        return full_plan("smollm2", n_blocks)
    middle = n_blocks // 2
    first = middle - round(n_blocks / 4) // 2
    blocks = {
        "quarter": tuple(range(first, first + round(n_blocks / 4))),
        "one": (middle,),
        "lora": tuple(range(n_blocks)),
    }
    return Plan("smollm2", n_blocks, blocks[place])


class Bench:
    """The loaded model and one task's rows, and what is measured on them."""

    def __init__(self, folder: str, task: str) -> None:
        """Load and encode."""
        from lsf.data.encode import encode  # noqa: PLC0415 torch, only where there is work
        from lsf.measure.loading import load_model  # noqa: PLC0415
        from lsf.training.forgetting import sample_general_text  # noqa: PLC0415

        self.loaded, self.name = load_model(folder, "float32", "cpu"), task
        rows = real_task(task, self.loaded.tokenizer)
        self.train = encode(self.loaded.tokenizer, rows.train, LENGTH, append_eos=task in WHOLE).rows
        self.validation, self.test = (
            encode(self.loaded.tokenizer, part, LENGTH).rows for part in (rows.validation, rows.test)
        )
        self.text = sample_general_text(self.loaded.model, self.loaded.tokenizer, self.loaded.context)

    def tune(self, place: str, rate: float, seed: int) -> Cell:
        """Tune a place at a rate and measure it."""
        from lsf.training.catalogue import options_of  # noqa: PLC0415
        from lsf.training.fitting import DivergedError, FitSettings, fit  # noqa: PLC0415
        from lsf.training.methods import METHODS, Scene  # noqa: PLC0415

        method = PLACES[place]
        plan = plan_of(place, self.loaded.info.n_blocks)
        settings = FitSettings(rate, STEPS, BATCH, STEPS // 10, 0.0, seed, "float32")
        model = METHODS[method].prepare(self.loaded, plan, Scene(options_of(method, {}), self.train, seed, BATCH))
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                fit(model, self.train, settings, Path(folder), lambda _row: None, lambda: None)
            except DivergedError:
                return self._cell(place, rate, seed, None, time.perf_counter() - begun)
        return self._cell(place, rate, seed, model, time.perf_counter() - begun)

    def base(self) -> Cell:
        """Measure the base model."""
        from lsf.data.prior import completion_ids, prior_of  # noqa: PLC0415

        prior = prior_of(completion_ids(self.train), completion_ids(self.test), self.loaded.info.vocab_size)
        return replace(self._cell("base", None, 0, self.loaded.model, 0.0), prior_loss=prior.loss)

    def _cell(self, place: str, rate: float | None, seed: int, model: Any, seconds: float) -> Cell:
        from lsf.training.evaluation import evaluate  # noqa: PLC0415
        from lsf.training.forgetting import general_loss  # noqa: PLC0415

        loss = exact = general = held_out = None
        if model is not None:
            test = evaluate(model, self.test, BATCH)
            loss, exact = finite(test.loss), test.exact_match
            held_out, general = finite(evaluate(model, self.validation, BATCH).loss), general_loss(model, self.text)
        about = {key: value for key, value in environment(None).items() if key in ("torch", "transformers")}
        about["weights"] = self.loaded.info.name
        return Cell(self.name, place, rate, seed, STEPS, loss, exact, held_out, finite(general), None, seconds, about)


def finite(value: float | None) -> float | None:
    """Return a number, or None where it is none."""
    return value if value is not None and math.isfinite(value) else None


def measure(folder: str, tasks: list[str], seconds: float, rungs: int) -> None:
    """Measure what is missing until the time is over; every cell is written as soon as it is known."""
    end = time.monotonic() + seconds
    for task in tasks:
        bench: Bench | None = None
        wanted: list[tuple[str, float | None]] = [("base", None)]
        wanted += [(place, RATES[place][rung]) for rung in range(rungs) for place in PLACES]
        for place, rate in wanted:
            if (task, place, rate, 0, STEPS) in read_cells() or time.monotonic() > end:
                continue
            bench = bench or Bench(folder, task)
            cell = bench.base() if rate is None else bench.tune(place, rate, 0)
            with CELLS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
            print(
                task, place, rate, cell.loss, cell.exact_match, cell.general_loss, f"{cell.seconds:.0f} s", flush=True
            )


def gains(cells: dict[tuple[str, str, float | None, int, int], Cell], task: str, place: str) -> dict[float, float]:
    """Return learning rate -> gain over the floor on the test rows, in nats; minus infinity where it diverged."""
    base = cells.get((task, "base", None, 0, STEPS))
    if base is None or base.loss is None or base.prior_loss is None:
        return {}
    floor = min(base.loss, base.prior_loss)
    return {
        cell.learning_rate: -math.inf if cell.loss is None else floor - cell.loss
        for cell in cells.values()
        if (cell.task, cell.place, cell.steps) == (task, place, STEPS) and cell.learning_rate is not None
    }


def report() -> None:
    """Print gain and forgetting of every place at every rate."""
    cells = read_cells()
    print("| task | place | rate: gain over the floor in nats (forgotten nats) | best |\n|---|---|---|---|")
    for task in TASKS:
        for place in PLACES:
            found, base = gains(cells, task, place), cells.get((task, "base", None, 0, STEPS))
            if not found or base is None:
                continue
            forgotten = {
                rate: (cells[task, place, rate, 0, STEPS].general_loss or math.inf) - (base.general_loss or 0.0)
                for rate in found
            }
            row = ", ".join(f"{rate:g}: {found[rate]:.3f} ({forgotten[rate]:.2f})" for rate in sorted(found))
            print(f"| {task} | {place} | {row} | {max(found, key=lambda rate: found[rate]):g} |")


def main() -> None:
    """Measure, or print the report."""
    spare_imports()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, separated by commas; default: all")
    parser.add_argument("--rungs", type=int, default=5, help="rates of the grid, the likeliest first")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no further cell is begun")
    parser.add_argument("--report", action="store_true", help="print what the committed cells say")
    parser.add_argument("--costs", action="store_true", help="time steps and passes beside plain ones, in turn")
    options = parser.parse_args()
    if options.report:
        report()
        return
    if options.model is None:
        parser.error("--model: the folder of SmolLM2-135M-Instruct is needed")
    if options.costs:
        from benchmarks.real_costs import pass_bars, step_bars  # noqa: PLC0415

        print(markdown([*pass_bars(Path(options.model)), *step_bars(Path(options.model))]))
        return
    measure(options.model, options.tasks.split(","), options.seconds, options.rungs)


if __name__ == "__main__":
    main()
