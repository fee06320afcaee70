"""Runs put into a worker's queue: what the app's button and the command line share."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lsf.data.lessons import data_words
from lsf.data.task import Task
from lsf.errors import BadInputError, LsfError
from lsf.jobs.job import RUN, Report
from lsf.jobs.worker import Worker
from lsf.methods.catalogue import check_base
from lsf.methods.optimization import check_optimizer
from lsf.plans.cost import share_of_full
from lsf.progress import Phase
from lsf.runs.lock import hold, release
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, delete_run, reopen_run


@dataclass(frozen=True)
class QueuedRun:
    """A run that was put into a queue."""

    job: str
    """Its job's id in the worker."""
    folder: Path
    """Its run folder."""


@dataclass(frozen=True)
class Together:
    """Runs that were queued at once, by their folders in the order of their turns."""

    specs: Mapping[Path, RunSpec]
    """What is asked."""
    expected: MutableMapping[Path, float | None]
    """Wall seconds each is expected to take; None where nobody knows."""

    def count(self, loaded: Any, task: Task) -> None:
        """Count the seconds of several of which nobody knows."""
        from lsf.training.forecast import seconds_in_turn  # noqa: PLC0415 torch is loaded where the work is done

        if len(self.specs) > 1 and None in self.expected.values():
            with suppress(LsfError, RuntimeError, MemoryError):  # a run that cannot be carried out says so itself
                seconds = seconds_in_turn(loaded, task, list(self.specs.values()))
                self.expected.update(zip(self.specs, seconds, strict=True))


def queue_runs(
    worker: Worker,
    runs: Path,
    specs: Sequence[RunSpec],
    loaded: Callable[[], Any],
    task: Callable[[], Task],
    owner: str = "",
    expected: Sequence[float | None] | None = None,
) -> tuple[QueuedRun, ...]:
    """Make a folder for every spec and queue the runs in this order; they show as queued until their turn comes.

    Args:
        worker: of the device.
        runs: the folder of all runs.
        specs: what is asked.
        loaded: returns the LoadedModel; called in the worker's thread when a run's turn comes, so that nothing is kept
            in memory for those that wait.
        task: returns the data; called there too.
        owner: who may stop them; empty means anybody.
        expected: wall seconds each is expected to take; where nobody knows, the first run that begins counts them.

    Raises:
        BadInputError: the worker was closed, a package is missing that an optimizer needs, or a method does not tune
            its base.
        RunError: a folder cannot be made, or the runs folder is full; then none of the runs is queued.
    """
    for spec in specs:
        check_optimizer(spec.optimizer)
        check_base(spec.method, spec.dtype)
    folders: list[Path] = []
    queued: list[QueuedRun] = []
    try:
        for spec in specs:
            folders.append(create_run(runs, spec))
            hold(folders[-1])
        known = dict(zip(folders, expected or [None] * len(specs), strict=True))
        together = Together(dict(zip(folders, specs, strict=True)), known)
        for folder, spec in together.specs.items():
            work = partial(tune_in_queue, worker, owner, loaded, task, spec, folder, together)
            job = worker.submit(RUN, _title(spec), work, owner, folder, partial(known.get, folder), _cost(spec))
            queued.append(QueuedRun(job, folder))
    except BaseException:  # whatever it was, no run is left waiting that nobody will carry out
        for folder in folders[len(queued) :]:
            release(folder)
            delete_run(folder)
        raise
    return tuple(queued)


def queue_resumed(
    worker: Worker,
    folder: Path,
    loaded: Callable[[RunSpec], Any],
    task: Callable[[RunSpec], Task],
    owner: str = "",
) -> QueuedRun:
    """Queue a run that ended early, to go on from its newest checkpoint.

    Args:
        worker: of the device.
        folder: of the run.
        loaded: returns the LoadedModel its spec names; called in the worker's thread.
        task: returns the data its spec names; called there too.
        owner: who may stop it; empty means anybody.

    Raises:
        RunError: it cannot be resumed; see `lsf.runs.store.reopen_run`.
        BadInputError: the worker was closed.
    """
    spec = reopen_run(folder)
    try:
        title = _title(spec)
        alone = Together({folder: spec}, {folder: None})
        work = partial(tune_in_queue, worker, owner, partial(loaded, spec), partial(task, spec), spec, folder, alone)
        return QueuedRun(worker.submit(RUN, title, work, owner, folder, cost=_cost(spec)), folder)
    except BaseException:  # the folder can be resumed by somebody else
        release(folder)
        raise


def _cost(spec: RunSpec) -> float:
    """Return roughly what a run computes, in steps of full fine-tuning: as if its model were equal blocks alone."""
    plan = spec.plan
    lowest = 0 if plan.embedding else min(plan.blocks, default=plan.n_blocks)
    return spec.steps * share_of_full([1] * plan.n_blocks, 0.0, 0.0, lowest, plan.blocks)


def _title(spec: RunSpec) -> str:
    return f"{spec.tuned} on {data_words(spec.data)}"


def tune_in_queue(
    worker: Worker,
    owner: str,
    loaded: Callable[[], Any],
    task: Callable[[], Task],
    spec: RunSpec,
    folder: Path,
    together: Together,
    report: Report,
) -> Any:
    """Load what is needed and carry out one run of those queued together; see `lsf.training.run.tune`.

    Where it was stopped and kept, its test is a job of its own at the end of the queue.
    """
    from lsf.training.run import tune  # noqa: PLC0415 torch is loaded where the work is done

    report.plan((Phase("loading the model and the data", 0.0), Phase("the run", together.expected[folder])))
    report.phase("loading the model and the data")
    model, data = loaded(), task()
    together.count(model, data)
    result = tune(model, data, spec, folder, report)
    if result.unmeasured:
        with suppress(BadInputError):  # the worker was closed: it can be measured another time
            worker.submit("measure", f"{_title(spec)}: test", partial(measure_in, loaded, task, folder), owner)
    return result


def measure_in(loaded: Callable[[], Any], task: Callable[[], Task], folder: Path, report: Report) -> Any:
    """Measure what a stopped run kept (see `lsf.training.measuring.measure_kept`) and return it."""
    from lsf.training.measuring import measure_kept  # noqa: PLC0415 torch is loaded where the work is done

    report.progress(0, None, "loading the model and the data")
    return measure_kept(loaded(), task(), folder, report).after
