"""A second model over the same memory: own module tree, shared tensors, own copies where asked."""

import copy
from collections.abc import Collection
from typing import Any, TypeVar

import torch
from torch import nn

from lsf.models.devices import refuse_spread
from lsf.models.quantised import dequantise_, is_packed, is_quantised, refuse_packed, shared_parts

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def share_model(model: ModuleT, own: Collection[str] = ()) -> ModuleT:
    """Return a model with a module tree of its own over the same tensors.

    Its parameters are new `Parameter` objects, so `requires_grad`, `.grad` and hooks on the result never reach
    `model`. Frozen memory is shared; only the parameters named in `own` are copied and may be changed in place.

    Args:
        model: the loaded model; it is not changed.
        own: names from `model.named_parameters()` to copy.

    Returns:
        The new model, every parameter with `requires_grad=False`.

    Raises:
        BadInputError: a parameter in `own` is packed in 4 or 8 bits.
        KeyError: a name in `own` is not a parameter of the model.
        ModelError: the model is spread over several devices.
    """
    refuse_spread(model, "tuning or a backward pass")
    parameters = dict(model.named_parameters())
    unknown = set(own) - parameters.keys()
    if unknown:
        raise KeyError(f"not parameters of {type(model).__name__}: {sorted(unknown)}")
    refuse_packed(model, own)
    memo: dict[int, object] = {id(buffer): buffer for buffer in model.buffers()} | shared_parts(model)
    for name, parameter in parameters.items():
        if is_packed(parameter):
            continue
        data = parameter.detach()
        memo[id(parameter)] = nn.Parameter(data.clone() if name in own else data, requires_grad=False)
    with torch.no_grad():
        return copy.deepcopy(model, memo)


def float_view(model: ModuleT, own: Collection[str] = ()) -> ModuleT:
    """Return what `share_model` does, with dequantised copies in place of packed weights: all that takes gradients.

    Args:
        model: the loaded model; it is not changed.
        own: names from `model.named_parameters()` to copy, packed ones among them.
    """
    if not is_quantised(model):
        return share_model(model, own)
    parameters = dict(model.named_parameters())
    view: Any = share_model(model, [name for name in own if not is_packed(parameters[name])])
    return dequantise_(view, view.dtype)
