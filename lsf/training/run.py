"""One run from start to end: search, before, tune, after, proof, weights, result.json."""

import itertools
import shutil
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lsf.data.task import Task
from lsf.environment import environment
from lsf.errors import LsfError, RunError, RunPausedError
from lsf.methods.catalogue import options_of
from lsf.methods.optimization import check_optimizer
from lsf.methods.registry import METHODS
from lsf.models.batches import training_order
from lsf.models.loading import LoadedModel, config_hash, weights_hash
from lsf.models.writing import GeneralText
from lsf.progress import Reporter, Silent
from lsf.runs.checkpoints import CHECKPOINTS, drop_checkpoints, has_unreadable, latest_checkpoint
from lsf.runs.lock import RESULT, WEIGHTS, ResultBuilder, finish, run_lock
from lsf.runs.result import GeneralData, RunResult, RunState, Stopwatch, phase, phases_together
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import save_weights
from lsf.training.attempts import (
    Attempt,
    FitInputs,
    PeakMemory,
    explained_memory,
    fit_within_memory,
    free_memory,
    method_context,
)
from lsf.training.forecast import course_of_run, expected
from lsf.training.measured_pass import latency_asked
from lsf.training.measuring import measured, texts_hash
from lsf.training.metrics_logger import MetricsLogger
from lsf.training.processes import computing_on, wait_for_all
from lsf.training.proof import prove
from lsf.training.rate_search import choose_rate, find_rate, kept_search, resumed_choice
from lsf.training.short_runs import spec_rate
from lsf.training.splits import (
    BaseReading,
    EncodedSplits,
    encode_splits,
    floor_on,
    measure_base,
    measured_after,
    refuse_long_warmup,
    refuse_without_readings,
    watched,
)
from lsf.training.time_forecast import Course, phases_of, telling
from lsf.training.trainer import FitSettings
from lsf.wording import counted


class _StoppedEarly(Exception):
    """The run was asked to end and has nothing to keep."""


def tune(
    loaded: LoadedModel,
    task: Task,
    spec: RunSpec,
    folder: Path,
    report: Reporter | None = None,
    shared: Path | None = None,
) -> RunResult:
    """Carry out one run, selective or full, in its folder, and write what it came to.

    A folder with a checkpoint goes on from it, with the next batch, to the same end as an uninterrupted run; one of a
    run that was paused in its test goes on with the test.

    The loaded model is read and never changed: the tuned model shares its frozen tensors and owns the others. Runs on
    the same model, task and seed start from the same weights, see the same examples in the same order, and have the
    same numbers before.

    Args:
        loaded: the model the spec names.
        task: the data the spec names.
        spec: what is asked.
        folder: made by `lsf.runs.store.create_run`.
        report: gets progress, each logged row as partial result, and says whether to stop. `keep` ends the training
            after the step it is in and saves; its test is left to `lsf.training.measuring.measure_kept`. `discard` ends
            at once and leaves neither weights nor metrics after. Both end in the state `cancelled`. `pause` writes a
            checkpoint and leaves the run `interrupted`; in the test it leaves what was tuned, and the run `cancelled`.
        shared: the run folder whose checkpoints are used, where several processes carry out one run together and
            `folder` is this one's own (lsf.training.processes); None: `folder`.

    Returns:
        The result as written to result.json: succeeded or cancelled.

    Raises:
        RunError: the loss diverged, the folder was removed, or the disk does not take it; OutOfMemoryError where memory
            did not suffice. A failed result with that sentence was written, where there still is a folder.
        RunPausedError: it was asked to pause; nothing is written beside the checkpoint.
        PlanError, DataError: the plan does not fit the model, or the data cannot be used.
    """
    check_optimizer(spec.optimizer)
    work = _Tuning(loaded, task, spec, folder, Silent() if report is None else report, shared or folder)
    with (
        run_lock(folder) as builder,
        explained_memory(loaded, spec),
        computing_on(spec.threads) as threads,
        Stopwatch(telling(work.report), before=work.before).running() as stopwatch,
    ):
        builder.add(threads=threads)
        try:
            result = work.carry_out(builder)
        except _StoppedEarly:
            result = work.discard(builder.known)
        finally:
            free_memory()
            seconds = stopwatch.seconds
            builder.add(total_seconds=sum(seconds.values()), phases=seconds)
        result = replace(result, total_seconds=builder.known.total_seconds, phases=builder.known.phases)
        finish(folder, result)
    if result.trained or not result.kept:
        drop_checkpoints(folder)
    return result


class _Tuning:
    """The parts of one run, in the order in which they are called."""

    def __init__(
        self, loaded: LoadedModel, task: Task, spec: RunSpec, folder: Path, report: Reporter, shared: Path
    ) -> None:
        if has_unreadable(shared):
            raise RunError(
                f"No checkpoint of {shared.name} can be read, so it cannot go on; start it again from its spec.json, "
                f"or remove {CHECKPOINTS}/ to start it over."
            )
        self.loaded, self.task, self.spec, self.folder, self.report = loaded, task, spec, folder, report
        self.shared = shared
        self.steps = spec.steps
        earlier, self.trained = latest_checkpoint(shared), _trained(shared)
        self.before = {} if earlier is None else earlier.progress.phases
        if self.trained is not None:
            self.steps, self.before = self.trained.steps, self.trained.phases

    def carry_out(self, builder: ResultBuilder) -> RunResult:
        """Do all of it; `builder` learns each part as soon as it is known."""
        loaded, spec = self.loaded, self.spec
        if self.trained is not None:
            builder.known = self.trained
            return measured(loaded, self.task, self.shared, spec, self.trained, self.report, self.end_where_left)
        self.identify(builder)
        planned = METHODS[spec.method].count(loaded, spec.plan, options_of(spec.method, spec.options))
        splits, course = self.read(builder)
        with phase("base"):
            shown = watched(splits.validation)
            base = measure_base(loaded, spec, splits.test, shown, self.end_where_asked, splits.asked)
        builder.add(before=base.metrics, floor=floor_on(splits, base.metrics, loaded.info.vocab_size, self.task.train))
        self.end_where_asked()
        inputs = self.inputs(splits)
        rate = self.rate(inputs, base.text, builder)
        inputs = replace(inputs, settings=replace(inputs.settings, learning_rate=rate))
        with phase("forecast", whole=True):
            predicted = expected(loaded, splits, spec, course, self.end_where_asked)
        builder.add(predicted=replace(predicted, phases=phases_together(self.before, predicted.phases)))
        self.report.plan(phases_of(predicted.phases, course.work.fill_share))
        with phase("preparing"):
            check = self.end_where_discarded
            log = MetricsLogger(loaded, spec, self.folder, splits, base.validation, builder, self.report, check)
            attempt, peak = fit_within_memory(inputs, log, self.about(builder, rate))
        self.note(builder, attempt, peak)
        model, done = attempt.model, attempt.done
        if spec.general is not None:
            builder.add(general=self.general(splits, done.steps, done.tokens))
        if done.stopped == "pause":
            raise RunPausedError(f"Paused after {done.steps} of {counted(self.steps, 'step')}; it can be resumed.")
        if done.stopped == "discard" or not done.steps:
            raise _StoppedEarly
        with phase("proof"):
            proof = prove(attempt.start, model, done.written, done.trainable_params, planned)
        with phase("saving"):
            builder.add(proof=proof, samples=base.samples, stored_bytes=save_weights(model, loaded, spec, self.folder))
        if not builder.known.trained:
            reason = f"Stopped after {done.steps} of {counted(self.steps, 'step')}; what was learned so far is kept."
            return replace(builder.known, state=RunState.CANCELLED, reason=reason)
        try:
            self.measure(model, splits, base, builder, (course.work.test.passes, course.work.general.passes))
        except RunPausedError:
            reason = f"Paused in its test after {counted(done.steps, 'step')}; what was learned is kept."
            return replace(builder.known, state=RunState.CANCELLED, reason=reason)
        builder.add(**latency_asked(self.folder, loaded, spec))
        return replace(builder.known, state=RunState.SUCCEEDED)

    def identify(self, builder: ResultBuilder) -> None:
        """Note what the run is made of and where it is made."""
        loaded, spec = self.loaded, self.spec
        gpu = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None
        builder.add(
            predicted=spec.plan.predicted,
            seed=spec.seed,
            data_fingerprint=self.task.fingerprint,
            weights=weights_hash(loaded.model),
            origin=loaded.info.origin,
            environment={**environment(gpu), "device": loaded.info.device, "dtype": loaded.info.dtype},
        )

    def read(self, builder: ResultBuilder) -> tuple[EncodedSplits, Course]:
        """Return the rows and what the run is expected to go through, and note what the rows are."""
        loaded, spec = self.loaded, self.spec
        with phase("reading"):
            splits = encode_splits(loaded, self.task, spec)
            begun = 0
            if (earlier := latest_checkpoint(self.shared)) is not None:
                begun, splits = earlier.progress.step, replace(splits, steps=earlier.steps)
            course = course_of_run(loaded, splits, spec, self.end_where_asked, begun)
        self.steps = splits.steps
        builder.add(n_train=len(splits.own), n_dropped=splits.n_dropped, learning_rate=spec.known_rate)
        if spec.general is not None:
            builder.add(general=self.general(splits))
        builder.add(n_held_out_dropped=splits.n_held_out_dropped, n_straddling=splits.n_straddling)
        builder.add(n_cut=splits.n_cut, rendering=splits.rendering, texts=texts_hash(splits))
        builder.add(warnings=(*builder.known.warnings, *splits.facts))
        if kept_search(loaded, spec, builder, self.shared) is not None:
            course = replace(course, search=None)
        self.report.plan(course.phases)
        refuse_without_readings(spec, splits)
        if not begun:  # runs from before 2026-11-30 go on as they began
            refuse_long_warmup(spec, splits)
        return splits, course

    def discard(self, known: RunResult) -> RunResult:
        """Return the result of a run that ends with nothing to keep; one that could go on is paused."""
        if self.report.stop == "keep" and latest_checkpoint(self.shared) is not None:
            raise RunPausedError("Stopped before it went on; it can be resumed.") from None
        reason = "Stopped at its start."
        if known.steps:
            reason = f"Stopped after {known.steps} of {counted(self.steps, 'step')} and discarded."
        shutil.rmtree(self.folder / WEIGHTS, ignore_errors=True)
        return replace(known, state=RunState.CANCELLED, reason=reason, after=None, stored_bytes=None)

    def measure(
        self, model: Any, splits: EncodedSplits, base: BaseReading, builder: ResultBuilder, passes: tuple[int, int]
    ) -> None:
        """Note how the tuned model does: so many passes over test rows, then general text, then what it writes."""
        done = itertools.count()

        def check() -> None:
            self.end_where_left()
            number = next(done)
            for some in passes:
                if number < some:
                    self.report.progress(number, some)
                    return
                number -= some

        builder.add(**measured_after(self.loaded, model, self.spec, splits, base, check, self.report.progress))

    def inputs(self, splits: EncodedSplits) -> FitInputs:
        """Return what every attempt at the fit starts from, but for the rate."""
        loaded, spec, dtype = self.loaded, self.spec, self.loaded.info.dtype
        settings = FitSettings(
            learning_rate=0.0,
            steps=self.steps,
            batch_size=spec.batch_size,
            warmup_steps=min(spec.warmup_steps, self.steps),
            weight_decay=spec.weight_decay,
            seed=spec.seed,
            base_dtype=dtype,
            optimizer=spec.optimizer,
            report_to=spec.report_to,
            n_general=splits.n_general,
            general_share=spec.general_share,
        )
        context = method_context(spec, splits.own, dtype, self.folder / CHECKPOINTS, self.stop, self.end_where_asked)
        return FitInputs(loaded, spec, splits, settings, self.shared, context)

    def rate(self, inputs: FitInputs, text: GeneralText, builder: ResultBuilder) -> float:
        """Return the rate, after a search where one is asked for."""
        spec = self.spec
        if (earlier := latest_checkpoint(self.shared)) is not None:
            choice = resumed_choice(earlier)
            builder.add(default_rate=spec_rate(self.loaded, spec))
        else:
            with phase("search", whole=True) if spec.searches_rate else nullcontext():
                search = partial(find_rate, inputs, self.task, text, self.report)
                choice = choose_rate(self.loaded, spec, builder, self.shared, search)
        builder.add(**vars(choice))
        return choice.learning_rate

    def about(self, builder: ResultBuilder, rate: float) -> dict[str, Any]:
        """Return what a checkpoint says of the run."""
        known = builder.known
        return {
            "data": self.task.fingerprint,
            "general": self.task.general_fingerprint,
            "weights": known.weights,
            "config": config_hash(self.loaded.model),
            "learning_rate": rate,
            "search": [asdict(trial) for trial in known.search],
            "searched_on": known.searched_on,
            "search_steps": known.search_steps,
            "search_seconds": known.search_seconds,
            "search_share": known.search_share,
            "rate_from": known.rate_from,
        }

    def note(self, builder: ResultBuilder, attempt: Attempt, peak: PeakMemory) -> None:
        """Note what the loop did."""
        done = attempt.done
        builder.add(
            trainable_params=done.trainable_params,
            steps=done.steps,
            trained=done.stopped in (None, "enough"),
            tokens=done.tokens,
            seconds=done.seconds,
            prepare_seconds=attempt.prepare_seconds,
            step_seconds_median=median(done.step_seconds) if done.step_seconds else None,
            peak_memory_bytes=peak.bytes,
            peak_memory_source=peak.source,
            cache=attempt.caching.summary(),
            micro_batch=attempt.micro_batch,
            distance_fell=attempt.distance_fell,
            resumed_at=attempt.resumed_at,
            kept_step=attempt.kept_step,
        )

    def general(self, splits: EncodedSplits, steps: int = 0, tokens: int = 0) -> GeneralData:
        """Return what the loop was given of the general data in so many steps, of so many tokens in all."""
        visits, mixing = steps * self.spec.batch_size, (splits.n_general, self.spec.general_share)
        order = training_order(len(splits.train), visits, self.spec.seed, *mixing).tolist()
        lengths = [len(splits.train[number].ids) for number in order if number >= len(splits.own)]
        counts = splits.n_general, splits.n_general_dropped, len(lengths), sum(lengths)
        return GeneralData(self.task.general_fingerprint, *counts, sum(lengths) / tokens if tokens else None)

    def stop(self) -> Any:
        """Return how the run is asked to stop, if it is."""
        return self.report.stop

    def end_where_asked(self) -> None:
        """Leave, where the run is asked to stop in any way and has nothing yet."""
        self.end_where_paused()
        if self.report.stop is not None:
            raise _StoppedEarly

    def end_where_discarded(self) -> None:
        """Leave, where nothing is to be kept; a pause waits for the checkpoint after the step."""
        if self.report.stop == "discard":
            raise _StoppedEarly

    def end_where_left(self) -> None:
        """Leave, where nothing is to be kept, or where the run is to go on another time."""
        self.end_where_paused()
        self.end_where_discarded()

    def end_where_paused(self) -> None:
        """Leave, where the run is to go on another time."""
        if self.report.stop == "pause":
            raise RunPausedError("Paused; it can be resumed.")


def _trained(folder: Path) -> RunResult | None:
    """Return the result of a run of which the test alone is left; None of every other."""
    result = None
    with suppress(LsfError):  # one that cannot be read is as good as none
        result = RunResult.load(folder / RESULT) if (folder / RESULT).exists() else None
    wait_for_all()  # before the first process writes the next one
    return result if result is not None and result.test_left else None
