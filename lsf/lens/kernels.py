"""Tangent kernels, and singular values of weight matrices: one block, one tensor at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsf.criteria.agreement import KERNEL_EXAMPLES
from lsf.criteria.result import AnalysisSettings
from lsf.criteria.scores import Spectrum
from lsf.data.encode import EncodedExample
from lsf.lens.example_gradients import GradientHook, gradient_hooks, pair_products
from lsf.lens.gradients import example_gradients, example_losses, position_losses, unhooked, view_of
from lsf.models.batches import Batch, halves_of, make_batches
from lsf.models.devices import exact, fetched, has_float64, is_out_of_memory, tensors_of
from lsf.models.loading import LoadedModel
from lsf.progress import Reporter

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
