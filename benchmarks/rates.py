"""Best learning rates measured: what the default rate is fitted on, and how it does on models it was not fitted on.

`python benchmarks/rates.py --measure [--models bundled,stories260K] [--methods full,lora] [--seconds S]` tunes cell
after cell and appends each to rates_cells.jsonl, one record a line; what is there is not measured again. Without
`--measure` it prints the tables from that file, in seconds and without torch.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.rates_fit import CELLS, REAL, read_cells, report
from benchmarks.settings import SETTINGS, _read
from lsf.data.task import Example, Task, split_examples
from lsf.methods.optimization import LADDER, outwards
from lsf.plans.plan import Plan, full_plan

FIRST = {
    "full": 1e-3, "lora": 3e-3, "bitfit": 3e-2, "adapter": 1e-2, "hiwi": 1e-2, "fish": 3e-2, "lt_sft": 1e-1, "pafi":
    1e-1, "random_mask": 1e-1, "top_magnitude": 1e-1, "did": 1e-1, "said": 1e-1,
}  # fmt: skip
"""Tried first with its neighbours, then outwards while the best is at an edge; of the real model a rung lower."""
ROWS_REAL, STEPS_REAL = 640, 30
SEVERAL = ("full", "lora", "adapter", "hiwi")
"""Methods measured at more than one place and task."""


@dataclass(frozen=True)
class Asked:
    """Everything of a cell but its rate."""

    model: str
    """Its name in the study, or smollm2."""
    task: str
    """Of a setting; for smollm2 trec."""
    place: str
    """whole, window (L/4 blocks in the middle) or block (the middle one)."""
    method: str
    """Key in CATALOGUE."""

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it apart."""
        return self.model, self.task, self.place, self.method


def asked_of(model: str) -> Iterator[Asked]:
    """Yield what is measured on a model, the most telling first."""
    if model == REAL:
        for method in ("lora", "adapter", "hiwi", "random_mask", "said"):
            yield Asked(model, "trec", "window", method)
        return
    tasks = ("facts", "labels") if f"{model}-facts" in SETTINGS else ("trec", "alpaca")
    for method in FIRST:
        places = ("whole", "window", "block") if method == "full" else ("whole", "window")
        for task in tasks if method in SEVERAL else tasks[:1]:
            for place in places if method in SEVERAL else places[:1]:
                yield Asked(model, task, place, method)


def plan_of(place: str, model: str, n_blocks: int) -> Plan:
    """Return the plan of a place."""
    if place == "whole":
        return full_plan(model, n_blocks)
    size = max(1, round(n_blocks / 4)) if place == "window" else 1
    start = (n_blocks - size) // 2
    return Plan(model, n_blocks, tuple(range(start, start + size)))


def real_task() -> Task:
    """Return TREC as issue 18 words it: 640 rows."""
    pairs = [line.split(" ", 1) for line in _read("trec/train.txt")[:ROWS_REAL]]
    rows = [Example(f"Question: {text}\nAnswer type:", f" {label.partition(':')[0]}") for label, text in pairs]
    return split_examples("trec", rows)


class Bench:
    """One model, loaded once, with the rows of its tasks."""

    def __init__(self, model: str) -> None:
        """Load it and read its general loss."""
        from lsf.models.loading import load_model  # noqa: PLC0415 torch, only where there is work
        from lsf.models.writing import sample_general_text  # noqa: PLC0415
        from lsf.training.evaluation import general_loss  # noqa: PLC0415

        setting = next((setting for setting in SETTINGS.values() if setting.model == model), None)
        self.model = model
        self.loaded = load_model(REAL if setting is None else setting.folder, "float32", "cpu")
        loaded = self.loaded
        self.text = sample_general_text(loaded.model, loaded.tokenizer, loaded.context)
        self.general = general_loss(loaded.model, self.text)
        self.tasks: dict[str, Any] = {}
        self.scratch = Path(tempfile.mkdtemp(prefix="lsf-rates-"))

    def ground(self, name: str) -> Any:
        """Return a task's material, steps, batch, the base's loss and the prior's."""
        if name not in self.tasks:
            from lsf.data.report import completion_ids, floor_of, prior_of  # noqa: PLC0415
            from lsf.runs.spec import RunSpec  # noqa: PLC0415
            from lsf.training.evaluation import evaluate  # noqa: PLC0415
            from lsf.training.splits import encode_splits  # noqa: PLC0415

            setting = SETTINGS.get(f"{self.model}-{name}")
            task, steps, batch, limit = (
                (real_task(), STEPS_REAL, 16, 64)
                if setting is None
                else (setting.task(), setting.steps, setting.batch_size, 256)
            )
            plan = full_plan(self.model, self.loaded.info.n_blocks)
            splits = encode_splits(
                self.loaded, task, RunSpec(self.model, name, plan, steps=steps, batch_size=batch, eval_limit=limit)
            )
            base = evaluate(self.loaded.model, splits.validation, 16)
            train, held = completion_ids(splits.train), completion_ids(splits.validation)
            prior = prior_of(train, held, self.loaded.info.vocab_size)
            floor = floor_of(prior, base.loss or 0.0, base.exact_match or 0.0)
            self.tasks[name] = splits, steps, batch, base.loss, floor.loss
        return self.tasks[name]

    def measure(self, asked: Asked, rate: float, steps: int | None = None) -> dict[str, Any]:
        """Tune once and return the record."""
        from lsf.methods.catalogue import options_of  # noqa: PLC0415
        from lsf.methods.context import MethodContext, planned_names  # noqa: PLC0415
        from lsf.methods.registry import METHODS  # noqa: PLC0415
        from lsf.training.evaluation import (  # noqa: PLC0415
            evaluate,
            general_loss,
        )
        from lsf.training.fitting import fit  # noqa: PLC0415
        from lsf.training.short_runs import first_tuning  # noqa: PLC0415
        from lsf.training.trainer import DivergedError, FitSettings  # noqa: PLC0415

        splits, own_steps, batch, base_loss, floor = self.ground(asked.task)
        n_steps: int = steps or own_steps
        info = self.loaded.info
        plan, started = plan_of(asked.place, self.model, info.n_blocks), time.perf_counter()
        options = options_of(asked.method, {})
        context = MethodContext(options, splits.train, 0, batch, folder=self.scratch, first_tuning=first_tuning)
        model = METHODS[asked.method].prepare(self.loaded, plan, context)
        settings = FitSettings(rate, n_steps, batch, 0, 0.0, 0, info.dtype)
        loss = exact = general = None
        try:
            fit(model, splits.train, settings, self.scratch, lambda _row: None, lambda: None)
            read = evaluate(model, splits.validation, 16)
            loss, exact, general = read.loss, read.exact_match, general_loss(model, self.text)
        except DivergedError:
            pass
        return {
            "model": asked.model, "task": asked.task, "place": asked.place, "method": asked.method, "rate": rate,
            "steps": n_steps, "batch_size": batch, "width": info.width, "n_params": info.n_params, "n_blocks":
            info.n_blocks,
            "n_tuned_blocks": len(plan.blocks), "trainable": METHODS[asked.method].count(self.loaded, plan, options),
            "planned": METHODS["full"].count(self.loaded, plan, None), "tensors": len(planned_names(self.loaded, plan)),
            "base_loss": base_loss, "floor": floor, "loss": loss, "exact_match": exact,
            "forgetting": None if general is None else general - self.general,
            "seconds": round(time.perf_counter() - started, 2),
        }  # fmt: skip


def tried(cells: Sequence[dict[str, Any]], asked: Asked) -> dict[float, float]:
    """Return rate -> validation loss of a cell's records, infinite where it diverged."""
    own = [cell for cell in cells if tuple(cell[name] for name in ("model", "task", "place", "method")) == asked.key]
    return {cell["rate"]: float("inf") if cell["loss"] is None else cell["loss"] for cell in own}


def next_rate(losses: dict[float, float], first: float) -> float | None:
    """Return the rate to be tried next; None where the best is inside those tried."""
    place = LADDER.index(first)
    left = [rate for rate in LADDER[place - 1 : place + 2] if rate not in losses]
    return left[0] if left else outwards(losses, LADDER)


def measure(models: Sequence[str], methods: Sequence[str], seconds: float) -> None:
    """Measure what is missing, for as long as asked; a method that a model cannot be tuned by is left out."""
    from lsf.errors import LsfError  # noqa: PLC0415

    end, cells = time.monotonic() + seconds, read_cells()
    for model in models:
        bench = None
        for asked in asked_of(model):
            if asked.method not in methods:
                continue
            first = FIRST[asked.method]
            first = LADDER[LADDER.index(first) - 1] if model == REAL else first
            while (rate := next_rate(tried(cells, asked), first)) is not None and time.monotonic() < end:
                bench = bench or Bench(model)
                try:
                    cell = bench.measure(asked, rate)
                except LsfError as error:
                    print(f"{asked}: {error}", file=sys.stderr, flush=True)
                    break
                cells.append(cell)
                with CELLS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(cell) + "\n")
                shown = {name: cell[name] for name in ("rate", "floor", "loss", "forgetting", "seconds")}
                print(*asked.key, shown, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--models", default=f"bundled,stories260K,babyllama105,{REAL}")
    parser.add_argument("--methods", default=",".join(FIRST))
    parser.add_argument("--seconds", type=float, default=1e9, help="after which it ends, between two cells")
    options = parser.parse_args()
    if options.measure:
        measure(options.models.split(","), options.methods.split(","), options.seconds)
    else:
        report()


if __name__ == "__main__":
    main()
