"""Models without weights, to count what no machine here holds, and what an analysis of one holds at its peak."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import EncodedExample
from lsf.lens.forward import _states_at_positions, position_losses
from lsf.lens.gradients import trainable_view
from lsf.lens.kernels import GradientHook, gradient_hooks, squared_norms
from lsf.models.batches import MOST_LOGITS, Batch, make_batches
from lsf.models.families import family_of
from lsf.models.info import ModelInfo
from lsf.models.layout import resolve
from lsf.models.loading import LoadedModel
from lsf.models.quantised import is_packed, n_values
from lsf.training.measured_pass import Held


@contextmanager
def weightless(config: Any, name: str, dtype: torch.dtype = torch.bfloat16) -> Iterator[LoadedModel]:
    """Yield a loaded model that has no weights; inside the `with` every new tensor is without memory too.

    Args:
        config: of a causal LM in the families table.
        name: what it is called.
        dtype: of its weights.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _converted_in_place():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.eval().requires_grad_(False)
        layout = resolve(model, family_of(config.model_type))
        info = ModelInfo(
            name=name,
            revision=None,
            family=layout.family.name,
            n_blocks=len(layout.blocks),
            width=config.hidden_size,
            vocab_size=config.vocab_size,
            tied_head=config.tie_word_embeddings,
            n_params=sum(parameter.numel() for parameter in model.parameters()),
            dtype=str(dtype).removeprefix("torch."),
            device="cpu",
        )
        yield LoadedModel(model, None, info, layout, config.max_position_embeddings, 0.0)


@contextmanager
def _converted_in_place() -> Iterator[None]:
    """Let `Module.to` replace what a parameter holds: torch swaps fake tensors instead, and refuses to."""
    swap = torch.utils.swap_tensors

    def replaced(one: Any, other: Any) -> None:
        one.data = other.data

    torch.utils.swap_tensors = replaced
    try:
        yield
    finally:
        torch.utils.swap_tensors = swap


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
        states = _states_at_positions(loaded.layout, batch)
        loaded.layout.read(states)
    return held.peak


def _gradient_pass(loaded: LoadedModel, batch: Batch) -> tuple[int, int]:
    """Return the bytes of the gradients of all blocks, and those of the pass beside them."""
    layout = trainable_view(loaded)

    def use(hook: GradientHook) -> None:
        squared_norms(hook)

    with Held() as held, torch.enable_grad():
        held.know(layout.model)
        with gradient_hooks(layout, (batch.ids.shape[0], batch.ids.shape[1]), use):
            (position_losses(layout, batch).sum() / len(batch.targets)).backward()
    gradients = sum(value.grad.nbytes for value in layout.model.parameters() if value.grad is not None)
    return gradients, held.peak - gradients


def _dequantised_bytes(loaded: LoadedModel) -> int:
    packed = [weight for weight in loaded.model.parameters() if is_packed(weight)]
    return loaded.model.dtype.itemsize * sum(n_values(weight) for weight in packed)
