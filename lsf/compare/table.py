"""Runs to one table: a row each, with its ratios to the full run of the same model, data and seed."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from lsf.analysis.plan import format_blocks
from lsf.compare.faults import fault_of, floor_loss, forgetting, gain
from lsf.compare.warnings import find_warnings
from lsf.jobs.result import Metrics, RunResult, RunState
from lsf.jobs.runs import Run
from lsf.jobs.spec import RunSpec

COSTS_ONLY = (
    "micro_batch", "cache", "activation_checkpointing", "checkpoint_steps", "checkpoint_seconds", "report_to", "proof",
    "latency", "threads",
)  # fmt: skip
"""Fields of a spec that change what a run costs and not what it learns."""
TOLD_APART = ("plan", "role", "method", "options", "seed", "learning_rate", "device", "dtype", "eval_every")
"""Fields of a spec that have columns of their own, are known better from the result, or change no number."""


@dataclass(frozen=True)
class Row:
    """One run; every cell is measured, or None where it is not known."""

    run: str
    """Id of the run."""
    role: str | None
    """One of `lsf.jobs.spec.ROLES`."""
    plan: str | None
    """Label of the plan."""
    blocks: str | None
    """Tuned blocks as ranges."""
    n_blocks: int | None
    """How many."""
    method: str | None
    """How they were tuned."""
    seed: int | None
    """Of the run."""
    learning_rate: float | None
    """Peak rate used."""
    rate_searched: bool | None
    """True where the rate was found on the validation split."""
    state: str
    """How the run ended."""
    model: str | None = None
    """The base model."""
    data: str | None = None
    """Name of the task."""
    settings: str | None = None
    """Tells apart what else was asked: runs alike in it differ in role, blocks, method, seed and rate at most."""
    exact_match_before: float | None = None
    """Share of test completions right, base model, in [0, 1]."""
    exact_match_after: float | None = None
    """The same, tuned model."""
    loss_before: float | None = None
    """Nats per completion token, base model."""
    loss_after: float | None = None
    """The same, tuned model."""
    perplexity_before: float | None = None
    """exp(loss_before)."""
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
    gain: float | None = None
    """floor_loss - loss_after, nats per completion token."""
    peak_memory_bytes: int | None = None
    """Peak memory above what was there before."""
    stored_bytes: int | None = None
    """Bytes of what the run saved."""
    latency_ratio: float | None = None
    """Seconds of a forward pass of the saved model over the base's."""
    latency_low: float | None = None
    """Lower end of its 95 % interval."""
    latency_high: float | None = None
    """Upper end."""
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
    several such runs, which differ in their rates at most, to the one of the least test loss. A run with a fault (it
    ends
    below the floor, or forgets more than a nat) is the reference of none. Where there is no reference they are None.

    Args:
        runs: in any state, in the order they are to be listed.
    """
    rows = [to_row(run) for run in runs]
    full: dict[tuple[object, ...], Row] = {}
    for run, row in zip(runs, rows, strict=True):
        if _is_full(run) and row.fault is None and _loss(row) <= _loss(full.get(_kin(run))):
            full[_kin(run)] = row
    related = [
        _relate(row, full.get(_kin(run))) if run.state is RunState.SUCCEEDED else row
        for run, row in zip(runs, rows, strict=True)
    ]
    return Comparison(tuple(related), find_warnings(runs, [row.x_params is not None for row in related]))


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
        learning_rate=result.learning_rate if result else spec and spec.given_rate,
        rate_searched=spec and spec.searches_rate,
        state=str(run.state),
        model=spec and spec.model,
        data=spec and spec.data,
        settings=spec and _settings(spec, result),
    )
    if result is None:
        return row
    before, after = result.before or Metrics(), result.after or Metrics()
    names = ("exact_match", "loss", "perplexity", "accuracy", "general_loss")
    pairs = [(name, when, values) for name in names for when, values in (("before", before), ("after", after))]
    metrics = {f"{name}_{when}": getattr(values, name) for name, when, values in pairs}
    own = {field.name for field in fields(result)} & {field.name for field in fields(Row)}
    costs = {name: getattr(result, name) for name in own - {"state", "learning_rate", "seed"}}
    if result.seconds is not None:
        costs["tuning_seconds"] = result.seconds + (result.prepare_seconds or 0.0)
    if (fault := fault_of(result)) is not None:
        row = replace(row, fault=fault.words, rate_to_try=fault.rate_to_try)
    row = replace(row, floor_loss=floor_loss(result), gain=gain(result), forgetting=forgetting(result))
    return replace(row, **metrics, **costs)


def _relate(row: Row, full: Row | None) -> Row:
    if full is None:
        return row
    return replace(
        row,
        x_params=_over(row.trainable_params, full.trainable_params),
        x_time=_over(row.step_seconds_median, full.step_seconds_median),
        x_memory=_over(row.peak_memory_bytes, full.peak_memory_bytes),
        x_quality=_over(row.exact_match_after, full.exact_match_after),
        x_gain=_over(row.gain, full.gain),
    )


def _loss(row: Row | None) -> float:
    return math.inf if row is None or row.loss_after is None else row.loss_after


def _is_full(run: Run) -> bool:
    spec = run.spec
    return spec is not None and spec.plan.is_full and spec.method == "full" and run.state is RunState.SUCCEEDED


def _kin(run: Run) -> tuple[object, ...]:
    spec, result = run.spec, run.result
    if spec is None or result is None:
        return (run.id,)
    steps = result.steps if spec.until == "steps" else (spec.steps, spec.eval_every)  # by one rule, each to its own end
    asked = spec.model, spec.data, spec.seed, steps, spec.batch_size, spec.max_length, spec.eval_limit
    loop = spec.until, spec.keep, spec.warmup_steps, spec.optimizer, spec.weight_decay, spec.reweight_tau
    return *asked, *loop, *result.measured_on


def _settings(spec: RunSpec, result: RunResult | None) -> str:
    """Return a short hash of what a run was asked beside role, plan, method, seed and rate, and of where it ran."""
    left_out = (*TOLD_APART, *COSTS_ONLY)
    asked = {item.name: getattr(spec, item.name) for item in fields(spec) if item.name not in left_out}
    given = None if result is None else result.measured_on
    return hashlib.sha256(repr((asked, given)).encode()).hexdigest()[:8]


def _over(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None or other <= 0 else one / other
