"""What a stopped run kept, measured afterwards: the stop itself waits for no test."""

from dataclasses import replace
from pathlib import Path

from lsf.data.task import Task
from lsf.errors import RunError
from lsf.jobs.holding import RESULT, hold, release
from lsf.jobs.phases import Stopwatch, phase
from lsf.jobs.result import RunResult
from lsf.jobs.runs import load_run
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter, Silent
from lsf.training.artefacts import load_tuned
from lsf.training.base import measure_base, measured_after
from lsf.training.material import read_material
from lsf.training.memory import explained_memory, free_memory
from lsf.training.reading_plan import watched
from lsf.training.threads import computing_on


class _LeftEarly(Exception):
    """It was asked to end; the result stays as it was."""


def measure_kept(loaded: LoadedModel, task: Task, folder: Path, report: Reporter | None = None) -> RunResult:
    """Read the test split and general text with what a stopped run saved, and put that into its result.

    The result on disk is replaced once, when all is known: whoever reads it sees the old one or the new one.

    Args:
        loaded: the model the run's spec names.
        task: the data it names.
        folder: of the run, which was stopped and kept.
        report: any wish to stop leaves the result as it is.

    Returns:
        The result as it stands now.

    Raises:
        RunError: there is nothing to measure, a process holds the run, or the data is no longer what it was.
        BadInputError: its weights cannot be read, or were tuned on another base.
        OutOfMemoryError: it does not fit the device; the result stays as it was.
    """
    report = Silent() if report is None else report
    spec, before = _unmeasured(folder, task)
    if not hold(folder):
        raise RunError(f"The run {folder.name} is being resumed; it is measured at its end.")
    try:
        with (
            explained_memory(loaded, spec, "measuring"),
            Stopwatch().running() as stopwatch,
            computing_on(spec.threads),
        ):
            result = _measured(loaded, task, folder, spec, before, report)
            seconds = stopwatch.seconds
        phases = {name: before.phases.get(name, 0.0) + seconds.get(name, 0.0) for name in {**before.phases, **seconds}}
        result = replace(result, phases=phases, total_seconds=sum(phases.values()))
        result.save(folder / RESULT)
        return result
    except _LeftEarly:
        return before
    finally:
        release(folder)
        free_memory()


def _unmeasured(folder: Path, task: Task) -> tuple[RunSpec, RunResult]:
    """Return what was asked of a run and what it came to, where that can be measured now."""
    run = load_run(folder)
    if run.spec is None or run.result is None or not run.result.unmeasured:
        raise RunError(f"The run {run.id} has nothing to measure; only a run that was stopped and kept has.")
    if run.result.data_fingerprint != task.fingerprint:
        raise RunError(f"The data of {run.id} ({run.spec.data}) has changed since the run; it cannot be measured.")
    return run.spec, run.result


def _measured(
    loaded: LoadedModel, task: Task, folder: Path, spec: RunSpec, result: RunResult, report: Reporter
) -> RunResult:
    def check() -> None:
        if report.stop is not None:
            raise _LeftEarly

    report.progress(0, None, "measuring what was kept")
    with phase("reading"):
        material = read_material(loaded, task, spec)
    with phase("base"):
        base = measure_base(loaded, spec, material.test, watched(material.validation), check)
    model = load_tuned(folder, loaded)
    return replace(result, **measured_after(loaded, model, spec, material, base, check))
