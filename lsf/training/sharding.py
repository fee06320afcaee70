"""A model whose parameters FSDP spread over the processes, put together again."""

from typing import Any

import torch

from lsf.errors import RunError


def whole(value: torch.Tensor) -> torch.Tensor:
    """Return a parameter whole, whichever part of it this process holds; every process must ask for it."""
    parted: Any = value
    return parted.full_tensor() if hasattr(value, "full_tensor") else value


def is_sharded(model: Any) -> bool:
    """Say whether this process holds only parts of a model's parameters."""
    return any(hasattr(value, "full_tensor") for value in model.parameters())


def put_together(sharded: Any, fresh: Any) -> Any:
    """Fill a freshly prepared model with what a sharded one learned.

    Args:
        sharded: the model as FSDP left it after training.
        fresh: prepared by the same method for the same plan; its tuned parameters are overwritten.

    Returns:
        `fresh`, which shares its frozen tensors with the base.

    Raises:
        RunError: a frozen tensor of the sharded model is no longer that of the base (it is named).
    """
    own = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, value in sharded.named_parameters():
            learned = whole(value).to(own[name].device)
            if own[name].requires_grad:
                own[name].copy_(learned)
            elif not torch.equal(own[name], learned):
                raise RunError(f"The frozen tensor {name} changed while it was spread over the processes.")
    return fresh
