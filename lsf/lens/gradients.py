"""Backward passes: gradients of the mean loss per tensor, empirical Fisher, one trial step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsf.criteria.scores import BlockGradient
from lsf.lens.forward import position_losses
from lsf.lens.kernels import GradientHook, example_gradients, gradient_hooks, squared_norms, unhooked, view_of
from lsf.models.batches import Batch, halves_of
from lsf.models.devices import exact, fetched, free_bytes, is_out_of_memory
from lsf.models.layout import ModelLayout
from lsf.models.loading import LoadedModel
from lsf.progress import Reporter

GRADIENTS, TRIAL = "gradients", "trial step"
"""Phases, by the words they are told in."""
TRIAL_RATE = 1e-4
"""Learning rate of the trial AdamW step behind `first_order_drop`: small, since the score is of first order."""
ADAM_EPSILON = 1e-8
"""torch.optim.AdamW's own."""

GRADIENT_SHARE = 0.25
"""Share of the free memory that gradients kept over several batches may take; activations need the rest."""


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
    """Read the gradient of the mean cross-entropy at the probed positions over all batches, block by block.

    The loaded model is not touched: the passes run on a second model that shares its memory. A tensor's gradient is
    taken as soon as backward has it, added up in float32 and let go with the last batch. Of several batches, sums of as
    many blocks are kept at a time as fit in `GRADIENT_SHARE` of the free memory, one block at least, with one pass over
    the batches for each such group; a single batch needs one tensor's gradient at a time. Whatever the groups are, the
    numbers have the same bits. A trial step takes one pass over all blocks, and a copy and a float32 step of them.

    Args:
        loaded: the model.
        batches: from `make_batches`.
        report: progress and stop.
        fisher: also collect squared per-example gradients, in the same pass.
        trial_step: also take one AdamW step and a second pass.

    Returns:
        What was recorded, or None where a stop was asked for.

    Raises:
        OutOfMemoryError: a single example does not fit.
    """
    layout = view_of(loaded, own=trial_step)
    squared = np.zeros(len(layout.blocks)) if fisher else None
    norms: dict[Tensor, Tensor] = {}
    steps: dict[Tensor, Tensor] = {}

    def use(parameter: Tensor, gradient: Tensor) -> None:
        norms[parameter] = length(gradient)
        if trial_step:
            steps[parameter] = _first_step_(gradient)

    room = None if trial_step else GRADIENT_SHARE * free_bytes(loaded.device)
    batches = _read(layout, batches, report, lambda: _Sums(use), room, squared)
    if not batches:
        return None
    gradients = _block_gradients(layout, norms)
    drop = None
    if trial_step:
        drop = _drop_after(layout, steps, batches, report)
        if drop is None:
            return None
    if squared is not None:
        n_examples = len(np.unique(np.concatenate([batch.examples for batch in batches])))
        squared /= n_examples * np.array([sum(p.numel() for p in block.parameters()) for block in layout.blocks])
    return BackwardReadings(gradients, squared, drop)


def trainable_view(loaded: LoadedModel) -> ModelLayout:
    """Return a view of the model whose block parameters take gradients."""
    layout = view_of(loaded)
    for block in layout.blocks:
        block.requires_grad_(True)
    return layout


class _Sums:
    """Adds every tensor's gradient up over the batches, in float32, and hands a sum on once it is whole."""

    def __init__(self, use: Callable[[Tensor, Tensor], None]) -> None:
        self._use, self._parts = use, dict[Tensor, Tensor]()

    def take(self, parameter: Tensor, gradient: Tensor, last: bool) -> None:
        """Take one batch's gradient of one tensor; it may be changed."""
        part = self._parts.pop(parameter, None)
        total = gradient.float() if part is None else part.add_(gradient)
        if last:
            self._use(parameter, total)
        else:
            self._parts[parameter] = total

    def end(self) -> None:
        """Hand on the sums of tensors that the last batch did not reach."""
        while self._parts:
            self._use(*self._parts.popitem())


def _read(
    layout: ModelLayout,
    batches: Sequence[Batch],
    report: Reporter,
    sums: Callable[[], Any],
    room: float | None,
    squared: Float[np.ndarray, " blocks"] | None = None,
) -> list[Batch]:
    """Go through the batches once per group of blocks; return them as they fitted, or none where a stop was asked for.

    Where memory does not suffice, what was added of the group is dropped (a broken pass leaves a part of its gradient
    behind) and it is done again in batches of half the size.

    Args:
        layout: a view of the model.
        batches: from `make_batches`.
        report: progress and stop.
        sums: makes what takes the gradients of a group's tensors, such as `_Sums`.
        room: bytes that the sums of a group may take; None: all blocks are one group.
        squared: gets the squared per-example gradients.
    """
    batches, groups, begun = list(batches), list[range](), 0
    while begun < len(layout.blocks):
        ahead = _groups(layout, begun, room if len(batches) > 1 else None)
        try:
            if not _pass(layout, ahead[0], batches, report, sums(), squared, (len(groups), len(ahead))):
                return []
            groups.append(ahead[0])
            begun = ahead[0].stop
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        largest = max(len(batch.ids) for batch in batches)
        batches = [half for batch in batches for half in (halves_of(batch) if len(batch.ids) == largest else (batch,))]
        if squared is not None:
            squared[begun:] = 0.0
    return batches


def _groups(layout: ModelLayout, begun: int, room: float | None) -> list[range]:
    """Return the blocks from `begun` on in groups whose float32 gradients fit into the room, or of one block."""
    starts, held = [begun], 0
    for block in range(begun, len(layout.blocks)):
        size = 4 * sum(parameter.numel() for parameter in layout.blocks[block].parameters())
        if room is not None and block > starts[-1] and held + size > room:
            starts.append(block)
            held = 0
        held += size
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(layout.blocks)], strict=True)]


@contextmanager
def _taken(parameters: Sequence[Tensor], take: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Let tensors have gradients inside the `with`, and hand on and let go of each as soon as backward has it."""

    def hand_on(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        take(parameter, gradient)

    handles = [parameter.requires_grad_(True).register_post_accumulate_grad_hook(hand_on) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, handle in zip(parameters, handles, strict=True):
            handle.remove()
            parameter.requires_grad_(False).grad = None


def _pass(
    layout: ModelLayout,
    group: range,
    batches: Sequence[Batch],
    report: Reporter,
    sums: Any,
    squared: Float[np.ndarray, " blocks"] | None,
    groups: tuple[int, int],
) -> bool:
    """Read the gradients of one group of blocks; `groups` are those done and those to go. False at a stop."""
    n_positions = sum(len(batch.targets) for batch in batches)
    scale = _scale_of(layout, n_positions)
    weight = n_positions / scale
    leftovers = [unhooked(block) if number in group else [] for number, block in enumerate(layout.blocks)]
    wanted = [parameter for number in group for parameter in layout.blocks[number].parameters()]
    last = False

    def take(parameter: Tensor, gradient: Tensor) -> None:
        sums.take(parameter, gradient if scale == 1.0 else gradient.float().div_(scale), last)

    with torch.enable_grad(), _taken(wanted, take):
        for done, batch in enumerate(batches, 1):
            if report.stop:
                return False
            last = done == len(batches)
            if squared is None:
                (position_losses(layout, batch).sum() / weight).backward()
            else:
                _with_squares(layout, group, batch, weight, squared, leftovers)
            report.progress(groups[0] * len(batches) + done, sum(groups) * len(batches), GRADIENTS)
    sums.end()
    return True


def _scale_of(layout: ModelLayout, n_positions: int) -> float:
    """Return what the mean loss is multiplied by on its way back, a power of two that is taken out in float32.

    In float16 the part of one of very many positions would be rounded to 0; elsewhere it is 1.
    """
    half = any(parameter.dtype is torch.float16 for parameter in layout.blocks[0].parameters())
    return 2.0 ** (n_positions.bit_length() - 1) if half else 1.0


def _with_squares(
    layout: ModelLayout,
    group: range,
    batch: Batch,
    weight: float,
    squared: Float[np.ndarray, " blocks"],
    leftovers: list[list[Tensor]],
) -> None:
    """Run a batch backward, and add its squared per-example gradients in the group of blocks to `squared`."""
    # The pass carries d(sum of losses) / weight; an example's own loss is a mean over its m positions.
    rescale = (weight / batch.n_positions_of) ** 2
    found: list[tuple[int, Tensor]] = []

    def use(hook: GradientHook) -> None:
        found.append((hook.block, (squared_norms(hook) * rescale).sum(dim=0, keepdim=True)))

    with gradient_hooks(layout, (batch.ids.shape[0], batch.ids.shape[1]), use, group):
        (position_losses(layout, batch).sum() / weight).backward()
    if any(leftovers):
        for row in range(len(batch.ids)):
            for block, gradient in enumerate(example_gradients(layout, batch, row, leftovers)):
                found.append((block, (gradient**2).sum(dim=0, keepdim=True)))
    for (block, _), (value,) in zip(found, fetched(*(value for _, value in found)), strict=True):
        squared[block] += value


def length(tensor: Tensor) -> Tensor:
    """Return the Euclidean norm of a float32 tensor, a row at a time.

    On a CPU the running sums of one norm over all entries lose what is small beside them: 0.4 % at 50 million entries,
    7 % at 400 million (a stack of experts).
    """
    return exact(tensor.norm(dim=-1)).norm()


def _block_gradients(layout: ModelLayout, norms: Mapping[Tensor, Tensor]) -> tuple[BlockGradient, ...]:
    """Return every tensor's norms by block, brought over together."""
    blocks = [list(block.parameters()) for block in layout.blocks]
    tensors = [tensor for block in blocks for tensor in block]
    weights = [length(tensor.detach().float()) for tensor in tensors]
    known = [norms.get(tensor, torch.zeros_like(weight)) for tensor, weight in zip(tensors, weights, strict=True)]
    pairs = iter(torch.stack([torch.stack(known), torch.stack(weights)], dim=1).tolist())
    read = [[next(pairs) for _ in block] for block in blocks]
    return tuple(BlockGradient(tuple(g for g, _ in block), tuple(w for _, w in block)) for block in read)


class _Promise:
    """Adds up -sum(g1 . dw) per block: it is linear in g1, so that no gradient is kept."""

    def __init__(self, layout: ModelLayout, steps: Mapping[Tensor, Tensor]) -> None:
        self._steps = steps
        self._blocks: Mapping[Tensor, int] = {
            tensor: number for number, block in enumerate(layout.blocks) for tensor in block.parameters()
        }
        self.drops = exact(torch.zeros(len(layout.blocks), device=layout.head_weight.device))

    def take(self, parameter: Tensor, gradient: Tensor, last: bool) -> None:
        """Take one batch's gradient of one tensor."""
        if parameter in self._steps:
            products = (gradient.float() * self._steps[parameter]).sum(dim=-1)  # of a tensor's rows
            self.drops[self._blocks[parameter]] -= exact(products).sum()

    def end(self) -> None:
        """Nothing is kept."""


def _drop_after(
    layout: ModelLayout, steps: Mapping[Tensor, Tensor], batches: Sequence[Batch], report: Reporter
) -> Float[np.ndarray, " blocks"] | None:
    """Take AdamW's first step without decay, which is the rate times g / (|g| + eps), and read the gradient after it.

    The step is counted in float32: of a bfloat16 model most weights would not move by so little.
    """
    with torch.no_grad():
        for parameter, step in steps.items():
            parameter.copy_(parameter.float() + step)
    report.phase(TRIAL)
    tried: list[_Promise] = []

    def anew() -> _Promise:
        tried.append(_Promise(layout, steps))
        return tried[-1]

    report.phase(TRIAL)
    return np.array(tried[-1].drops.tolist()) if _read(layout, batches, report, anew, None) else None


def _first_step_(gradient: Tensor) -> Tensor:
    """Turn a gradient into the trial step, in its own memory."""
    return gradient.div_(gradient.abs().add_(ADAM_EPSILON)).mul_(-TRIAL_RATE)
