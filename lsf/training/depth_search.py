"""Neighbours at a few depths, then rates, each tuned for the first steps of a run and judged on validation examples."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from lsf.data.encode import EncodedExample
from lsf.data.task import Task
from lsf.errors import BadInputError, DataError, StoppedError
from lsf.methods.optimization import check_optimizer, rounded
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan
from lsf.plans.tries import FACTORS, Tries, Try, best_of, tried_sets, tried_steps
from lsf.progress import Phase, Reporter, Stop
from lsf.runs.result import PHASES
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
from lsf.training.time_forecast import Course, course_of
from lsf.training.trainer import DivergedError, FitSettings, StepRow
from lsf.wording import counted


def try_depths(loaded: LoadedModel, task: Task, spec: RunSpec, report: Reporter) -> Tries:
    """Tune neighbours at each of `lsf.plans.tries.DEPTHS` for the first steps of a run, and read the validation loss.

    Every try is the beginning of the run that it stands for: the same rows in the same order, the same schedule, method
    and optimizer. It starts from the loaded model, which is not changed. The rate is the one given; where none is, the
    default of what is tuned, and then the best depth is tried at `lsf.plans.tries.FACTORS` of it too. The test split is
    never touched.

    Args:
        loaded: the model the spec names.
        task: the data it names.
        spec: of the run that is to be made; of its plan only the number of blocks counts.
        report: told of the steps done and, after each try, of all tries so far; any wish to stop ends it.

    Returns:
        A try per depth, the first blocks first, and one per further rate.

    Raises:
        DataError: the task has no validation examples, or cannot be used.
        BadInputError: the rate is to be searched, or the warm-up is as long as the run.
        PlanError: the plan names no block.
        StoppedError: a stop was asked for before the last try was done: what shorter ones came to is no choice.
        OutOfMemoryError: a single example does not fit.
    """
    if spec.learning_rate is None:
        raise BadInputError("A try searches no learning rate; give a number, or take the default.")
    check_optimizer(spec.optimizer)
    begun = time.perf_counter()
    sets = tried_sets(loaded.info.n_blocks, len(spec.plan.blocks))
    splits = encode_splits(loaded, task, spec)
    if not splits.validation:
        raise DataError("Trying depths needs validation examples and the data has none; give data with more rows.")
    refuse_long_warmup(spec, splits)
    try:
        with TemporaryDirectory(prefix="lsf-tries-") as folder, computing_on(spec.threads):
            bench = _Bench(loaded, splits, watched(splits.validation), Path(folder), report)
            return replace(bench.try_all(task.name, spec, sets), seconds=time.perf_counter() - begun)
    finally:
        free_memory()


RATES = "trying other rates"


@dataclass
class _Bench:
    """What all tries share."""

    loaded: LoadedModel
    splits: EncodedSplits
    judged: tuple[EncodedExample, ...]
    folder: Path
    report: Reporter

    @property
    def steps(self) -> int:
        """Optimizer steps of a try."""
        return tried_steps(self.splits.steps)

    def try_all(self, data: str, spec: RunSpec, sets: Sequence[tuple[int, ...]]) -> Tries:
        """Make every try; the seconds are left to whoever began."""
        info, check = self.loaded.info, partial(_check, self.report)
        specs = [replace(spec, plan=Plan(info.name, info.n_blocks, blocks)) for blocks in sets]
        factors = FACTORS if spec.given_rate is None else ()
        courses = [course_of(self.loaded, self.splits, one, check) for one in specs]
        foreseen = [Phase(_words(one), self.seconds(course)) for one, course in zip(specs, courses, strict=True)]
        further = Phase(RATES, len(factors) * fmean(one.seconds or 0.0 for one in foreseen))
        unread = replace(courses[0], work=replace(courses[0].work, states_left=frozenset()))
        self.report.plan([Phase(PHASES["base"], _reading(unread)), *foreseen, *([further] if factors else [])])
        self.report.phase(PHASES["base"])
        base = evaluate(self.loaded.model, self.judged, spec.batch_size, info.dtype, check).loss
        assert base is not None
        depths, rates, took = list[Try](), list[Try](), dict[tuple[int, ...], float]()
        for one, course in zip(specs, courses, strict=True):
            self.report.phase(_words(one))
            begun, rate = time.perf_counter(), one.given_rate
            rate = spec_rate(self.loaded, one) if rate is None else rate
            depths.append(self.made(one, rate, self.told(course, _words(one))))
            took[one.plan.blocks] = time.perf_counter() - begun
            self.report.partial(tuple(depths))
        if factors and (best := best_of(depths)) is not None:
            own, course = next(pair for pair in zip(specs, courses, strict=True) if pair[0].plan.blocks == best.blocks)
            self.report.plan([Phase(RATES, len(factors) * took[best.blocks])])
            self.report.phase(RATES)
            for number, factor in enumerate(factors):
                rate = rounded(min(1.0, factor * best.learning_rate))
                words = f"{own.plan.label} at rate {rate:g}"
                rates.append(self.made(own, rate, self.told(course, words, number, len(factors))))
                self.report.partial((*depths, *rates))
        return Tries(
            info.name, info.n_blocks, data, self.steps, self.splits.steps, len(self.judged), base, tuple(depths), 0.0,
            tuple(rates), spec.method,
        )  # fmt: skip

    def seconds(self, course: Course) -> float:
        """Return the seconds that a try is expected to take."""
        return self.tuning_seconds(course) + _reading(course)

    def tuning_seconds(self, course: Course) -> float:
        """Return those of its steps and of what they need."""
        seconds, share = course.seconds, self.steps / self.splits.steps
        filled = min(1.0, share / course.work.fill_share) if course.work.fill_share else 1.0
        return seconds["steps"] * share + seconds["prefix"] * filled + seconds["preparing"]

    def told(self, course: Course, words: str, number: int = 0, of: int = 1) -> Callable[[int], None]:
        """Return what tells the step that the try `number` of a phase of so many has done; its reading follows them."""
        tuning = self.tuning_seconds(course)
        steps = self.steps * (1.0 + _reading(course) / tuning if tuning else 1.0)

        def tell(step: int) -> None:
            self.report.progress(
                (number * steps + step) / (of * steps), 1.0, f"{words}, {step} of {counted(self.steps, 'step')}"
            )

        return tell

    def made(self, spec: RunSpec, rate: float, tell: Callable[[int], None]) -> Try:
        """Make one try, whose steps are told."""
        tell(0)
        folder = self.folder / f"{spec.plan.label} {rate:g}"
        inputs = _inputs(self.loaded, spec, self.splits, rate, folder, self.report)
        with explained_memory(self.loaded, spec, "trying"):
            attempt = partial(_loss, inputs, self.steps, self.judged, tell)
            return Try(spec.plan.blocks, rate, within_memory(spec.batch_size, inputs.micro_batch, attempt))


def _reading(course: Course) -> float:
    """Return the seconds in which the validation examples are read once."""
    return replace(course, work=replace(course.work, n_readings=1)).seconds["validation"]


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


def _loss(inputs: FitInputs, steps: int, judged: Any, tell: Callable[[int], None], micro: int) -> float | None:
    """Return the validation loss after the first steps of a run; None where it diverged."""
    loaded, spec, check, done = inputs.loaded, inputs.spec, inputs.context.check, 0

    def watch(row: StepRow) -> None:
        nonlocal done
        done = row.step
        tell(done)

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
