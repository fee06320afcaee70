"""What an analysis with every criterion but `first_order_drop` holds at its peak, by passes over one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from lsf.analysis.settings import AnalysisSettings
from lsf.data.encode import EncodedExample
from lsf.measure.batches import MOST_LOGITS, Batch, make_batches
from lsf.measure.gradients import position_losses, trainable_view
from lsf.measure.loading import LoadedModel
from lsf.measure.probe import _states_at_positions
from lsf.measure.quantised import is_packed, n_values
from lsf.measure.taps import Tap, squared_norms, taps
from lsf.training.dry_step import Held

LOGIT_BYTES = 4 + 4 + 4 + 1
"""Bytes per logit while the lens reads it: as it leaves the head, in float32, its exponential, a comparison."""
GRAM_BYTES = 3 * 8
"""Bytes per squared unit of width of the semantic bases: W^T W, its factor and a chunk of W, in float64."""


@dataclass(frozen=True)
class AnalysisParts:
    """Peak memory of an analysis above the loaded model, in bytes; the passes come one after another."""

    forward: int
    """The forward pass over one batch, its states at the probed positions, and the semantic bases."""
    lens: int
    """Logits of the lens."""
    copies: int
    """Dequantised copies of weights held in 4 or 8 bits, for the gradient pass."""
    gradients: int
    """Gradients of all blocks, in the dtype they are added up in."""
    backward: int
    """The gradient pass over one batch beside that; kernels are read on as many examples as then fit."""

    @property
    def peak(self) -> int:
        """Bytes of the larger of the forward and the gradient pass."""
        return max(self.forward + self.lens, self.copies + self.gradients + self.backward)


def analysis_parts(loaded: LoadedModel, rows: Sequence[EncodedExample], settings: AnalysisSettings) -> AnalysisParts:
    """Count what an analysis will need; nothing is measured, and the model may be without weights.

    Args:
        loaded: the model.
        rows: encoded examples without end-of-text; the longest batch of them is passed.
        settings: batch size and positions.
    """
    longest = list(islice(sorted(rows, key=lambda row: -len(row.ids)), settings.batch_size))
    (batch,) = make_batches(longest, settings.positions, settings.batch_size, settings.seed, loaded.device)
    info = loaded.info
    logits = len(batch.targets) * (info.n_blocks + 1) * info.vocab_size
    gradients, backward = _gradient_pass(loaded, batch)
    return AnalysisParts(
        forward=_forward_pass(loaded, batch) + GRAM_BYTES * info.width**2,
        lens=LOGIT_BYTES * min(logits, MOST_LOGITS),
        copies=_dequantised_bytes(loaded),
        gradients=gradients,
        backward=backward,
    )


@torch.no_grad()
def _forward_pass(loaded: LoadedModel, batch: Batch) -> int:
    with Held() as held:
        held.know(loaded.model)
        states = _states_at_positions(loaded.anatomy, batch)
        loaded.anatomy.read(states)
    return held.peak


def _gradient_pass(loaded: LoadedModel, batch: Batch) -> tuple[int, int]:
    """Return the bytes of the gradients of all blocks, and those of the pass beside them."""
    anatomy = trainable_view(loaded)

    def use(tap: Tap) -> None:
        squared_norms(tap)

    with Held() as held, torch.enable_grad():
        held.know(anatomy.model)
        with taps(anatomy, (batch.ids.shape[0], batch.ids.shape[1]), use):
            (position_losses(anatomy, batch).sum() / len(batch.targets)).backward()
    gradients = sum(value.grad.nbytes for value in anatomy.model.parameters() if value.grad is not None)
    return gradients, held.peak - gradients


def _dequantised_bytes(loaded: LoadedModel) -> int:
    packed = [weight for weight in loaded.model.parameters() if is_packed(weight)]
    return loaded.model.dtype.itemsize * sum(n_values(weight) for weight in packed)
