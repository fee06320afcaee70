"""A second model over the same memory: own module tree, shared tensors, own copies where asked."""

import copy
import functools
import zlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from lsf.models.devices import refuse_spread
from lsf.models.quantised import dequantise_, is_packed, is_quantised, refuse_packed, shared_parts

ModuleT = TypeVar("ModuleT", bound=nn.Module)
LIBRARIES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "lsf")
"""Whose hooks are part of how a model is built, run or read; every other one may change what it says."""


def foreign_hooks(model: nn.Module) -> tuple[tuple[int, Any], ...]:
    """Return the hooks that somebody put on a model (steering, ablation, a probe), each with its handle's number.

    What such a model says hangs on more than its weights: nothing of it is kept on record.
    """
    return tuple((number, hook) for number, hook in _hooks(model) if _library(hook) not in LIBRARIES)


def _hooks(model: nn.Module) -> Iterator[tuple[int, Any]]:
    for module in model.modules():
        forward: tuple[dict[int, Any], ...] = (module._forward_pre_hooks, module._forward_hooks)
        for hooks in (*forward, module._backward_pre_hooks, module._backward_hooks):
            yield from hooks.items()


def _library(hook: Any) -> str:
    """Return the library that a hook was written in."""
    hook = hook.func if isinstance(hook, functools.partial) else hook
    return str(getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0]


def stamp_of(model: nn.Module) -> list[object]:
    """Return what tells whether a model was changed: its modules, their mode, its hooks, and its tensors.

    Their bits count too: what writes by way of `.data`, fused optimizers among it, does not count versions.
    """
    modules: list[object] = [(id(module), module.training) for module in model.modules()]
    hooks = [number for number, _ in foreign_hooks(model)]
    tensors = [value for value in (*model.parameters(), *model.buffers()) if not value.is_meta]
    places = [(id(value), value.data_ptr(), value._version) for value in tensors]
    return [*modules, *hooks, *places, *bits_of(tensors)]


def bits_of(tensors: Iterable[torch.Tensor]) -> list[int]:
    """Return a number per tensor, in their order on each device, which another value in one of them changes."""
    sums: dict[torch.device, list[torch.Tensor]] = {}
    for value in tensors:
        sums.setdefault(value.device, []).append(_bits(value.detach()))
    return [number for some in sums.values() for number in torch.stack(some).tolist()]  # one wait per device


def _bits(value: torch.Tensor) -> torch.Tensor:
    """Return a checksum of a tensor's bytes, where it lies.

    Off the CPU that is the sum of its values, each read as a whole number by its bits and weighted by where it stands;
    rows and columns are weighted apart, so that also values that changed places show.
    """
    flat = value.contiguous().reshape(-1)
    if value.device.type == "cpu":
        return torch.tensor(zlib.crc32(flat.view(torch.uint8).numpy().data))
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32}.get(value.element_size(), torch.int64)
    table = flat.view(whole).reshape(-1, value.shape[-1] if value.ndim and value.numel() else 1)
    total = torch.zeros((), dtype=torch.int64, device=value.device)
    for axis in (0, 1):
        sums = table.sum(axis, dtype=torch.int64)
        total = 3 * total + (sums * (2 * torch.arange(len(sums), device=sums.device) + 1)).sum()
    return total


def share_model(model: ModuleT, own: Collection[str] = ()) -> ModuleT:
    """Return a model with a module tree of its own over the same tensors.

    Its parameters are new `Parameter` objects, so `requires_grad`, `.grad` and hooks on the result never reach
    `model`. Frozen memory is shared; only the parameters named in `own` are copied and may be changed in place. Hooks
    that are on `model` act on the result too: the same ones, not copies, but for methods of its own modules.

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
    for _, hook in _hooks(model):
        if not isinstance(getattr(hook, "__self__", None), nn.Module):
            memo[id(hook)] = hook
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
