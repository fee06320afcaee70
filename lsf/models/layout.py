"""A family bound to one loaded model: its blocks, its readings of a state, its logits; and the self-check."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsf.errors import ModelError, SelfCheckError
from lsf.models.devices import input_device, weight_of
from lsf.models.families import Family

SELF_CHECK_TOLERANCE = 1e-3
"""Largest difference of logits accepted in float32, as a share of the largest one where that is above 1."""
LOUD = 1000.0
"""Largest product of state and head in the row of the self-check that soft-caps show in: every known cap is below."""


@dataclass(frozen=True)
class ModelLayout:
    """Where things are in one model; reads states without changing the model."""

    family: Family
    """Row of the families table."""
    model: Any
    """The causal LM (PreTrainedModel) it was resolved in."""
    blocks: tuple[nn.Module, ...]
    """Transformer blocks 0 .. L-1."""
    block_names: tuple[str, ...]
    """Their dotted names, such as `model.layers.0`."""
    embedding_name: str
    """Dotted name of the input embedding."""
    final_norm_name: str | None
    """Dotted name of the final norm; None where the model has none."""
    head_name: str
    """Dotted name of the LM head."""

    @property
    def config(self) -> Any:
        """The text decoder's configuration."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def head_weight(self) -> Float[Tensor, "vocab head_width"]:
        """W, the LM head's weight; fetched where the model is offloaded."""
        return weight_of(self.model.get_submodule(self.head_name))

    def block_parameters(self, block: int) -> dict[str, nn.Parameter]:
        """Return one block's parameters by their full dotted names."""
        prefix = self.block_names[block]
        return {f"{prefix}.{name}": parameter for name, parameter in self.blocks[block].named_parameters()}

    def read(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch head_width"]:
        """Read a state as the head would: final norm, then the projection to the head's width where there is one."""
        if self.final_norm_name is not None:
            state = self.model.get_submodule(self.final_norm_name)(state)
        return self._through(self.family.project_out, state)

    def embed(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Return embedding rows as the model puts them into state space, without positional embedding."""
        rows = self.model.get_submodule(self.embedding_name)(ids) * self.family.embedding_scale(self.config)
        return self._through(self.family.project_in, self._through(self.family.embedding_norm, rows))

    def logits(self, reading: Float[Tensor, "*batch head_width"]) -> Float[Tensor, "*batch vocab"]:
        """Apply everything the family's head does to a reading: product, bias, scale, soft-cap."""
        return self.family.finish_logits(self.config, self.model.get_submodule(self.head_name)(reading))

    def _through(self, name: str | None, value: Tensor) -> Tensor:
        module = find_module(self.model, name)
        return value if module is None else module(value)


def find_module(model: nn.Module, name: str | None) -> nn.Module | None:
    """Return a submodule by dotted name, or None where the model has none of that name."""
    module: Any = model
    for part in name.split(".") if name else ():
        module = getattr(module, part, None)
    return module if name else None


def resolve(model: Any, family: Family) -> ModelLayout:
    """Find the family's modules in a model.

    Raises:
        ModelError: a module the table names is not there (then the table does not fit this model).
    """
    blocks = find_module(model, family.blocks)
    for name, module in (
        (family.blocks, blocks),
        *((n, find_module(model, n)) for n in (family.embedding, family.head)),
    ):
        if module is None:
            raise ModelError(f"{type(model).__name__} has no module {name}; it is not the {family.name} supported.")
    assert isinstance(blocks, nn.ModuleList)
    norm = find_module(model, family.final_norm)
    return ModelLayout(
        family=family,
        model=model,
        blocks=tuple(blocks),
        block_names=tuple(f"{family.blocks}.{index}" for index in range(len(blocks))),
        embedding_name=family.embedding,
        final_norm_name=None if norm is None else family.final_norm,
        head_name=family.head,
    )


@contextmanager
def captured_states(layout: ModelLayout, take: Any) -> Iterator[list[Tensor]]:
    """Collect `take(state)` for states 0 .. L of the forward pass inside the `with`; hooks are always removed.

    Args:
        layout: the model.
        take: what to keep of a state of shape (batch, tokens, width), so that the rest is freed at once.

    Yields:
        A list that holds the L+1 kept tensors once the forward pass is done; clear it before the next one.
    """
    states: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(take(args[0] if args else kwargs["hidden_states"]))

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        states.append(take(output if isinstance(output, Tensor) else output[0]))

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in layout.blocks]
    handles.append(layout.blocks[-1].register_forward_hook(after))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def handing_on(output: Any) -> Callable[[Tensor], Any]:
    """Return how a block of this family hands on a state: bare, or first in a tuple with nothing else in it.

    Args:
        output: of one of its blocks.
    """
    if isinstance(output, Tensor):
        return lambda state: state
    rest = tuple(None for _ in output[1:])
    return lambda state: (state, *rest)


@contextmanager
def without_hooks(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let no hook on the forward passes of these modules of the caller's own act inside the `with`."""
    resting = [(module._forward_pre_hooks, module._forward_hooks) for module in modules]
    try:
        for module in modules:
            module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
        yield
    finally:
        for module, (before, after) in zip(modules, resting, strict=True):
            module._forward_pre_hooks, module._forward_hooks = before, after


@contextmanager
def standing_in(
    blocks: Sequence[nn.Module], hand_on: Callable[[Tensor], Any], give: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Let the first blocks do nothing inside the `with` but that the last of them hands on a given state.

    Hooks on these blocks rest meanwhile: what they add is part of the state that is given.

    Args:
        blocks: blocks 0 .. b of a model of the caller's own, at least one.
        hand_on: of `handing_on`.
        give: state that would enter block b (only its shape and place mean anything) -> the state that leaves it.
    """

    def through(*args: Any, **kwargs: Any) -> Any:
        return hand_on(args[0] if args else kwargs["hidden_states"])

    def last(*args: Any, **kwargs: Any) -> Any:
        return hand_on(give(args[0] if args else kwargs["hidden_states"]))

    try:
        for block, stand_in in zip(blocks, [through] * (len(blocks) - 1) + [last], strict=True):
            block.forward = stand_in
        with without_hooks(blocks):
            yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


@contextmanager
def _loud_second_row(layout: ModelLayout) -> Iterator[None]:
    """Scale the head's product for the second row of every batch by one factor, so that its largest becomes `LOUD`.

    What a head does after its product (soft-caps) leaves small logits as they are; large ones tell whether it was done.
    """
    factors: list[Tensor] = []

    def scale(_module: nn.Module, _args: tuple[Any, ...], product: Tensor) -> Tensor:
        if not factors:
            factors.append(LOUD / product[1].abs().max())
        return torch.stack([product[0], product[1] * factors[0]])

    handle = layout.model.get_submodule(layout.head_name).register_forward_hook(scale)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def self_check(layout: ModelLayout) -> float:
    """Compare the reading of state L times the head with the model's own logits on two rows of fixed tokens.

    This is what makes a new architecture safe: a table entry that misses a norm, a scale, a bias, a soft-cap or a block
    is refused before any number is shown. Both readings make the same operations in the same dtype, so that they
    agree to the last bit where nothing is missing; the tolerance is for devices that order sums as they like.

    Returns:
        The largest absolute difference of logits.

    Raises:
        SelfCheckError: it exceeds `SELF_CHECK_TOLERANCE` (below float32: the dtype's epsilon) times the row's largest
            logit, or times 1 where that is smaller; the model gives NaN; or a forward pass does not run each block
            exactly once.
    """
    device = input_device(layout.model)
    vocabulary = layout.model.get_submodule(layout.embedding_name).weight.shape[0]
    ids = (torch.arange(2 * 7, device=device).reshape(2, 7) * 7919 + 11) % vocabulary
    with _loud_second_row(layout), captured_states(layout, lambda state: state) as states:
        own = layout.model(input_ids=ids, use_cache=False).logits.float()
        ours = layout.logits(layout.read(states[-1])).float().to(own.device)
    name = f"{type(layout.model).__name__} ({layout.family.name})"
    if len(states) != len(layout.blocks) + 1:
        raise SelfCheckError(
            f"{name} gave {len(states)} states in one forward pass where its {len(layout.blocks)} blocks should give "
            f"{len(layout.blocks) + 1}; its states cannot be read."
        )
    if not own.isfinite().all():
        raise SelfCheckError(f"{name} gives NaN or infinite logits; try float32, or download its weights again.")
    accuracy = max(SELF_CHECK_TOLERANCE, torch.finfo(layout.model.dtype).eps)
    differences = (ours - own).abs().amax(dim=(1, 2)).tolist()
    largest = own.abs().amax(dim=(1, 2)).clamp(min=1.0).tolist()
    for difference, size in zip(differences, largest, strict=True):
        if not difference <= accuracy * size:
            raise SelfCheckError(
                f"{name} fails the self-check: our reading of its last state gives logits that differ from its own by "
                f"{difference:.3g} (at most {accuracy * size:.3g}); this variant is not supported."
            )
    return max(differences)
