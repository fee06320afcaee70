"""The measured truth: every plan of a sweep tuned from the same start for the same steps, and tested."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lsf.data.encode import EncodedExample, context_length
from lsf.data.report import first_texts
from lsf.data.task import Task
from lsf.environment import environment
from lsf.errors import BadInputError, DataError, RunError
from lsf.evidence.sweep import (
    BASE,
    FULL,
    Blocks,
    Cell,
    Rate,
    Score,
    Sweep,
    SweepSpec,
    empty_cells,
    plans_over,
    relative_cost,
)
from lsf.methods.context import MethodContext
from lsf.methods.optimization import LADDER, around, outwards
from lsf.methods.registry import METHODS
from lsf.models.devices import is_out_of_memory
from lsf.models.loading import LoadedModel, weights_hash
from lsf.plans.plan import Plan
from lsf.progress import Phase, Reporter
from lsf.runs.result import Metrics
from lsf.training.attempts import free_memory
from lsf.training.caching import forget_states, open_caching, tokens_hash
from lsf.training.evaluation import evaluate
from lsf.training.fitting import short_run
from lsf.training.short_runs import own_rate
from lsf.training.splits import EncodedSplits, encode_splits, prior_on
from lsf.training.time_forecast import course_of
from lsf.training.trainer import DivergedError, FitSettings


def start_sweep(loaded: LoadedModel, task: Task, spec: SweepSpec, earlier: Sweep | None = None) -> Sweep:
    """Return the sweep that is to be measured: an earlier one that is to go on, or an empty one.

    An earlier sweep keeps its plans and seeds, whatever is asked for beside them.

    Raises:
        BadInputError: the earlier one measured something else or read other texts, or `over` is not understood.
        DataError: the task lacks the examples a sweep needs.
    """
    if not task.test:
        raise DataError(f"A sweep scores plans on test examples and {task.name} has none; give data with more rows.")
    if spec.learning_rate is None and not task.validation:
        raise DataError(f"A sweep searches rates on validation examples and {task.name} has none; give a rate.")
    n_blocks = loaded.info.n_blocks
    plans = plans_over(spec.over, n_blocks)
    weights, fingerprint = weights_hash(loaded.model), task.fingerprint
    gpu = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else None
    if earlier is None:
        cells = empty_cells(plans, n_blocks, spec.seeds)
        empty = Sweep(spec, n_blocks, weights, fingerprint, cells, {}, 0.0, environment(gpu))
        return replace(empty, **about_rows(loaded, task, spec))
    _check_same(earlier, spec, weights, fingerprint)
    about = about_rows(loaded, task, earlier.spec)
    if earlier.texts not in (None, about["texts"]):
        raise BadInputError(
            "The texts that are made of the rows changed since the sweep in the file was begun, though the rows did "
            "not: the model has another tokenizer or chat template by now; take another file."
        )
    earlier = replace(earlier, **{name: value for name, value in about.items() if getattr(earlier, name) is None})
    over = ",".join(dict.fromkeys(",".join((earlier.spec.over, spec.over)).replace(" ", "").split(",")))
    spec = replace(spec, over=over, seeds=max(earlier.spec.seeds, spec.seeds))
    cells = empty_cells(plans_over(over, n_blocks), n_blocks, spec.seeds)
    known = {cell.key: cell for cell in earlier.cells if cell.after is not None}
    return replace(earlier, spec=spec, cells=tuple(known.get(cell.key, cell) for cell in cells))


def prior_score(loaded: LoadedModel, task: Task, spec: SweepSpec) -> Score:
    """Return what the best answer that ignores the prompt comes to on a sweep's test examples (`lsf.data.report`).

    Args:
        loaded: has the tokenizer and the context.
        task: the data.
        spec: which rows are read.

    Raises:
        DataError: the data cannot be used.
    """
    return _prior(loaded, task, _encoded(loaded, task, spec))


def _prior(loaded: LoadedModel, task: Task, splits: EncodedSplits) -> Score:
    prior = prior_on(splits, loaded.info.vocab_size, task.train)
    return Score(prior.exact_match, prior.loss)


def about_rows(loaded: LoadedModel, task: Task, spec: SweepSpec) -> dict[str, Any]:
    """Return the fields of a sweep that its rows alone tell: the prior, and what the rows become as texts."""
    splits = _encoded(loaded, task, spec)
    texts = tokens_hash((*splits.train, *splits.validation, *splits.test))
    first = first_texts(loaded.tokenizer, task.train, context_length(loaded.context, spec.max_length))
    return {"prior": _prior(loaded, task, splits), "rendering": splits.rendering, "texts": texts, "first_texts": first}


def _encoded(loaded: LoadedModel, task: Task, spec: SweepSpec) -> EncodedSplits:
    return encode_splits(loaded, task, spec.run_spec(loaded.info.n_blocks, None, 0))


def _check_same(earlier: Sweep, spec: SweepSpec, weights: str, fingerprint: str) -> None:
    """Refuse to go on with a sweep whose numbers would not be comparable; more plans and seeds are welcome."""
    free = {"over", "seeds"}
    for name, value in vars(spec).items():
        if name not in free and value != (old := getattr(earlier.spec, name)):
            raise BadInputError(f"The sweep in the file was made with {name} {old}, not {value}; take another file.")
    for words, old, new in (("model's weights", earlier.weights, weights), ("data", earlier.fingerprint, fingerprint)):
        if old != new:
            raise BadInputError(f"The {words} changed since the sweep in the file was begun; take another file.")


SWEPT_RATES = tuple(rate for rate in LADDER if 1e-5 <= rate <= 1e-1)
"""Every rate that may be tried for a plan: its default's neighbours first, further ones outwards while the best is at
an edge."""
FIRST_TRIED = 3
"""Rates that are tried for every plan."""
EVALUATION_BATCH = 64
"""Examples per forward pass of an evaluation."""
Save = Callable[[Sweep], None]


class _Stopped(Exception):
    """The sweep was asked to end; what is measured stays."""


@dataclass(frozen=True)
class _Tried:
    """One run."""

    validation: float
    """Nats per token; infinite where it was not asked for."""
    test: Score
    """On the test split."""
    seconds: float
    """Of its steps."""


def carry_out_sweep(
    loaded: LoadedModel, task: Task, sweep: Sweep, report: Reporter, save: Save, keep_states: bool = False
) -> Sweep:
    """Measure what a sweep lacks, cell by cell, and return it; a failed run is a missing cell with its reason.

    Every run starts from the loaded model, which is not changed, sees the same training rows in the order of its seed,
    and takes the same steps with the same schedule. The states below the tuned blocks are computed once and kept for
    all plans and seeds. Where no rate is given, each plan takes the one of the lowest validation loss after all steps
    with seed 0; that run is also its cell of seed 0. The test split chooses nothing.

    Args:
        loaded: the model the sweep names.
        task: the data it names.
        sweep: as `lsf.evidence.sweeping.start_sweep` returned it.
        report: told of runs done, with the time left; partial results; any wish to stop ends the sweep where it is.
        save: called with the sweep so far after every cell.
        keep_states: whether the states below tuned blocks stay in memory for another sweep of this model and task.
    """
    work = _Sweeping(loaded, task, sweep, report, save)
    try:
        work.carry_out()
    except _Stopped:
        pass
    finally:
        if not keep_states:
            forget_states(loaded)
        free_memory()
    return work.sweep


class _Sweeping:
    """The sweep so far, and what every run needs."""

    def __init__(self, loaded: LoadedModel, task: Task, sweep: Sweep, report: Reporter, save: Save) -> None:
        self.loaded, self.sweep, self.report, self.save = loaded, sweep, report, save
        self.spec, self.n_blocks = sweep.spec, sweep.n_blocks
        self.splits = _encoded(loaded, task, self.spec)
        self.begun, self.earlier = time.perf_counter(), sweep.seconds
        self.todo = sweep.missing
        self.runs_here = 0, 1

    def carry_out(self) -> None:
        """Measure every missing cell, the base model first."""
        self.report.plan(self.phases())
        for cell in self.todo:
            self.check()
            if cell.plan == BASE:
                score = _score(self.evaluated(self.loaded.model, self.splits.test))
                self.keep(replace(cell, before=score, after=score, seconds=0.0, reason=None))
            else:
                self.keep(self.measured(cell))

    def phases(self) -> list[Phase]:
        """Return a phase for every cell to be measured; the first of a plan pays for the search of its rate."""
        lengths: dict[str, float] = {}
        for cell in self.todo:
            if cell.plan not in lengths:
                blocks = None if cell.plan == FULL else cell.blocks
                lengths[cell.plan] = 0.0 if cell.plan == BASE else self.seconds(blocks)
        return [Phase(_words(cell), _runs(self.sweep, cell) * lengths[cell.plan]) for cell in self.todo]

    def seconds(self, blocks: Blocks | None) -> float:
        """Return the seconds that one run of a plan is expected to take."""
        spec = self.spec.run_spec(self.n_blocks, blocks, 0)
        found = course_of(self.loaded, self.splits, spec, self.check).seconds
        return found["steps"] + found["test"]

    def measured(self, cell: Cell) -> Cell:
        """Return one cell after its run, or with the reason why there is no score."""
        base = next(known.after for known in self.sweep.cells if known.plan == BASE)
        cell = replace(cell, before=base)
        self.report.phase(_words(cell))
        self.runs_here = 0, 1
        try:
            rate = self.spec.learning_rate or self.found_rate(cell)
            if isinstance(rate, Cell):
                return rate
            tried = self.tried(cell, rate, _words(cell), judged=False)
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, RunError) or is_out_of_memory(error)):
                raise
            lost = str(error) if isinstance(error, RunError) else "Memory did not suffice; a smaller batch needs less."
            return replace(cell, reason=lost)
        return _filled(cell, rate, tried)

    def found_rate(self, cell: Cell) -> float | Cell:
        """Return the plan's own rate; where it has to be searched, the cell of seed 0 that the search measured."""
        if cell.plan in self.sweep.rates:
            return self.sweep.rates[cell.plan].learning_rate
        first, rates = replace(cell, seed=0), list(around(own_rate(self.loaded, self.plan_of(cell)), SWEPT_RATES))
        found, losses = dict[float, _Tried | None](), dict[float, float]()
        while rates:
            rate = rates.pop(0)
            self.runs_here = len(found), max(FIRST_TRIED, len(found) + 1 + len(rates))
            try:
                found[rate] = self.tried(first, rate, f"{_words(first)}, trying rate {rate:g}", judged=True)
            except DivergedError:
                found[rate] = None
            one = found[rate]
            losses[rate] = math.inf if one is None else one.validation
            rates += [] if rates or (further := outwards(losses, SWEPT_RATES)) is None else [further]
        best = min(losses, key=lambda rate: losses[rate])
        if (tried := found[best]) is None:
            raise DivergedError(f"No learning rate from {min(found):g} to {max(found):g} keeps the loss finite.")
        told = tuple((rate, None if found[rate] is None else losses[rate]) for rate in sorted(found))
        self.sweep = replace(self.sweep, rates={**self.sweep.rates, cell.plan: Rate(best, told)})
        return _filled(cell, best, tried) if cell.seed == 0 else best

    def tried(self, cell: Cell, rate: float, words: str, judged: bool) -> _Tried:
        """Tune one plan at one rate under one seed and measure it, on validation too where its rate is judged."""
        self.check()
        self.tell(words)
        loaded, spec = self.loaded, self.spec
        plan = self.plan_of(cell)
        settings = FitSettings(
            rate, spec.steps, spec.batch_size, spec.steps // 10, 0.0, cell.seed, base_dtype=loaded.info.dtype
        )
        model = METHODS["full"].prepare(loaded, plan, MethodContext())
        # Every run of the sweep sees these rows again, so keeping them pays however few steps a run has.
        caching = open_caching(loaded, model, plan, self.splits.train, "auto", 2 * len(self.splits.train))
        try:
            done = short_run(
                model,
                self.splits.train,
                settings,
                lambda: self.report.stop,
                lambda row: self.tell(words, row.step),
                caching.prefix,
            )
        finally:
            caching.close()
        self.check()
        validation = self.evaluated(model, self.splits.validation).loss if judged else None
        test = _score(self.evaluated(model, self.splits.test))
        if test.loss is None or not math.isfinite(test.loss):
            raise DivergedError("The tuned model's loss is not finite.")
        return _Tried(math.inf if validation is None else validation, test, done.seconds)

    def plan_of(self, cell: Cell) -> Plan:
        """Return what a cell tunes."""
        return self.spec.run_spec(self.n_blocks, None if cell.plan == FULL else cell.blocks, cell.seed).plan

    def evaluated(self, model: Any, rows: tuple[EncodedExample, ...]) -> Metrics:
        """Return how a model does on held-out rows."""
        return evaluate(model, rows, EVALUATION_BATCH, self.loaded.info.dtype, self.check)

    def keep(self, cell: Cell) -> None:
        """Put a cell in its place, save, and show."""
        seconds = self.earlier + time.perf_counter() - self.begun
        self.sweep = replace(self.sweep.with_cell(cell), seconds=seconds)
        self.save(self.sweep)
        self.report.partial(self.sweep)

    def check(self) -> None:
        """Leave, where a stop is asked for."""
        if self.report.stop is not None:
            raise _Stopped

    def tell(self, words: str, step: int = 0) -> None:
        """Report the steps done of the runs of this cell."""
        done, runs = self.runs_here
        self.report.progress(done * self.spec.steps + step, runs * self.spec.steps, words)


def told_left(sweep: Sweep, done: Sequence[Cell], left: Sequence[Cell], seconds: float) -> str:
    """Say the time left at the pace so far, as the end of a message; nothing where nothing is done.

    Args:
        sweep: what the cells are of.
        done: cells that took the seconds.
        left: cells to come.
        seconds: wall time so far.
    """
    behind, ahead = (sum(_cost(sweep, cell) for cell in cells) for cells in (done, left))
    return f", about {_duration(seconds * ahead / behind)} left" if behind else ""


def _cost(sweep: Sweep, cell: Cell) -> float:
    """Return roughly what a cell costs; the first of a plan pays for its search."""
    if cell.plan == BASE:
        return 0.0
    return _runs(sweep, cell) * relative_cost(None if cell.plan == FULL else cell.blocks, sweep.n_blocks)


def _runs(sweep: Sweep, cell: Cell) -> int:
    """Return how many runs a cell is expected to take."""
    return FIRST_TRIED + 1 if sweep.spec.learning_rate is None and cell.seed == 0 else 1


def _filled(cell: Cell, rate: float, tried: _Tried) -> Cell:
    return replace(cell, learning_rate=rate, after=tried.test, seconds=tried.seconds, reason=None)


def _score(metrics: Metrics) -> Score:
    return Score(metrics.exact_match, metrics.loss)


def _words(cell: Cell) -> str:
    if cell.plan == BASE:
        return "the base model"
    place = cell.plan if cell.plan == FULL else f"block{'s' if len(cell.blocks) > 1 else ''} {cell.plan}"
    return f"run: {place}, seed {cell.seed}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
