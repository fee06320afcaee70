"""Tensors of the model tuned as they are: every one of what the plan names (full), or only its biases (BitFit)."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from lsf.errors import BadInputError
from lsf.methods.context import MethodContext, planned_names, split_name
from lsf.methods.parametrization import Replaced, base_name, parametrize_
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan, place_of


def own_tensors(loaded: Any, names: Collection[str]) -> Any:
    """Return a model that owns float32 copies of the named tensors, to be tuned, and shares all others."""
    model = share_model(loaded.model, own=names)
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].data = parameters[name].data.to(torch.float32)
        parameters[name].requires_grad_(True)
    return model


def restore_tensors(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, torch.Tensor]) -> Any:
    """Return a model that owns the stored tensors and shares all others with a fresh base."""
    model = own_tensors(loaded, tuple(stored))
    for name, value in stored.items():
        model.get_parameter(name).data.copy_(value)
    return model


def prepare_full(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model that owns float32 copies of the planned tensors and shares all others with the loaded one."""
    return own_tensors(loaded, planned_names(loaded, plan))


def count_full(loaded: Any, plan: Plan, options: Any) -> int:
    """Return how many parameters the planned blocks and modules have; a tied head counts once."""
    return _n_values(loaded, planned_names(loaded, plan))


def _n_values(loaded: Any, names: Collection[str]) -> int:
    parameters = dict(loaded.model.named_parameters())
    return sum(parameters[name].numel() for name in names)


def bias_names(loaded: Any, plan: Plan) -> tuple[str, ...]:
    """Return the names of all planned biases: those of attention, MLP and norms.

    Raises:
        PlanError: the plan does not fit the model.
        BadInputError: nothing planned has a bias.
    """
    names = tuple(name for name in planned_names(loaded, plan) if split_name(name)[1].endswith("bias"))
    if not names:
        raise BadInputError(
            f"The method bitfit tunes biases and {place_of(plan)} of {loaded.info.name} ({loaded.info.family}) has "
            "none; take a model with biases (gpt2, opt, gpt_neox), or another method."
        )
    return names


def prepare_bitfit(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model in which the planned biases alone are tuned."""
    return with_replaced(loaded, bias_names(loaded, plan))


def count_bitfit(loaded: Any, plan: Plan, options: Any) -> int:
    """Return how many bias values the plan has."""
    return _n_values(loaded, bias_names(loaded, plan))


def with_replaced(loaded: Any, names: Collection[str]) -> Any:
    """Return a model in which the named tensors are tuned as wholes and everything else is shared."""
    model = share_model(loaded.model)
    for name in names:
        parametrize_(model, name, Replaced(model.get_parameter(name)))
    return model.eval()


def store_replaced(model: Any) -> dict[str, Tensor]:
    """Return the tuned tensors by the base's own names."""
    return {base_name(name): part.value.detach() for name, part in model.named_modules() if isinstance(part, Replaced)}


@torch.no_grad()
def restore_replaced(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
    """Return a model over a fresh base that has the stored tensors in place of the base's."""
    model = with_replaced(loaded, tuple(stored))
    for name, part in model.named_modules():
        if isinstance(part, Replaced):
            part.value.copy_(stored[base_name(name)])
    return model
