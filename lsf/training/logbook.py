"""What a run tells while it goes on: rows of metrics.jsonl, with readings of the validation split now and then."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lsf.jobs.holding import Ending
from lsf.jobs.phases import phase
from lsf.jobs.runs import append_metrics, take_up
from lsf.jobs.spec import RunSpec
from lsf.reporting import Reporter
from lsf.training.evaluation import evaluate, spread_out
from lsf.training.material import Material
from lsf.training.watching import StepRow

READINGS = 10
"""Validation readings of a run, besides the one before its first step, unless the spec says otherwise."""
LIVE_ROWS = 64
"""Validation examples of such a reading at most, so that watching stays cheap beside training."""


class Logbook:
    """Writes the rows of one run; where the run goes on from a checkpoint, what came after it is taken back."""

    def __init__(
        self,
        spec: RunSpec,
        folder: Path,
        material: Material,
        base_dtype: str,
        ending: Ending,
        report: Reporter,
        check: Callable[[], None],
    ) -> None:
        """Choose the validation rows that are read.

        Args:
            spec: of the run.
            folder: of the run.
            material: its rows and steps.
            base_dtype: of the base model.
            ending: learns steps, tokens and seconds.
            report: gets every row.
            check: raises where nothing is to be kept; called during readings.
        """
        self._spec, self._folder, self._steps, self._dtype = spec, folder, material.steps, base_dtype
        self._ending, self._report, self._check = ending, report, check
        self._every = spec.eval_every or max(1, material.steps // READINGS)
        self._shown = [material.validation[index] for index in spread_out(len(material.validation), LIVE_ROWS)]
        self._model: Any = None
        self._due = self._begun = 0

    def begin(self, model: Any, step: int | None) -> None:
        """Log the reading before the first step, or go on after `step`."""
        self._model = model
        take_up(self._folder, step)
        if step is None:
            self._due = 0
            self._log({"step": 0, "loss": None, "learning_rate": None, "tokens": 0, "seconds": 0.0})
        else:
            self._begun = step
            self._due = (step // self._every + 1) * self._every

    def watch(self, row: StepRow) -> None:
        """Take a logged step."""
        done, left = row.step - self._begun, self._steps - self._begun
        self._report.progress(done, left, f"step {row.step} of {self._steps}, loss {row.loss:.3f}")
        self._ending.add(steps=row.step, tokens=row.tokens, seconds=row.seconds)
        self._log(asdict(row))

    def _log(self, row: dict[str, Any]) -> None:
        if self._shown and (row["step"] >= self._due or row["step"] == self._steps):
            self._due = (row["step"] // self._every + 1) * self._every
            with phase("validation"):
                read = evaluate(self._model, self._shown, self._spec.batch_size, self._dtype, self._check)
            row = {**row, "validation_loss": read.loss, "validation_exact_match": read.exact_match}
        append_metrics(self._folder, row)
        self._report.partial(row)
