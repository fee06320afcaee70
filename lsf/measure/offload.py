"""Models that no single device holds: spread over GPUs, main memory and disk by accelerate, read tensor by tensor."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from lsf.errors import ModelError
from lsf.measure.quantised import float_weight, is_packed


def places_of(model: Any) -> tuple[str, ...]:
    """Return where a spread model's modules lie, such as `cuda:0`, `cpu`, `disk`; nothing for one on one device."""
    spread = getattr(model, "hf_device_map", None) or {}
    names = {f"cuda:{place}" if isinstance(place, int) else str(place) for place in spread.values()}
    return tuple(sorted(names)) if len(names) > 1 or "disk" in names else ()


def input_device(model: Any) -> torch.device:
    """Return where token ids go: where the model's parameters are, or where a spread model runs its embedding."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return next(model.parameters()).device if device is None else torch.device(device)


def weight_of(module: nn.Module) -> Tensor:
    """Return a module's weight, fetched from main memory or disk where it is offloaded."""
    with align_module_device(module):
        weight: Any = module.weight
        return weight.detach()


def tensors_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter of a module by its dotted name, fetched one submodule at a time where it is offloaded.

    A weight packed in 4 or 8 bits is dequantised in its turn.

    Args:
        module: any module, the whole model included; it is not changed.
        prefix: put before the names.
    """
    for name, part in module.named_modules():
        if not any(True for _ in part.parameters(recurse=False)):
            continue
        with align_module_device(part):
            for own, parameter in part.named_parameters(recurse=False):
                yield (
                    f"{prefix}{name}.{own}" if name else f"{prefix}{own}",
                    float_weight(part) if is_packed(parameter) else parameter.detach(),
                )


def refuse_spread(model: Any, what: str) -> None:
    """Refuse what needs every weight at hand.

    Args:
        model: the loaded model.
        what: what was asked for, as a phrase such as `tuning`.

    Raises:
        ModelError: the model is spread.
    """
    if places := places_of(model):
        raise ModelError(
            f"The model is spread over {', '.join(places)}, where it can be analysed but {what} needs it whole on one "
            "device; take a smaller model, bfloat16 or a larger device."
        )
