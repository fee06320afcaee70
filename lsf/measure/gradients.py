"""Backward passes: gradients of the mean loss per tensor, empirical Fisher, one trial step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from lsf.analysis.measurements import BlockGradient
from lsf.measure.anatomy import Anatomy, resolve
from lsf.measure.batches import Batch
from lsf.measure.devices import exact, fetched
from lsf.measure.exhaustion import halves_of, is_out_of_memory
from lsf.measure.loading import LoadedModel
from lsf.measure.sharing import float_view
from lsf.measure.taps import Tap, squared_norms, tapped_parameters, taps
from lsf.reporting import Reporter

GRADIENTS, TRIAL = "gradients", "trial step"
"""Phases, by the words they are told in."""
TRIAL_RATE = 1e-4
"""Learning rate of the trial AdamW step behind `first_order_drop`: small, since the score is of first order."""
ADAM_EPSILON = 1e-8
"""torch.optim.AdamW's own."""


@dataclass(frozen=True)
class BackwardReadings:
    """What the backward passes recorded; None where it was not asked for."""

    gradients: tuple[BlockGradient, ...]
    """One per block."""
    fisher: Float[np.ndarray, " blocks"] | None
    """Mean over a block's parameters and the examples of the squared per-example gradient."""
    first_order_drop: Float[np.ndarray, " blocks"] | None
    """-sum(g1 . dw) per block."""


def backward_readings(
    loaded: LoadedModel, batches: Sequence[Batch], report: Reporter, fisher: bool = False, trial_step: bool = False
) -> BackwardReadings | None:
    """Accumulate the gradient of the mean cross-entropy at the probed positions over all batches.

    The loaded model is not touched: gradients live on a second model that shares its memory (with copies of the blocks
    where a trial step is asked for). Needs memory for one gradient per block parameter, and activations of one batch.

    Args:
        loaded: the model.
        batches: from `make_batches`.
        report: progress and stop.
        fisher: also collect squared per-example gradients, in the same pass.
        trial_step: also take one AdamW step and a second pass.

    Returns:
        What was recorded, or None where a stop was asked for.
    """
    anatomy = trainable_view(loaded, own=trial_step)
    squared = np.zeros(len(anatomy.blocks)) if fisher else None
    batches = _accumulate(anatomy, batches, report, squared)
    if not batches:
        return None
    gradients = _block_gradients(anatomy)
    drop = None
    if trial_step:
        drop = _trial_step(anatomy, batches, report)
        if drop is None:
            return None
    if squared is not None:
        n_examples = len(np.unique(np.concatenate([batch.examples for batch in batches])))
        squared /= n_examples * np.array([sum(p.numel() for p in block.parameters()) for block in anatomy.blocks])
    return BackwardReadings(gradients, squared, drop)


def trainable_view(loaded: LoadedModel, own: bool = False) -> Anatomy:
    """Return a view of the model whose block parameters take gradients, in float32; with `own` they are copies.

    What the base holds in 4 or 8 bits is dequantised in it: gradients are those at the values it stands for.
    """
    names = [name for block in range(len(loaded.anatomy.blocks)) for name in loaded.anatomy.block_parameters(block)]
    anatomy = resolve(float_view(loaded.model, own=names if own else ()), loaded.anatomy.family)
    for block in anatomy.blocks:
        for parameter in block.requires_grad_(True).parameters():
            parameter.grad_dtype = torch.float32  # whatever the model's: batches are added up in it
    return anatomy


def position_losses(anatomy: Anatomy, batch: Batch) -> Float[Tensor, " positions"]:
    """Return the cross-entropy at each position of a batch, with its graph."""
    hidden = anatomy.model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = anatomy.logits(hidden[batch.rows, batch.places]).float()
    return cross_entropy(logits, batch.targets, reduction="none")


def example_losses(losses: Float[Tensor, " positions"], batch: Batch) -> Float[Tensor, " examples"]:
    """Return each example's mean loss over its positions, in the batch's row order."""
    n = len(batch.ids)
    return torch.zeros(n, device=losses.device).index_add(0, batch.rows, losses) / batch.n_positions_of


def _accumulate(
    anatomy: Anatomy, batches: Sequence[Batch], report: Reporter, squared: Float[np.ndarray, " blocks"] | None
) -> list[Batch]:
    """Add up gradients over all batches; return the batches that fitted, or none where a stop was asked for.

    Where memory does not suffice, what was added is dropped (a broken pass leaves a part of its gradient behind) and
    everything is done again in batches of half the size.
    """
    batches = list(batches)
    while True:
        try:
            done = _accumulate_once(anatomy, batches, report, squared)
            return batches if done else []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        largest = max(len(batch.ids) for batch in batches)
        batches = [half for batch in batches for half in (halves_of(batch) if len(batch.ids) == largest else (batch,))]
        anatomy.model.zero_grad(set_to_none=True)
        if squared is not None:
            squared[:] = 0.0


def _accumulate_once(
    anatomy: Anatomy, batches: Sequence[Batch], report: Reporter, squared: Float[np.ndarray, " blocks"] | None
) -> bool:
    n_positions = sum(len(batch.targets) for batch in batches)
    leftovers = [untapped(block) for block in anatomy.blocks] if squared is not None else []
    with torch.enable_grad():
        for done, batch in enumerate(batches, 1):
            if report.stop:
                return False
            if squared is None:
                (position_losses(anatomy, batch).sum() / n_positions).backward()
            else:
                _with_squares(anatomy, batch, n_positions, squared, leftovers)
            report.progress(done, len(batches), GRADIENTS)
    return True


def _with_squares(
    anatomy: Anatomy,
    batch: Batch,
    n_positions: int,
    squared: Float[np.ndarray, " blocks"],
    leftovers: list[list[Tensor]],
) -> None:
    """Add a batch's gradient to `.grad`, and its squared per-example gradients to `squared`, in one backward pass."""
    # The pass carries d(sum of losses)/n_positions; an example's own loss is a mean over its m positions.
    rescale = (n_positions / batch.n_positions_of) ** 2
    found: list[tuple[int, Tensor]] = []

    def use(tap: Tap) -> None:
        found.append((tap.block, (squared_norms(tap) * rescale).sum(dim=0, keepdim=True)))

    with taps(anatomy, (batch.ids.shape[0], batch.ids.shape[1]), use):
        (position_losses(anatomy, batch).sum() / n_positions).backward()
    if any(leftovers):
        for row in range(len(batch.ids)):
            for block, gradient in enumerate(example_gradients(anatomy, batch, row, leftovers)):
                found.append((block, (gradient**2).sum(dim=0, keepdim=True)))
    for (block, _), (value,) in zip(found, fetched(*(value for _, value in found)), strict=True):
        squared[block] += value


def untapped(block: torch.nn.Module) -> list[Tensor]:
    """Return the parameters of a block whose per-example gradients no tap sees: neither of linear maps nor of norms."""
    tapped = tapped_parameters(block)
    return [parameter for parameter in block.parameters() if id(parameter) not in tapped]


def example_gradients(anatomy: Anatomy, batch: Batch, row: int, leftovers: list[list[Tensor]]) -> list[Tensor]:
    """Return one example's gradient of its own loss for the parameters that cannot be tapped, flat, per block.

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
    found = iter(torch.autograd.grad(position_losses(anatomy, alone).mean(), wanted, allow_unused=True))
    flat = []
    for block in leftovers:
        parts = [(torch.zeros_like(p) if g is None else g).flatten().float() for p, g in zip(block, found)]  # noqa: B905
        flat.append(torch.cat(parts) if parts else torch.zeros(0, device=batch.ids.device))
    return flat


def _block_gradients(anatomy: Anatomy) -> tuple[BlockGradient, ...]:
    """Return every tensor's norms by block, brought over together."""
    blocks = [list(block.parameters()) for block in anatomy.blocks]
    norms = [
        torch.stack(
            [
                value.detach().float().norm() if value is not None else p.new_zeros((), dtype=torch.float32)
                for value in (p.grad, p)
            ]
        )
        for block in blocks
        for p in block
    ]
    found = iter(fetched(*norms))
    pairs = [[next(found).tolist() for _ in block] for block in blocks]
    return tuple(BlockGradient(tuple(g for g, _ in block), tuple(w for _, w in block)) for block in pairs)


def _trial_step(anatomy: Anatomy, batches: Sequence[Batch], report: Reporter) -> Float[np.ndarray, " blocks"] | None:
    """Take AdamW's first step without decay, which is the rate times g / (|g| + eps), and read the gradient after it.

    The step is counted in float32: of a bfloat16 model most weights would not move by so little.
    """
    parameters = [list(block.parameters()) for block in anatomy.blocks]
    steps = [[None if p.grad is None else _first_step(p.grad) for p in block] for block in parameters]
    with torch.no_grad():
        for block, moves in zip(parameters, steps, strict=True):
            for parameter, move in zip(block, moves, strict=True):
                if move is not None:
                    parameter.copy_(parameter.float() + move)
    anatomy.model.zero_grad(set_to_none=True)
    report.phase(TRIAL)
    if not _accumulate(anatomy, batches, report, None):
        return None
    products = [  # of a tensor's rows; the rest of the sum is taken in float64 on the host
        (block, (exact(p.grad) * exact(move)).sum(dim=-1).reshape(-1))
        for block, moves in enumerate(steps)
        for p, move in zip(parameters[block], moves, strict=True)
        if p.grad is not None and move is not None
    ]
    drops = np.zeros(len(parameters))
    for (block, _), values in zip(products, fetched(*(values for _, values in products)), strict=True):
        drops[block] -= values.sum(dtype=np.float64)
    return drops


def _first_step(gradient: Tensor) -> Tensor:
    gradient = gradient.float()
    return -TRIAL_RATE * gradient / (gradient.abs() + ADAM_EPSILON)
