"""Each plan at its own best learning rate: a short, counted search on the validation split."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lsf.errors import DataError, RunError
from lsf.jobs.rates import outwards
from lsf.jobs.result import SearchTrial
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter
from lsf.training.catalogue import CATALOGUE
from lsf.training.evaluation import evaluate
from lsf.training.fitting import DivergedError, FitSettings, StepRow, fit
from lsf.training.material import Material
from lsf.training.methods import METHODS, scene_of
from lsf.training.reweighting import reweighting_of

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Tried first by full tuning, for every plan alike."""
LADDER = (3e-6, 1e-5, 3e-5, *RATES, 3e-2, 1e-1, 3e-1, 1.0)
"""Tried one after another, outwards, while the best rate is the lowest or the highest tried; few values want much."""
SHARE = 4
"""A trial takes one part in so many of the run's steps, within `TRIAL_STEPS`."""
TRIAL_STEPS = 10, 100
"""Fewest and most steps of a trial; never more than the run's."""


@dataclass(frozen=True)
class Search:
    """What the search found, and what it cost."""

    learning_rate: float
    """The rate of the lowest validation loss."""
    trials: tuple[SearchTrial, ...]
    """Every trial, ascending by rate."""
    seconds: float
    """Wall seconds of all of it."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all trials."""
        return sum(trial.steps for trial in self.trials)


def find_rate(
    loaded: LoadedModel,
    spec: RunSpec,
    material: Material,
    settings: FitSettings,
    folder: Path,
    report: Reporter,
    check: Callable[[], None],
) -> Search:
    """Try rates in short runs from the same start on the same data, and take the one of the lowest validation loss.

    Every trial has its own whole schedule (warm-up and decay to zero), so that its end is comparable; a short horizon
    favours somewhat higher rates than a long one. The test split is never touched. A trial whose loss becomes infinite
    counts as lost.

    Args:
        loaded: the base model; unchanged.
        spec: plan and method.
        material: rows; the validation rows judge.
        settings: of the run; rate and steps are replaced.
        folder: where Trainer may keep its files.
        report: told of the steps done; asked whether to stop.
        check: raises where the run is to end.

    Raises:
        DataError: the task has no validation examples.
        RunError: every rate tried was lost.
    """
    if not material.validation:
        raise DataError("The search for a learning rate needs validation examples and the data has none; give a rate.")
    started, steps = time.perf_counter(), trial_steps(settings.steps)
    short = replace(settings, steps=steps, warmup_steps=min(settings.warmup_steps, steps // 2), report_to="none")
    losses: dict[float, float] = {}
    rates = list(first_rates(spec.method))
    while rates:
        rate = rates.pop(0)
        done, planned = len(losses) * steps, (len(losses) + len(rates) + 1) * steps
        message = f"finding a learning rate: {rate:g}"
        report.progress(done, planned, message)

        def watch(row: StepRow, done: int = done, planned: int = planned, message: str = message) -> None:
            report.progress(done + row.step, planned, message)

        losses[rate] = _try(loaded, spec, material, replace(short, learning_rate=rate), folder, watch, report, check)
        rates += [] if rates or (further := outwards(losses, LADDER)) is None else [further]
    best = min(losses, key=lambda rate: losses[rate])
    if math.isinf(losses[best]):
        raise RunError(f"No learning rate from {min(losses):g} to {max(losses):g} keeps the loss finite.")
    trials = [SearchTrial(r, None if math.isinf(losses[r]) else losses[r], steps) for r in sorted(losses)]
    return Search(best, tuple(trials), time.perf_counter() - started)


def first_rates(method: str) -> tuple[float, ...]:
    """Return the rates a search begins with: of every method but `full` its default and the neighbours of that."""
    if method == "full":
        return RATES
    own = CATALOGUE[method].learning_rate
    place = min(range(len(LADDER)), key=lambda rung: abs(math.log(LADDER[rung] / own)))
    return LADDER[place - 1 : place + 2]


def trial_steps(steps: int) -> int:
    """Return how many steps a trial takes for a run of `steps`."""
    low, high = TRIAL_STEPS
    return min(steps, high, max(low, steps // SHARE))


def _try(
    loaded: LoadedModel,
    spec: RunSpec,
    material: Material,
    settings: FitSettings,
    folder: Path,
    watch: Callable[[StepRow], None],
    report: Reporter,
    check: Callable[[], None],
) -> float:
    """Return the validation loss after one short run; infinite where its loss was lost."""
    check()
    scene = scene_of(spec, material.train, loaded.info.dtype, folder, lambda: report.stop, check)
    model = METHODS[spec.method].prepare(loaded, spec.plan, scene)
    try:
        weighed = reweighting_of(spec, loaded, model, material.train, check)
        fit(model, material.train, settings, folder, watch, lambda: report.stop, reweighting=weighed)
    except DivergedError:
        return math.inf
    loss = evaluate(model, material.validation, settings.batch_size, settings.base_dtype, check).loss
    return math.inf if loss is None or not math.isfinite(loss) else loss
