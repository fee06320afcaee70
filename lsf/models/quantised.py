"""Bases in 4 or 8 bits, as transformers loads them with bitsandbytes: what is packed, its scales, floats of it."""

import copy
import logging
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from lsf.errors import BadInputError, ModelError
from lsf.settings import QUANTISED

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def check_quantising(dtype: str, device_type: str) -> None:
    """Refuse a quantised base where it cannot be had, before anything is read.

    Args:
        dtype: asked for; one that is not quantised passes.
        device_type: where the model is to lie, or `map`.

    Raises:
        BadInputError: bitsandbytes is missing, or does not work there.
    """
    if dtype not in QUANTISED:
        return
    if find_spec("bitsandbytes") is None:
        raise BadInputError(
            f"The dtype {dtype} needs the package bitsandbytes, which is not installed: pip install bitsandbytes, or "
            "take float32 or bfloat16."
        )
    if device_type == "map":
        raise BadInputError(f"A base in {dtype} lies whole on one device; take another device than map, or bfloat16.")
    from bitsandbytes import supported_torch_devices  # noqa: PLC0415 optional

    if device_type not in supported_torch_devices:
        known = ", ".join(sorted(supported_torch_devices))
        raise BadInputError(f"bitsandbytes has no {dtype} for {device_type}; accepted devices are: {known}.")


def quantising(dtype: str, compute: torch.dtype, device: str) -> dict[str, Any]:
    """Return what `from_pretrained` is told so that it quantises linear maps but the head while it loads.

    Args:
        dtype: `nf4` (one float32 scale per 64 values) or `int8` (one per row; outliers of inputs stay float).
        compute: in which products are taken, and of all other tensors.
        device: where it is to lie.
    """
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it warns in every product
    kinds = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": compute},
        "int8": {"load_in_8bit": True},
    }
    return {"quantization_config": BitsAndBytesConfig(**kinds[dtype]), "device_map": {"": device}}


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Let no forward pass pack the 4-bit weights anew, which bitsandbytes does in place on some CPUs.

    Raises:
        ModelError: bitsandbytes unpacks a weight otherwise than its own scales and table of values have it, as its
            kernels for AVX-512 do where the rows are no whole blocks.
    """
    unlike = dict[int, str]()
    for name, module in _packed_modules(model).items():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        state: Any = getattr(module._parameters["weight"], "quant_state", None)
        if state is not None and state.shape[-1] % state.blocksize:
            unlike.setdefault(state.shape[-1], name)
    for width, name in unlike.items():
        weight: Any = model.get_submodule(name)._parameters["weight"]
        if not torch.allclose(_unpacked(weight), unpacked_by_table(weight), rtol=0.02):
            raise ModelError(
                f"bitsandbytes unpacks {name} wrongly on this processor: its rows of {width} values are no whole "
                f"blocks of {weight.quant_state.blocksize}; accepted are int8, float32 and bfloat16."
            )


def unpacked_by_table(weight: Any) -> Tensor:
    """Return a 4-bit weight's floats by its definition: an entry of the table of 16 values, times its block's scale.

    Returns:
        (outputs, inputs), in the dtype of the state.
    """
    state = weight.quant_state
    packed = weight.data.view(torch.uint8).flatten()
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[: state.shape.numel()].long()
    scale = state.absmax.float().repeat_interleave(state.blocksize)[: len(codes)]
    return (state.code.to(packed.device)[codes] * scale).to(state.dtype).reshape(state.shape)


def _unpacked(weight: Any) -> Tensor:
    from bitsandbytes import functional  # noqa: PLC0415 optional

    return functional.dequantize_4bit(weight.data, weight.quant_state)


def is_packed(tensor: Tensor) -> bool:
    """Say whether a parameter holds packed 4-bit or 8-bit values."""
    return type(tensor).__module__.startswith("bitsandbytes.")


def is_quantised(model: nn.Module) -> bool:
    """Say whether any parameter of a model is packed."""
    return any(is_packed(parameter) for parameter in model.parameters())


def packed_dtype(model: Any) -> str | None:
    """Return `int8` or `nf4` of a model whose maps are packed; None of every other."""
    if not is_quantised(model):
        return None
    return "int8" if model.config.quantization_config.load_in_8bit else "nf4"


def shape_of(parameter: Tensor) -> torch.Size:
    """Return the shape of what a parameter stands for, by output and input where it is packed; nothing is unpacked."""
    state = getattr(parameter, "quant_state", None) if is_packed(parameter) else None
    return parameter.shape if state is None else state.shape


def n_values(parameter: Tensor) -> int:
    """Return how many values a parameter stands for; a packed one holds two in a byte."""
    return shape_of(parameter).numel()


def scales(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what belongs to packed weights and is no parameter: the scales, and 4 bits' table of values."""
    for name, module in _packed_modules(model).items():
        weight = module._parameters["weight"]
        if (state := getattr(weight, "quant_state", None)) is not None:
            yield f"{name}.weight.absmax", state.absmax
            yield f"{name}.weight.quant_map", state.code
        else:
            yield f"{name}.weight.SCB", module.state.SCB if weight.SCB is None else weight.SCB


def float_weight(module: Any) -> Tensor:
    """Return a module's weight as it stands in the checkpoint's layout; a packed one dequantised, in new memory."""
    weight = module._parameters["weight"]
    if not is_packed(weight):
        return weight.detach()
    from bitsandbytes import functional  # noqa: PLC0415 optional

    if getattr(weight, "quant_state", None) is not None:
        values = _unpacked(weight)
    else:
        values = functional.int8_vectorwise_dequant(weight.data, module.state.SCB if weight.SCB is None else weight.SCB)
    return values.T.contiguous() if was_transposed(module) else values


def was_transposed(module: nn.Module) -> bool:
    """Say whether a packed linear map stands for one of GPT-2's, whose weight has a row per input."""
    return issubclass(getattr(module, "source_cls", nn.Linear), Conv1D)


def shared_parts(model: nn.Module) -> dict[int, object]:
    """Return what a second module tree takes over as it is: id -> packed parameter of its own, scale or state."""
    memo: dict[int, object] = {}
    for module in _packed_modules(model).values():
        weight: Any = module._parameters["weight"]
        if (state := getattr(weight, "quant_state", None)) is not None:
            mine = copy.copy(weight)
            mine.module = None
            memo |= {id(weight): mine, id(state): state, id(module.quant_state): module.quant_state}
        else:
            given = {"CB": weight.CB, "SCB": weight.SCB, "has_fp16_weights": False}
            memo[id(weight)] = type(weight)(weight.data, requires_grad=False, **given)
            memo |= {id(part): part for part in (module.state.CB, module.state.SCB) if part is not None}
    return memo


def refuse_packed(model: nn.Module, names: Collection[str]) -> None:
    """Refuse to tune packed tensors.

    Raises:
        BadInputError: one of the named parameters is packed.
    """
    for name in names:
        if is_packed(model.get_parameter(name)):
            raise BadInputError(
                f"{name} is quantised and cannot be tuned itself; accepted over a quantised base are methods "
                "that leave it frozen: lora, adapter, bitfit; or load the model in float32 or bfloat16."
            )


@torch.no_grad()
def dequantise_(model: ModuleT, dtype: torch.dtype) -> ModuleT:
    """Put float linear maps in the place of packed ones, in a model of the caller's own, and return it."""
    for name, module in _packed_modules(model).items():
        bias, weight = module._parameters["bias"], float_weight(module).to(dtype)
        with torch.device("meta"):
            plain: Any = (
                Conv1D(module.out_features, module.in_features)
                if was_transposed(module)
                else nn.Linear(module.in_features, module.out_features, bias is not None)
            )
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), bias
        model.set_submodule(name, plain.eval())
    whole: Any = model
    whole.hf_quantizer.remove_quantization_config(whole)
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        whole.__dict__.pop(flag, None)
    return model


def _packed_modules(model: nn.Module) -> dict[str, Any]:
    """Return the linear maps whose own weight is packed, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if (weight := module._parameters.get("weight")) is not None and is_packed(weight)
    }
