"""What a run computes, counted: passes and tokens of its steps, its readings, and what it does before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsf.data.encode import EncodedExample
from lsf.lens.speed import sizes_of
from lsf.methods.catalogue import options_of
from lsf.methods.registry import METHODS
from lsf.models.batches import training_order
from lsf.models.info import ModelInfo
from lsf.models.loading import LoadedModel
from lsf.models.quantised import shape_of
from lsf.models.writing import N_SEQUENCES, N_TOKENS
from lsf.plans.cost import Load, Sizes, backward_flops, forward_flops
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.training.caching import decide, prefix_depth
from lsf.training.evaluation import BATCH_SIZE, LONGEST_ANSWER, SPARE_TOKENS, batches_of, sampled
from lsf.training.measured_pass import LEAST_PAIRS, ROWS, TOKENS
from lsf.training.prefix import GROUP
from lsf.training.splits import (
    EncodedSplits,
    knows_own_text,
    knows_rows,
    knows_written,
    reading_interval,
    watched,
)

BATCHES_LOOKED_AT = 200
"""The first so many batches tell what the mean one computes."""

LOGITS = 3
"""Arrays as large as the logits that a loss and its gradient take."""


@dataclass(frozen=True)
class Workload:
    """What one run computes, in passes and tokens; how long that takes is told by `lsf.training.time_forecast`."""

    sizes: Sizes
    """Of the model."""
    steps: int
    """Optimizer steps."""
    step: Load
    """Of the mean step."""
    depth: int
    """Blocks whose output is kept, so that steps begin above them; 0 without a cache."""
    lowest: int
    """Lowest block the backward pass reaches; L where it reaches none."""
    trainable: int
    """Parameters the optimizer holds."""
    gradients: int
    """Parameters whose gradients are computed: whole matrices even where a method tunes few of their values."""
    recomputed: bool
    """Whether the blocks run forward once more in the backward pass."""
    fill: Load
    """Of filling the prefix cache: `depth` blocks of every row."""
    fill_share: float
    """Share of the steps in which it is filled."""
    n_readings: int
    """Readings of the validation split."""
    held: int
    """Blocks whose output is kept for the rows of a reading from the first one on."""
    reading: Load
    """Of one of them."""
    test: Load
    """Of reading the test split once."""
    general: Load
    """Of reading the general text once."""
    answers: Load
    """Of writing a few answers once."""
    generated: Load
    """Of generating the test answers once, each as long as the longest wanted beside it."""
    written: Load
    """Of writing the general text and reading the base model; nothing where that is on record."""
    states_left: frozenset[str]
    """What the base model is read on in this run, and leaves its states for: names of fields."""
    timed: Load
    """Of timing a forward pass of what was saved, in turn with the base's."""
    prepared: Load
    """Of the passes in which the method looks for the values it tunes, forward and backward."""


def workload_of(
    loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, begun: int = 0, dense: bool = True
) -> Workload:
    """Count what a run computes.

    Args:
        loaded: the base model.
        splits: rows of the run.
        spec: what is asked.
        begun: steps that are done already, by the checkpoint the run goes on from.
        dense: whether gradients of whole planned matrices are computed, as most methods do.

    Raises:
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
        PlanError: the plan does not fit the model.
    """
    options, sizes = options_of(spec.method, spec.options), sizes_of(loaded)
    visits = splits.steps * spec.batch_size
    depth = decide(loaded, spec.plan, splits.train, spec.cache, visits)[2]
    trainable = METHODS[spec.method].count(loaded, spec.plan, options)
    step, left = step_load(splits, spec), splits.steps - begun
    test = rows_load(splits.test, spec.batch_size)
    shown = watched(splits.validation)
    reading = rows_load(shown, spec.batch_size)
    general = texts_load(min(N_TOKENS, loaded.context))
    answers = answers_load(splits.test, loaded.context)
    held_out = {"test": (splits.test, test), "reading": (shown, reading)}
    written, states = _not_on_record(loaded, splits, spec, general + answers, held_out)
    return Workload(
        sizes=sizes,
        steps=left,
        step=step,
        depth=depth,
        lowest=lowest_block(spec.plan, loaded.info),
        trainable=trainable,
        gradients=(sum(sizes.params[block] for block in spec.plan.blocks) or trainable) if dense else trainable,
        recomputed=spec.activation_checkpointing != "off",
        fill=rows_load(splits.train, GROUP, head=False) if depth else Load(),
        fill_share=min(1.0, filling_steps(len(splits.train), spec.batch_size) / max(1, left)),
        n_readings=-(-left // reading_interval(loaded, spec, splits)) if shown else 0,
        held=0 if spec.cache == "off" else prefix_depth(spec.plan, loaded.info.tied_head),
        reading=reading,
        test=test,
        general=general,
        answers=answers,
        generated=generation_load(loaded, splits, spec, ends=True),
        written=written,
        states_left=states,
        timed=_timed(loaded) if spec.latency == "on" else Load(),
        prepared=_prepared(splits, spec, step, options),
    )


def _not_on_record(
    loaded: LoadedModel,
    splits: EncodedSplits,
    spec: RunSpec,
    own_text: Load,
    held_out: Mapping[str, tuple[Sequence[EncodedExample], Load]],
) -> tuple[Load, frozenset[str]]:
    """Return what reading the base model computes in this run, and what that leaves states for (see `Workload`).

    Args:
        loaded: the base model.
        splits: rows of the run.
        spec: what is asked.
        own_text: of reading the general text, and of the answers written beside.
        held_out: name -> rows, and what reading them once computes.
    """
    written, states = Load(), set[str]()
    if not knows_own_text(loaded):
        written += writing_load(min(N_TOKENS, loaded.context)) + own_text
        states.add("general")
    if not knows_written(loaded, spec, splits.asked):
        written += generation_load(loaded, splits, spec, ends=False)
    for name, (rows, load) in held_out.items():
        if not knows_rows(loaded, rows, spec.batch_size):
            written += load
            states.add(name)
    return written, frozenset(states)


def step_load(splits: EncodedSplits, spec: RunSpec) -> Load:
    """Return what the mean optimizer step passes, padding counted."""
    micro = spec.micro_batch or spec.batch_size
    steps = min(splits.steps, BATCHES_LOOKED_AT)
    mixing = splits.n_general, spec.general_share
    order = training_order(len(splits.train), steps * spec.batch_size, spec.seed, *mixing)
    rows = [splits.train[number] for number in order]
    found = Load()
    for start in range(0, len(rows), micro):
        found += batch_load(rows[start : start + micro])
    return Load(spec.batch_size // micro, *(value / steps for value in list(vars(found).values())[1:]))


def batch_load(rows: Sequence[EncodedExample], head: bool = True) -> Load:
    """Return what one padded batch computes; the head reads the positions before targets alone."""
    width = max(len(row.ids) for row in rows)
    return Load(1, len(rows) * width, len(rows) * width**2, sum(row.n_targets for row in rows) if head else 0)


def rows_load(rows: Sequence[EncodedExample], batch_size: int, head: bool = True) -> Load:
    """Return what reading rows once computes, in batches of neighbours by length."""
    ordered, found = sorted(rows, key=lambda row: len(row.ids)), Load()
    for start in range(0, len(ordered), batch_size):
        found += batch_load(ordered[start : start + batch_size], head)
    return found


def texts_load(tokens: int) -> Load:
    """Return what reading the base model's own text once computes."""
    n = N_SEQUENCES * tokens
    return Load(-(-N_SEQUENCES // BATCH_SIZE), n, n * tokens, n)


def writing_load(tokens: int) -> Load:
    """Return what writing that text computes: one token of every text per pass."""
    n = N_SEQUENCES * (tokens - 1)
    return Load(tokens - 1, n, n * tokens, n)


def answers_load(rows: tuple[EncodedExample, ...], context: int) -> Load:
    """Return what writing the answers to a few rows computes: the prompt, then one token per pass."""
    found = Load()
    for row in sampled(rows):
        n_new = min(row.n_answer + SPARE_TOKENS, LONGEST_ANSWER, context - row.asked)
        found += Load(n_new, row.asked + n_new, (row.asked + n_new) ** 2, n_new)
    return found


def generation_load(loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, ends: bool) -> Load:
    """Return what generating the test answers computes, in batches as they are written.

    Args:
        loaded: the base model.
        splits: rows of the run.
        spec: tokens at most.
        ends: whether texts are expected to end where the longest answer wanted does; a base model may not end any.
    """
    found, rows = Load(), splits.asked.rows
    for numbers, _ in batches_of(rows, loaded.tokenizer, spec.generate_tokens, loaded.context):
        width, longest = (max(getattr(rows[i], name) for i in numbers) for name in ("asked", "n_answer"))
        n_new = min(spec.generate_tokens, loaded.context - width, *([longest + 1] if ends else []))
        whole = width + n_new
        found += Load(n_new, len(numbers) * whole, len(numbers) * whole**2, len(numbers) * n_new)
    return found


def lowest_block(plan: Plan, info: ModelInfo) -> int:
    """Return the lowest block that a backward pass reaches; L where it reaches none."""
    reached = plan.blocks or plan.embedding or plan.modules or (plan.head and info.tied_head)
    return prefix_depth(plan, info.tied_head) if reached else info.n_blocks


def activation_bytes(loaded: LoadedModel, load: Load, spec: RunSpec) -> int:
    """Return about what a forward pass keeps for its backward pass: what goes into matrices and comes out of them.

    Args:
        loaded: the base model.
        load: what is passed.
        spec: of the run; nothing is kept below the lowest block that its backward pass reaches.
    """
    info = loaded.info
    shapes = [[shape_of(value) for value in block.parameters()] for block in loaded.layout.blocks]
    widths = [sum(shape[-2] + shape[-1] for shape in block if len(shape) > 1) for block in shapes]
    widths = widths[lowest_block(spec.plan, info) :]
    kept = sum(widths)
    if spec.activation_checkpointing != "off":  # one block at a time
        kept = info.width * len(widths) + max(widths, default=0)
    return round(4 * (load.tokens * kept + LOGITS * info.vocab_size * load.head_tokens))


def _timed(loaded: LoadedModel) -> Load:
    """Return what `lsf.training.measured_pass` passes where passes are slow."""
    tokens = min(TOKENS, loaded.context)
    return Load(1, ROWS * tokens, ROWS * tokens**2, ROWS * tokens).times(2 + 2 * LEAST_PAIRS)


def _prepared(splits: EncodedSplits, spec: RunSpec, step: Load, options: Any) -> Load:
    """Return what a method passes before it knows its values: a first tuning, or rows one by one."""
    if METHODS[spec.method].search is None:
        return Load()
    if hasattr(options, "first_steps"):
        return step.times(options.first_steps)
    count = min(len(splits.own), options.examples)
    picked = np.random.default_rng(0).permutation(len(splits.own))[:count]
    return rows_load([splits.own[number] for number in picked], 1)


MOST = 0.8
"""Share of the prefix cache that counts as most of it."""


def filling_steps(n_rows: int, batch_size: int) -> int:
    """Return in how many steps most of the prefix cache is filled: a step fills the groups of all of its rows, whole.

    After a share x of an epoch in random order, 1 - (1 - x)^`GROUP` of the groups were met.
    """
    return max(1, round((1.0 - (1.0 - MOST) ** (1.0 / GROUP)) * n_rows / batch_size))


def step_flops(work: Workload) -> float:
    """Return the FLOPs of the mean optimizer step: forward from the kept prefix, backward as far as it reaches."""
    once = forward_flops(work.sizes, work.step, work.depth)
    again = forward_flops(work.sizes, Load(0, work.step.tokens, work.step.attended), work.lowest)
    backward = backward_flops(work.sizes, work.step, work.lowest, work.gradients)
    return once + backward + (again if work.recomputed else 0.0)
