"""Which rate a run takes: the one given, the default, or the one its own search or that of its group found.

A search makes short runs around the default, within a budget, counted apart.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lsf.data.encode import EncodedExample
from lsf.data.rendering import template_of
from lsf.data.task import Task
from lsf.errors import BadInputError, DataError, LsfError, RunError
from lsf.files import read_json, write_json
from lsf.methods.optimization import rounded
from lsf.models.batches import TokenScores
from lsf.models.loading import LoadedModel, config_hash
from lsf.models.writing import GeneralText
from lsf.progress import Reporter
from lsf.runs.checkpoints import Checkpoint
from lsf.runs.comparability import CHAT, RAW, below, kinds_in
from lsf.runs.lock import ResultBuilder
from lsf.runs.result import SearchTrial
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.schema import decode
from lsf.training.attempts import FitInputs, carried_out, prepared, within_memory
from lsf.training.caching import open_held_out
from lsf.training.evaluation import BATCH_SIZE, scored
from lsf.training.fitting import short_run
from lsf.training.processes import n_processes
from lsf.training.reweighting import reweighting_of
from lsf.training.search_budget import SEED, SearchBudget, judging_rows, search_budget, trial_cost, trial_spec
from lsf.training.short_runs import spec_rate
from lsf.training.splits import encode_splits, watched
from lsf.training.trainer import DivergedError, StepRow


def best_of(losses: dict[float, list[float]], general: dict[float, float], forgets: float = 1.0) -> float | None:
    """Return the rate a search takes; None where every trial was lost.

    The least validation loss counts; of the rates within noise of it (a paired difference of at most twice its standard
    error over the rows) none that forgets more than `forgets` nats more than another of them, and of the rest the one
    of the least validation loss.

    Args:
        losses: rate -> loss of each validation row in nats, the same rows for every rate; lost trials are left out.
        general: rate -> loss on the base model's own text, in nats per token.
        forgets: nats per token.
    """
    if not losses:
        return None
    means = {rate: math.fsum(rows) / len(rows) for rate, rows in losses.items()}
    best = min(sorted(means), key=lambda rate: means[rate])
    near = [rate for rate in sorted(losses) if _within_noise(losses[rate], losses[best])]
    least = min(general[rate] for rate in near)
    spared = [rate for rate in near if general[rate] <= least + forgets]
    return min(spared, key=lambda rate: means[rate])


def _within_noise(one: list[float], other: list[float]) -> bool:
    """Say whether the mean of a difference over rows is within two standard errors of zero."""
    apart = [a - b for a, b in zip(one, other, strict=True)]
    mean = math.fsum(apart) / len(apart)
    if len(apart) < 2:
        return mean <= 0.0
    variance = math.fsum((value - mean) ** 2 for value in apart) / (len(apart) - 1)
    return abs(mean) <= 2.0 * math.sqrt(variance / len(apart))


FACTOR = 3.0
"""Between neighbouring rates."""


class NoRateError(BadInputError, RunError):
    """Every rate that was tried diverged; carries what was tried."""

    def __init__(self, search: "Search") -> None:
        """Say what was tried and what can be done."""
        self.search = search
        rates = [trial.learning_rate for trial in search.trials]
        super().__init__(
            f"The search found only divergence, at every rate from {min(rates):.2g} to {max(rates):.2g}; give a "
            f"smaller learning rate, such as {below(search.trials):g}, "
            "or look for rows that the model cannot read."
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


def find_rate(inputs: FitInputs, task: Task, text: GeneralText, report: Reporter) -> Search:
    """Try the default rate, a third of it and three times it, then outwards while the best is at an edge.

    Each trial is the beginning of the run itself, at the same schedule and carried out as the run is: in its
    micro-batches, from its kept states, recomputed where it is; the test split is never touched. All together cost at
    most a fifth of the run's steps (`search_budget`), both by predicted FLOPs as they are carried out; filling the
    prefix cache is counted in neither, since the run finds there what trials filled. Where that is too little for
    trials that say something, the default is taken. A trial whose loss becomes infinite counts as lost.

    Args:
        inputs: of the run; its rate and seed are replaced, and its validation rows judge.
        task: its data.
        text: of the base model; what a trial loses of it counts too.
        report: told of the steps done; asked whether to stop.

    Raises:
        DataError: the task has no validation examples.
        NoRateError: every rate tried was lost.
        RuntimeError, MemoryError: a single example does not fit.
    """
    steps = inputs.splits.steps
    if not inputs.splits.validation:
        raise DataError("The search for a learning rate needs validation examples and the data has none; give a rate.")
    started, own = time.perf_counter(), spec_rate(inputs.loaded, inputs.spec)
    bench = _Trials(_by_one_seed(inputs, task), text, report)
    budget = search_budget(steps, bench.cost.reading, bench.cost.step)
    if budget is None:
        return Search(own, (), 0.0, 0.0)
    rates = list(dict.fromkeys(rounded(min(1.0, rate)) for rate in (own, own / FACTOR, own * FACTOR)))
    while rates:
        bench.carry_out(rates.pop(0), budget, len(rates))
        if not rates and len(bench.trials) < budget.trials and (further := bench.outwards()) is not None:
            rates.append(rounded(min(1.0, further)))
    seconds = time.perf_counter() - started
    trials = tuple(bench.trials[rate] for rate in sorted(bench.trials))
    best = bench.best()
    share = budget.share(sum(trial.steps for trial in trials), bench.readings, steps)
    found = Search(own if best is None else best, trials, seconds, share)
    if best is None:
        raise NoRateError(found)
    return found


def _by_one_seed(inputs: FitInputs, task: Task) -> FitInputs:
    """Return inputs as any run of the group would have them."""
    spec = replace(inputs.spec, seed=SEED)
    if spec == inputs.spec:
        return inputs
    splits = encode_splits(inputs.loaded, task, spec)
    settings = replace(inputs.settings, seed=SEED, n_general=splits.n_general)
    context = replace(inputs.context, seed=SEED, rows=splits.own)
    return replace(inputs, spec=spec, splits=splits, settings=settings, context=context)


class _Trials:
    """The trials of one search."""

    def __init__(self, inputs: FitInputs, text: GeneralText, report: Reporter) -> None:
        splits, spec = inputs.splits, inputs.spec
        self.inputs, self.report, self.micro = replace(inputs, spec=trial_spec(spec)), report, inputs.micro_batch
        self.shown, self.texts, self.rows = watched(splits.validation), text.rows, judging_rows(splits)
        self.cost = trial_cost(inputs.loaded, splits, spec, self.texts)
        self.taken = self.readings = 0  # steps of the newest trial; readings of all
        self.trials: dict[float, SearchTrial] = {}
        self.losses: dict[float, list[float]] = {}
        self.general: dict[float, float] = {}

    def carry_out(self, rate: float, budget: SearchBudget, more: int) -> None:
        """Make one trial and note what it came to."""
        self.inputs.context.check()
        steps, done = budget.steps, len(self.trials) * budget.steps
        planned, message = done + (1 + more) * steps, f"searching the learning rate: {rate:g}"
        self.report.progress(done, planned, message)

        def watch(row: StepRow) -> None:
            self.report.progress(done + row.step, planned, message)

        loss, general = None, None
        if (model := self.tuned(rate, steps, watch)) is not None:
            rows, lost = self.read(model)
            if math.isfinite(math.fsum(rows)) and math.isfinite(lost):
                self.losses[rate], self.general[rate] = rows, lost
                loss, general = math.fsum(rows) / len(rows), lost
        self.trials[rate] = SearchTrial(rate, loss, self.taken, general)

    def tuned(self, rate: float, steps: int, watch: Callable[[StepRow], None]) -> Any:
        """Return the model after the first steps of the run at a rate; None where the loss diverged."""
        try:
            return within_memory(self.inputs.spec.batch_size, self.micro, partial(self._tuned, rate, steps, watch))
        except DivergedError:
            self.taken += 1  # the step by which it diverged is not looked at
            return None

    def _tuned(self, rate: float, steps: int, watch: Callable[[StepRow], None], micro: int) -> Any:
        inputs, context, rows = self.inputs, self.inputs.context, self.inputs.splits.train
        self.micro = micro  # what one trial found out about memory, the next one need not
        model, self.taken = prepared(inputs, micro), 0

        def look(row: StepRow) -> None:
            self.taken = row.step
            watch(row)

        def stop() -> Any:
            return self.report.stop or ("enough" if self.taken >= steps else None)

        warmup = min(inputs.settings.warmup_steps, steps // 2)  # else a trial would never see its rate
        settings = replace(
            inputs.settings,
            learning_rate=rate,
            warmup_steps=warmup,
            micro_batch=micro,
            report_to="none",
            logged_every=1,
        )
        with carried_out(inputs, model) as caching:
            weighed = reweighting_of(inputs.spec, inputs.loaded, model, rows, context.check)
            short_run(model, rows, settings, stop, look, caching.prefix, weighed)
        context.check()
        return model

    def read(self, model: Any) -> tuple[list[float], float]:
        """Return the loss of each judging row and that of the general text, in nats per token."""
        self.readings += 1
        batch = self.inputs.spec.batch_size
        judged = self._scored(model, self.shown, "validation", batch, self.rows)
        losses = [scores.nll.double().sum(dim=1) / scores.counted.sum(dim=1) for scores in judged]
        texts = list(self._scored(model, self.texts, "text", BATCH_SIZE, range(self.cost.n_texts)))
        lost = sum(scores.nll.double().sum().item() for scores in texts)
        return torch.cat(losses).tolist(), lost / sum(int(scores.counted.sum()) for scores in texts)

    def _scored(
        self, model: Any, rows: Sequence[EncodedExample], split: str, batch: int, numbers: Sequence[int]
    ) -> Iterator[TokenScores]:
        """Read some rows from the states that the run's own readings of all of them start from."""
        loaded, check = self.inputs.loaded, self.inputs.context.check
        prefix = open_held_out(loaded, model, self.inputs.spec, rows, split, batch)
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


GIVEN, TRIED, DEFAULT, SEARCHED = "given", "tried", "default", "search"
TOO_SHORT = "default: a fifth of the run's cost is too little for a search"
"""Words for where a rate came from."""
SEARCHES = "searched-rates"
"""Folder beside the runs that keeps what their searches found."""
FREE = (
    "plan", "role", "seed", "learning_rate", "model", "data", "prompt_template", "completion_template", "keep",
    "micro_batch", "cache", "activation_checkpointing", "checkpoint_steps", "checkpoint_seconds", "report_to",
    "eval_every", "dtype", "device", "proof", "latency", "threads", "general", "general_share",
    "answer_pattern", "generate_limit", "generate_tokens",
)  # fmt: skip
"""Fields of a spec that runs of one group may differ in; model, data and general data are known better by hashes."""


@dataclass(frozen=True)
class Choice:
    """A rate, and how it came about; fields of a result."""

    learning_rate: float
    """AdamW's peak rate."""
    rate_from: str
    """given, tried, default, search, or the words for what else it was."""
    search: tuple[SearchTrial, ...] = ()
    """Trials, those of another run of the group where that searched."""
    searched_on: str | None = None
    """Label of the plan they tuned; None without a search, or of another run of before 2026-12-01."""
    search_steps: int = 0
    """Optimizer steps of the trials this run made itself."""
    search_seconds: float | None = None
    """Wall seconds of them; None where it made none."""
    search_share: float | None = None
    """Their predicted FLOPs over the run's; None where it made none."""


def resumed_choice(checkpoint: Checkpoint) -> Choice:
    """Return the choice a run made before it was interrupted."""
    about = checkpoint.progress.about
    known = {item.name: about[item.name] for item in fields(Choice) if item.name in about}
    how = {"rate_from": SEARCHED if about["search"] else GIVEN}
    return decode(how | known, Choice, str(checkpoint.place), "choice of a rate")


def choose_rate(loaded: LoadedModel, spec: RunSpec, builder: ResultBuilder, folder: Path, search: Any) -> Choice:
    """Return the rate of a run.

    A search is kept beside the runs and taken over by every later run of its group: the same weights and configuration,
    data and texts of it, method, loop and number of tuned blocks and modules. It is counted by the run that made it, on
    whose blocks it was made; the others name that run.

    Args:
        loaded: the base model.
        spec: what is asked.
        builder: knows weights and data; learns the trials of a search that found nothing.
        folder: of the run.
        search: () -> Search; makes one.

    Raises:
        NoRateError: the search found only divergence.
    """
    own = spec_rate(loaded, spec)
    builder.add(default_rate=own)
    if spec.known_rate is not None:
        return Choice(spec.known_rate, TRIED if spec.given_rate is None else GIVEN)
    if spec.learning_rate == METHODS_OWN:
        return Choice(own, DEFAULT)
    if (known := kept_search(loaded, spec, builder, folder)) is not None:
        return known
    try:
        found: Search = search()
    except NoRateError as error:
        builder.add(**vars(_made(error.search, spec)) | {"learning_rate": None})
        raise
    if not found.trials:
        return Choice(found.learning_rate, TOO_SHORT)
    if n_processes() == 1:
        place, trials = _place(loaded, spec, builder, folder), [asdict(trial) for trial in found.trials]
        with suppress(OSError, LsfError):  # then the next run of the group searches for itself
            place.parent.mkdir(exist_ok=True)
            kept = {"run": folder.name, "learning_rate": found.learning_rate, "search": trials}
            write_json(place, kept | {"searched_on": spec.plan.label})
    return _made(found, spec)


def kept_search(loaded: LoadedModel, spec: RunSpec, builder: ResultBuilder, folder: Path) -> Choice | None:
    """Return what another run of the group found, which this one takes over; None where it searches for itself.

    Args:
        loaded: the base model.
        spec: what is asked.
        builder: knows weights, data and its texts.
        folder: of the run.
    """
    if not spec.searches_rate or n_processes() > 1:  # several must not disagree on whether a file was there
        return None
    return _known(_place(loaded, spec, builder, folder))


def _place(loaded: LoadedModel, spec: RunSpec, builder: ResultBuilder, folder: Path) -> Path:
    return folder.parent / SEARCHES / f"{group_key(loaded, spec, builder)}.json"


def group_key(loaded: LoadedModel, spec: RunSpec, builder: ResultBuilder) -> str:
    """Return what tells groups apart whose runs share one search."""
    plan, known = spec.plan, builder.known
    asked = {item.name: getattr(spec, item.name) for item in fields(spec) if item.name not in FREE}
    size = [len(plan.blocks), plan.embedding, plan.final_norm, plan.head, list(plan.modules)]
    whole = [asked | {"options": dict(spec.options)}, size, list(known.measured_on), config_hash(loaded.model)]
    if known.general is not None:
        whole += [known.general.fingerprint, spec.general_share]
    made = kinds_in(known.rendering or RAW)
    if CHAT in made:  # which `auto` may mean, or not, by the template that the model has
        whole += [made, template_of(loaded.tokenizer)]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def _made(found: Search, spec: RunSpec) -> Choice:
    made = found.steps, found.seconds, found.share
    return Choice(found.learning_rate, SEARCHED, found.trials, spec.plan.label, *made)


def _known(place: Path) -> Choice | None:
    """Return what a run of the group found before; None where none did, or its file cannot be read."""
    try:
        kept = read_json(place, "a search's result")
        kept["rate_from"] = f"search of {kept.pop('run')}"
        return decode(kept, Choice, str(place), "choice of a rate")
    except (BadInputError, AttributeError, KeyError, TypeError):
        return None
