"""What was learned, added into the base's own tensors: a plain model that costs at inference what the base costs."""

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lsf.errors import BadInputError
from lsf.measure.quantised import float_weight, was_transposed
from lsf.measure.sharing import float_view
from lsf.training.batches import autocasting
from lsf.training.methods.adapter import Bottleneck
from lsf.training.parametrization import held_still

ROWS, TOKENS = 8, 32
"""Size of the batch on which a merged model is compared."""


@dataclass(frozen=True)
class MergeLoss:
    """How far a merged model's logits lie from those of the tuned model it was made of, on fixed ids."""

    largest: float
    """Largest absolute difference of logits."""
    mean: float
    """Mean absolute difference."""
    scale: float
    """Standard deviation of the tuned model's logits, to judge them by."""


@torch.no_grad()
def merge(model: Any, loaded: Any) -> Any:
    """Return a plain model, of the base's own module tree, that computes what a tuned one computes.

    Args:
        model: tuned: from a method's `prepare`, or from `load_tuned`; it is not changed.
        loaded: its base.

    Returns:
        A model of its own that owns the changed tensors, in the base's dtype, and shares all others with the base. What
        the base holds in 4 or 8 bits is dequantised in it, in the dtype of the base's other tensors.

    Raises:
        BadInputError: the method added steps of its own that no tensor of the base can take in.
    """
    if any(isinstance(module, Bottleneck) for module in model.modules()):
        raise BadInputError(
            "Adapters cannot be merged: they are non-linear steps between the base's layers; keep them beside the base."
        )
    base = dict(loaded.model.named_parameters())
    plain = float_view(loaded.model)
    with held_still(model):
        for name, place in plain.named_parameters():
            value = _effective(model, name)
            if value.data_ptr() != base[name].data_ptr():
                place.data = value.detach().to(place.dtype, copy=True)
    return plain.eval()


@torch.no_grad()
def merge_loss(model: Any, plain: Any, loaded: Any) -> MergeLoss:
    """Return what merging changed.

    Args:
        model: tuned.
        plain: what `merge` made of it.
        loaded: the base of both.
    """
    tokens = min(TOKENS, loaded.context)
    ids = torch.arange(ROWS * tokens, device=loaded.device).reshape(ROWS, tokens) % loaded.info.vocab_size
    with held_still(model), autocasting(loaded.model, loaded.info.dtype):
        tuned, merged = (one(input_ids=ids, use_cache=False).logits.float() for one in (model, plain))
    difference = (tuned - merged).abs()
    return MergeLoss(difference.max().item(), difference.mean().item(), tuned.std().item())


def _effective(model: Any, name: str) -> Tensor:
    """Return the value a model computes with in place of one of the base's tensors, in the checkpoint's layout."""
    owner, _, leaf = name.rpartition(".")
    found = model.get_submodule(owner)
    module: Any = found
    if not isinstance(found, LoraLayer):
        return float_weight(module) if leaf in module._parameters and leaf == "weight" else getattr(module, leaf)
    base: Any = module.get_base_layer()
    if leaf != "weight":
        return getattr(base, leaf)
    delta = module.get_delta_weight("default").float()
    return float_weight(base).float() + (delta.T if was_transposed(base) else delta)
