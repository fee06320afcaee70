"""Which tensors and modules of a loaded model a plan stands for."""

from typing import Any

from lsf.analysis.plan import Plan
from lsf.errors import PlanError


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
