"""Bottleneck adapters: small non-linear steps after the frozen maps of a block; they cannot be merged."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsf.methods.context import MethodContext, planned_blocks
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan

NAME = "adapter"
"""Attribute under which a map of the block holds its adapter."""
STD = 1e-3
"""Standard deviation of the weights at the start: nearly, not exactly, nothing is added."""
HOULSBY_SIZE = 64
PFEIFFER_SHARE = 16


class Bottleneck(nn.Module):
    """h <- h + W_up f(W_down h + c1) + c2."""

    def __init__(self, width: int, size: int, activation: nn.Module, generator: torch.Generator) -> None:
        """Draw the weights from N(0, STD^2); biases are zero.

        Args:
            width: of h.
            size: of the bottleneck.
            activation: f.
            generator: of the weights.
        """
        super().__init__()
        self.down, self.activation, self.up = nn.Linear(width, size), activation, nn.Linear(size, width)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=STD, generator=generator)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return the states with what the bottleneck adds, in their own dtype."""
        inner = self.activation(self.down(states.to(self.down.weight.dtype)))
        return states + self.up(inner).to(states.dtype)


def prepare_adapter(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model with adapters in the planned blocks, before the residual addition.

    `houlsby`: after the attention's output map and after the MLP's, GELU, size 64. `pfeiffer`: after the MLP's alone,
    ReLU, a 16th of the width.

    Raises:
        PlanError: the plan does not fit the model, or names no block.

    Source: Houlsby et al. 2019 (arXiv 1902.00751), Pfeiffer et al. 2020 (arXiv 2005.00247); where a family applies a
    norm between its map and the residual addition, the adapter stands before that norm (our choice).
    """
    model = share_model(loaded.model)
    generator = torch.Generator().manual_seed(context.seed)
    size, houlsby = _size(loaded, context.options), context.options.kind == "houlsby"
    for block in planned_blocks(loaded, plan, "adapter"):
        for name in _places(loaded, context.options):
            adapter = Bottleneck(loaded.info.width, size, nn.GELU() if houlsby else nn.ReLU(), generator)
            module = model.get_submodule(f"{block}.{name}")
            module.add_module(NAME, adapter.to(loaded.device))
            module.register_forward_hook(_apply)
    return model.eval()


def count_adapter(loaded: Any, plan: Plan, options: Any) -> int:
    """Return the weights and biases of all adapters."""
    width, size = loaded.info.width, _size(loaded, options)
    blocks = planned_blocks(loaded, plan, "adapter")
    return len(blocks) * len(_places(loaded, options)) * (2 * width * size + size + width)


def _apply(module: nn.Module, _args: Any, output: Any) -> Any:
    adapter = getattr(module, NAME)
    if isinstance(output, Tensor):
        return adapter(output)
    return (adapter(output[0]), *output[1:])


def _places(loaded: Any, options: Any) -> tuple[str, ...]:
    family = loaded.layout.family
    return (family.attention_output, family.mlp[-1]) if options.kind == "houlsby" else (family.mlp[-1],)


def _size(loaded: Any, options: Any) -> int:
    default = HOULSBY_SIZE if options.kind == "houlsby" else max(1, loaded.info.width // PFEIFFER_SHARE)
    return default if options.size is None else options.size
