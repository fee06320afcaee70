"""A learning rate found by short runs around the default: counted apart, and shared within a group of runs."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from lsf.analysis.cost import forward_flops
from lsf.data.encode import EncodedExample
from lsf.errors import BadInputError, DataError, RunError
from lsf.jobs.result import SearchTrial
from lsf.reporting import Reporter
from lsf.training.attempts import Ground, carried_out, prepared, within_memory
from lsf.training.batches import TokenScores
from lsf.training.caching import open_held_out
from lsf.training.default_rates import rounded
from lsf.training.duration import step_flops
from lsf.training.evaluation import scored, spread_out
from lsf.training.fitting import DivergedError, StepRow, fit
from lsf.training.forgetting import BATCH_SIZE, GeneralText
from lsf.training.own_rate import spec_rate
from lsf.training.processes import n_processes
from lsf.training.reading_plan import LIVE_ROWS, watched
from lsf.training.reweighting import reweighting_of
from lsf.training.search_budget import SearchBudget, best_of, search_budget
from lsf.training.workload import rows_load, workload_of

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
    """Its predicted FLOPs over those of the steps of the run it serves, readings included."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all trials."""
        return sum(trial.steps for trial in self.trials)


def find_rate(ground: Ground, text: GeneralText, report: Reporter) -> Search:
    """Try the default rate, a third of it and three times it, then outwards while the best is at an edge.

    Each trial is the beginning of the run itself, at the same schedule and carried out as the run is: in its
    micro-batches, from its kept states, recomputed where it is; the test split is never touched. All together cost at
    most a fifth of the run's steps (`search_budget`), both by predicted FLOPs as they are carried out; filling the
    prefix cache is counted in neither, since the run finds there what trials filled. Where that is too little for
    trials that say something, the default is taken. A trial whose loss becomes infinite counts as lost.

    Args:
        ground: of the run; its rate is replaced, and its validation rows judge.
        text: of the base model; what a trial loses of it counts too.
        report: told of the steps done; asked whether to stop.

    Raises:
        DataError: the task has no validation examples.
        NoRateError: every rate tried was lost.
        RuntimeError, MemoryError: a single example does not fit.
    """
    steps = ground.material.steps
    if not ground.material.validation:
        raise DataError("The search for a learning rate needs validation examples and the data has none; give a rate.")
    started, own = time.perf_counter(), spec_rate(ground.loaded, ground.spec)
    bench = _Trials(ground, text, report)
    budget = search_budget(steps, bench.reading_steps(), bench.step)
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
    found = Search(own if best is None else best, trials, seconds, budget.share(len(trials), steps))
    if best is None:
        raise NoRateError(found)
    return found


class _Trials:
    """The trials of one search."""

    def __init__(self, ground: Ground, text: GeneralText, report: Reporter) -> None:
        material, spec = ground.material, ground.spec
        if n_processes() > 1:  # what they keep they share for one fit only
            spec = replace(spec, cache="off")
        self.ground, self.report, self.micro = replace(ground, spec=spec), report, ground.micro_batch
        self.shown, self.texts = watched(material.validation), text.rows
        place = {number: place for place, number in enumerate(spread_out(len(material.validation), LIVE_ROWS))}
        self.rows = [place[number] for number in spread_out(len(material.validation), ROWS)]
        self.n_texts = min(TEXTS, len(self.texts))
        self.work = workload_of(ground.loaded, material, spec, dense=False)
        self.run_step = step_flops(workload_of(ground.loaded, material, ground.spec, dense=False))
        while self.n_texts > FEWEST and self.reading_steps() > READING:
            self.n_texts //= 2
        self.trials: dict[float, SearchTrial] = {}
        self.losses: dict[float, list[float]] = {}
        self.general: dict[float, float] = {}

    @property
    def step(self) -> float:
        """What a trial's step costs, in optimizer steps of the run, by counting FLOPs."""
        return step_flops(self.work) / self.run_step

    def reading_steps(self) -> float:
        """Return what reading one trial costs, in optimizer steps of the run, by counting FLOPs."""
        load = rows_load([self.shown[number] for number in self.rows], self.ground.spec.batch_size)
        load += rows_load(self.texts[: self.n_texts], BATCH_SIZE)
        return forward_flops(self.work.sizes, load, self.work.held) / self.run_step

    def carry_out(self, rate: float, budget: SearchBudget, more: int) -> None:
        """Make one trial and note what it came to."""
        self.ground.scene.check()
        steps, done = budget.steps, len(self.trials) * budget.steps
        planned, message = done + (1 + more) * steps, f"finding a learning rate: {rate:g}"
        self.report.progress(done, planned, message)

        def watch(row: StepRow) -> None:
            self.report.progress(done + row.step, planned, message)

        loss, general = None, None
        if (model := self.tuned(rate, steps, watch)) is not None:
            rows, lost = self.read(model)
            if math.isfinite(math.fsum(rows)) and math.isfinite(lost):
                self.losses[rate], self.general[rate] = rows, lost
                loss, general = math.fsum(rows) / len(rows), lost
        self.trials[rate] = SearchTrial(rate, loss, steps, general)

    def tuned(self, rate: float, steps: int, watch: Callable[[StepRow], None]) -> Any:
        """Return the model after the first steps of the run at a rate; None where the loss was lost."""
        try:
            return within_memory(self.ground.spec.batch_size, self.micro, partial(self._tuned, rate, steps, watch))
        except DivergedError:
            return None

    def _tuned(self, rate: float, steps: int, watch: Callable[[StepRow], None], micro: int) -> Any:
        ground, scene, rows = self.ground, self.ground.scene, self.ground.material.train
        self.micro = micro  # what one trial found out about memory, the next one need not
        model, reached = prepared(ground, micro), 0

        def look(row: StepRow) -> None:
            nonlocal reached
            reached = row.step
            watch(row)

        def stop() -> Any:
            return self.report.stop or ("enough" if reached >= steps else None)

        warmup = min(ground.settings.warmup_steps, steps // 2)  # else a trial would never see its rate
        settings = replace(
            ground.settings,
            learning_rate=rate,
            warmup_steps=warmup,
            seed=SEED,
            micro_batch=micro,
            report_to="none",
        )
        with carried_out(ground, model) as caching:
            weighed = reweighting_of(ground.spec, ground.loaded, model, rows, scene.check)
            fit(model, rows, settings, ground.folder, look, stop, prefix=caching.prefix, reweighting=weighed)
        scene.check()
        return model

    def read(self, model: Any) -> tuple[list[float], float]:
        """Return the loss of each judging row and that of the general text, in nats per token."""
        batch = self.ground.spec.batch_size
        judged = self._scored(model, self.shown, "validation", batch, self.rows)
        losses = [scores.nll.double().sum(dim=1) / scores.counted.sum(dim=1) for scores in judged]
        texts = list(self._scored(model, self.texts, "text", BATCH_SIZE, range(self.n_texts)))
        lost = sum(scores.nll.double().sum().item() for scores in texts)
        return torch.cat(losses).tolist(), lost / sum(int(scores.counted.sum()) for scores in texts)

    def _scored(
        self, model: Any, rows: Sequence[EncodedExample], split: str, batch: int, numbers: Sequence[int]
    ) -> Iterator[TokenScores]:
        """Read some rows from the states that the run's own readings of all of them start from."""
        loaded, check = self.ground.loaded, self.ground.scene.check
        prefix = open_held_out(loaded, model, self.ground.spec, rows, split, batch)
        return scored(model, rows, batch, loaded.info.dtype, check, prefix, numbers)

    def best(self) -> float | None:
        """Return the rate that would be taken now; None where every trial was lost."""
        return best_of(self.losses, self.general)

    def outwards(self) -> float | None:
        """Return a rate beyond the edge the best lies at, downwards where all were lost; None where it is inside."""
        best, tried = self.best(), sorted(self.trials)
        if best is None or best == tried[0]:
            return tried[0] / FACTOR
        return tried[-1] * FACTOR if best == tried[-1] and tried[-1] < 1.0 else None
