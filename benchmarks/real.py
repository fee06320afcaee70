"""What holds on a real language model: rates, waiting, forecasts, steps and memory, on SmolLM2-135M-Instruct.

`python benchmarks/real.py --model FOLDER [--tasks trec,...] [--seconds 600]` measures the cells of the grid of rates
that are missing, and can be ended and started at any time; `--runs` carries out whole runs as a person starts them, at
`default` and at `auto`; `--report` prints what the committed cells and runs (real_cells.jsonl, real_runs.jsonl) say.
At 30 steps `auto` is `default`, since a search would cost more than a fifth of the run: `--steps 100` is its grid.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bars import markdown
from benchmarks.real_report import report
from benchmarks.real_tasks import BATCHES, LENGTH, PLACES, TASKS, TEST, plan_of, real_task
from lsf.environment import environment, spare_imports
from lsf.runs.spec import METHODS_OWN, RunSpec

CELLS = Path(__file__).with_name("real_cells.jsonl")
RUNS = CELLS.with_name("real_runs.jsonl")
STEPS = 30
"""Optimizer steps of a cell or run unless `--steps` says otherwise."""
DEFAULT = METHODS_OWN
RATES_ASKED = {"default": METHODS_OWN, "auto": None}
"""What a person can ask for instead of a number -> what stands in a spec."""
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


def read_runs() -> list[dict[str, Any]]:
    """Return the committed runs of the product."""
    return [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()] if RUNS.exists() else []


class Bench:
    """The loaded model and one task's rows, and what is measured on them."""

    def __init__(self, folder: str, task: str, steps: int) -> None:
        """Load and encode, as a run does."""
        from lsf.models.loading import load_model  # noqa: PLC0415 torch, only where there is work
        from lsf.models.writing import sample_general_text  # noqa: PLC0415
        from lsf.training.splits import encode_splits  # noqa: PLC0415

        self.loaded, self.batch = load_model(folder, "float32", "cpu"), BATCHES[task]
        self.steps = steps
        self.task = real_task(task, self.loaded.tokenizer)
        self.splits = encode_splits(self.loaded, self.task, self.spec("whole", DEFAULT))
        self.text = sample_general_text(self.loaded.model, self.loaded.tokenizer, self.loaded.context)

    def spec(self, place: str, rate: float | str | None) -> RunSpec:
        """Return what is asked of a run of the product; None asks it to search a rate."""
        plan: Any = plan_of(place, self.loaded.info.n_blocks)
        asked: Any = rate
        return RunSpec(
            self.loaded.info.name, self.task.name, plan, method=PLACES[place], steps=self.steps, batch_size=self.batch,
            learning_rate=asked, warmup_steps=self.steps // 10, max_length=LENGTH, eval_limit=TEST, device="cpu",
        )  # fmt: skip

    def tune(self, place: str, rate: float, seed: int) -> Cell:
        """Tune a place at a rate and measure it, with nothing beside the loop."""
        from lsf.methods.catalogue import options_of  # noqa: PLC0415
        from lsf.methods.context import MethodContext  # noqa: PLC0415
        from lsf.methods.registry import METHODS  # noqa: PLC0415
        from lsf.training.fitting import fit  # noqa: PLC0415
        from lsf.training.trainer import DivergedError, FitSettings  # noqa: PLC0415

        method, train = PLACES[place], self.splits.train
        plan = plan_of(place, self.loaded.info.n_blocks)
        settings = FitSettings(rate, self.steps, self.batch, self.steps // 10, 0.0, seed, "float32")
        model = METHODS[method].prepare(
            self.loaded, plan, MethodContext(options_of(method, {}), train, seed, self.batch)
        )
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                fit(model, train, settings, Path(folder), lambda _row: None, lambda: None)
            except DivergedError:
                return self._cell(place, rate, seed, None, time.perf_counter() - begun)
        return self._cell(place, rate, seed, model, time.perf_counter() - begun)

    def base(self) -> Cell:
        """Measure the base model."""
        from lsf.data.report import completion_ids, prior_of  # noqa: PLC0415

        train, test = completion_ids(self.splits.train), completion_ids(self.splits.test)
        prior = prior_of(train, test, self.loaded.info.vocab_size)
        return replace(self._cell("base", None, 0, self.loaded.model, 0.0), prior_loss=prior.loss)

    def run(self, place: str, asked: str) -> dict[str, Any]:
        """Carry out a run as a person would start it, and return what it came to."""
        from lsf.runs.store import create_run  # noqa: PLC0415
        from lsf.training.run import tune  # noqa: PLC0415

        spec = self.spec(place, RATES_ASKED[asked])
        with tempfile.TemporaryDirectory() as runs:
            found = tune(self.loaded, self.task, spec, create_run(Path(runs), spec))
        assert found.after is not None and found.floor is not None and found.before is not None
        return {
            "task": self.task.name, "place": place, "asked": asked, "steps": self.steps, "seed": spec.seed,
            "learning_rate": found.learning_rate, "rate_from": found.rate_from, "search_share": found.search_share,
            "floor": found.floor.loss, "loss": found.after.loss, "exact_match": found.after.exact_match,
            "forgotten": (found.after.general_loss or math.nan) - (found.before.general_loss or math.nan),
            "wall_seconds": found.total_seconds, "predicted_seconds": found.predicted.wall_seconds,
            "phases": found.phases, "predicted_phases": found.predicted.phases,
            "peak_memory_bytes": found.peak_memory_bytes, "load": os.getloadavg()[0], "about": versions(),
        }  # fmt: skip

    def _cell(self, place: str, rate: float | None, seed: int, model: Any, seconds: float) -> Cell:
        from lsf.training.evaluation import (  # noqa: PLC0415
            evaluate,
            general_loss,
        )

        loss = exact = general = held_out = None
        if model is not None:
            test = evaluate(model, self.splits.test, self.batch)
            loss, exact = finite(test.loss), test.exact_match
            held_out = finite(evaluate(model, self.splits.validation, self.batch).loss)
            general = finite(general_loss(model, self.text))
        about = {**versions(), "weights": self.loaded.info.name}
        return Cell(self.task.name, place, rate, seed, self.steps, loss, exact, held_out, general, None, seconds, about)


def versions() -> dict[str, str | None]:
    """Return what computed."""
    import torch  # noqa: PLC0415 where there is work

    known = {key: value for key, value in environment(None).items() if key in ("torch", "transformers")}
    return known | {"threads": str(torch.get_num_threads())}


def finite(value: float | None) -> float | None:
    """Return a number, or None where it is none."""
    return value if value is not None and math.isfinite(value) else None


def measure(folder: str, tasks: list[str], places: list[str], steps: int, seconds: float, rungs: int) -> None:
    """Measure what is missing until the time is over; every cell is written as soon as it is known."""
    end = time.monotonic() + seconds
    for task in tasks:
        bench: Bench | None = None
        wanted: list[tuple[str, float | None]] = [("base", None)]
        wanted += [(place, RATES[place][rung]) for rung in range(rungs) for place in places]
        for place, rate in wanted:
            if (task, place, rate, 0, steps) in read_cells() or time.monotonic() > end:
                continue
            bench = bench or Bench(folder, task, steps)
            cell = bench.base() if rate is None else bench.tune(place, rate, 0)
            with CELLS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
            print(
                task, place, rate, cell.loss, cell.exact_match, cell.general_loss, f"{cell.seconds:.0f} s", flush=True
            )


def measure_runs(
    folder: str, tasks: list[str], places: list[str], steps: int, seconds: float, rates: list[str]
) -> None:
    """Carry out the product's runs that are missing until the time is over, on a machine that does nothing else."""
    end = time.monotonic() + seconds
    for task in tasks:
        bench: Bench | None = None
        for asked in rates:
            for place in places:
                known = {(run["task"], run["place"], run["asked"], run["steps"]) for run in read_runs()}
                if (task, place, asked, steps) in known or time.monotonic() > end:
                    continue
                bench = bench or Bench(folder, task, steps)
                run = bench.run(place, asked)
                with RUNS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
                shown = ("learning_rate", "rate_from", "loss", "forgotten", "wall_seconds", "predicted_seconds")
                print(task, place, asked, {name: run[name] for name in shown}, flush=True)


def main() -> None:
    """Measure, or print the report."""
    spare_imports()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, separated by commas; default: all")
    parser.add_argument("--places", default=",".join(PLACES), help="names, separated by commas; default: all")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps")
    parser.add_argument("--rates", default=",".join(RATES_ASKED), help="of --runs: default, auto; default: both")
    parser.add_argument("--rungs", type=int, default=5, help="rates of the grid, the likeliest first")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no further cell is begun")
    parser.add_argument("--report", action="store_true", help="print what the committed cells say")
    parser.add_argument("--runs", action="store_true", help="carry out whole runs at `default` and at `auto`")
    parser.add_argument("--costs", action="store_true", help="time steps and passes beside plain ones, in turn")
    options = parser.parse_args()
    if options.report:
        print(report(list(read_cells().values()), read_runs()))
        return
    if options.model is None:
        parser.error("--model: the folder of SmolLM2-135M-Instruct is needed")
    if options.costs:
        from benchmarks.real_costs import pass_bars, step_bars  # noqa: PLC0415

        print(markdown([*pass_bars(Path(options.model)), *step_bars(Path(options.model))]))
        return
    tasks, places = options.tasks.split(","), options.places.split(",")
    if options.runs:
        measure_runs(options.model, tasks, places, options.steps, options.seconds, options.rates.split(","))
    else:
        measure(options.model, tasks, places, options.steps, options.seconds, options.rungs)


if __name__ == "__main__":
    main()
