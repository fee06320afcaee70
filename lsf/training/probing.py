"""The measured criterion: a few real steps on every block alone, same start, same data, through the training engine."""

import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lsf.analysis.plan import Plan
from lsf.analysis.settings import AnalysisSettings
from lsf.data.task import Task
from lsf.errors import DataError
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter
from lsf.training.evaluation import evaluate
from lsf.training.fitting import DivergedError, FitSettings, fit
from lsf.training.material import read_material
from lsf.training.methods import METHODS, Scene
from lsf.training.own_rate import own_rate

PROBE_STEPS = 10
"""Optimizer steps per block."""
PROBE_BATCH = 16
"""Examples per step."""


def probe_blocks(
    loaded: LoadedModel, task: Task, settings: AnalysisSettings, report: Reporter
) -> Float[np.ndarray, " blocks"] | None:
    """Return the drop of the validation loss after `PROBE_STEPS` steps on each block alone, in nats.

    Every block starts from the loaded model, which is not changed, and sees the same examples in the same order. A
    block whose loss becomes infinite has no score (NaN). None where a stop was asked for before the last block was
    done: what shorter runs came to cannot be put beside whole ones.

    Raises:
        DataError: the task has no validation examples.
    """
    n_blocks = loaded.info.n_blocks
    spec = RunSpec(
        model=loaded.info.name,
        data=task.name,
        plan=Plan(loaded.info.name, n_blocks, (0,)),
        steps=PROBE_STEPS,
        batch_size=PROBE_BATCH,
        max_length=settings.max_length,
        seed=settings.seed,
    )
    material = read_material(loaded, task, spec)
    if not material.validation:
        raise DataError("The criterion probe needs validation examples and the data has none; leave it out.")
    rate = own_rate(loaded, spec.plan)  # one for all: every block is as large a share
    fitting = FitSettings(rate, PROBE_STEPS, PROBE_BATCH, 0, 0.0, settings.seed, loaded.info.dtype)
    before = evaluate(loaded.model, material.validation, PROBE_BATCH, loaded.info.dtype).loss
    assert before is not None
    drops = np.full(n_blocks, np.nan)
    with tempfile.TemporaryDirectory(prefix="lsf-probe-") as folder:
        for block in range(n_blocks):
            report.progress(block, n_blocks, "short runs")
            model = METHODS["full"].prepare(loaded, Plan(loaded.info.name, n_blocks, (block,)), Scene())
            try:
                done = fit(model, material.train, fitting, Path(folder), lambda _row: None, lambda: report.stop)
            except DivergedError:
                continue
            if done.stopped is not None:
                return None
            after = evaluate(model, material.validation, PROBE_BATCH, loaded.info.dtype).loss
            assert after is not None
            drops[block] = before - after
    return drops
