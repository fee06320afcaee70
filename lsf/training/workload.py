"""What a run computes beside and in its steps, counted in passes and tokens before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsf.analysis.cost import Load, Sizes
from lsf.analysis.plan import Plan
from lsf.analysis.result import ModelInfo
from lsf.data.encode import EncodedExample
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.measure.speed import sizes_of
from lsf.training.base import knows_own_text, knows_rows, sampled
from lsf.training.batches import training_order
from lsf.training.caching import decide, prefix_depth
from lsf.training.catalogue import options_of
from lsf.training.evaluation import LONGEST_ANSWER, SPARE_TOKENS
from lsf.training.forgetting import BATCH_SIZE, N_SEQUENCES, N_TOKENS
from lsf.training.latency import LEAST_PAIRS, ROWS, TOKENS
from lsf.training.material import Material
from lsf.training.methods import METHODS
from lsf.training.prefix import GROUP
from lsf.training.reading_plan import reading_interval, watched

BATCHES_LOOKED_AT = 200
"""The first so many batches tell what the mean one computes."""


@dataclass(frozen=True)
class Workload:
    """What one run computes, in passes and tokens; see `lsf.training.duration`."""

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
    written: Load
    """Of writing the general text and reading the base model; nothing where that is on record."""
    tried: Load
    """Of passing the longest row, forward and backward, for what memory the run will need."""
    timed: Load
    """Of timing a forward pass of what was saved, in turn with the base's."""
    searches: bool
    """Whether a rate is searched first."""
    prepared: Load
    """Of the passes in which the method looks for the values it tunes, forward and backward."""


def workload_of(loaded: LoadedModel, material: Material, spec: RunSpec, begun: int = 0, dense: bool = True) -> Workload:
    """Count what a run computes.

    Args:
        loaded: the base model.
        material: rows of the run.
        spec: what is asked.
        begun: steps that are done already, by the checkpoint the run goes on from.
        dense: whether gradients of whole planned matrices are computed, as most methods do.

    Raises:
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
        PlanError: the plan does not fit the model.
    """
    options, sizes = options_of(spec.method, spec.options), sizes_of(loaded)
    visits = material.steps * spec.batch_size
    depth = decide(loaded, spec.plan, material.train, spec.cache, visits)[2]
    trainable = METHODS[spec.method].count(loaded, spec.plan, options)
    step, left = step_load(material, spec), material.steps - begun
    fill_steps = min(material.steps, max(1, len(material.train) // spec.batch_size))
    test = rows_load(material.test, spec.batch_size)
    general = texts_load(min(N_TOKENS, loaded.context))
    answers = answers_load(material.test, loaded.context)
    shown = watched(material.validation)
    reading = rows_load(shown, spec.batch_size)
    written = Load()
    if not knows_own_text(loaded):
        written += writing_load(min(N_TOKENS, loaded.context)) + general + answers
    for rows, load in ((material.test, test), (shown, reading)):
        written += Load() if knows_rows(loaded, rows, spec.batch_size) else load
    return Workload(
        sizes=sizes,
        steps=left,
        step=step,
        depth=depth,
        lowest=lowest_block(spec.plan, loaded.info),
        trainable=trainable,
        gradients=(sum(sizes.params[block] for block in spec.plan.blocks) or trainable) if dense else trainable,
        recomputed=spec.activation_checkpointing != "off",
        fill=rows_load(material.train, GROUP, head=False) if depth else Load(),
        fill_share=min(1.0, fill_steps / max(1, left)),
        n_readings=-(-left // reading_interval(loaded, spec, material)) if shown else 0,
        held=0 if spec.cache == "off" else prefix_depth(spec.plan, loaded.info.tied_head),
        reading=reading,
        test=test,
        general=general,
        answers=answers,
        written=written,
        tried=batch_load([max(material.train, key=lambda row: len(row.ids))]),
        timed=_timed(loaded) if spec.latency == "on" else Load(),
        searches=spec.searches_rate and not begun,
        prepared=_prepared(material, spec, step, options),
    )


def step_load(material: Material, spec: RunSpec) -> Load:
    """Return what the mean optimizer step passes, padding counted."""
    micro = spec.micro_batch or spec.batch_size
    steps = min(material.steps, BATCHES_LOOKED_AT)
    order = training_order(len(material.train), steps * spec.batch_size, spec.seed)
    rows = [material.train[number] for number in order]
    found = Load()
    for start in range(0, len(rows), micro):
        found += batch_load(rows[start : start + micro])
    return Load(spec.batch_size // micro, *(value / steps for value in list(vars(found).values())[1:]))


def batch_load(rows: Sequence[EncodedExample], head: bool = True) -> Load:
    """Return what one padded batch computes; logits from the last position before its earliest completion on."""
    width = max(len(row.ids) for row in rows)
    kept = width - min(row.n_prompt for row in rows) + 1
    return Load(1, len(rows) * width, len(rows) * width**2, len(rows) * kept if head else 0)


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
        n_new = min(row.n_completion + SPARE_TOKENS, LONGEST_ANSWER, context - row.n_prompt)
        found += Load(n_new, row.n_prompt + n_new, (row.n_prompt + n_new) ** 2, n_new)
    return found


def lowest_block(plan: Plan, info: ModelInfo) -> int:
    """Return the lowest block that a backward pass reaches; L where it reaches none."""
    reached = plan.blocks or plan.embedding or plan.modules or (plan.head and info.tied_head)
    return prefix_depth(plan, info.tied_head) if reached else info.n_blocks


def _timed(loaded: LoadedModel) -> Load:
    """Return what `lsf.training.latency` passes where passes are slow."""
    tokens = min(TOKENS, loaded.context)
    return Load(1, ROWS * tokens, ROWS * tokens**2, ROWS * tokens).times(2 + 2 * LEAST_PAIRS)


def _prepared(material: Material, spec: RunSpec, step: Load, options: Any) -> Load:
    """Return what a method passes before it knows its values: a first tuning, or rows one by one."""
    if METHODS[spec.method].search is None:
        return Load()
    if hasattr(options, "first_steps"):
        return step.times(options.first_steps)
    count = min(len(material.train), options.examples)
    picked = np.random.default_rng(0).permutation(len(material.train))[:count]
    return rows_load([material.train[number] for number in picked], 1)
