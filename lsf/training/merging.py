"""What was learned, added into the base's own tensors: a plain model that costs at inference what the base costs."""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from lsf.errors import BadInputError
from lsf.measure.sharing import share_model
from lsf.training.methods.adapter import Bottleneck
from lsf.training.parametrization import held_still


@torch.no_grad()
def merge(model: Any, loaded: Any) -> Any:
    """Return a plain model, of the base's own module tree, that computes what a tuned one computes.

    Args:
        model: tuned: from a method's `prepare`, or from `load_tuned`; it is not changed.
        loaded: its base.

    Returns:
        A model of its own that owns the changed tensors, in the base's dtype, and shares all others with the base.

    Raises:
        BadInputError: the method added steps of its own that no tensor of the base can take in.
    """
    if any(isinstance(module, Bottleneck) for module in model.modules()):
        raise BadInputError(
            "Adapters cannot be merged: they are non-linear steps between the base's layers; keep them beside the base."
        )
    with held_still(model):
        changed = {
            name: value
            for name, base in loaded.model.named_parameters()
            if (value := _effective(model, name)).data_ptr() != base.data_ptr()
        }
        plain = share_model(loaded.model, own=changed)
        for name, value in changed.items():
            place = plain.get_parameter(name)
            place.data = value.detach().to(place.dtype, copy=True)
    return plain.eval()


def _effective(model: Any, name: str) -> Tensor:
    """Return the value a model computes with in place of one of the base's tensors."""
    owner, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(owner)
    if not isinstance(module, Linear):
        return getattr(module, leaf)
    base: Any = module.get_base_layer()
    if leaf != "weight":
        return getattr(base, leaf)
    return base.weight.float() + module.get_delta_weight("default").float()
