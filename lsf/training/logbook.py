"""What a run tells while it goes on: rows of metrics.jsonl, with readings of the validation split now and then."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lsf.jobs.checkpoints import Checkpoint
from lsf.jobs.flatness import flat_interval, is_flat
from lsf.jobs.holding import Ending
from lsf.jobs.phases import phase
from lsf.jobs.result import Metrics
from lsf.jobs.runs import append_metrics, read_metrics, take_up
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter, Stop
from lsf.training.caching import open_held_out
from lsf.training.evaluation import evaluate
from lsf.training.keeping import Best
from lsf.training.material import Material
from lsf.training.prefix import Prefix
from lsf.training.reading_plan import reading_interval, watched
from lsf.training.watching import StepRow


class Logbook:
    """Writes the rows of one run; where the run goes on from a checkpoint, what came after it is taken back."""

    def __init__(
        self,
        loaded: LoadedModel,
        spec: RunSpec,
        folder: Path,
        material: Material,
        base: Metrics,
        ending: Ending,
        report: Reporter,
        check: Callable[[], None],
    ) -> None:
        """Choose the validation rows that are read.

        Args:
            loaded: the base model.
            spec: of the run.
            folder: of the run.
            material: its rows and steps.
            base: the base model's reading of the same validation rows: the one before the first step.
            ending: learns steps, tokens and seconds.
            report: gets every row.
            check: raises where nothing is to be kept; called during readings.
        """
        self._loaded, self._spec, self._folder, self._steps = loaded, spec, folder, material.steps
        self._ending, self._report, self._check = ending, report, check
        by_cost = spec.until == "steps"  # what goes by its readings is read at the same steps whatever is tuned
        self._every = reading_interval(loaded, spec, material) if by_cost else flat_interval(spec, material.steps)
        self._shown, self._base = watched(material.validation), base
        self._model: Any = None
        self._prefix: Prefix | None = None
        self._due, self._begun = self._every, 0
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
        self._due = ((step or 0) // self._every + 1) * self._every
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
        if self._shown and (row["step"] >= self._due or row["step"] == self._steps):
            self._due = (row["step"] // self._every + 1) * self._every
            batch, dtype = self._spec.batch_size, self._loaded.info.dtype
            with phase("validation"):
                row |= _reading(evaluate(self._model, self._shown, batch, dtype, self._check, self._prefix))
            if self.best is not None:
                self.best.look(row["step"], row["validation_loss"], self._model)
        self._tell(row)

    def _tell(self, row: dict[str, Any]) -> None:
        if "validation_loss" in row:
            self._losses.append(row["validation_loss"])
        append_metrics(self._folder, row)
        self._report.partial(row)


def _reading(read: Metrics) -> dict[str, float | None]:
    """Return what a row of metrics.jsonl holds of a reading of the validation rows."""
    return {"validation_loss": read.loss, "validation_exact_match": read.exact_match}
