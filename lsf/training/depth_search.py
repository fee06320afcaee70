"""Neighbours at a few depths, each tuned for the first steps of a run and judged on validation examples."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lsf.data.task import Task
from lsf.errors import BadInputError, DataError, StoppedError
from lsf.methods.optimization import check_optimizer
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan
from lsf.plans.tries import Tries, Try, tried_sets, tried_steps
from lsf.progress import Phase, Reporter, Stop
from lsf.runs.spec import RunSpec
from lsf.training.attempts import (
    FitInputs,
    carried_out,
    explained_memory,
    free_memory,
    method_context,
    prepared,
    within_memory,
)
from lsf.training.caching import open_held_out
from lsf.training.evaluation import evaluate
from lsf.training.fitting import short_run
from lsf.training.processes import computing_on
from lsf.training.reweighting import reweighting_of
from lsf.training.short_runs import spec_rate
from lsf.training.splits import EncodedSplits, encode_splits, refuse_long_warmup, watched
from lsf.training.time_forecast import course_of
from lsf.training.trainer import DivergedError, FitSettings, StepRow


def try_depths(loaded: LoadedModel, task: Task, spec: RunSpec, report: Reporter) -> Tries:
    """Tune neighbours at each of `lsf.plans.tries.DEPTHS` for the first steps of a run, and read the validation loss.

    Every try is the beginning of the run that it stands for: the same rows in the same order, the same schedule, method
    and optimizer. It starts from the loaded model, which is not changed. The rate is the one given, else the default of
    what is tuned; none is searched. The test split is never touched.

    Args:
        loaded: the model the spec names.
        task: the data it names.
        spec: of the run that is to be made; of its plan only the number of blocks counts.
        report: told of the steps done and, after each try, of all tries so far; any wish to stop ends it.

    Returns:
        A try per depth, the first blocks first.

    Raises:
        DataError: the task has no validation examples, or cannot be used.
        BadInputError: the rate is to be searched, or the warm-up is as long as the run.
        PlanError: the plan names no block.
        StoppedError: a stop was asked for before the last try was done: what shorter ones came to is no choice.
        OutOfMemoryError: a single example does not fit.
    """
    if spec.searches_rate:
        raise BadInputError("A try searches no learning rate; give a number, or take the default.")
    check_optimizer(spec.optimizer)
    n_blocks, begun = loaded.info.n_blocks, time.perf_counter()
    sets = tried_sets(n_blocks, len(spec.plan.blocks))
    splits = encode_splits(loaded, task, spec)
    if not splits.validation:
        raise DataError("Trying depths needs validation examples and the data has none; give data with more rows.")
    refuse_long_warmup(spec, splits)
    judged, steps = watched(splits.validation), tried_steps(splits.steps)
    specs = [replace(spec, plan=Plan(loaded.info.name, n_blocks, blocks)) for blocks in sets]
    check, found = partial(_check, report), list[Try]()
    try:
        with TemporaryDirectory(prefix="lsf-tries-") as folder, computing_on(spec.threads):
            report.plan([_phase(loaded, splits, one, steps, check) for one in specs])
            base = evaluate(loaded.model, judged, spec.batch_size, loaded.info.dtype, check).loss
            assert base is not None
            for one in specs:
                report.phase(_words(one))
                report.progress(0, steps, _words(one))
                with explained_memory(loaded, one, "trying"):
                    rate = spec_rate(loaded, one) if one.given_rate is None else one.given_rate
                    inputs = _inputs(loaded, one, splits, rate, Path(folder) / one.plan.label, report)
                    attempt = partial(_loss, inputs, steps, judged, report)
                    loss = within_memory(spec.batch_size, inputs.micro_batch, attempt)
                found.append(Try(one.plan.blocks, rate, loss))
                report.partial(tuple(found))
    finally:
        free_memory()
    return Tries(
        model=loaded.info.name,
        n_blocks=n_blocks,
        data=task.name,
        steps=steps,
        run_steps=splits.steps,
        examples=len(judged),
        base_loss=base,
        tries=tuple(found),
        seconds=time.perf_counter() - begun,
    )


def _phase(loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, steps: int, check: Callable[[], None]) -> Phase:
    """Return a try as a phase, with the seconds that it is expected to take."""
    seconds = course_of(loaded, splits, spec, check).seconds
    return Phase(_words(spec), seconds["steps"] * steps / splits.steps + seconds.get("prefix", 0.0))


def _words(spec: RunSpec) -> str:
    return f"trying {spec.plan.label}"


def _inputs(
    loaded: LoadedModel, spec: RunSpec, splits: EncodedSplits, rate: float, folder: Path, report: Reporter
) -> FitInputs:
    """Return what the run itself would start from, with a folder of its own: a method keeps the mask it finds."""
    folder.mkdir()
    settings = FitSettings(
        learning_rate=rate,
        steps=splits.steps,
        batch_size=spec.batch_size,
        warmup_steps=min(spec.warmup_steps, tried_steps(splits.steps) // 2),  # else it would never see its rate
        weight_decay=spec.weight_decay,
        seed=spec.seed,
        base_dtype=loaded.info.dtype,
        optimizer=spec.optimizer,
        n_general=splits.n_general,
        general_share=spec.general_share,
        logged_every=1,
    )
    context = method_context(
        spec, splits.own, loaded.info.dtype, folder, lambda: report.stop, partial(_check, report)
    )  # fmt: skip
    return FitInputs(loaded, spec, splits, settings, folder, context)


def _loss(inputs: FitInputs, steps: int, judged: Any, report: Reporter, micro: int) -> float | None:
    """Return the validation loss after the first steps of a run; None where it diverged."""
    loaded, spec, check, done = inputs.loaded, inputs.spec, inputs.context.check, 0

    def watch(row: StepRow) -> None:
        nonlocal done
        done = row.step
        report.progress(done, steps, _words(spec))

    def stop() -> Stop | None:
        return inputs.context.stop() or ("enough" if done >= steps else None)

    model, rows = prepared(inputs, micro), inputs.splits.train
    try:
        with carried_out(inputs, model) as caching:
            weighed = reweighting_of(spec, loaded, model, rows, check)
            settings = replace(inputs.settings, micro_batch=micro)
            short_run(model, rows, settings, stop, watch, caching.prefix, weighed)
    except DivergedError:
        return None
    check()
    prefix = open_held_out(loaded, model, spec, judged, "validation", spec.batch_size)
    loss = evaluate(model, judged, spec.batch_size, loaded.info.dtype, check, prefix).loss
    return loss if loss is not None and math.isfinite(loss) else None


def _check(report: Reporter) -> None:
    if report.stop is not None:
        raise StoppedError("Trying depths was stopped before the last one was done; nothing was chosen.")
