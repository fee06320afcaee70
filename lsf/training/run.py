"""One run from start to end: search, before, tune, after, proof, weights, result.json."""

import itertools
import shutil
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lsf.data.task import Task
from lsf.environment import environment
from lsf.errors import RunError, RunPausedError
from lsf.jobs.checkpoints import CHECKPOINTS, drop_checkpoints, has_unreadable, latest_checkpoint
from lsf.jobs.holding import WEIGHTS, Ending, finish, holding
from lsf.jobs.phases import Stopwatch, phase
from lsf.jobs.result import RunResult, RunState
from lsf.jobs.spec import RunSpec
from lsf.measure.exhaustion import is_out_of_memory
from lsf.measure.identity import config_hash, weights_hash
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter, Silent
from lsf.training.artefacts import save_weights
from lsf.training.attempts import Attempt, Ground, fit_within_memory
from lsf.training.base import BaseReading, measure_base, measured_after
from lsf.training.catalogue import options_of
from lsf.training.duration import course_of, phases_of, telling
from lsf.training.fitting import FitSettings
from lsf.training.flooring import floor_on, refuse_without_readings
from lsf.training.forecast import expected
from lsf.training.forgetting import GeneralText
from lsf.training.latency import TimeRatio, latency_ratio
from lsf.training.logbook import Logbook
from lsf.training.material import Material, read_material
from lsf.training.memory import PeakMemory, explained_memory, free_memory
from lsf.training.methods import METHODS, scene_of
from lsf.training.optimizers import check_optimizer
from lsf.training.own_rate import spec_rate
from lsf.training.proof import prove
from lsf.training.rate_choice import choose_rate, resumed_choice
from lsf.training.rate_search import find_rate
from lsf.training.reading_plan import watched
from lsf.training.threads import computing_on


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

    A folder with a checkpoint goes on from it, with the next batch, to the same end as an uninterrupted run.

    The loaded model is read and never changed: the tuned model shares its frozen tensors and owns the others. Runs on
    the same model, task and seed start from the same weights, see the same examples in the same order, and have the
    same numbers before.

    Args:
        loaded: the model the spec names.
        task: the data the spec names.
        spec: what is asked.
        folder: made by `lsf.jobs.runs.create_run`.
        report: gets progress, each logged row as partial result, and says whether to stop. `keep` ends the training
            after the step it is in and saves; its test is left to `lsf.training.finishing.measure_kept`. `discard` ends
            at once and leaves neither weights nor metrics after. Both end in the state `cancelled`. `pause` writes a
            checkpoint and leaves the run `interrupted`.
        shared: the run folder whose checkpoints are used, where several processes carry out one run together and
            `folder` is this one's own (lsf.training.processes); None: `folder`.

    Returns:
        The result as written to result.json: succeeded or cancelled.

    Raises:
        RunError: the loss was lost, the folder was removed, or the disk does not take it; OutOfMemoryError where memory
            did not suffice. A failed result with that sentence was written, where there still is a folder.
        RunPausedError: it was asked to pause; nothing is written beside the checkpoint.
        PlanError: the plan does not fit the model.
        DataError: the data cannot be used.
    """
    if has_unreadable(shared or folder):
        raise RunError(
            f"No checkpoint of {(shared or folder).name} can be read, so it cannot go on; start it again with --spec, "
            f"or remove {CHECKPOINTS}/ to begin it anew."
        )
    check_optimizer(spec.optimizer)
    work = _Tuning(loaded, task, spec, folder, Silent() if report is None else report, shared or folder)
    with (
        holding(folder) as ending,
        explained_memory(loaded, spec),
        computing_on(spec.threads) as threads,
        Stopwatch(telling(work.report)).running() as stopwatch,
    ):
        ending.add(threads=threads)
        try:
            result = work.carry_out(ending)
        except _StoppedEarly:
            if work.report.stop == "keep" and latest_checkpoint(work.shared) is not None:
                raise RunPausedError("Stopped before it went on; it can be resumed.") from None
            steps = ending.known.steps
            reason = f"Stopped after {steps} of {work.steps} steps and discarded." if steps else "Stopped at its start."
            shutil.rmtree(folder / WEIGHTS, ignore_errors=True)
            result = replace(ending.known, state=RunState.CANCELLED, reason=reason, after=None, stored_bytes=None)
        finally:
            free_memory()
            seconds = stopwatch.seconds
            ending.add(total_seconds=sum(seconds.values()), phases=seconds)
        result = replace(result, total_seconds=ending.known.total_seconds, phases=ending.known.phases)
        finish(folder, result)
    if result.state is RunState.SUCCEEDED or not result.kept:
        drop_checkpoints(folder)
    return result


class _Tuning:
    """The parts of one run, in the order in which they are called."""

    def __init__(
        self, loaded: LoadedModel, task: Task, spec: RunSpec, folder: Path, report: Reporter, shared: Path
    ) -> None:
        self.loaded, self.task, self.spec, self.folder, self.report = loaded, task, spec, folder, report
        self.shared = shared
        self.steps = spec.steps

    def carry_out(self, ending: Ending) -> RunResult:
        """Do all of it; `ending` learns each part as soon as it is known."""
        loaded, spec = self.loaded, self.spec
        gpu = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None
        ending.add(
            predicted=spec.plan.predicted,
            seed=spec.seed,
            data_fingerprint=self.task.fingerprint,
            weights=weights_hash(loaded.model),
            origin=loaded.info.origin,
            environment={**environment(gpu), "device": loaded.info.device, "dtype": loaded.info.dtype},
        )
        planned = METHODS[spec.method].count(loaded, spec.plan, options_of(spec.method, spec.options))
        with phase("reading"):
            material = read_material(loaded, self.task, spec)
            begun = 0 if (earlier := latest_checkpoint(self.shared)) is None else earlier.progress.step
            course = course_of(loaded, material, spec, self.end_where_asked, begun)
        self.report.plan(course.phases)
        self.steps = material.steps
        ending.add(n_train=len(material.train), n_dropped=material.n_dropped, learning_rate=spec.given_rate)
        ending.add(n_held_out_dropped=material.n_held_out_dropped, n_straddling=material.n_straddling)
        refuse_without_readings(spec, material)
        with phase("base"):
            shown = watched(material.validation)
            base = measure_base(loaded, spec, material.test, shown, self.end_where_asked)
        ending.add(before=base.metrics, floor=floor_on(material, base.metrics, loaded.info.vocab_size))
        self.end_where_asked()
        ground = self.ground(material)
        rate = self.rate(ground, base.text, ending)
        ground = replace(ground, settings=replace(ground.settings, learning_rate=rate))
        with phase("forecast", whole=True):
            predicted = expected(loaded, material, spec, course, self.end_where_asked)
        ending.add(predicted=predicted)
        self.report.plan(phases_of(predicted.phases, course.work.fill_share))
        with phase("preparing"):
            check = self.end_where_discarded
            log = Logbook(loaded, spec, self.folder, material, base.validation, ending, self.report, check)
            attempt, peak = fit_within_memory(ground, log, self.about(ending, rate))
        self.note(ending, attempt, peak)
        model, done = attempt.model, attempt.done
        if done.stopped == "pause":
            raise RunPausedError(f"Paused after {done.steps} of {self.steps} steps; it can be resumed.")
        if done.stopped == "discard" or not done.steps:
            raise _StoppedEarly
        with phase("proof"):
            proof = prove(attempt.start, model, done.written, done.trainable_params, planned)
        with phase("saving"):
            ending.add(proof=proof, samples=base.samples, stored_bytes=save_weights(model, loaded, spec, self.folder))
        if done.stopped not in (None, "enough"):
            reason = f"Stopped after {done.steps} of {self.steps} steps; what was learned until then is kept."
            return replace(ending.known, state=RunState.CANCELLED, reason=reason)
        self.measure(model, material, base, ending, (course.work.test.passes, course.work.general.passes))
        if spec.latency == "on" and (latency := self.latency()) is not None:
            ending.add(latency_ratio=latency.ratio, latency_low=latency.low, latency_high=latency.high)
        return replace(ending.known, state=RunState.SUCCEEDED)

    def measure(
        self, model: Any, material: Material, base: BaseReading, ending: Ending, passes: tuple[int, int]
    ) -> None:
        """Note how the tuned model does: so many passes over test rows, then over general text, then its answers."""
        done = itertools.count()

        def check() -> None:
            self.end_where_left()
            number = next(done)
            for some in passes:
                if number < some:
                    self.report.progress(number, some)
                    return
                number -= some

        ending.add(**measured_after(self.loaded, model, self.spec, material, base, check))

    def latency(self) -> TimeRatio | None:
        """Return the latency of what was saved; None where memory does not suffice to load it beside the run."""
        try:
            with phase("latency"):
                return latency_ratio(self.folder, self.loaded)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def ground(self, material: Material) -> Ground:
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
        )
        scene = scene_of(spec, material.train, dtype, self.folder / CHECKPOINTS, self.stop, self.end_where_asked)
        return Ground(loaded, spec, material, settings, self.shared, scene)

    def rate(self, ground: Ground, text: GeneralText, ending: Ending) -> float:
        """Return the rate, after a search where one is asked for."""
        spec = self.spec
        if (earlier := latest_checkpoint(self.shared)) is not None:
            choice = resumed_choice(earlier)
            ending.add(default_rate=spec_rate(self.loaded, spec))
        else:
            with phase("search", whole=True) if spec.searches_rate else nullcontext():
                search = partial(find_rate, ground, text, self.report)
                choice = choose_rate(self.loaded, spec, ending, self.shared, search)
        ending.add(**choice.told())
        return choice.learning_rate

    def about(self, ending: Ending, rate: float) -> dict[str, Any]:
        """Return what a checkpoint says of the run."""
        known = ending.known
        return {
            "data": self.task.fingerprint,
            "weights": known.weights,
            "config": config_hash(self.loaded.model),
            "learning_rate": rate,
            "search": [asdict(trial) for trial in known.search],
            "search_steps": known.search_steps,
            "search_seconds": known.search_seconds,
            "search_share": known.search_share,
            "rate_from": known.rate_from,
        }

    def note(self, ending: Ending, attempt: Attempt, peak: PeakMemory) -> None:
        """Note what the loop did."""
        done = attempt.done
        ending.add(
            trainable_params=done.trainable_params,
            steps=done.steps,
            tokens=done.tokens,
            seconds=done.seconds,
            prepare_seconds=attempt.prepare_seconds,
            step_seconds_median=median(done.step_seconds) if done.step_seconds else None,
            peak_memory_bytes=peak.bytes,
            peak_memory_source=peak.source,
            cache=attempt.caching.told(),
            micro_batch=attempt.micro_batch,
            distance_fell=done.distance_fell,
            resumed_at=attempt.resumed_at,
            kept_step=attempt.kept_step,
        )

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
