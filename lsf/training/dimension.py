"""d_90 measured: full fine-tuning, then DID and SAID at one d after another, each at its own best rate."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lsf.analysis.plan import Plan
from lsf.data.encode import EncodedExample, context_length, encode
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, DataError, RunError
from lsf.jobs.dimensions import ASKED, Curve, DimensionSettings, Point, Study, next_d, rates_for
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter
from lsf.training.batches import training_order
from lsf.training.catalogue import CATALOGUE, options_of
from lsf.training.evaluation import evaluate, spread_out
from lsf.training.fitting import DivergedError, FitSettings, fit
from lsf.training.material import Material, read_material
from lsf.training.methods import METHODS, Scene

SEEN = 150
"""Training examples read for the generalisation gap, at most."""
FULL_RATES = (CATALOGUE["full"].learning_rate, CATALOGUE["full"].learning_rate / 3)


def trained_on(rows: Sequence[EncodedExample], visits: int, seed: int) -> list[Example]:
    """Return at most `SEEN` of the examples that a run really trains on: a short one does not reach all.

    Args:
        rows: training rows.
        visits: steps times batch size.
        seed: of the data order.
    """
    visited = np.unique(training_order(len(rows), visits, seed))
    return [rows[visited[index]].example for index in spread_out(len(visited), SEEN)]


class _Stopped(Exception):
    """The study was asked to end."""


def study_dimension(
    loaded: LoadedModel,
    task: Task,
    plan: Plan,
    settings: DimensionSettings,
    report: Reporter,
    methods: Sequence[str] = ASKED,
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

    Raises:
        DataError: no validation or no test examples.
        BadInputError: an unknown method, or a grid below what the method needs.
        RunError: full fine-tuning gets nothing right, so that 90 % of it say nothing.
    """
    for method in methods:
        if method not in ASKED:
            raise BadInputError(f"The method {method} has no dimension; accepted are: {', '.join(ASKED)}.")
    work = _Work(loaded, task, plan, settings, report)
    try:
        for seed in range(settings.seeds):
            work.measure_full(seed)
            for method in methods:
                work.search(Curve(method, seed, settings.share * work.study.full[seed].test))
    except _Stopped:
        pass
    return work.study


class _Work:
    """The runs of one study."""

    def __init__(
        self, loaded: LoadedModel, task: Task, plan: Plan, settings: DimensionSettings, report: Reporter
    ) -> None:
        self.loaded, self.plan, self.settings, self.report = loaded, plan, settings, report
        spec = RunSpec(task.name, task.name, plan, steps=settings.steps, batch_size=settings.batch_size)
        self.material: Material = read_material(loaded, task, spec)
        if not (self.material.validation and self.material.test):
            raise DataError("A study of dimensions needs validation and test examples, and the data lacks some.")
        self.total = METHODS["full"].count(loaded, plan, None)
        n_trained = min(len(self.material.train), settings.steps * settings.batch_size)
        self.study = Study(loaded.info.name, task.name, plan, settings, n_trained)
        self.done = 0

    def measure_full(self, seed: int) -> None:
        """Add full fine-tuning under a seed to the study."""
        reference = self.point("full", self.total, seed, FULL_RATES)
        if not reference.test:
            raise RunError("Full fine-tuning gets no test example right; more steps are needed for a d_90.")
        self.study = replace(self.study, full=(*self.study.full, reference))

    def search(self, curve: Curve) -> None:
        """Add one curve to the study, point by point, until its search has ended."""
        settings, known = self.settings, self.study
        grid = settings.grid(self.total)
        while True:
            self.study = replace(known, curves=(*known.curves, curve))
            values = {point.d: point.test for point in curve.points}
            d = next_d(values, curve.target, grid, settings.bisections)
            if d is None:
                return
            rates = rates_for(d, self.total, settings.rates)
            curve = curve.with_point(self.point(curve.method, d, curve.seed, rates))
            self.report.partial(replace(known, curves=(*known.curves, curve)))

    def point(self, method: str, d: int, seed: int, rates: Sequence[float]) -> Point:
        """Tune at every rate and return what the best one on validation came to."""
        started = time.perf_counter()
        tries = [self.tuned(method, d, seed, rate) for rate in rates]
        best = max(tries, key=lambda one: one[0])
        return replace(best[1], seconds=time.perf_counter() - started)

    def tuned(self, method: str, d: int, seed: int, rate: float) -> tuple[tuple[float, float], Point]:
        """Tune once; return how good it is on validation, and the point."""
        self.report.progress(self.done, None, f"{method}, d = {d:,}, rate {rate:g}, seed {seed}")
        self.check()
        settings, rows = self.settings, self.material
        given = {} if method == "full" else {"d": d, "projection": settings.projection}
        options = options_of(method, given)
        scene = Scene(options, rows.train, seed, settings.batch_size, self.loaded.info.dtype, keep_draws=True)
        model = METHODS[method].prepare(self.loaded, self.plan, scene)
        steps, batch, dtype = settings.steps, settings.batch_size, self.loaded.info.dtype
        kept = self.fitted(model, FitSettings(rate, steps, batch, steps // 10, 0.0, seed, dtype))
        self.done += 1
        if not kept:
            return (0.0, -math.inf), Point(d, rate, 0.0, 0.0, 0.0, 0.0)
        trained = trained_on(rows.train, steps * batch, seed)
        seen_rows = encode(self.loaded.tokenizer, trained, context_length(self.loaded.context, None)).rows
        validation, test, seen = (self.read(model, part) for part in (rows.validation, rows.test, seen_rows))
        loss = -math.inf if validation.loss is None or math.isnan(validation.loss) else -validation.loss
        right = [one.exact_match or 0.0 for one in (test, validation, seen)]
        return (right[1], loss), Point(d, rate, right[0], right[1], right[2], 0.0)

    def fitted(self, model: Any, fitting: FitSettings) -> bool:
        """Tune in place; False where the loss was lost."""
        with tempfile.TemporaryDirectory(prefix="lsf-dimension-") as folder:
            try:
                fit(model, self.material.train, fitting, Path(folder), lambda _row: None, lambda: self.report.stop)
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
