"""Which layers to edit facts in: LoRA on the MLPs of one window of blocks after another, judged by four questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsf.data.encode import encode
from lsf.data.lessons import EditSettings, edit_questions, load_lesson
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan
from lsf.progress import Reporter
from lsf.training.evaluation import evaluate
from lsf.training.fitting import short_run
from lsf.training.short_runs import own_rate
from lsf.training.trainer import FitSettings


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
