"""A learning rate found by short runs around the default: counted apart, and shared within a group of runs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lsf.analysis.cost import law_flops
from lsf.data.encode import EncodedExample
from lsf.errors import BadInputError, DataError, RunError
from lsf.jobs.result import SearchTrial
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.measure.quantised import n_values
from lsf.reporting import Reporter
from lsf.training.batches import autocasting, collate, score_tokens
from lsf.training.caching import blocks_of
from lsf.training.catalogue import options_of
from lsf.training.default_rates import rounded
from lsf.training.evaluation import do_nothing, spread_out
from lsf.training.fitting import DivergedError, FitSettings, StepRow, fit
from lsf.training.forgetting import GeneralText, general_loss
from lsf.training.material import Material
from lsf.training.methods import METHODS, scene_of
from lsf.training.own_rate import spec_rate
from lsf.training.parametrization import held_still
from lsf.training.reweighting import reweighting_of
from lsf.training.search_budget import SearchBudget, best_of, search_budget
from lsf.training.workload import lowest_block

FACTOR = 3.0
"""Between neighbouring rates."""
SEED = 0
"""Of a trial's data order, whatever the run's: every run of a group would find the same."""
ROWS, TEXTS, FEWEST = 32, 8, 2
"""Validation rows and general texts that judge a trial, at most; and the texts it takes at least. Where the run's
batches are small, fewer texts are read, so that a reading costs about two steps."""
READING = 2.0
"""Optimizer steps that a reading may cost before fewer texts are read."""


class NoRateError(BadInputError, RunError):
    """Every rate that was tried lost the loss; carries what was tried."""

    def __init__(self, search: "Search") -> None:
        """Say what was tried and what can be done."""
        self.search = search
        rates = [trial.learning_rate for trial in search.trials]
        super().__init__(
            f"The search found only divergence, at every rate from {min(rates):.2g} to {max(rates):.2g}; give a "
            f"smaller "
            f"--learning-rate, such as {rounded(min(rates) / 10):g}, or look for rows that the model cannot read."
        )


@dataclass(frozen=True)
class Search:
    """What a search came to, and what it cost."""

    learning_rate: float
    """The rate taken; the default where no search was worth its cost."""
    trials: tuple[SearchTrial, ...]
    """Every trial, ascending by rate; none where the run is too short."""
    seconds: float
    """Wall seconds of all of it."""
    share: float
    """Its predicted FLOPs over those of the run it serves, readings included."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all trials."""
        return sum(trial.steps for trial in self.trials)


def find_rate(
    loaded: LoadedModel,
    spec: RunSpec,
    material: Material,
    settings: FitSettings,
    text: GeneralText,
    folder: Path,
    report: Reporter,
    check: Callable[[], None],
) -> Search:
    """Try the default rate, a third of it and three times it, then outwards while the best is at an edge.

    Each trial is the beginning of the run itself, at the same schedule; the test split is never touched. All together
    cost
    at most a fifth of the run (`search_budget`); where that is too little for trials that say something, the default is
    taken. A trial whose loss becomes infinite counts as lost.

    Args:
        loaded: the base model; unchanged.
        spec: plan and method.
        material: rows; the validation rows judge.
        settings: of the run; the rate is replaced.
        text: of the base model; what a trial loses of it counts too.
        folder: where Trainer may keep its files.
        report: told of the steps done; asked whether to stop.
        check: raises where the run is to end.

    Raises:
        DataError: the task has no validation examples.
        NoRateError: every rate tried was lost.
    """
    if not material.validation:
        raise DataError("The search for a learning rate needs validation examples and the data has none; give a rate.")
    started, own = time.perf_counter(), spec_rate(loaded, spec)
    bench = _Trials(loaded, spec, material, settings, text, folder, report, check)
    budget = search_budget(settings.steps, bench.reading_steps())
    if budget is None:
        return Search(own, (), 0.0, 0.0)
    rates = [own, own / FACTOR, own * FACTOR]
    while rates:
        bench.carry_out(rounded(min(1.0, rates.pop(0))), budget, len(rates))
        if not rates and len(bench.trials) < budget.trials and (further := bench.outwards()) is not None:
            rates.append(further)
    seconds = time.perf_counter() - started
    trials = tuple(bench.trials[rate] for rate in sorted(bench.trials))
    best = bench.best()
    found = Search(own if best is None else best, trials, seconds, budget.share(len(trials), settings.steps))
    if best is None:
        raise NoRateError(found)
    return found


class _Trials:
    """The trials of one search."""

    def __init__(
        self,
        loaded: LoadedModel,
        spec: RunSpec,
        material: Material,
        settings: FitSettings,
        text: GeneralText,
        folder: Path,
        report: Reporter,
        check: Callable[[], None],
    ) -> None:
        self.loaded, self.spec, self.material, self.folder = loaded, spec, material, folder
        self.settings = replace(settings, seed=SEED, report_to="none")
        self.report, self.check = report, check
        self.rows = [material.validation[index] for index in spread_out(len(material.validation), ROWS)]
        self.text = GeneralText(text.ids[:TEXTS], text.lengths[:TEXTS])
        while len(self.text.ids) > FEWEST and self.reading_steps() > READING:
            half = len(self.text.ids) // 2
            self.text = GeneralText(text.ids[:half], text.lengths[:half])
        self.trials: dict[float, SearchTrial] = {}
        self.losses: dict[float, list[float]] = {}
        self.general: dict[float, float] = {}

    def reading_steps(self) -> float:
        """Return what reading one trial costs, in optimizer steps of the run, by counting FLOPs."""
        info, spec = self.loaded.info, self.spec
        tokens = sum(len(row.ids) for row in self.material.train) / len(self.material.train)
        params = [
            sum(n_values(value) for value in block.parameters()) for block in blocks_of(self.loaded.model, self.loaded)
        ]
        head, attention = 2.0 * info.width * info.vocab_size, 2.0 * info.width * tokens
        trainable = METHODS[spec.method].count(self.loaded, spec.plan, options_of(spec.method, spec.options))
        step = law_flops(params, head, attention, lowest_block(spec.plan, info), 2.0 * trainable)
        forward = sum(2.0 * n + attention for n in params) + head
        read = sum(len(row.ids) for row in self.rows) + int(self.text.lengths.sum())
        return forward * read / (step * tokens * self.settings.batch_size)

    def carry_out(self, rate: float, budget: SearchBudget, more: int) -> None:
        """Make one trial and note what it came to."""
        self.check()
        steps, done = budget.steps, len(self.trials) * budget.steps
        planned, message = done + (1 + more) * steps, f"finding a learning rate: {rate:g}"
        self.report.progress(done, planned, message)

        def watch(row: StepRow) -> None:
            self.report.progress(done + row.step, planned, message)

        loss, general = None, None
        if (model := self.tuned(rate, steps, watch)) is not None:
            rows = row_losses(model, self.rows, self.settings.batch_size, self.settings.base_dtype, self.check)
            lost = general_loss(model, self.text, self.settings.base_dtype, self.check)
            if math.isfinite(math.fsum(rows)) and math.isfinite(lost):
                self.losses[rate], self.general[rate] = rows, lost
                loss, general = math.fsum(rows) / len(rows), lost
        self.trials[rate] = SearchTrial(rate, loss, steps, general)

    def tuned(self, rate: float, steps: int, watch: Callable[[StepRow], None]) -> Any:
        """Return the model after the first steps of the run at a rate; None where the loss was lost."""
        loaded, spec, material = self.loaded, self.spec, self.material
        scene = scene_of(spec, material.train, loaded.info.dtype, self.folder, lambda: self.report.stop, self.check)
        model = METHODS[spec.method].prepare(loaded, spec.plan, scene)
        reached = 0

        def look(row: StepRow) -> None:
            nonlocal reached
            reached = row.step
            watch(row)

        def stop() -> Any:
            return self.report.stop or ("enough" if reached >= steps else None)

        warmup = min(self.settings.warmup_steps, steps // 2)  # else a trial would never see its rate
        settings = replace(self.settings, learning_rate=rate, warmup_steps=warmup)
        weighed = reweighting_of(spec, loaded, model, material.train, self.check)
        try:
            fit(model, material.train, settings, self.folder, look, stop, reweighting=weighed)
        except DivergedError:
            return None
        self.check()
        return model

    def best(self) -> float | None:
        """Return the rate that would be taken now; None where every trial was lost."""
        return best_of(self.losses, self.general)

    def outwards(self) -> float | None:
        """Return a rate beyond the edge the best lies at, downwards where all were lost; None where it is inside."""
        best, tried = self.best(), sorted(self.trials)
        if best is None or best == tried[0]:
            return tried[0] / FACTOR
        return tried[-1] * FACTOR if best == tried[-1] and tried[-1] < 1.0 else None


@torch.no_grad()
def row_losses(
    model: Any, rows: list[EncodedExample], batch_size: int, base_dtype: str, check: Callable[[], None] = do_nothing
) -> list[float]:
    """Return the mean loss of each row's completion tokens, in nats."""
    found: list[float] = []
    with held_still(model):
        for start in range(0, len(rows), batch_size):
            check()
            with autocasting(model, base_dtype):
                scores = score_tokens(model, collate(rows[start : start + batch_size]))
            found += (scores.nll.sum(dim=1) / scores.counted.sum(dim=1)).float().tolist()
    return found
