"""Short runs on every block alone, on a real task."""

from pathlib import Path

import numpy as np
import pytest

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.sources import load_task
from lsf.data.task import Example, Task
from lsf.errors import DataError
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent, Stop, Unheard
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, read_metrics
from lsf.training.run import tune
from lsf.training.short_runs import PROBE_BATCH, PROBE_STEPS, probe_blocks


@pytest.mark.slow
def test_every_criterion_scores_every_block_of_the_bundled_model(tmp_path: Path) -> None:
    loaded, task = load_model("bundled"), load_task("lesson:facts")
    settings = AnalysisSettings(limit=24, criteria=tuple(CRITERIA))
    analysis = analyze(loaded, task, settings, Silent(), probe_blocks)
    assert analysis.criteria == tuple(CRITERIA)
    drops = np.array(analysis.scores("probe"), dtype=float)
    assert drops.max() > 0.1
    # the same short run, asked for as a run: the probe's drop is what a real run measures
    block = int(drops.argmax())
    plan = Plan("bundled", 8, (block,))
    spec = RunSpec("bundled", "lesson:facts", plan, steps=PROBE_STEPS, batch_size=PROBE_BATCH)
    folder = create_run(tmp_path, spec)
    tune(loaded, task, spec, folder, Silent())
    rows = [row for row in read_metrics(folder) if row.get("validation_loss") is not None]
    assert rows[0]["validation_loss"] - rows[-1]["validation_loss"] == pytest.approx(drops[block], abs=0.05)


class Stopping(Unheard):
    """A reporter that asks to keep what there is once a short run is under way: the loop asks after every step."""

    def __init__(self, asked_after: int) -> None:
        self.left = asked_after

    @property
    def stop(self) -> Stop | None:
        self.left -= 1
        return "keep" if self.left < 0 else None


def test_a_probe_that_was_stopped_half_way_scores_no_block(loaded, task) -> None:
    short = AnalysisSettings(limit=4, criteria=("deviation", "probe"))
    assert probe_blocks(loaded, task, short, Stopping(PROBE_STEPS + 3)) is None
    found = analyze(loaded, task, short, Silent(), lambda *_: probe_blocks(loaded, task, short, Stopping(3)))
    assert found.criteria == ("deviation",)


def test_without_validation_examples_the_probe_says_so() -> None:
    task = Task("few", (Example("the capital of", " x"),), (), ())
    with pytest.raises(DataError, match="probe needs validation examples"):
        probe_blocks(load_model("bundled"), task, AnalysisSettings(), Silent())
