"""What a run logs while it goes on: rows of metrics.jsonl, readings now and then, and the best one's values."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lsf.models.loading import LoadedModel
from lsf.progress import Reporter, Stop
from lsf.runs.checkpoints import Checkpoint
from lsf.runs.lock import ResultBuilder
from lsf.runs.result import Metrics, phase
from lsf.runs.spec import RunSpec, is_flat
from lsf.runs.store import append_metrics, read_metrics, take_up
from lsf.training.caching import open_held_out
from lsf.training.evaluation import evaluate
from lsf.training.prefix import Prefix
from lsf.training.splits import EncodedSplits, reading_interval, watched
from lsf.training.trainer import StepRow, logging_interval

FILE = "best.safetensors"
"""In a checkpoint: the values of the best reading until then."""


class Best:
    """Copies a model's tuned values whenever a reading is better than all before it; of equals the first is kept."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.step: int | None = None
        self._loss = math.inf
        self._values: dict[str, torch.Tensor] = {}

    def look(self, step: int, loss: float | None, model: Any) -> None:
        """Take a reading; the one before the first step is none, since nothing is tuned there.

        Args:
            step: steps done.
            loss: validation loss in nats per token; None or not finite is never the best.
            model: as it is now.
        """
        if step < 1 or loss is None or not loss < self._loss:
            return
        self.step, self._loss = step, loss
        self._values = {name: value.detach().to("cpu", copy=True) for name, value in _tuned(model).items()}

    def restore(self, model: Any) -> None:
        """Put the values held back into the model; nothing where no reading was made."""
        with torch.no_grad():
            for name, value in _tuned(model).items():
                if name in self._values:
                    value.copy_(self._values[name])

    def save(self, folder: Path) -> None:
        """Write what is held into a checkpoint."""
        if self.step is not None:
            save_file(self._values, folder / FILE, {"about": json.dumps([self.step, self._loss])})

    def load(self, folder: Path) -> None:
        """Take up what a checkpoint held; nothing where it was written before any reading."""
        if (folder / FILE).is_file():
            with safe_open(folder / FILE, "pt") as file:
                self.step, self._loss = json.loads(file.metadata()["about"])
                self._values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping


def _tuned(model: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


class MetricsLogger:
    """Writes the rows of one run; where the run goes on from a checkpoint, what came after it is taken back."""

    def __init__(
        self,
        loaded: LoadedModel,
        spec: RunSpec,
        folder: Path,
        splits: EncodedSplits,
        base: Metrics,
        builder: ResultBuilder,
        report: Reporter,
        check: Callable[[], None],
    ) -> None:
        """Choose the validation rows that are read.

        Args:
            loaded: the base model.
            spec: of the run.
            folder: of the run.
            splits: its rows and steps.
            base: the base model's reading of the same validation rows: the one before the first step.
            builder: learns steps, tokens and seconds.
            report: gets every row.
            check: raises where nothing is to be kept; called during readings.
        """
        self._loaded, self._spec, self._folder, self._steps = loaded, spec, folder, splits.steps
        self._ending, self._report, self.check = builder, report, check
        self._every = reading_interval(loaded, spec, splits)
        self._shown, self._base = watched(splits.validation), base
        self._model: Any = None
        self._prefix: Prefix | None = None
        self._begun = 0
        self._until_flat, self._losses = spec.until == "flat", list[float | None]()
        self.best = Best() if spec.keep == "best" else None

    @property
    def enough(self) -> Stop | None:
        """`enough` where the run is to end when its validation loss is flat, and it is."""
        return "enough" if self._until_flat and is_flat(self._losses) else None

    def begin(self, model: Any, checkpoint: Checkpoint | None) -> None:
        """Log the reading before the first step, or go on after a checkpoint's."""
        self._model, batch = model, self._spec.batch_size
        self._prefix = open_held_out(self._loaded, model, self._spec, self._shown, "validation", batch)
        step = None if checkpoint is None else checkpoint.progress.step
        take_up(self._folder, step)
        self._begun = step or 0
        rows = read_metrics(self._folder)
        self._losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
        if self.best is not None:
            self.best = Best()
            if checkpoint is not None:
                self.best.load(checkpoint.place)
        if step is None:
            row = {"step": 0, "loss": None, "learning_rate": None, "tokens": 0, "seconds": 0.0}
            self._tell({**row, **_reading(self._base)} if self._shown else row)

    def watch(self, row: StepRow) -> None:
        """Take a logged step."""
        done, left = row.step - self._begun, self._steps - self._begun
        self._report.progress(done, left, f"step {row.step} of {self._steps}, loss {row.loss:.3f}")
        self._ending.add(steps=row.step, tokens=row.tokens, seconds=row.seconds)
        self._log(asdict(row))

    def warn(self, words: str) -> None:
        """Note in the result what went wrong beside the run; the same words once."""
        self._ending.add(warnings=tuple(dict.fromkeys((*self._ending.known.warnings, words))))

    def _log(self, row: dict[str, Any]) -> None:
        if self._shown and self._is_read(row["step"]):
            batch, dtype = self._spec.batch_size, self._loaded.info.dtype
            with phase("validation"):
                row |= _reading(evaluate(self._model, self._shown, batch, dtype, self.check, self._prefix))
            if self.best is not None:
                self.best.look(row["step"], row["validation_loss"], self._model)
        self._tell(row)

    def _is_read(self, step: int) -> bool:
        """Say whether a step is read: the last, and the first that an unbroken run logs from each reading's due on."""
        logged = logging_interval(self._steps)
        crossed = step // self._every > (step - logged) // self._every
        return step == self._steps or (crossed and step % logged == 0)

    def _tell(self, row: dict[str, Any]) -> None:
        if "validation_loss" in row:
            self._losses.append(row["validation_loss"])
        append_metrics(self._folder, row)
        self._report.partial(row)


def _reading(read: Metrics) -> dict[str, float | None]:
    """Return what a row of metrics.jsonl holds of a reading of the validation rows."""
    return {"validation_loss": read.loss, "validation_exact_match": read.exact_match}
