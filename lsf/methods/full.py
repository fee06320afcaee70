"""Full fine-tuning: every tensor of what the plan names, tuned as it is."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from lsf.methods.context import MethodContext, planned_names
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan


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
    parameters = dict(loaded.model.named_parameters())
    return sum(parameters[name].numel() for name in planned_names(loaded, plan))
