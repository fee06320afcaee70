"""What the loss becomes without a block: forward passes that start where the block is bypassed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import EncodedExample
from lsf.lens.gradients import position_losses
from lsf.models.batches import MOST_PADDING, Batch, halves_of, make_batches, probed
from lsf.models.devices import exact, fetched, free_bytes, is_out_of_memory
from lsf.models.layout import ModelLayout, captured_states, handing_on, resolve, standing_in
from lsf.models.loading import LoadedModel
from lsf.models.sharing import share_model
from lsf.progress import Reporter

ABLATION = "blocks bypassed"
"""The phase, by the words it is told in."""
ABLATION_POSITIONS = 256
"""Positions read without a block each: those of the first examples that have so many together."""
STATES_SHARE = 0.25
"""Share of the free memory that a batch's states may take; its passes need the rest."""


def ablation_batches(loaded: LoadedModel, rows: Sequence[EncodedExample], settings: AnalysisSettings) -> list[Batch]:
    """Return the batches of the first examples, so small that the states of all their tokens fit into memory."""
    counts = np.cumsum([len(probed(row, settings.positions)) for row in rows])
    rows = rows[: int(np.searchsorted(counts, ABLATION_POSITIONS)) + 1]
    values = len(loaded.layout.blocks) * loaded.info.width * max(len(row.ids) for row in rows)
    fitting = int(STATES_SHARE * free_bytes(loaded.device) / (values * loaded.model.dtype.itemsize))
    size = max(1, min(settings.batch_size, fitting))
    return make_batches(rows, settings.positions, size, settings.seed, loaded.device, MOST_PADDING)


def ablation_rises(
    loaded: LoadedModel, batches: Sequence[Batch], report: Reporter
) -> Float[np.ndarray, " blocks"] | None:
    """Return by how much the mean loss over all positions rises where block b's output is replaced by its input.

    Of each batch the states of all tokens are kept, and the pass without block b starts from the one that enters it:
    (L + 1) / 2 forward passes in all, the first included. The blocks above get everything else a pass of this family
    gives them (masks, rotations), since the model's own forward runs, its lower blocks replaced in a module tree over
    the same memory; the loaded model is not touched.

    Args:
        loaded: the model.
        batches: of `ablation_batches`.
        report: progress and stop.

    Returns:
        Nats, block 0 first; None where a stop was asked for.

    Raises:
        OutOfMemoryError: a single example does not fit.
    """
    layout = resolve(share_model(loaded.model), loaded.layout.family)
    total = np.zeros(len(layout.blocks) + 1)
    for done, batch in enumerate(batches, 1):
        sums = _summed(layout, batch, lambda: bool(report.stop))
        if sums is None:
            return None
        total += sums
        report.progress(done, len(batches), ABLATION)
    return (total[1:] - total[0]) / sum(len(batch.targets) for batch in batches)


def _summed(layout: ModelLayout, batch: Batch, stopped: Callable[[], bool]) -> Float[np.ndarray, " passes"] | None:
    try:
        return _losses(layout, batch, stopped)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    parts = [_summed(layout, half, stopped) for half in halves_of(batch)]
    known = [part for part in parts if part is not None]
    return np.sum(known, axis=0) if len(known) == len(parts) else None


@torch.no_grad()
def _losses(layout: ModelLayout, batch: Batch, stopped: Callable[[], bool]) -> Float[np.ndarray, " passes"] | None:
    """Return the sum over a batch's positions of the loss: of the whole model, then without each block."""
    forms: list[Callable[[Tensor], Any]] = []

    def learn(_module: nn.Module, _args: Any, output: Any) -> None:
        forms.append(handing_on(output))

    handle = layout.blocks[0].register_forward_hook(learn)
    try:
        with captured_states(layout, lambda state: state) as states:
            sums = [exact(position_losses(layout, batch)).sum()]
    finally:
        handle.remove()
    for block in range(len(layout.blocks)):
        if stopped():
            return None
        state, states[block] = states[block], states[-1]  # not needed by deeper ones
        with standing_in(layout.blocks[: block + 1], forms[0], lambda _entering, state=state: state):
            sums.append(exact(position_losses(layout, batch)).sum())
    return fetched(torch.stack(sums))[0].astype(np.float64)
