"""Per-example gradients without keeping them: module inputs and output gradients, taken where backward passes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from lsf.errors import ModelError
from lsf.models.layout import ModelLayout

HELD = 1 << 24
"""Numbers of a part, of products of positions or of per-example weight gradients, where one example allows it."""
WRITTEN = 32
"""Multiplications in whose time one number is written and read again; measured on a CPU."""


@dataclass(frozen=True)
class GradientHook:
    """What one module of a block saw in one backward pass, enough for inner products of per-example gradients."""

    block: int
    """b."""
    inputs: Float[Tensor, "examples tokens d_in"] | None
    """Inputs of a linear map, whose per-example weight gradient is sum_t g_t a_t^T; None for element-wise weights."""
    gradients: Float[Tensor, "examples tokens d_out"]
    """Gradients of the summed loss with respect to the module's output."""
    direct: tuple[Float[Tensor, "examples width"], ...]
    """Per-example gradients of vectors (biases, norm weights), which are small."""


def hooked_parameters(block: nn.Module) -> set[int]:
    """Return the ids of the parameters of a block whose modules can be hooked."""
    found: set[int] = set()
    for module in block.modules():
        if _is_linear(module) or _is_scaling(module):
            found |= {id(parameter) for parameter in module.parameters(recurse=False)}
    return found


@contextmanager
def gradient_hooks(
    layout: ModelLayout, size: tuple[int, int], use: Callable[[GradientHook], None], blocks: range | None = None
) -> Iterator[None]:
    """Hand every hook to `use` while backward runs inside the `with`; nothing is kept, hooks are always removed.

    Backward reaches down to the lowest hooked block's input, whether or not any parameter takes a gradient.

    Args:
        layout: the model.
        size: examples and tokens of the batch; some blocks (OPT's) put both into one axis for a part of their modules.
        use: told of every hook.
        blocks: those hooked; None: all.
    """
    handles: list[Any] = []

    def listen(block: int, module: nn.Module) -> None:
        def forward(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                seen = args[0].detach()
                output.register_hook(lambda gradient: use(_hook(block, module, size, seen, gradient.detach())))

        handles.append(module.register_forward_hook(forward))

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        (args[0] if args else kwargs["hidden_states"]).requires_grad_()

    hooked = range(len(layout.blocks)) if blocks is None else blocks
    handles.append(layout.blocks[hooked[0]].register_forward_pre_hook(begin, with_kwargs=True))
    for index in hooked:
        for module in layout.blocks[index].modules():
            if _is_linear(module) or _is_scaling(module):
                listen(index, module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _is_scaling(module: nn.Module) -> bool:
    """Say whether a module is a norm: its only parameters are vectors it scales and shifts its input with."""
    own = dict(module.named_parameters(recurse=False))
    return (
        "weight" in own
        and set(own) <= {"weight", "bias"}
        and all(parameter.dim() == 1 for parameter in own.values())
        and next(module.children(), None) is None
    )


def _hook(block: int, module: nn.Module, size: tuple[int, int], seen: Tensor, gradient: Tensor) -> GradientHook:
    n, tokens = size
    if gradient.shape[0] not in (n, n * tokens):
        raise ModelError(
            f"A {type(module).__name__} of block {block} sees {gradient.shape[0]} rows of a batch of {n} examples of "
            f"{tokens} tokens; per-example gradients cannot be told apart there."
        )
    gradients = gradient.reshape(n, -1, gradient.shape[-1]).float()
    bias = (gradients.sum(dim=1),) if getattr(module, "bias", None) is not None else ()
    if _is_linear(module):
        return GradientHook(block, seen.reshape(n, -1, seen.shape[-1]).float(), gradients, bias)
    normed = _normed(module, seen).reshape(gradients.shape).float()
    return GradientHook(block, None, gradients, ((gradients * normed).sum(dim=1), *bias))


@torch.no_grad()
def _normed(module: nn.Module, seen: Tensor) -> Tensor:
    """Return d output / d weight of a norm: its output is affine in its weight, so two weights tell."""
    own = dict(module.named_parameters(recurse=False))
    ones, zeros = ({**own, "weight": fill(own["weight"])} for fill in (torch.ones_like, torch.zeros_like))
    difference: Tensor = functional_call(module, ones, (seen,)) - functional_call(module, zeros, (seen,))
    return difference


def squared_norms(hook: GradientHook) -> Float[Tensor, " examples"]:
    """Return each example's squared gradient norm over the hooked module's parameters."""
    n, tokens = hook.gradients.shape[:2]
    total = torch.zeros(n).to(hook.gradients)
    for vector in hook.direct:
        total += (vector**2).sum(dim=1)
    if hook.inputs is None:
        return total
    d_in, d_out = hook.inputs.shape[-1], hook.gradients.shape[-1]
    if tokens**2 * (d_in + d_out) > (tokens + WRITTEN) * d_in * d_out:
        return total + sum((part**2).sum(dim=1) for part in _weight_gradients(hook))
    # |sum_t g_t a_t^T|^2 = sum_ts (g_t . g_s)(a_t . a_s)
    return total + ((hook.inputs @ hook.inputs.mT) * (hook.gradients @ hook.gradients.mT)).sum(dim=(1, 2))


def pair_products(hook: GradientHook) -> Float[Tensor, "examples examples"]:
    """Return the inner products of every two examples' gradients over the hooked module's parameters."""
    n, tokens = hook.gradients.shape[:2]
    total = torch.zeros(n, n).to(hook.gradients)
    for vector in hook.direct:
        total += vector @ vector.T
    if hook.inputs is None:
        return total
    d_in, d_out = hook.inputs.shape[-1], hook.gradients.shape[-1]
    if n * tokens**2 * (d_in + d_out) > (tokens + n + WRITTEN) * d_in * d_out:
        return total + sum(part @ part.T for part in _weight_gradients(hook))
    inputs, gradients = hook.inputs.flatten(0, 1), hook.gradients.flatten(0, 1)
    rows = max(1, HELD // (tokens * len(inputs)))
    for first in range(0, n, rows):  # some examples against all
        some = slice(first * tokens, (first + rows) * tokens)
        products = (inputs[some] @ inputs.T) * (gradients[some] @ gradients.T)
        total[first : first + rows] += products.reshape(-1, tokens, n, tokens).sum(dim=(1, 3))
    return total


def _weight_gradients(hook: GradientHook) -> Iterator[Float[Tensor, "examples part"]]:
    """Yield every example's weight gradient in parts of at most `HELD` numbers: cheaper where texts are long."""
    assert hook.inputs is not None
    n, d_in = hook.inputs.shape[0], hook.inputs.shape[-1]
    rows = max(1, HELD // (n * d_in))
    for part in hook.gradients.split(rows, dim=-1):
        yield (part.mT @ hook.inputs).flatten(1)
