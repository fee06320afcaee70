"""The frozen prefix, computed once per example: stand-ins for the blocks below the lowest tuned one.

Nothing of a family's masks, positions or rotary code is touched: the model runs as ever, embeds, makes its masks, and
calls its blocks; the blocks below `depth` hand on what they are given, and the last of them hands on the states that
were kept when it really ran on the same example. They are exact: nothing below depends on what is tuned, and no dropout
is used anywhere.

Rows are computed in groups that depend on the rows alone (neighbours by length), never on the batches of a run: a run
that finds the states there, one that makes them, and one that is resumed have the same bits. Only where memory does not
suffice for a group, its halves are computed by themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsf.data.encode import EncodedExample
from lsf.jobs.phases import phase
from lsf.measure.exhaustion import in_halves
from lsf.training.batches import autocasting, collate_numbered, score_tokens
from lsf.training.processes import n_processes
from lsf.training.states import States

GROUP = 16
"""Rows computed together."""


class _Enough(Exception):
    """The prefix has run; what lies above it is not wanted."""


class Prefix:
    """Blocks 0 .. depth-1 of one tuned model, and the states that leave them."""

    def __init__(
        self,
        model: Any,
        blocks: Sequence[nn.Module],
        rows: Sequence[EncodedExample],
        base_dtype: str,
        states: States,
        shallower: States | None = None,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Take a model of the run's own; it works as ever outside of `serving`.

        Args:
            model: the tuned model.
            blocks: all its blocks, in order.
            rows: training rows, or held-out ones.
            base_dtype: of the base model.
            states: kept at the run's depth.
            shallower: kept by an earlier run at a smaller depth; used where `states` lacks a row.
            groups: row numbers that are computed together; None: `groups_of` their lengths.
        """
        self.states, self.shallower = states, shallower
        self._model, self._blocks, self._rows, self._dtype = model, blocks, rows, base_dtype
        self._groups = groups_of([len(row.ids) for row in rows]) if groups is None else groups
        self._group_of = {number: place for place, group in enumerate(self._groups) for number in group}
        self._form: Callable[[Tensor], Any] | None = None
        self.served = self.computed = 0
        self.given_up: str | None = None
        """Why the states are not kept any more: the whole model runs on every batch; None while they are."""
        self.found = max(kept.n_known for kept in (states, shallower) if kept is not None)

    @contextmanager
    def serving(self, batch: dict[str, Any]) -> Iterator[None]:
        """Inside the `with`, a forward pass of this batch starts above the prefix.

        Args:
            batch: of `collate_numbered`.
        """
        numbers: list[int] = batch["numbers"]
        self.fill(numbers)
        if self.given_up is not None:
            yield
            return
        self.served += len(numbers)
        with self._standing_in(self.states, numbers, batch):
            yield

    def fill(self, numbers: Iterable[int]) -> None:
        """Compute and keep what is not known of these rows and of those grouped with them."""
        if self.given_up is not None:
            return
        wanted = {self._group_of[number] for number in numbers if not self.states.has([number])}
        if self._form is None and not wanted:
            self._run(self._groups[0][:1], keep=False)
        with phase("prefix"):
            for place in sorted(wanted):
                in_halves(self._groups[place], partial(self._run, keep=True))
                if self.given_up is not None:
                    return

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(self._groups)

    def fill_groups(self, places: Iterable[int]) -> None:
        """Compute and keep the groups with these numbers."""
        for place in places:
            self.fill(self._groups[place])

    @torch.no_grad()
    def _run(self, numbers: Sequence[int], keep: bool) -> None:
        """Run the prefix on these rows together, and learn the form in which this family's blocks hand on a state."""

        def take(_module: nn.Module, _args: Any, output: Any) -> None:
            self._form = _form(output)
            if keep:
                states = (output if isinstance(output, Tensor) else output[0]).cpu()
                self._keep(numbers, states)
            raise _Enough

        batch = collate_numbered([(number, self._rows[number]) for number in numbers])
        below = self.shallower
        with ExitStack() as stack:
            if keep and below is not None and self._form is not None and below.has(numbers):
                stack.enter_context(self._standing_in(below, numbers, batch))
            handle = self._blocks[self.states.depth - 1].register_forward_hook(take)
            stack.callback(handle.remove)
            stack.enter_context(suppress(_Enough))
            stack.enter_context(autocasting(self._model, self._dtype))
            score_tokens(self._model, batch)
        self.computed += len(numbers) if keep else 0

    def _keep(self, numbers: Sequence[int], states: Tensor) -> None:
        """Keep what was computed; where the disk filled up since there was room, go on without keeping anything."""
        try:
            for row, number in enumerate(numbers):
                self.states.put(number, states[row, : self.states.lengths[number]])
        except OSError as error:
            if n_processes() > 1:  # they share the files, and must run the blocks together
                raise
            self.states.discard()
            self.given_up = f"The disk did not take the states: {error.strerror or error}."

    @contextmanager
    def _standing_in(self, states: States, numbers: Sequence[int], batch: dict[str, Any]) -> Iterator[None]:
        """Let the blocks below `states.depth` hand on what is known."""
        form = self._form
        assert form is not None

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


def groups_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return row numbers in groups of `GROUP` neighbours by length; the same rows always give the same groups."""
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    return [order[start : start + GROUP] for start in range(0, len(order), GROUP)]


def padded(
    states: States, numbers: Sequence[int], width: int, device: torch.device
) -> Float[Tensor, "examples tokens width"]:
    """Return the states of a batch, zeros behind each example's end: no causal block looks there."""
    parts = [states.get(number) for number in numbers]
    whole = torch.zeros(len(parts), width, parts[0].shape[1], dtype=parts[0].dtype)
    for row, part in enumerate(parts):
        whole[row, : len(part)] = part
    return whole.to(device)  # waited for: the memory it is copied from is gone with `whole`


def _form(output: Any) -> Callable[[Tensor], Any]:
    """Return how a block of this family hands on a state: bare, or first in a tuple with nothing else in it."""
    if isinstance(output, Tensor):
        return lambda state: state
    rest = tuple(None for _ in output[1:])
    return lambda state: (state, *rest)
