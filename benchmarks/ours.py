"""Our own contestants, and the bare passes they are measured against, on the same loaded model and the same batches."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import BATCH
from benchmarks.turns import Turn
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.encode import context_length, encode
from lsf.data.task import Example, Task, split_examples
from lsf.environment import spare_imports
from lsf.lens.analyze import analyze
from lsf.lens.forward import position_losses
from lsf.lens.gradients import backward_readings, trainable_view
from lsf.models.batches import MOST_PADDING, Batch, make_batches
from lsf.models.loading import LoadedModel, load_model
from lsf.progress import Silent

CONTROLS = ("first", "last", "middle", "random")
FORWARD = ("deviation", "deviation_growth", "law_headroom", "reduction", "block_influence", "cka", *CONTROLS)
"""Every criterion of the forward pass, `semantic_loss` left out."""


class HandingOver(Silent):
    """Ends the turn after every batch of a pass."""

    def __init__(self, turn: Turn) -> None:
        """Report to a turn."""
        self._turn = turn

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """End the turn where a batch was read."""
        if message in ("forward pass", "gradients"):
            self._turn.over()


def settings_for(criteria: tuple[str, ...]) -> AnalysisSettings:
    """Return the settings of an analysis of all rows."""
    return AnalysisSettings(limit=None, split="all", criteria=criteria, batch_size=BATCH)


def batches_of(loaded: LoadedModel, task: Task) -> list[Batch]:
    """Return the batches `analyze` would read."""
    rows = encode(loaded.tokenizer, task.rows, context_length(loaded.context, None)).rows
    return make_batches(rows, "first", BATCH, 0, loaded.device, MOST_PADDING)


def run_forward(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Do a whole analysis by every forward criterion, logit lens at the probed positions included."""
    return deviations(analyze(loaded, task, settings_for(FORWARD), HandingOver(turn)))


def run_deviation(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Do a whole analysis by the deviation only."""
    found = analyze(loaded, task, settings_for(("deviation",)), HandingOver(turn))
    return deviations(found)


def waste(batches: list[Batch]) -> float:
    """Return the share of tokens computed that are padding or lie behind the last position needed."""
    needed = 0
    for batch in batches:
        last = torch.zeros(len(batch.ids), dtype=torch.long).scatter_reduce(0, batch.rows, batch.places + 1, "amax")
        needed += int(last.sum())
    return 1 - needed / sum(batch.ids.numel() for batch in batches)


def deviations(analysis: Analysis) -> dict[str, Any]:
    """Return what peers must agree with."""
    return {
        "deviation": [state.deviation for state in analysis.states],
        "target_deviation": [state.target_deviation for state in analysis.states],
    }


def run_bare(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Run the decoder without its head over the same batches."""
    for batch in batches_of(loaded, task):
        with torch.no_grad():
            loaded.model.base_model(input_ids=batch.ids, use_cache=False)
        turn.over()
    return {}


def run_bare_head(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Run the whole model, its head at every position, over the same batches."""
    for batch in batches_of(loaded, task):
        with torch.no_grad():
            loaded.model(input_ids=batch.ids, use_cache=False)
        turn.over()
    return {}


def run_bare_backward(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Run forward and backward to the blocks' weights over the same batches, with the loss of `position_losses`."""
    view, batches = trainable_view(loaded), batches_of(loaded, task)
    n = sum(len(batch.targets) for batch in batches)
    for batch in batches:
        (position_losses(view, batch).sum() / n).backward()
        turn.over()
    return {}


def run_norms(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Measure what `gradient_norm` and `relative_gradient` need."""
    backward_readings(loaded, batches_of(loaded, task), HandingOver(turn))
    return {}


def run_fisher(loaded: LoadedModel, task: Task, turn: Turn) -> dict[str, Any]:
    """Measure what `gradient_norm`, `relative_gradient` and `fisher` need."""
    backward_readings(loaded, batches_of(loaded, task), HandingOver(turn), fisher=True)
    return {}


RUNS: dict[str, Callable[[LoadedModel, Task, Turn], dict[str, Any]]] = {
    "bare": run_bare,
    "bare_head": run_bare_head,
    "forward": run_forward,
    "deviation": run_deviation,
    "bare_backward": run_bare_backward,
    "norms": run_norms,
    "fisher": run_fisher,
}


class NoTurn(Turn):
    """A turn that is never handed over: for warming up."""

    def __init__(self) -> None:
        """Measure nothing."""

    def over(self) -> None:
        """Go on."""


def main() -> None:
    """Run one contestant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("model")
    parser.add_argument("rows", help="JSON file of prompts and completions")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    rows = json.loads(Path(arguments.rows).read_text(encoding="utf-8"))
    examples = [Example(*row) for row in rows]
    turn = Turn()
    loaded = load_model(arguments.model, "float32", "cpu")
    spare_imports()  # as `lsf analyze` does; for the bare passes too
    RUNS[arguments.run](loaded, split_examples("warm", examples[: 2 * BATCH]), NoTurn())
    task = split_examples("bench", examples)
    turn.ready()
    found: Any = None
    for round_ in range(arguments.rounds):
        found = RUNS[arguments.run](loaded, task, turn)
        if round_ < arguments.rounds - 1:
            turn.over()
    turn.finish(**found, waste=lambda: waste(batches_of(loaded, task)))


if __name__ == "__main__":
    main()
