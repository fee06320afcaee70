"""What a method is prepared from, and which tensors and modules of a loaded model a plan stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from lsf.data.encode import EncodedExample
from lsf.errors import BadInputError, PlanError
from lsf.methods.catalogue import check_base
from lsf.plans.plan import Plan
from lsf.progress import Stop, do_nothing, never

EXPERTS = ("mlp",)
"""What the families table has as the MLP of a family whose blocks may hold experts."""
PLAIN_MLP = (".gate_proj", ".up_proj", ".down_proj")
"""Maps of a plain MLP; once names of experts too, for which peft still takes them."""


def planned_names(loaded: Any, plan: Plan) -> tuple[str, ...]:
    """Return the base model's parameter names a plan stands for, in the model's order.

    A full plan is every parameter, position embeddings included. A tied head is the input embedding.

    Args:
        loaded: the LoadedModel.
        plan: for a model of the same number of blocks.

    Raises:
        PlanError: the plan was made for another number of blocks, or names a module the model does not have, or one
            without parameters.
    """
    layout = loaded.layout
    _check_blocks(loaded, plan)
    parameters = dict(loaded.model.named_parameters())
    if plan.is_full:
        return tuple(parameters)
    modules = [layout.block_names[block] for block in plan.blocks]
    for wanted, name, words in (
        (plan.embedding, layout.embedding_name, "input embedding"),
        (plan.final_norm, layout.final_norm_name, "final norm"),
        (plan.head, layout.head_name, "head"),
    ):
        if wanted and name is None:
            raise PlanError(f"The plan tunes the {words}, which {loaded.info.name} does not have.")
        if wanted:
            modules.append(name)
    modules += [_known_module(loaded, name) for name in plan.modules]
    chosen = {id(parameter) for name in modules for parameter in loaded.model.get_submodule(name).parameters()}
    return tuple(name for name, parameter in parameters.items() if id(parameter) in chosen)


def planned_blocks(loaded: Any, plan: Plan, method: str) -> tuple[str, ...]:
    """Return the dotted names of the planned blocks, for a method that acts on blocks alone.

    In full fine-tuning's plan, which is all blocks and whatever else there is, the rest stays as it is.

    Raises:
        PlanError: the plan was made for another number of blocks, names none, or names other modules beside some.
    """
    _check_blocks(loaded, plan)
    others = [name.replace("_", " ") for name in ("embedding", "final_norm", "head") if getattr(plan, name)]
    if plan.blocks and (others := [*others, *plan.modules]) and not plan.is_full:
        raise PlanError(
            f"The method {method} tunes blocks alone and the plan names {', '.join(others)} too; leave them out, or "
            "take a method that tunes them: full, bitfit, did, said."
        )
    if not plan.blocks:
        raise PlanError(
            f"The method {method} tunes blocks and the plan names none ({plan.label}); "
            f"name at least one block in 0 to {plan.n_blocks - 1}."
        )
    return tuple(loaded.layout.block_names[block] for block in plan.blocks)


def block_tensors(loaded: Any, plan: Plan, method: str) -> dict[str, nn.Parameter]:
    """Return the parameters of the planned blocks by name, in the model's order.

    Raises:
        PlanError: as `planned_blocks`.
        BadInputError: the base holds them in 4 or 8 bits.
    """
    check_base(method, loaded.info.dtype)
    blocks = tuple(f"{name}." for name in planned_blocks(loaded, plan, method))
    return {name: value for name, value in loaded.model.named_parameters() if name.startswith(blocks)}


def linear_names(loaded: Any, plan: Plan, method: str) -> tuple[str, ...]:
    """Return the dotted names of all linear maps of the planned blocks.

    Raises:
        PlanError: as `planned_blocks`.
        BadInputError: maps of a plain MLP in a model of experts: peft takes their names for those of the experts, and
            adapts these, in every block that has some.
    """
    names = tuple(
        f"{block}.{name}"
        for block in planned_blocks(loaded, plan, method)
        for name, module in loaded.model.get_submodule(block).named_modules()
        if is_linear(module)
    )
    if loaded.layout.family.mlp == EXPERTS and (mistaken := [name for name in names if name.endswith(PLAIN_MLP)]):
        raise BadInputError(
            f"The method {method} cannot adapt {mistaken[0]} of {loaded.info.name}: peft takes this name for the "
            "experts of other blocks and would adapt those. Plan blocks of experts alone, or take the method full or "
            "adapter."
        )
    return names


def is_linear(module: nn.Module) -> bool:
    """Say whether a module is a linear map with a weight matrix of its own (GPT-2's Conv1D is one)."""
    return isinstance(module, nn.Linear | Conv1D)


def sizes_of(linear: Any) -> tuple[int, int]:
    """Return how many inputs and outputs a linear map has, also where its weight is packed."""
    shape = linear.weight.shape
    return (shape[0], shape[1]) if isinstance(linear, Conv1D) else (linear.in_features, linear.out_features)


def split_name(name: str) -> tuple[str, str]:
    """Split a parameter's dotted name into its module's and its own: `a.b.weight` -> (`a.b`, `weight`)."""
    module, _, leaf = name.rpartition(".")
    return module, leaf


def _known_module(loaded: Any, name: str) -> str:
    known = {own for own, module in loaded.model.named_modules() if own and any(True for _ in module.parameters())}
    if name not in known:
        some = sorted(known, key=lambda own: (own.count("."), own))[:8]
        raise PlanError(
            f"The plan tunes the module {name!r}, which {loaded.info.name} does not have or which holds no parameters; "
            f"names are such as {', '.join(some)}."
        )
    return name


def _check_blocks(loaded: Any, plan: Plan) -> None:
    n_blocks = len(loaded.layout.blocks)
    if plan.n_blocks != n_blocks:
        raise PlanError(
            f"The plan was made for {plan.model} with {plan.n_blocks} blocks; {loaded.info.name} has {n_blocks}."
        )


@dataclass(frozen=True)
class MethodContext:
    """Everything a method is prepared from; the same context prepares the same frozen structure."""

    options: Any = None
    """The method's options record; None only for a method that has none."""
    rows: tuple[EncodedExample, ...] = ()
    """Training rows, end-of-text appended; empty where there are none."""
    seed: int = 0
    """Of every random choice of the method."""
    batch_size: int = 16
    """Examples per step, where the method takes steps of its own."""
    base_dtype: str = "float32"
    """Of the base model."""
    micro_batch: int | None = None
    """Examples per forward pass of such steps; None: the whole batch at once."""
    activation_checkpointing: str = "off"
    """off or non_reentrant: whether such steps compute activations again instead of keeping them."""
    folder: Path | None = None
    """Where what was costly to find is kept for a resumed run; None: nowhere."""
    stop: Callable[[], Stop | None] = never
    """How the run is asked to stop, if it is."""
    check: Callable[[], None] = do_nothing
    """Raises where the run is to end."""
    first_tuning: "Callable[[Any, Any, Plan, float, int, MethodContext], None] | None" = None
    """(LoadedModel, model, plan, rate, steps, context) -> None: tunes the model in place, by the training loop
    (`lsf.training.short_runs.first_tuning`); None where no method needs it, as where a stored mask is restored."""
    keep_draws: bool = False
    """Whether what a projection draws stays in memory: faster, and no longer small (lsf.dimension.search)."""
