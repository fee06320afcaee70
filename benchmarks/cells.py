"""One cell of blocks x methods: a plan tuned by a method on a lesson at a rate; and the best rate of a cell."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.lesson_table import Rows, read_rows
from lsf.data.lessons import BATCH_SIZE, LESSONS
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.methods.optimization import outwards
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import Plan
from lsf.runs.spec import is_flat
from lsf.training.evaluation import evaluate
from lsf.training.fitting import fit
from lsf.training.short_runs import first_tuning
from lsf.training.trainer import DivergedError, FitSettings, StepRow

EVALUATION_BATCH = 64
CAP = 5
"""Times the steps that a cell which goes on until it is flat may take, as the app's grid has it."""


@dataclass(frozen=True)
class Cell:
    """What is tuned, how, on what."""

    lesson: str
    """Name of the lesson."""
    plan: Plan
    """Where."""
    method: str
    """How."""
    options: tuple[tuple[str, Any], ...] = ()
    """The method's options, those given."""
    steps: int | None = None
    """None: as many as the lesson says tell depths apart."""
    flat: bool = False
    """Whether it goes on until its validation loss is flat, after `CAP` times the steps at the latest."""


@dataclass(frozen=True)
class Measured:
    """What one tuning came to."""

    validation_loss: float
    """Nats per token; infinite where the loss diverged."""
    test: float
    """Exact match on the test split."""
    model: Any
    """The tuned model; None where the loss diverged."""
    steps: int = 0
    """Optimizer steps it took."""


@cache
def bundled() -> LoadedModel:
    """Return the bundled model, loaded once."""
    return load_model("bundled", "float32", "cpu")


@cache
def rows_of(lesson: str) -> Rows:
    """Return a lesson's rows, tokenised once."""
    return read_rows(bundled(), LESSONS[lesson])


def measure(cell: Cell, rate: float, seed: int, loaded: LoadedModel | None = None) -> Measured:
    """Tune a cell once.

    Args:
        cell: what.
        rate: AdamW's peak rate.
        seed: of data order and the method's draws.
        loaded: another base than the bundled model.
    """
    loaded = loaded or bundled()
    rows, asked = rows_of(cell.lesson), cell.steps or LESSONS[cell.lesson].steps
    steps = CAP * asked if cell.flat else asked
    settings = FitSettings(
        learning_rate=rate,
        steps=steps,
        batch_size=BATCH_SIZE,
        warmup_steps=steps // 10,
        weight_decay=0.0,
        seed=seed,
        base_dtype="float32",
    )
    options = options_of(cell.method, dict(cell.options))
    with tempfile.TemporaryDirectory() as folder:
        context = MethodContext(
            options, rows.train, seed, BATCH_SIZE, folder=masks_of(cell.lesson), first_tuning=first_tuning
        )
        model = METHODS[cell.method].prepare(loaded, cell.plan, context)
        losses: list[float | None] = [evaluate(model, rows.validation, EVALUATION_BATCH).loss] if cell.flat else []

        def watch(row: StepRow) -> None:
            if cell.flat and row.step % (asked // 5) == 0:
                losses.append(evaluate(model, rows.validation, EVALUATION_BATCH).loss)

        try:
            done = fit(model, rows.train, settings, Path(folder), watch, lambda: "enough" if is_flat(losses) else None)
        except DivergedError:
            return Measured(math.inf, 0.0, None)
    validation, test = (evaluate(model, part, EVALUATION_BATCH) for part in (rows.validation, rows.test))
    loss = math.inf if validation.loss is None or math.isnan(validation.loss) else validation.loss
    return Measured(loss, test.exact_match or 0.0, model, done.steps)


@cache
def masks_of(lesson: str) -> Path:
    """Return a folder in which a mask is found once for all rates on a lesson."""
    return Path(tempfile.mkdtemp(prefix="lsf-masks-"))


def best_rate(cell: Cell, first: float, ladder: Sequence[float]) -> tuple[float, dict[float, Measured]]:
    """Return the rate of the lowest validation loss under seed 0, and everything that was tried.

    Args:
        cell: what is tuned.
        first: tried first, with its neighbours of the ladder; then outwards while the best is at an edge.
        ladder: rates that may be tried, ascending.
    """
    place = min(range(len(ladder)), key=lambda rung: abs(math.log(ladder[rung] / first)))
    found = {rate: measure(cell, rate, 0) for rate in ladder[max(0, place - 1) : place + 2]}
    while (further := outwards({rate: one.validation_loss for rate, one in found.items()}, ladder)) is not None:
        found[further] = measure(cell, further, 0)
    return min(found, key=lambda rate: found[rate].validation_loss), found
