"""Frozen tensors read through something that is tuned: the tensor stays as it is, what is read of it differs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from lsf.models.quantised import refuse_packed


class Parametrization(nn.Module):
    """Stands before a frozen tensor; `changed` says what is read instead of it, in every forward pass anew."""

    _holding = False
    _held: tuple[Tensor, ...] = ()

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return what is read instead of the base tensor, of its shape; in float32, in which it is tuned."""
        raise NotImplementedError

    def forward(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return `changed` in the base's dtype, once for all readings inside `held_still`.

        Norms refuse weight and bias of two dtypes, and matrix products would be taken in the base's dtype anyway; how a
        tensor changes is not: autocast would take its own products in bfloat16.
        """
        if self._held:
            return self._held[0]
        with torch.autocast(base.device.type, enabled=False):
            changed = self.changed(base).to(base.dtype)
        if self._holding:
            self._held = (changed,)
        return changed


class Replaced(Parametrization):
    """A small tensor tuned as a whole, where its module's other tensors stay as they are."""

    def __init__(self, base: Float[Tensor, "..."]) -> None:
        """Start from the base's own values.

        Args:
            base: the frozen tensor.
        """
        super().__init__()
        self.value = nn.Parameter(base.detach().float().clone())

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the tuned tensor."""
        return self.value


@contextmanager
def held_still(model: nn.Module) -> Iterator[None]:
    """Let nothing that is tuned change inside the `with`, so that every parametrized tensor is computed once.

    For readings without gradients: many forward passes of one state of the model. Other models are not concerned.
    """
    parts = [module for module in model.modules() if isinstance(module, Parametrization)]
    try:
        for part in parts:
            part._holding = True
        with torch.no_grad():
            yield
    finally:
        for part in parts:
            part._holding, part._held = False, ()


def parametrize_(model: nn.Module, name: str, parametrization: Parametrization) -> None:
    """Put a parametrization before a frozen tensor wherever the model holds it: a tied tensor is held twice.

    Args:
        model: of its own (`share_model`); it is changed.
        name: of the parameter.
        parametrization: what is read instead.

    Raises:
        BadInputError: the parameter is packed in 4 or 8 bits.
    """
    refuse_packed(model, [name])
    wanted = model.get_parameter(name)
    modules = list(model.modules())
    settings = [(module, leaf) for module in modules for leaf, value in module._parameters.items() if value is wanted]
    for module, leaf in settings:
        register_parametrization(module, leaf, parametrization, unsafe=True)


def base_name(parametrization: str) -> str:
    """Return the base tensor's name of a parametrization's: `a.parametrizations.weight.0` -> `a.weight`."""
    return parametrization.replace(".parametrizations.", ".").rpartition(".")[0]
