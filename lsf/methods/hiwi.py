"""HiWi: an adapter on a parameter instead of on a state; after training only the changed parameter is left."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lsf.errors import BadInputError
from lsf.methods.bitfit import restore_replaced
from lsf.methods.catalogue import check_base
from lsf.methods.context import MethodContext, is_linear, planned_blocks, split_name
from lsf.methods.parametrization import Parametrization, base_name, parametrize_
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan


class HighWay(Parametrization):
    """p' = p + f(p W_down) W_up, f = ReLU; a bias is one row, a weight matrix one row per input."""

    def __init__(self, base: Float[Tensor, "..."], r: int, rows_are_outputs: bool, generator: torch.Generator) -> None:
        """Draw W_down Kaiming-uniform; W_up = 0, so that nothing changes at the start (our choice).

        Where the ReLU would be shut for every row, which happens to a lone bias where r is small, nothing could ever
        move; W_down is turned round there (our choice).

        Args:
            base: the bias or weight it stands before.
            r: width in between.
            rows_are_outputs: whether the matrix has a row per output, as torch's Linear has.
            generator: of the weights.
        """
        super().__init__()
        self._turned = rows_are_outputs and base.dim() == 2
        rows = base.detach().float().cpu()
        rows = rows.T if self._turned else rows
        down = torch.empty(r, rows.shape[-1])
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        if not (rows @ down.T > 0).any():
            down.neg_()
        self.down, self.up = nn.Parameter(down.T.contiguous()), nn.Parameter(torch.zeros(r, rows.shape[-1]))

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return p' in float32."""
        rows = base.float()
        rows = rows.T if self._turned else rows
        changed = rows + (rows @ self.down).relu() @ self.up
        return changed.T if self._turned else changed


def prepare_hiwi(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model whose MLP biases or weights in the planned blocks are read through a `HighWay`.

    Raises:
        PlanError: the plan does not fit the model, or names no block.
        BadInputError: a bias that is missing or zero, which the bias form could never move; experts, which have no
            linear maps.

    Source: Liao et al. 2023, arXiv 2305.16742. For a gated MLP all three maps are taken (our choice).
    """
    names = adapted_names(loaded, plan, context.options)
    model = share_model(loaded.model)
    generator = torch.Generator().manual_seed(context.seed)
    for name in names:
        linear = model.get_submodule(split_name(name)[0])
        info = HighWay(model.get_parameter(name), context.options.r, not isinstance(linear, Conv1D), generator)
        parametrize_(model, name, info.to(loaded.device))
    return model.eval()


def count_hiwi(loaded: Any, plan: Plan, options: Any) -> int:
    """Return the values of W_down and W_up of every adapted parameter."""
    names = adapted_names(loaded, plan, options)
    return sum(2 * options.r * outputs_of(loaded.model.get_submodule(split_name(name)[0])) for name in names)


def adapted_names(loaded: Any, plan: Plan, options: Any) -> tuple[str, ...]:
    """Return the names of the parameters that are adapted; raises as `prepare_hiwi`."""
    check_base("hiwi", loaded.info.dtype)
    maps = [f"{block}.{name}" for block in planned_blocks(loaded, plan, "hiwi") for name in loaded.layout.family.mlp]
    for name in maps:
        linear: Any = loaded.model.get_submodule(name)
        if not is_linear(linear):
            raise BadInputError(
                f"The method hiwi adapts the MLP's linear maps and {name} of {loaded.info.name} "
                f"({loaded.info.family}) is not one; take another method."
            )
        bias = linear.bias if options.form == "bias" else None
        if options.form == "bias" and (bias is None or not bias.any()):
            what = "no bias" if bias is None else "a bias of zeros"
            raise BadInputError(
                f"The method hiwi in its bias form cannot move {name} of {loaded.info.name}, which has {what}; "
                "take the weight form (form=weight)."
            )
    return tuple(f"{name}.{options.form}" for name in maps)


def outputs_of(linear: Any) -> int:
    """Return how many outputs a linear map has."""
    return linear.weight.shape[1] if isinstance(linear, Conv1D) else linear.weight.shape[0]


def store_hiwi(model: Any) -> dict[str, Tensor]:
    """Return what has to be kept: of the bias form the biases b' alone, of the weight form W_down and W_up."""
    stored: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, HighWay):
            continue
        base = base_name(name)
        owner, leaf = split_name(base)
        if leaf == "bias":
            linear: Any = model.get_submodule(owner)
            stored[base] = module.changed(linear.parametrizations[leaf].original).detach()
        else:
            stored |= {f"{base}:down": module.down.detach(), f"{base}:up": module.up.detach()}
    return stored


def restore_hiwi(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
    """Return the model that `store_hiwi` was told of, over a fresh base; the bias form comes back as plain biases."""
    if context.options.form == "bias":
        return restore_replaced(loaded, plan, context, stored)
    model = prepare_hiwi(loaded, plan, context)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, HighWay):
                module.down.copy_(stored[f"{base_name(name)}:down"])
                module.up.copy_(stored[f"{base_name(name)}:up"])
    return model
