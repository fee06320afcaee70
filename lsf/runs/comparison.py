"""Runs to one table: a row each, ratios to the full run, mean and spread over seeds, and what is not dominated."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from lsf.data.contents import OPTIONS
from lsf.data.lessons import data_words
from lsf.plans.plan import format_blocks
from lsf.runs.comparability import fault_of, find_warnings, floor_loss, forgetting, found_states, gain, texts_of
from lsf.runs.differences import apart
from lsf.runs.result import Metrics, RunResult, RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run

COSTS_ONLY = (
    "micro_batch", "cache", "activation_checkpointing", "checkpoint_steps", "checkpoint_seconds", "report_to", "proof",
    "latency", "threads",
)  # fmt: skip
"""Fields of a spec that change what a run costs and not what it learns."""
TOLD_APART = ("plan", "role", "method", "options", "seed", "learning_rate", "device", "dtype")
"""Fields of a spec that have columns of their own or are known better from the result."""
READ_AT = ("eval_every",)
"""Fields that change numbers only of runs that go by their readings."""


@dataclass(frozen=True)
class Row:
    """One run; every cell is measured, or None where it is not known."""

    run: str
    """Id of the run."""
    role: str | None
    """One of `lsf.runs.spec.ROLES`."""
    plan: str | None
    """Label of the plan."""
    blocks: str | None
    """Tuned blocks as ranges."""
    n_blocks: int | None
    """How many."""
    method: str | None
    """How they were tuned, with the options given: `lora (r=8)`."""
    seed: int | None
    """Of the run."""
    learning_rate: float | None
    """Peak rate used."""
    rate_searched: bool | None
    """True where the rate was found on the validation split."""
    state: str
    """How the run ended."""
    rate_asked: str | None = None
    """Whence its rate: `given`, `default` or `searched`."""
    beside: str | None = None
    """What was tuned beside the blocks, as in the plan's label (`final norm + head`); empty for nothing."""
    bare_method: str | None = None
    """The method without its options."""
    all_blocks: bool | None = None
    """Whether every block of the model was tuned, by whatever method."""
    model: str | None = None
    """The base model."""
    data: str | None = None
    """Name of the task."""
    differs: str | None = None
    """What was asked of it and not of every run compared, in words (`40 steps`); None where no setting without a column
    of its own differs."""
    settings: str | None = None
    """Tells apart what else was asked: runs alike in it differ in role, blocks, method, seed and rate at most."""
    general_share: float | None = None
    """Share of the rows of each step that were general data; None without any."""
    general_token_share: float | None = None
    """Share of the tokens trained on that were; None without any."""
    exact_match_before: float | None = None
    """Share of test completions right, base model, in [0, 1]."""
    exact_match_after: float | None = None
    """The same, tuned model."""
    generated_match_before: float | None = None
    """Share of test examples whose generated answer is right, base model, in [0, 1]; None where not asked for."""
    generated_match_after: float | None = None
    """The same, tuned model."""
    loss_before: float | None = None
    """Nats per completion token, base model."""
    loss_after: float | None = None
    """The same, tuned model."""
    perplexity_before: float | None = None
    """exp(loss_before)."""
    byte_perplexity_before: float | None = None
    """Perplexity per byte of plain text, base model; None of anything else."""
    byte_perplexity_after: float | None = None
    """The same, tuned model."""
    perplexity_after: float | None = None
    """exp(loss_after)."""
    accuracy_before: float | None = None
    """Share of completion tokens right, base model, in [0, 1]."""
    accuracy_after: float | None = None
    """The same, tuned model."""
    general_loss_before: float | None = None
    """Nats per token on the base model's own text, base model."""
    general_loss_after: float | None = None
    """The same, tuned model."""
    forgetting: float | None = None
    """general_loss_after - general_loss_before, in nats per token."""
    trainable_params: int | None = None
    """Parameters tuned."""
    steps: int | None = None
    """Optimizer steps done."""
    tokens: int | None = None
    """Real tokens trained on."""
    seconds: float | None = None
    """Wall seconds of the steps."""
    prepare_seconds: float | None = None
    """Wall seconds before them: a method's search for what it tunes."""
    tuning_seconds: float | None = None
    """Both together: what tuning took, the search for a learning rate left out."""
    total_seconds: float | None = None
    """Wall seconds from the run's start to its end, readings and saving included."""
    step_seconds_median: float | None = None
    """Median wall seconds of a step."""
    searched_on: str | None = None
    """Label of the plan the learning-rate search was made on, maybe another run's; None where it is unknown."""
    search_steps: int | None = None
    """Optimizer steps of the learning-rate search, not in `steps`; 0 where another run of its group made it."""
    search_seconds: float | None = None
    """Wall seconds of the learning-rate search, not in `seconds`."""
    search_share: float | None = None
    """Predicted FLOPs of that search over the run's."""
    rate_from: str | None = None
    """given, default, search, or the words for what else it was."""
    kept_step: int | None = None
    """Step whose values were kept."""
    fault: str | None = None
    """Why its numbers do not stand for what it tunes: diverged, below the floor, forgot so many nats; None where
    nothing is wrong or known to be."""
    rate_to_try: float | None = None
    """Rate to try instead where something is wrong."""
    floor_loss: float | None = None
    """The better of base model and prior, nats per completion token; in results before 2026-11-28 the base model's."""
    floor_exact_match: float | None = None
    """The better of base model and prior, in [0, 1]; in results before 2026-11-28 the base model's."""
    n_test: int | None = None
    """Test examples read."""
    states_found: bool | None = None
    """Whether it was served states of its frozen prefix that an earlier run had computed."""
    gain: float | None = None
    """floor_loss - loss_after, nats per completion token."""
    peak_memory_bytes: int | None = None
    """Peak memory above what was there before."""
    memory_grown: int | None = None
    """What the process grew by, where that was counted from tensors, too few for the process to tell."""
    stored_bytes: int | None = None
    """Bytes of what the run saved."""
    latency_ratio: float | None = None
    """Seconds of a forward pass of the saved model over the base's."""
    latency_low: float | None = None
    """Lower end of its 95 % interval."""
    latency_high: float | None = None
    """Upper end."""
    reference: str | None = None
    """Id of the full run that the ratios are to."""
    x_params: float | None = None
    """trainable_params over the full run's."""
    x_time: float | None = None
    """Median step seconds over the full run's."""
    x_memory: float | None = None
    """Peak memory over the full run's."""
    x_quality: float | None = None
    """Test exact match after over the full run's."""
    x_gain: float | None = None
    """Gain over the full run's."""


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side."""

    rows: tuple[Row, ...]
    """One per run, in the order given."""
    warnings: tuple[str, ...]
    """Sentences on what makes the rows less comparable than they look."""


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs into one table.

    Ratios are taken to the succeeded full run (every block and module, method `full`) of the same weights, data, seed,
    steps, batch size, warm-up and weight decay, on the same device and dtype, read on the same test examples; of
    several such runs, which differ in their rates at most, to the one of the least test loss; never to one with a fault
    (`fault_of`). Where there is none they are None. Runs with general data have them to the one with the same, if any.
    Runs may be in any state, and are listed in their order.
    """
    unread = () if any(run.spec is not None and run.spec.goes_by_readings for run in runs) else READ_AT
    told = apart(runs, leave_out=("model", "data", *TOLD_APART, *unread, *COSTS_ONLY, *OPTIONS))
    rows = [replace(to_row(run), differs=words or None) for run, words in zip(runs, told, strict=True)]
    full: dict[tuple[object, ...], Row] = {}
    there = set[tuple[object, ...]]()  # whatever came of them
    for run, row in zip(runs, rows, strict=True):
        key = *_kin(run), _general(run)
        there |= {key} if _is_full(run) else set()
        if _is_full(run) and row.fault is None and _loss(row) <= _loss(full.get(key)):
            full[key] = row
    related = [
        _relate(row, full.get((*_kin(run), _general(run))) or full.get((*_kin(run), None)))
        if run.state is RunState.SUCCEEDED
        else row
        for run, row in zip(runs, rows, strict=True)
    ]
    found = [not there.isdisjoint([(*_kin(run), _general(run)), (*_kin(run), None)]) for run in runs]
    return Comparison(tuple(related), find_warnings(runs, found))


LEAST_GROWTH = 64 << 20
"""Bytes of tensors from which on the growth of a process tells a run's memory; below, what was counted stands."""


def to_row(run: Run) -> Row:
    """Return a run's own numbers, without ratios."""
    spec, result = run.spec, run.result
    row = Row(
        run=run.id,
        role=spec and spec.role,
        plan=spec and spec.plan.label,
        blocks=spec and format_blocks(spec.plan.blocks),
        n_blocks=spec and len(spec.plan.blocks),
        method=spec and spec.how,
        seed=spec and spec.seed,
        learning_rate=result.learning_rate if result else spec and spec.known_rate,
        rate_searched=spec and spec.searches_rate,
        state=str(run.state),
        rate_asked=spec and spec.rate_asked,
        beside=spec and " + ".join(spec.plan.beside),
        bare_method=spec and spec.method,
        all_blocks=spec and len(spec.plan.blocks) == spec.plan.n_blocks,
        model=spec and spec.model,
        data=spec and spec.data,
        settings=spec and _settings(spec, result),
        general_share=spec.general_share if spec and spec.general is not None else None,
        general_token_share=result.general.token_share if result and result.general else None,
    )
    if result is None:
        return row
    before, after = result.before or Metrics(), result.after or Metrics()
    names = ("exact_match", "generated_match", "loss", "perplexity", "byte_perplexity", "accuracy", "general_loss")
    both = (("before", before), ("after", after))
    metrics = {f"{name}_{when}": getattr(values, name) for name in names for when, values in both}
    own = {field.name for field in fields(result)} & {field.name for field in fields(Row)}
    costs = {name: getattr(result, name) for name in own - {"state", "learning_rate", "seed"}}
    counted = result.predicted.memory_bytes if result.predicted.phases else None
    if result.peak_memory_source == "rss" and counted is not None and counted < LEAST_GROWTH:
        costs |= {"peak_memory_bytes": counted, "memory_grown": result.peak_memory_bytes}
    if result.seconds is not None:
        costs["tuning_seconds"] = result.seconds + (result.prepare_seconds or 0.0)
    if (fault := fault_of(result)) is not None:
        row = replace(row, fault=fault.words, rate_to_try=fault.rate_to_try)
    row = replace(row, floor_loss=floor_loss(result), gain=gain(result), forgetting=forgetting(result))
    row = replace(row, floor_exact_match=(result.floor or before).exact_match, n_test=after.n_examples)
    return replace(row, states_found=found_states(result), **metrics, **costs)


def _relate(row: Row, full: Row | None) -> Row:
    if full is None:
        return row
    return replace(
        row,
        reference=full.run,
        x_params=over(row.trainable_params, full.trainable_params),
        x_time=over(row.step_seconds_median, full.step_seconds_median),
        x_memory=memory_over(row, full),
        x_quality=over(row.exact_match_after, full.exact_match_after),
        x_gain=over(row.gain, full.gain),
    )


def memory_over(row: Row, full: Row) -> float | None:
    """Return one memory over another, both counted, or measured where either is large; None where one is unknown."""
    if (row.memory_grown is None) != (full.memory_grown is None):
        return over(row.memory_grown or row.peak_memory_bytes, full.memory_grown or full.peak_memory_bytes)
    return over(row.peak_memory_bytes, full.peak_memory_bytes)


def _loss(row: Row | None) -> float:
    return math.inf if row is None or row.loss_after is None else row.loss_after


def _is_full(run: Run) -> bool:
    spec = run.spec
    return spec is not None and spec.plan.is_full and spec.method == "full" and run.state is RunState.SUCCEEDED


def _kin(run: Run) -> tuple[object, ...]:
    spec, result = run.spec, run.result
    if spec is None or result is None:
        return (run.id,)
    cap = spec.steps if spec.epochs is None else ("epochs", spec.epochs)
    steps = result.steps if spec.until == "steps" else cap  # by one rule, each to its own end
    read = spec.eval_every if spec.goes_by_readings else None
    asked = spec.model, spec.data, spec.seed, steps, spec.batch_size, spec.max_length, spec.eval_limit
    loop = spec.until, spec.keep, read, spec.warmup_steps, spec.optimizer, spec.weight_decay, spec.reweight_tau
    return *asked, *loop, *result.measured_on, *texts_of(spec, result)


def _general(run: Run) -> tuple[object, ...] | None:
    """Return which general data a run was given, and how much; None where it was given none."""
    if run.spec is None or run.result is None or run.spec.general is None:
        return None
    return run.result.general and run.result.general.fingerprint, run.spec.general_share


def _settings(spec: RunSpec, result: RunResult | None) -> str:
    """Return a short hash of what a run was asked beside role, plan, method, seed and rate, and of where it ran."""
    unread = () if spec.goes_by_readings else READ_AT
    left_out = (*TOLD_APART, *unread, *COSTS_ONLY, *OPTIONS)  # what the data's options came to is in texts_of
    asked = {item.name: getattr(spec, item.name) for item in fields(spec) if item.name not in left_out}
    given = result and (result.measured_on, texts_of(spec, result), result.general and result.general.fingerprint)
    return hashlib.sha256(repr((asked, given)).encode()).hexdigest()[:8]


def over(one: float | None, other: float | None) -> float | None:
    """Return one number over another; None where either is unknown, or the other is not positive."""
    return None if one is None or other is None or other <= 0 else one / other


def non_dominated(quality: Sequence[float | None], cost: Sequence[float | None]) -> tuple[bool, ...]:
    """Mark the points that no other point dominates.

    A point is dominated where another is at least as good and at least as cheap, and better or cheaper. Equal points do
    not dominate each other. An unknown value takes a point out.

    Args:
        quality: higher is better.
        cost: lower is better, as long as `quality`.

    Returns:
        One truth value per point.
    """
    points = list(zip(quality, cost, strict=True))
    known = [(q, c) for q, c in points if q is not None and c is not None]

    def stands(one: tuple[float | None, float | None]) -> bool:
        q, c = one
        if q is None or c is None:
            return False
        return not any(q2 >= q and c2 <= c and (q2, c2) != (q, c) for q2, c2 in known)

    return tuple(stands(point) for point in points)


CONTROLS = ("last", "first", "middle", "random")
"""Roles of the same-size controls, in the order in which they are named."""


def is_control(row: Row, choice: Row) -> bool:
    """Say whether a run is a control of a choice: as many blocks, the same beside them, by the same method."""
    size, own = (row.n_blocks, row.beside, row.method), (choice.n_blocks, choice.beside, choice.method)
    return row.role in CONTROLS and size == own


def rate_words(row: Row) -> str:
    """Return which rate a run was asked to take: `rate 0.001`, `default rate` or `searched rate`."""
    if row.rate_asked in ("searched", "default"):
        return f"{row.rate_asked} rate"
    return f"rate {row.learning_rate:g}"


def columns_apart(rows: Sequence[Row]) -> list[str]:
    """Return the columns of what was asked whose content differs between rows, so that names have to say it."""
    return [name for name in ("model", "data", "differs") if len({getattr(row, name) for row in rows}) > 1]


def words_apart(row: Row, columns: Sequence[str]) -> list[str]:
    """Return what a row has in those columns as people name it."""
    words: dict[str, Callable[[str], str]] = {"model": lambda name: Path(name).name, "data": data_words}
    return [words.get(name, str)(found) for name in columns if (found := getattr(row, name)) is not None]
