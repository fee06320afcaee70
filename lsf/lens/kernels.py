"""Per-example gradients without keeping them, the tangent kernels they make, and singular values of weight matrices.

Inner products of the gradients come from module inputs and output gradients, taken where backward passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from lsf.criteria.agreement import KERNEL_EXAMPLES
from lsf.criteria.result import AnalysisSettings
from lsf.criteria.scores import Spectrum
from lsf.data.encode import EncodedExample
from lsf.errors import ModelError
from lsf.lens.forward import example_losses, position_losses
from lsf.models.batches import Batch, halves_of, make_batches
from lsf.models.devices import exact, fetched, has_float64, is_out_of_memory, tensors_of
from lsf.models.layout import ModelLayout, resolve, without_hooks
from lsf.models.loading import LoadedModel
from lsf.models.sharing import float_view
from lsf.progress import Reporter

HELD = 1 << 24
"""Numbers of a part, of products of positions or of per-example weight gradients, where one example allows it."""
WRITTEN = 32
"""Multiplications in whose time one number is written and read again; measured on a CPU."""


def view_of(loaded: LoadedModel, own: bool = False) -> ModelLayout:
    """Return a view of the model of which no parameter takes a gradient yet; with `own` the blocks are copies.

    What the base holds in 4 or 8 bits is dequantised in it: gradients are those at the values it stands for.
    """
    names = [name for block in range(len(loaded.layout.blocks)) for name in loaded.layout.block_parameters(block)]
    return resolve(float_view(loaded.model, own=names if own else ()), loaded.layout.family)


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


def _hooked_parameters(block: nn.Module) -> set[int]:
    """Return the ids of the parameters of a block whose modules can be hooked."""
    found: set[int] = set()
    for module in block.modules():
        if _is_linear(module) or _is_scaling(module):
            found |= {id(parameter) for parameter in module.parameters(recurse=False)}
    return found


def unhooked(block: torch.nn.Module) -> list[Tensor]:
    """Return the parameters of a block that no hook sees: neither of linear maps nor of norms."""
    hooked = _hooked_parameters(block)
    return [parameter for parameter in block.parameters() if id(parameter) not in hooked]


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

        # Before hooks of others: the gradient is that of what the module itself gives.
        handles.append(module.register_forward_hook(forward, prepend=True))

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
    with without_hooks([module]):
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


def example_gradients(layout: ModelLayout, batch: Batch, row: int, leftovers: list[list[Tensor]]) -> list[Tensor]:
    """Return one example's gradient of its own loss for the parameters that cannot be hooked, flat, per block.

    They stay on the device.
    """
    places = np.flatnonzero(batch.host_rows == row)
    mine = torch.from_numpy(places).to(batch.ids.device)
    alone: Any = Batch(
        batch.ids[row : row + 1],
        torch.zeros_like(mine),
        np.zeros_like(places),
        batch.places[mine],
        batch.targets[mine],
        batch.examples[places],
        0,
    )
    wanted = [parameter for block in leftovers for parameter in block]
    found = iter(torch.autograd.grad(position_losses(layout, alone).mean(), wanted, allow_unused=True))
    flat = []
    for block in leftovers:
        parts = [(torch.zeros_like(p) if g is None else g).flatten().float() for p, g in zip(block, found)]  # noqa: B905
        flat.append(torch.cat(parts) if parts else torch.zeros(0, device=batch.ids.device))
    return flat


KERNELS = "tangent kernels"
"""The phase, by the words it is told in."""
KERNEL_TOKENS = 16_384
"""Tokens of the examples together, padded, at most; one backward pass holds what all of them need."""
ROW_BYTES = 2 * 1024**3
"""Of gradients that are kept example by example (of expert tensors, say), at most."""


def over_the_bound(loaded: LoadedModel) -> str | None:
    """Say that the kernels of no two examples can be taken, and why; None where they can.

    A pass per example reaches the parameters that no hook sees, and their gradients are kept.
    """
    kept = _row_bytes(loaded)
    if kept <= ROW_BYTES // 2:
        return None
    return (
        f"gradients of expert tensors are kept example by example, take {kept / 1024**3:.2g} GiB each here, and two "
        f"examples may take {ROW_BYTES / 1024**3:.2g} GiB"
    )


def _row_bytes(loaded: LoadedModel) -> int:
    """Return the bytes of one example's gradients that are kept."""
    return 4 * sum(tensor.numel() for block in loaded.layout.blocks for tensor in unhooked(block))


def sampled_kernels(
    loaded: LoadedModel, rows: Sequence[EncodedExample], settings: AnalysisSettings, report: Reporter
) -> Float[np.ndarray, "blocks examples examples"] | None:
    """Return the tangent kernels of the first `KERNEL_EXAMPLES` examples, or of as many of them as fit.

    Returns:
        K_b, examples in the order of the data; None where a stop is asked for or where `over_the_bound` says why.
    """
    rows = rows[:KERNEL_EXAMPLES]
    if over_the_bound(loaded):
        return None
    if kept := _row_bytes(loaded):
        rows = rows[: ROW_BYTES // kept]
    while len(rows) > 1 and len(rows) * max(len(row.ids) for row in rows) > KERNEL_TOKENS:
        rows = rows[: len(rows) // 2]
    while not report.stop:
        (batch,) = make_batches(rows, settings.positions, len(rows), settings.seed, loaded.device)
        try:
            return tangent_kernels(loaded, batch, report)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        halves_of(batch)  # refuses a single example
        rows = rows[: len(rows) // 2]
    return None


def tangent_kernels(
    loaded: LoadedModel, batch: Batch, report: Reporter
) -> Float[np.ndarray, "blocks examples examples"]:
    """Return K_b: inner products of the examples' loss gradients with respect to each block, in the data's order.

    An example's loss is the mean over its positions. Entries come from inner products of module inputs and of output
    gradients, summed over positions; only parameters outside linear maps and norms (expert tensors, say) fall back to
    one backward pass per example. No parameter's gradient of the whole batch is ever made.
    """
    layout = view_of(loaded)
    products: list[tuple[int, Tensor]] = []

    def use(hook: GradientHook) -> None:
        products.append((hook.block, pair_products(hook)))

    with torch.enable_grad():
        with gradient_hooks(layout, (batch.ids.shape[0], batch.ids.shape[1]), use):
            losses = position_losses(layout, batch)
            example_losses(losses, batch).sum().backward()
        leftovers = [unhooked(block) for block in layout.blocks]
        if any(leftovers):
            for tensor in (tensor for block in leftovers for tensor in block):
                tensor.requires_grad_(True)
            rows = [example_gradients(layout, batch, row, leftovers) for row in range(len(batch.ids))]
            for block in range(len(leftovers)):
                if leftovers[block]:
                    stacked = exact(torch.stack([row[block] for row in rows]))
                    products.append((block, stacked @ stacked.T))
    kernels = np.zeros((len(layout.blocks), len(batch.ids), len(batch.ids)))
    for (block, _), product in zip(products, fetched(*(product for _, product in products)), strict=True):
        kernels[block] += product
    report.progress(1, 1, KERNELS)
    _, first = np.unique(batch.host_rows, return_index=True)
    order = np.argsort(batch.examples[first])
    return kernels[:, order][:, :, order]


SPECTRA = "spectra"
"""The phase, by the words it is told in."""


@torch.no_grad()
def block_spectra(loaded: LoadedModel, report: Reporter) -> tuple[tuple[Spectrum, ...], ...] | None:
    """Return the spectra of each block's matrices; a stack of expert matrices counts as that many matrices.

    Each matrix is decomposed alone in float32 on its device (on the CPU where the device has no float64, as mps, whose
    decompositions fall back to it anyway), so that only its own copy is held. None where a stop was asked for before
    the last one was done.
    """
    spectra = []
    for index, block in enumerate(loaded.layout.blocks):
        found: list[Spectrum] = []
        for _, parameter in tensors_of(block):
            if parameter.dim() < 2 or min(parameter.shape[-2:]) < 2:
                continue
            for matrix in parameter.reshape(-1, *parameter.shape[-2:]):
                if report.stop:
                    return None
                exact = matrix.float() if has_float64(matrix.device) else matrix.cpu().float()
                found.append(Spectrum(torch.linalg.svdvals(exact).cpu().numpy(), (matrix.shape[0], matrix.shape[1])))
        spectra.append(tuple(found))
        report.progress(index + 1, len(loaded.layout.blocks), SPECTRA)
    return tuple(spectra)
