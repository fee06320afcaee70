"""Short runs: a few steps at the default rate, for criteria and methods that ask the training itself.

And the recipe that asks in which layers to edit facts: LoRA on the MLPs of one window of blocks after another, judged
by four questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.data.lessons import EditSettings, edit_questions, load_lesson
from lsf.data.task import Task
from lsf.errors import DataError
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext, planned_names
from lsf.methods.optimization import LAWS, default_rate, spread_of, tuned_of
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan
from lsf.progress import Reporter
from lsf.runs.spec import RunSpec
from lsf.training.caching import recomputed
from lsf.training.evaluation import evaluate
from lsf.training.fitting import short_run
from lsf.training.splits import encode_splits
from lsf.training.trainer import DivergedError, FitSettings

PROBE_STEPS = 10
"""Optimizer steps per block."""
PROBE_BATCH = 16
"""Examples per step."""


def own_rate(loaded: LoadedModel, plan: Plan, method: str = "full", options: Any = None) -> float:
    """Return the default rate of a method for a plan on a model.

    Args:
        loaded: the model.
        plan: what is tuned.
        method: key in METHODS.
        options: its options record; None where it has none.

    Raises:
        PlanError: the plan does not fit the model.
    """
    spread = 1.0
    if LAWS[method].projected:
        values, tensors = METHODS["full"].count(loaded, plan, None), len(planned_names(loaded, plan))
        spread = spread_of(options.d, values, tensors)
    return default_rate(method, tuned_of(loaded.info, plan, spread))


def spec_rate(loaded: LoadedModel, spec: RunSpec) -> float:
    """Return the default rate of what a spec tunes, whatever rate it asks for."""
    return own_rate(loaded, spec.plan, spec.method, options_of(spec.method, spec.options))


def first_tuning(loaded: LoadedModel, model: Any, plan: Plan, rate: float, steps: int, context: MethodContext) -> None:
    """Tune a model in place under a method's context: what a method that finds its mask by tuning is handed."""
    settings = FitSettings(
        learning_rate=rate,
        steps=steps,
        batch_size=context.batch_size,
        warmup_steps=0,
        weight_decay=0.0,
        seed=context.seed,
        base_dtype=context.base_dtype,
        micro_batch=context.micro_batch,
    )
    with recomputed(model, loaded, plan, context.activation_checkpointing):
        short_run(model, context.rows, settings, context.stop)


def probe_blocks(
    loaded: LoadedModel, task: Task, settings: AnalysisSettings, report: Reporter
) -> Float[np.ndarray, " blocks"] | None:
    """Return the drop of the validation loss after `PROBE_STEPS` steps on each block alone, in nats.

    Every block starts from the loaded model, which is not changed, and sees the same examples in the same order. A
    block whose loss becomes infinite has no score (NaN). None where a stop was asked for before the last block was
    done: what shorter runs came to cannot be put beside whole ones.

    Raises:
        DataError: the task has no validation examples.
    """
    n_blocks = loaded.info.n_blocks
    spec = RunSpec(
        model=loaded.info.name,
        data=task.name,
        plan=Plan(loaded.info.name, n_blocks, (0,)),
        steps=PROBE_STEPS,
        batch_size=PROBE_BATCH,
        max_length=settings.max_length,
        seed=settings.seed,
    )
    splits = encode_splits(loaded, task, spec)
    if not splits.validation:
        raise DataError("The criterion probe needs validation examples and the data has none; leave it out.")
    rate = own_rate(loaded, spec.plan)  # one for all: every block is as large a share
    fitting = FitSettings(rate, PROBE_STEPS, PROBE_BATCH, 0, 0.0, settings.seed, loaded.info.dtype)
    before = evaluate(loaded.model, splits.validation, PROBE_BATCH, loaded.info.dtype).loss
    assert before is not None
    drops = np.full(n_blocks, np.nan)
    for block in range(n_blocks):
        report.progress(block, n_blocks, "short runs")
        model = METHODS["full"].prepare(loaded, Plan(loaded.info.name, n_blocks, (block,)), MethodContext())
        try:
            done = short_run(model, splits.train, fitting, lambda: report.stop)
        except DivergedError:
            continue
        if done.stopped is not None:
            return None
        after = evaluate(model, splits.validation, PROBE_BATCH, loaded.info.dtype).loss
        assert after is not None
        drops[block] = before - after
    return drops


@dataclass(frozen=True)
class Edited:
    """One window after its edit; the base model where `blocks` is empty."""

    blocks: tuple[int, ...]
    """Edited blocks."""
    values: int
    """Values tuned."""
    right: Mapping[str, float]
    """Question of `lsf.data.lessons.QUESTIONS` -> exact match, in [0, 1]."""


def edit_windows(loaded: LoadedModel, settings: EditSettings, report: Reporter) -> tuple[Edited, ...]:
    """Edit the lesson `facts` into every window and ask the four questions, of the base model first.

    Args:
        loaded: the bundled model, whose world the questions are about; it is not changed.
        settings: windows and loop.
        report: told of each window; any wish to stop ends it at once, without the window it is in.
    """
    windows = settings.windows(loaded.info.n_blocks)
    rows = {name: encode(loaded.tokenizer, some, loaded.context).rows for name, some in edit_questions().items()}
    train = encode(loaded.tokenizer, load_lesson("facts").train, loaded.context, append_eos=True).rows

    def ask(model: Any) -> dict[str, float]:
        return {name: evaluate(model, some, 64, loaded.info.dtype).exact_match or 0.0 for name, some in rows.items()}

    found = [Edited((), 0, ask(loaded.model))]
    for done, blocks in enumerate(windows):
        if report.stop is not None:
            break
        report.progress(done, len(windows), f"editing blocks {blocks[0]} to {blocks[-1]}")
        tuned = _tuned(loaded, Plan(loaded.info.name, loaded.info.n_blocks, blocks), settings, train, report)
        if tuned is None:
            break
        model, count = tuned
        found.append(Edited(blocks, count, ask(model)))
        report.partial(tuple(found))
    return tuple(found)


def _tuned(
    loaded: LoadedModel, plan: Plan, settings: EditSettings, train: Any, report: Reporter
) -> tuple[Any, int] | None:
    """Return the edited model and the values tuned; None where a stop was asked for half-way."""
    options = options_of("lora", {"r": settings.r, "maps": "mlp"})
    model = METHODS["lora"].prepare(loaded, plan, MethodContext(options, train, settings.seed, settings.batch_size))
    steps, batch, dtype = settings.steps, settings.batch_size, loaded.info.dtype
    rate = settings.learning_rate or own_rate(loaded, plan, "lora")
    fitting = FitSettings(rate, steps, batch, steps // 10, 0.0, settings.seed, dtype)
    done = short_run(model, train, fitting, lambda: report.stop)
    return None if done.stopped is not None else (model, METHODS["lora"].count(loaded, plan, options))
