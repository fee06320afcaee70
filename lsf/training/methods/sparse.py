"""The part all sparse methods share: a frozen tensor, an index set, and one compact vector of tuned values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsf.analysis.plan import Plan
from lsf.measure.sharing import share_model
from lsf.training.methods.masks import Indices, count_masked
from lsf.training.methods.places import block_tensors
from lsf.training.methods.scene import Scene
from lsf.training.parametrization import Parametrization, base_name, parametrize_

FindMask = Callable[[Any, Plan, Scene], Indices]


class Scattered(Parametrization):
    """A frozen tensor with some entries replaced by tuned values; the frozen ones stay bit for bit what they are."""

    indices: Int[Tensor, " kept"]

    def __init__(self, base: Float[Tensor, "..."], indices: Int[Tensor, " kept"]) -> None:
        """Start from the base's own values.

        Args:
            base: the frozen tensor.
            indices: flat positions of the tuned entries.
        """
        super().__init__()
        self.register_buffer("indices", indices)
        self.values = nn.Parameter(base.detach().flatten()[indices].float())

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the tensor with the values in their places, in float32."""
        return base.float().flatten().index_put((self.indices,), self.values).view_as(base)


@dataclass(frozen=True)
class SparseMethod:
    """A sparse method is a way to find its mask."""

    name: str
    """Of the method."""
    find: FindMask
    """(LoadedModel, Plan, Scene) -> index sets."""

    def prepare(self, loaded: Any, plan: Plan, scene: Scene) -> Any:
        """Return a model in which only the masked entries are tuned."""
        self.count(loaded, plan, scene.options)
        return with_mask(loaded, self.find(loaded, plan, scene))

    def count(self, loaded: Any, plan: Plan, options: Any) -> int:
        """Return how many entries are tuned; raises as `count_masked` and `planned_blocks`."""
        tensors = block_tensors(loaded, plan, self.name)
        return count_masked({name: value.numel() for name, value in tensors.items()}, self.name, options)


def with_mask(loaded: Any, indices: Indices) -> Any:
    """Return a model of its own over the loaded one's tensors in which the indexed entries are tuned."""
    model = share_model(loaded.model)
    for name, places in indices.items():
        parametrize_(model, name, Scattered(model.get_parameter(name), places.to(loaded.device)))
    return model.eval()


def masks_of(model: nn.Module) -> Indices:
    """Return the index sets of a prepared sparse model, by the base's parameter names."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Scattered):
            base = base_name(name)
            found[base] = module.indices
    return found


def store_sparse(model: Any) -> dict[str, Tensor]:
    """Return indices and values by the base's parameter names, for a mask that only the data could tell."""
    stored: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Scattered):
            base = base_name(name)
            stored |= {f"{base}:indices": module.indices.to(torch.int32), f"{base}:values": module.values.detach()}
    return stored


def restore_sparse(loaded: Any, plan: Plan, scene: Scene, stored: Mapping[str, Tensor]) -> Any:
    """Return the model that `store_sparse` was told of, over a fresh base."""
    indices = {name.removesuffix(":indices"): stored[name].long() for name in stored if name.endswith(":indices")}
    model = with_mask(loaded, indices)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, Scattered):
                base = base_name(name)
                module.values.copy_(stored[f"{base}:values"])
    return model
