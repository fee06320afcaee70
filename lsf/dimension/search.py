"""The search for d_90: full fine-tuning, then DID and SAID at one d after another, each at its own best rate."""

import math
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lsf.data.encode import EncodedExample, context_length, encode
from lsf.data.task import Example, Task
from lsf.dimension.study import (
    ASKED,
    LOST,
    Curve,
    DimensionSettings,
    Point,
    Study,
    Try,
    best_rate,
    smallest,
)
from lsf.errors import BadInputError, DataError, RunError
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext, planned_names
from lsf.methods.intrinsic import INTRINSIC
from lsf.methods.optimization import LADDER, around, exact_rate, outwards, spread_of, tuned_of
from lsf.methods.registry import METHODS
from lsf.models.batches import training_order
from lsf.models.loading import LoadedModel, weights_hash
from lsf.plans.plan import Plan
from lsf.progress import Phase, Reporter
from lsf.runs.spec import RunSpec
from lsf.training.evaluation import evaluate, spread_out
from lsf.training.fitting import short_run
from lsf.training.short_runs import own_rate
from lsf.training.splits import EncodedSplits, encode_splits
from lsf.training.time_forecast import course_of
from lsf.training.trainer import DivergedError, FitSettings, StepRow

SEEN = 150
"""Training examples read for the generalisation gap, at most."""
Key = tuple[str, int, float, int]
"""Method, d, rate and seed of one tuning."""

AROUND = (0.16, 0.4, 1.0, 2.5, 6.3)
"""Rates that may be tried at one d, as multiples of the method's default there."""
FULL_RATES = tuple(rate for rate in LADDER if 1e-5 <= rate <= 3e-2)
"""Rates that may be tried for full fine-tuning."""


def next_d(values: Mapping[int, float], target: float, grid: tuple[int, ...], bisections: int) -> int | None:
    """Return the d to be measured next; None where the search has ended.

    The grid from its smallest d upwards until the target is reached, then the middle (of logarithms) between the
    smallest d that reaches it and the largest below that does not.

    Args:
        values: d -> metric, measured so far.
        target: to be reached.
        grid: ascending.
        bisections: middles measured at most.
    """
    found = smallest(values, target)
    if found is None:
        return next((d for d in grid if d not in values), None)
    below = max((d for d in values if d < found), default=None)
    if below is None or len([d for d in values if d not in grid]) >= bisections:
        return None
    middle = round(math.sqrt(below * found))
    return middle if below < middle < found else None


def full_first(own: float) -> tuple[float, float]:
    """Return the rates that are tried first for full fine-tuning: the rung above its default's, and that itself."""
    _, middle, high = around(own, FULL_RATES)
    return high, middle


def rates_at(own: float) -> tuple[float, ...]:
    """Return the rates that may be tried at one d, ascending: `AROUND` times the default there, none above 1."""
    return tuple(sorted({min(1.0, float(f"{own * times:.2g}")) for times in AROUND}))


def first_at(own: float) -> tuple[float, float]:
    """Return the rates that are tried first at one d: the method's default there, and 0.4 times it."""
    one, other = (min(1.0, float(f"{own * times:.2g}")) for times in (1.0, 0.4))
    return one, other


def next_rate(tried: Mapping[float, Try], first: Sequence[float], ladder: Sequence[float], count: int) -> float | None:
    """Return the rate to be tried next at one d; None where that search has ended.

    The first ones, then outwards while the best on validation is at an edge of those tried, `count` in all; more only
    while every loss was lost, downwards.

    Args:
        tried: rate -> what it came to.
        first: in the order in which they are tried.
        ladder: all rates that may be tried.
        count: tried at most, 1 or more.
    """
    left = [rate for rate in first[:count] if rate not in tried]
    if left:
        return left[0]
    badness = {rate: one.badness for rate, one in tried.items()}
    if len(tried) >= count and min(badness.values()) < LOST:
        return None
    return outwards(badness, ladder)


def trained_on(rows: Sequence[EncodedExample], visits: int, seed: int) -> list[Example]:
    """Return at most `SEEN` of the examples that a run really trains on: a short one does not reach all.

    Args:
        rows: training rows.
        visits: steps times batch size.
        seed: of the data order.
    """
    visited = np.unique(training_order(len(rows), visits, seed))
    return [rows[visited[index]].example for index in spread_out(len(visited), SEEN)]


def _phase(method: str, seed: int) -> str:
    return f"{'full fine-tuning' if method == 'full' else method.upper()}, seed {seed}"


class _Stopped(Exception):
    """The study was asked to end."""


def study_dimension(
    loaded: LoadedModel,
    task: Task,
    plan: Plan,
    settings: DimensionSettings,
    report: Reporter,
    methods: Sequence[str] = ASKED,
    known: MutableMapping[Key, Try] | None = None,
) -> Study:
    """Measure d_90 of a task; every point is reported as a partial study.

    Every run starts from the loaded model, which is not changed, and has its own whole schedule. The rate of each d is
    the best on validation (exact match, then loss); the test split decides about d_90 alone. What a projection draws is
    kept in memory, which is faster and takes 16 bytes per planned value and more.

    Args:
        loaded: the base.
        task: with validation and test examples.
        plan: the values that may move.
        settings: what is tried.
        report: gets partial studies; `stop` of any kind ends the study with what is known.
        methods: did, said, or both.
        known: what single tunings of the same base, task, plan and steps came to; those in it are not done again, and
            new ones are put into it.

    Raises:
        DataError: no validation or no test examples.
        BadInputError: an unknown method, or a grid below what the method needs.
        RunError: full fine-tuning gets nothing right, so that 90 % of it say nothing; or every rate that may be tried
            at one d diverged.
    """
    for method in methods:
        if method not in ASKED:
            raise BadInputError(f"The method {method} has no dimension; accepted are: {', '.join(ASKED)}.")
        if list(methods).count(method) > 1:
            raise BadInputError(f"The method {method} is asked for more than once; name each once.")
        least = min(grid_of(loaded, plan, settings, method))
        METHODS[method].count(loaded, plan, options_of(method, {"d": least}))
    work = _Work(loaded, task, plan, settings, report, {} if known is None else known)
    try:
        report.plan(work.phases(methods))
        for seed in range(settings.seeds):
            work.begin("full", seed)
            work.measure_full(seed)
            for method in methods:
                work.begin(method, seed)
                work.search(Curve(method, seed, settings.share * work.study.full[seed].test))
    except _Stopped:
        pass
    return work.study


def grid_of(loaded: LoadedModel, plan: Plan, settings: DimensionSettings, method: str) -> tuple[int, ...]:
    """Return the d that may be tried of a method: from what it needs at least, up to the planned values."""
    return settings.grid(METHODS["full"].count(loaded, plan, None), INTRINSIC[method].least(loaded, plan))


class _Work:
    """The runs of one study."""

    def __init__(
        self,
        loaded: LoadedModel,
        task: Task,
        plan: Plan,
        settings: DimensionSettings,
        report: Reporter,
        known: MutableMapping[Key, Try],
    ) -> None:
        self.loaded, self.plan, self.settings, self.report, self.known = loaded, plan, settings, report, known
        spec = RunSpec(task.name, task.name, plan, steps=settings.steps, batch_size=settings.batch_size)
        self.splits: EncodedSplits = encode_splits(loaded, task, spec)
        if not (self.splits.validation and self.splits.test):
            raise DataError("A study of dimensions needs validation and test examples, and the data lacks some.")
        self.total, self.tensors = METHODS["full"].count(loaded, plan, None), len(planned_names(loaded, plan))
        n_trained = min(len(self.splits.train), settings.steps * settings.batch_size)
        weights = weights_hash(loaded.model)
        self.study = Study(loaded.info.name, task.name, plan, settings, n_trained, weights=weights)
        self.done = self.done_before = 0

    def phases(self, methods: Sequence[str]) -> list[Phase]:
        """Return the searches to come, with the seconds of as many tunings as they may well take."""
        spec = RunSpec(self.study.model, self.study.data, self.plan, steps=self.settings.steps)
        found = course_of(self.loaded, self.splits, replace(spec, batch_size=self.settings.batch_size), self.check)
        one = found.seconds["steps"] + 2 * found.seconds["test"]
        names = [(name, seed) for seed in range(self.settings.seeds) for name in ("full", *methods)]
        return [Phase(_phase(name, seed), self.expected_tunings(name) * one) for name, seed in names]

    def begin(self, method: str, seed: int) -> None:
        """Go on with a search."""
        self.done_before = self.done
        self.report.phase(_phase(method, seed))

    def expected_tunings(self, method: str) -> int:
        """Return how many tunings a search takes where it goes half through its grid."""
        if method == "full":
            return len(full_first(own_rate(self.loaded, self.plan))) + 1
        points = len(grid_of(self.loaded, self.plan, self.settings, method)) // 2 + 1 + self.settings.bisections
        return self.settings.rates * points

    def measure_full(self, seed: int) -> None:
        """Add full fine-tuning under a seed to the study."""
        first = full_first(own_rate(self.loaded, self.plan))
        reference = self.point("full", self.total, seed, first, FULL_RATES, len(FULL_RATES))
        if not reference.test:
            raise RunError("Full fine-tuning gets no test example right; more steps are needed for a d_90.")
        self.study = replace(self.study, full=(*self.study.full, reference))

    def search(self, curve: Curve) -> None:
        """Add one curve to the study, point by point, until its search has ended."""
        settings, known = self.settings, self.study
        grid = grid_of(self.loaded, self.plan, settings, curve.method)
        while True:
            self.study = replace(known, curves=(*known.curves, curve))
            values = {point.d: point.test for point in curve.points}
            d = next_d(values, curve.target, grid, settings.bisections)
            if d is None:
                return
            spread = spread_of(d, self.total, self.tensors)
            own = exact_rate(curve.method, tuned_of(self.loaded.info, self.plan, spread))
            found = self.point(curve.method, d, curve.seed, first_at(own), rates_at(own), settings.rates)
            curve = curve.with_point(found)
            self.report.partial(replace(known, curves=(*known.curves, curve)))

    def point(
        self, method: str, d: int, seed: int, first: Sequence[float], ladder: Sequence[float], count: int
    ) -> Point:
        """Search the rate at d and return what the best one on validation came to."""
        tried: dict[float, Try] = {}
        while (rate := next_rate(tried, first, ladder, count)) is not None:
            key = (method, d, rate, seed)
            if key not in self.known:
                self.known[key] = self.tuned(*key)
            tried[rate] = self.known[key]
        best = best_rate(tried)
        if best is None:
            raise RunError(f"{method} at d = {d:,} diverged at every rate from {min(tried):g} to {max(tried):g}.")
        one = tried[best]
        shares = [value or 0.0 for value in (one.test, one.validation, one.train)]
        return Point(d, best, *shares, seconds=sum(one.seconds for one in tried.values()))

    def tuned(self, method: str, d: int, rate: float, seed: int) -> Try:
        """Tune once, and read all three splits."""
        words = f"tuning {self.done + 1}: {method}, d = {d:,}, rate {rate:g}, seed {seed}"
        self.tell(method, words)
        self.check()
        settings, rows, started = self.settings, self.splits, time.perf_counter()
        given = {} if method == "full" else {"d": d, "projection": settings.projection}
        options = options_of(method, given)
        context = MethodContext(options, rows.train, seed, settings.batch_size, self.loaded.info.dtype, keep_draws=True)
        model = METHODS[method].prepare(self.loaded, self.plan, context)
        steps, batch, dtype = settings.steps, settings.batch_size, self.loaded.info.dtype
        watch = partial(self.tell, method, words)
        kept = self.fitted(model, FitSettings(rate, steps, batch, steps // 10, 0.0, seed, dtype), watch)
        self.done += 1
        validation = self.read(model, rows.validation) if kept else None
        if validation is None or validation.loss is None or not math.isfinite(validation.loss):
            return Try(None, None, None, None, time.perf_counter() - started)
        trained = trained_on(rows.train, steps * batch, seed)
        seen_rows = encode(self.loaded.tokenizer, trained, context_length(self.loaded.context, None)).rows
        test, seen = self.read(model, rows.test), self.read(model, seen_rows)
        seconds = time.perf_counter() - started
        return Try(validation.exact_match, validation.loss, test.exact_match, seen.exact_match, seconds)

    def tell(self, method: str, words: str, row: StepRow | None = None) -> None:
        """Report the tunings done of the present search, the present one by its steps."""
        tunings = self.done - self.done_before
        share = 0.0 if row is None else row.step / self.settings.steps
        self.report.progress(tunings + share, max(self.expected_tunings(method), tunings + 1), words)

    def fitted(self, model: Any, fitting: FitSettings, watch: Callable[[StepRow], None]) -> bool:
        """Tune in place; False where the loss diverged."""
        try:
            short_run(model, self.splits.train, fitting, lambda: self.report.stop, watch)
        except DivergedError:
            return False
        self.check()
        return True

    def read(self, model: Any, rows: Sequence[EncodedExample]) -> Any:
        """Return the metrics on some rows."""
        return evaluate(model, rows, 4 * self.settings.batch_size, self.loaded.info.dtype, self.check)

    def check(self) -> None:
        """Leave where the study is to end."""
        if self.report.stop is not None:
            raise _Stopped
