"""How the planned blocks are tuned: one record per method; the training loop knows none of them by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lsf.analysis.plan import Plan
from lsf.errors import PlanError
from lsf.measure.sharing import share_model
from lsf.registry import Registry


@dataclass(frozen=True)
class Method:
    """A way to tune; it composes with every plan."""

    name: str
    """Key in METHODS."""
    label: str
    """What a person reads."""
    meaning: str
    """One sentence."""
    unit: str
    """What is counted as tuned."""
    source: str
    """Where it comes from."""
    prepare: Callable[[Any, Plan], Any]
    """(LoadedModel, Plan) -> a model of its own over the same frozen tensors, in eval mode, whose parameters with
    `requires_grad` are exactly the tuned ones."""
    count: Callable[[Any, Plan], int]
    """(LoadedModel, Plan) -> parameters it should tune, counted on the base model."""


def planned_names(loaded: Any, plan: Plan) -> tuple[str, ...]:
    """Return the base model's parameter names a plan stands for, in the model's order.

    A full plan is every parameter, position embeddings included. A tied head is the input embedding.

    Args:
        loaded: the LoadedModel.
        plan: for a model of the same number of blocks.

    Raises:
        PlanError: the plan was made for another number of blocks, or names a module the model does not have.
    """
    anatomy = loaded.anatomy
    if plan.n_blocks != len(anatomy.blocks):
        raise PlanError(
            f"The plan was made for {plan.model} with {plan.n_blocks} blocks; "
            f"{loaded.info.name} has {len(anatomy.blocks)}."
        )
    parameters = dict(loaded.model.named_parameters())
    if plan.is_full:
        return tuple(parameters)
    modules = [anatomy.block_names[block] for block in plan.blocks]
    for wanted, name, words in (
        (plan.embedding, anatomy.embedding_name, "input embedding"),
        (plan.final_norm, anatomy.final_norm_name, "final norm"),
        (plan.head, anatomy.head_name, "head"),
    ):
        if wanted and name is None:
            raise PlanError(f"The plan tunes the {words}, which {loaded.info.name} does not have.")
        if wanted:
            modules.append(name)
    chosen = {id(parameter) for name in modules for parameter in loaded.model.get_submodule(name).parameters()}
    return tuple(name for name, parameter in parameters.items() if id(parameter) in chosen)


def prepare_full(loaded: Any, plan: Plan) -> Any:
    """Return a model that owns float32 copies of the planned tensors and shares all others with the loaded one."""
    names = planned_names(loaded, plan)
    model = share_model(loaded.model, own=names)
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].data = parameters[name].data.to(torch.float32)
        parameters[name].requires_grad_(True)
    return model


def count_full(loaded: Any, plan: Plan) -> int:
    """Return how many parameters the planned blocks and modules have; a tied head counts once."""
    parameters = dict(loaded.model.named_parameters())
    return sum(parameters[name].numel() for name in planned_names(loaded, plan))


METHODS: Registry[Method] = Registry(
    "method",
    [
        Method(
            "full",
            "Full fine-tuning",
            "Every tensor of the planned blocks is tuned; a plan of all blocks and modules is full fine-tuning.",
            "parameters",
            "plain gradient descent; AdamW of Loshchilov & Hutter (arXiv 1711.05101)",
            prepare_full,
            count_full,
        ),
    ],
)
