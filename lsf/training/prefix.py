"""The frozen prefix, computed once per example: stand-ins for the blocks below the lowest tuned one.

Nothing of a family's masks, positions or rotary code is touched: the model runs as ever, embeds, makes its masks, and
calls its blocks; the blocks below `depth` hand on what they are given, and the last of them hands on the states that
were kept when it really ran on the same example. They are exact: nothing below depends on what is tuned, and no dropout
is used anywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsf.data.encode import EncodedExample
from lsf.training.batches import collate_numbered, score_tokens
from lsf.training.states import States


class _Enough(Exception):
    """The prefix has run; what lies above it is not wanted."""


class Prefix:
    """Blocks 0 .. depth-1 of one tuned model, and the states that leave them."""

    def __init__(self, blocks: Sequence[nn.Module], states: States, shallower: States | None = None) -> None:
        """Take the blocks of a model of the run's own; they work as ever outside of `serving`.

        Args:
            blocks: all blocks of the tuned model, in order.
            states: kept at the run's depth.
            shallower: kept by an earlier run at a smaller depth; used where `states` lacks an example.
        """
        self.states, self.shallower = states, shallower
        self._blocks = blocks
        self._forms: dict[int, Callable[[Tensor], Any]] = {}
        self.served = self.computed = 0

    @contextmanager
    def serving(self, batch: dict[str, Any]) -> Iterator[None]:
        """Inside the `with`, a forward pass of this batch skips what is known and keeps what is not.

        Args:
            batch: of `collate_numbered`.
        """
        numbers: list[int] = batch["numbers"]
        depth = self.states.depth
        with ExitStack() as stack:
            if self._known(self.states, numbers):
                self.served += len(numbers)
                stack.enter_context(self._standing_in(self.states, numbers, batch))
            else:
                self.computed += len(numbers)
                stack.enter_context(self._recording(depth, numbers))
                if self.shallower is not None and self._known(self.shallower, numbers):
                    stack.enter_context(self._standing_in(self.shallower, numbers, batch))
                elif self.shallower is not None:
                    stack.enter_context(self._learning_form(self.shallower.depth))
            yield

    @torch.no_grad()
    def fill(self, model: Any, rows: Sequence[EncodedExample], numbers: Sequence[int], batch_size: int) -> None:
        """Compute and keep the states of these rows; nothing above the prefix runs.

        Args:
            model: the tuned model, called as in training.
            rows: all training rows.
            numbers: which of them.
            batch_size: rows per forward pass.
        """

        def enough(*_: Any) -> None:
            raise _Enough

        order = sorted(numbers, key=lambda number: len(rows[number].ids))
        for start in range(0, len(order), batch_size):
            batch = collate_numbered([(number, rows[number]) for number in order[start : start + batch_size]])
            with self.serving(batch), suppress(_Enough):
                handle = self._blocks[self.states.depth - 1].register_forward_hook(enough)
                try:
                    score_tokens(model, batch)
                finally:
                    handle.remove()

    def _known(self, states: States, numbers: Sequence[int]) -> bool:
        return states.depth - 1 in self._forms and states.has(numbers)

    @contextmanager
    def _recording(self, depth: int, numbers: Sequence[int]) -> Iterator[None]:
        """Keep what leaves block depth-1, and learn the form in which this family's blocks hand it on."""

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            self._forms[depth - 1] = _form(output)
            states = (output if isinstance(output, Tensor) else output[0]).detach()
            for row, number in enumerate(numbers):
                self.states.put(number, states[row, : self.states.lengths[number]].cpu())

        handle = self._blocks[depth - 1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _learning_form(self, depth: int) -> Iterator[None]:
        def learn(_module: nn.Module, _args: Any, output: Any) -> None:
            self._forms[depth - 1] = _form(output)

        handle = self._blocks[depth - 1].register_forward_hook(learn)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _standing_in(self, states: States, numbers: Sequence[int], batch: dict[str, Any]) -> Iterator[None]:
        """Let the blocks below `states.depth` hand on what is known."""
        form = self._forms[states.depth - 1]

        def pass_on(*args: Any, **kwargs: Any) -> Any:
            return form(args[0] if args else kwargs["hidden_states"])

        def give(*args: Any, **kwargs: Any) -> Any:
            like = args[0] if args else kwargs["hidden_states"]
            return form(padded(states, numbers, batch["attention_mask"].shape[1], like.device))

        stand_ins = [pass_on] * (states.depth - 1) + [give]
        blocks = self._blocks[: states.depth]
        try:
            for block, stand_in in zip(blocks, stand_ins, strict=True):
                block.forward = stand_in
            yield
        finally:
            for block in blocks:
                block.__dict__.pop("forward", None)


def padded(
    states: States, numbers: Sequence[int], width: int, device: torch.device
) -> Float[Tensor, "examples tokens width"]:
    """Return the states of a batch, zeros behind each example's end: no causal block looks there."""
    parts = [states.get(number) for number in numbers]
    whole = torch.zeros(len(parts), width, parts[0].shape[1], dtype=parts[0].dtype)
    for row, part in enumerate(parts):
        whole[row, : len(part)] = part
    return whole.to(device, non_blocking=True)


def _form(output: Any) -> Callable[[Tensor], Any]:
    """Return how a block of this family hands on a state: bare, or first in a tuple with nothing else in it."""
    if isinstance(output, Tensor):
        return lambda state: state
    rest = tuple(None for _ in output[1:])
    return lambda state: (state, *rest)
