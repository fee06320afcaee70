"""DID and SAID: all planned values moved by a few numbers, theta = theta_0 + P(v), in SAID scaled per block."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsf.errors import BadInputError
from lsf.methods.context import MethodContext, planned_names
from lsf.methods.parametrization import Parametrization, parametrize_
from lsf.methods.projections import KINDS, Fastfood, KeptFastfood, Projection, project
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan, place_of

NAME = "intrinsic"
"""Attribute under which a prepared model holds what is tuned."""


class Coordinates(nn.Module):
    """What is tuned: v, and in SAID one lambda per group of tensors."""

    def __init__(self, d: int, n_groups: int) -> None:
        """Start at v = 0 and lambda = 1: theta is theta_0.

        Args:
            d: numbers of v.
            n_groups: numbers of lambda; 0 for DID.
        """
        super().__init__()
        self.v = nn.Parameter(torch.zeros(d))
        self.lambdas = nn.Parameter(torch.ones(n_groups)) if n_groups else None


class Moved(Parametrization):
    """theta_i = theta_0i + lambda P_i(v)."""

    def __init__(self, coordinates: Coordinates, projection: Projection, group: int) -> None:
        """Keep what is shared by all tensors without owning it: it is the model's own.

        Args:
            coordinates: v and the lambdas.
            projection: P_i.
            group: which lambda.
        """
        super().__init__()
        self._shared, self._projection, self._group = (coordinates,), projection, group

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the moved tensor in float32."""
        coordinates = self._shared[0]
        step = project(coordinates.v, self._projection)
        if coordinates.lambdas is not None:
            step = coordinates.lambdas[self._group] * step
        return base.float() + step.view_as(base)


@dataclass(frozen=True)
class IntrinsicMethod:
    """DID, or SAID with its lambdas, which are paid for out of d."""

    name: str
    """Of the method."""
    scaled: bool
    """Whether there are lambdas."""

    def prepare(self, loaded: Any, plan: Plan, context: MethodContext) -> Any:
        """Return a model whose planned tensors move along P; B, Pi and G come from the seed and are never stored.

        Raises:
            PlanError: the plan does not fit the model.
            BadInputError: d is above the number of planned values, or leaves nothing beside the lambdas.
        """
        d, groups = self.count(loaded, plan, context.options), self.groups(loaded, plan)
        n_groups = max(groups.values()) + 1 if self.scaled else 0
        fast = KeptFastfood if context.keep_draws else Fastfood
        kind = fast if context.options.projection == "fastfood" else KINDS[context.options.projection]
        model = share_model(loaded.model)
        coordinates = Coordinates(d - n_groups, n_groups).to(loaded.device)
        for index, (name, group) in enumerate(groups.items()):
            size = model.get_parameter(name).numel()
            projection = kind(d - n_groups, size, f"{context.seed}/{index}")
            parametrize_(model, name, Moved(coordinates, projection, group))
        model.add_module(NAME, coordinates)
        return model.eval()

    def count(self, loaded: Any, plan: Plan, options: Any) -> int:
        """Return d; raises as `prepare`."""
        groups, parameters = self.groups(loaded, plan), dict(loaded.model.named_parameters())
        total = sum(parameters[name].numel() for name in groups)
        least = max(groups.values()) + 2 if self.scaled else 1
        if not least <= options.d <= total:
            raise BadInputError(
                f"The method {self.name}: d is {options.d}; for {place_of(plan)} of {loaded.info.name} it must lie "
                f"between {least} and {total}, the number of planned values."
            )
        return options.d

    def groups(self, loaded: Any, plan: Plan) -> dict[str, int]:
        """Return planned parameter name -> number of its group, in the model's order.

        One group per block; final norm and head are one; embeddings, of positions too, are one (our choice).
        """
        layout = loaded.layout
        after = tuple(f"{name}." for name in (layout.final_norm_name, layout.head_name) if name is not None)
        kinds: dict[str, str] = {}
        for name in planned_names(loaded, plan):
            block = next((block for block in layout.block_names if name.startswith(f"{block}.")), None)
            kinds[name] = block or ("head" if name.startswith(after) else "embedding")
        order = list(dict.fromkeys(kinds.values()))
        return {name: order.index(kind) for name, kind in kinds.items()}
