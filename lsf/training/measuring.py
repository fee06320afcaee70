"""The test of a run that was stopped and kept, or paused in its test: read later, and put into its result."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lsf.data.task import Task
from lsf.errors import RunStateError
from lsf.models.loading import LoadedModel
from lsf.progress import Reporter, Silent
from lsf.runs.lock import RESULT, hold, release
from lsf.runs.result import RunResult, RunState, Stopwatch, phase, phases_together
from lsf.runs.spec import RunSpec
from lsf.runs.store import load_run
from lsf.training.artefacts import load_tuned
from lsf.training.attempts import explained_memory, free_memory
from lsf.training.caching import tokens_hash
from lsf.training.measured_pass import latency_asked
from lsf.training.processes import computing_on
from lsf.training.splits import EncodedSplits, encode_splits, measure_base, measured_after, watched


def texts_hash(splits: EncodedSplits) -> str:
    """Return what tells apart the texts of all rows of a run."""
    return tokens_hash((*splits.train, *splits.validation, *splits.test))


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
    spec, before = _unmeasured(folder)

    def check() -> None:
        if report.stop is not None:
            raise _LeftEarly

    if not hold(folder):
        raise RunStateError(f"The run {folder.name} is being resumed; it is measured at its end.")
    try:
        with (
            explained_memory(loaded, spec, "measuring"),
            Stopwatch().running() as stopwatch,
            computing_on(spec.threads),
        ):
            result = measured(loaded, task, folder, spec, before, report, check)
            phases = phases_together(before.phases, stopwatch.seconds)
        result = replace(result, phases=phases, total_seconds=sum(phases.values()))
        result.save(folder / RESULT)
        return result
    except _LeftEarly:
        return before
    finally:
        release(folder)
        free_memory()


def _unmeasured(folder: Path) -> tuple[RunSpec, RunResult]:
    """Return what was asked of a run and what it came to, where the test is still to come."""
    run = load_run(folder)
    if run.spec is None or run.result is None or not run.result.unmeasured:
        raise RunStateError(f"The run {run.id} has nothing to measure; only a run that was stopped and kept has.")
    return run.spec, run.result


def measured(
    loaded: LoadedModel,
    task: Task,
    folder: Path,
    spec: RunSpec,
    result: RunResult,
    report: Reporter,
    check: Callable[[], None],
) -> RunResult:
    """Return a result with its test; one whose training is whole has then succeeded.

    Args:
        loaded: the base model.
        task: the data of the run.
        folder: of the run; it holds what was tuned.
        spec: what was asked.
        result: as it stands, without a test.
        report: told what is done.
        check: called before each batch and each token written; may raise to end the test.

    Raises:
        RunError: data or texts are no longer what they were.
        BadInputError: the weights cannot be read, or were tuned on another base.
    """
    if result.data_fingerprint != task.fingerprint:
        raise RunStateError(
            f"The data of {folder.name} ({spec.data}) has changed since the run; it cannot be measured."
        )
    report.progress(0, None, "measuring what was kept")
    with phase("reading"):
        splits = encode_splits(loaded, task, spec)
    if result.texts not in (None, texts_hash(splits)) or result.rendering not in (None, splits.rendering):
        raise RunStateError(
            "The texts that the model's tokenizer and chat template make of the rows have changed since the run "
            f"{folder.name}; it cannot be measured."
        )
    with phase("base"):
        base = measure_base(loaded, spec, splits.test, watched(splits.validation), check, splits.asked)
    model = load_tuned(folder, loaded)
    after = measured_after(loaded, model, spec, splits, base, check)
    result = replace(result, before=base.metrics, **after, **latency_asked(folder, loaded, spec))
    return replace(result, state=RunState.SUCCEEDED, reason=None) if result.trained else result
