"""Tangent kernels: inner products of examples' loss gradients in each block, of as many examples as memory allows."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsf.analysis.kernel_growth import KERNEL_EXAMPLES
from lsf.analysis.settings import AnalysisSettings
from lsf.data.encode import EncodedExample
from lsf.measure.batches import Batch, make_batches
from lsf.measure.devices import exact, fetched
from lsf.measure.exhaustion import halves_of, is_out_of_memory
from lsf.measure.gradients import example_gradients, example_losses, position_losses, untapped, view_of
from lsf.measure.loading import LoadedModel
from lsf.measure.taps import Tap, pair_products, taps
from lsf.reporting import Reporter

KERNELS = "tangent kernels"
"""The phase, by the words it is told in."""
KERNEL_TOKENS = 16_384
"""Tokens of the examples together, padded, at most; one backward pass holds what all of them need."""
ROW_BYTES = 2 * 1024**3
"""Of gradients that are kept example by example (of expert tensors, say), at most."""


def sampled_kernels(
    loaded: LoadedModel, rows: Sequence[EncodedExample], settings: AnalysisSettings, report: Reporter
) -> Float[np.ndarray, "blocks examples examples"] | None:
    """Return the tangent kernels of the first `KERNEL_EXAMPLES` examples, or of as many of them as fit.

    Returns:
        K_b, examples in the order of the data; None where a stop is asked for or where two examples' gradients of
        parameters that only a pass per example reaches take more than `ROW_BYTES`.
    """
    rows = rows[:KERNEL_EXAMPLES]
    kept = 4 * sum(tensor.numel() for block in loaded.anatomy.blocks for tensor in untapped(block))
    if kept > ROW_BYTES // 2:
        return None
    if kept:
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
    anatomy = view_of(loaded)
    products: list[tuple[int, Tensor]] = []

    def use(tap: Tap) -> None:
        products.append((tap.block, pair_products(tap)))

    with torch.enable_grad():
        with taps(anatomy, (batch.ids.shape[0], batch.ids.shape[1]), use):
            losses = position_losses(anatomy, batch)
            example_losses(losses, batch).sum().backward()
        leftovers = [untapped(block) for block in anatomy.blocks]
        if any(leftovers):
            for tensor in (tensor for block in leftovers for tensor in block):
                tensor.requires_grad_(True)
            rows = [example_gradients(anatomy, batch, row, leftovers) for row in range(len(batch.ids))]
            for block in range(len(leftovers)):
                if leftovers[block]:
                    stacked = exact(torch.stack([row[block] for row in rows]))
                    products.append((block, stacked @ stacked.T))
    kernels = np.zeros((len(anatomy.blocks), len(batch.ids), len(batch.ids)))
    for (block, _), product in zip(products, fetched(*(product for _, product in products)), strict=True):
        kernels[block] += product
    report.progress(1, 1, KERNELS)
    _, first = np.unique(batch.host_rows, return_index=True)
    order = np.argsort(batch.examples[first])
    return kernels[:, order][:, :, order]
