"""One backward pass: the gradient of the mean loss over the probed positions, per tensor of every block."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from lsf.analysis.measurements import BlockGradient
from lsf.measure.anatomy import resolve
from lsf.measure.batches import Batch
from lsf.measure.loading import LoadedModel
from lsf.measure.sharing import share_model
from lsf.reporting import Reporter


def block_gradients(
    loaded: LoadedModel, batches: Sequence[Batch], report: Reporter
) -> tuple[BlockGradient, ...] | None:
    """Accumulate the gradient of the mean cross-entropy at the probed positions over all batches.

    The loaded model is not touched: gradients live on a second model that shares its memory. Needs memory for one
    gradient per block parameter, and the activations of one batch.

    Returns:
        Per block, gradient norms and weight norms of its tensors; None where a stop was asked for.
    """
    anatomy = resolve(share_model(loaded.model), loaded.anatomy.family)
    tensors = [list(block.parameters()) for block in anatomy.blocks]
    for block in tensors:
        for tensor in block:
            tensor.requires_grad_(True)
    n_positions = sum(len(batch.targets) for batch in batches)
    with torch.enable_grad():
        for done, batch in enumerate(batches, 1):
            if report.stop:
                return None
            hidden = anatomy.model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
            logits = anatomy.logits(hidden[batch.rows, batch.places]).float()
            (cross_entropy(logits, batch.targets, reduction="sum") / n_positions).backward()
            report.progress(done, len(batches), "gradients")
    return tuple(
        BlockGradient(
            gradient_norms=tuple(0.0 if t.grad is None else t.grad.float().norm().item() for t in block),
            weight_norms=tuple(t.detach().float().norm().item() for t in block),
        )
        for block in tensors
    )
