"""Whole tensors tuned as they are: full fine-tuning of what the plan names, and BitFit's biases alone."""

from collections.abc import Collection
from typing import Any

import torch

from lsf.analysis.plan import Plan
from lsf.errors import BadInputError
from lsf.measure.sharing import share_model
from lsf.training.methods.places import planned_names, split_name
from lsf.training.methods.scene import Scene


def own_tensors(loaded: Any, names: Collection[str]) -> Any:
    """Return a model that owns float32 copies of the named tensors, to be tuned, and shares all others."""
    model = share_model(loaded.model, own=names)
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].data = parameters[name].data.to(torch.float32)
        parameters[name].requires_grad_(True)
    return model


def restore_tensors(loaded: Any, plan: Plan, scene: Scene, stored: dict[str, torch.Tensor]) -> Any:
    """Return a model that owns the stored tensors and shares all others with a fresh base."""
    model = own_tensors(loaded, tuple(stored))
    for name, value in stored.items():
        model.get_parameter(name).data.copy_(value)
    return model


def prepare_full(loaded: Any, plan: Plan, scene: Scene) -> Any:
    """Return a model that owns float32 copies of the planned tensors and shares all others with the loaded one."""
    return own_tensors(loaded, planned_names(loaded, plan))


def count_full(loaded: Any, plan: Plan, options: Any) -> int:
    """Return how many parameters the planned blocks and modules have; a tied head counts once."""
    return _count(loaded, planned_names(loaded, plan))


def bias_names(loaded: Any, plan: Plan) -> tuple[str, ...]:
    """Return the names of all planned biases: those of attention, MLP and norms.

    Raises:
        PlanError: the plan does not fit the model.
        BadInputError: nothing planned has a bias.
    """
    names = tuple(name for name in planned_names(loaded, plan) if split_name(name)[1].endswith("bias"))
    if not names:
        raise BadInputError(
            f"The method bitfit tunes biases and {plan.label} of {loaded.info.name} ({loaded.info.family}) has none; "
            "take a model with biases (gpt2, opt, gpt_neox), or another method."
        )
    return names


def prepare_bitfit(loaded: Any, plan: Plan, scene: Scene) -> Any:
    """Return a model that owns the planned biases alone."""
    return own_tensors(loaded, bias_names(loaded, plan))


def count_bitfit(loaded: Any, plan: Plan, options: Any) -> int:
    """Return how many bias values the plan has."""
    return _count(loaded, bias_names(loaded, plan))


def _count(loaded: Any, names: Collection[str]) -> int:
    parameters = dict(loaded.model.named_parameters())
    return sum(parameters[name].numel() for name in names)
