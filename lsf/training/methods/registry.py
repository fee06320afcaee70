"""METHODS: how each method of the catalogue is carried out; the training loop knows none of them by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsf.analysis.plan import Plan
from lsf.registry import Registry
from lsf.training.catalogue import CATALOGUE, Way
from lsf.training.methods.full import count_full, prepare_full
from lsf.training.methods.scene import Scene


@dataclass(frozen=True)
class Method:
    """How one way of tuning is carried out."""

    way: Way
    """Name, meaning, options and default rate."""
    prepare: Callable[[Any, Plan, Scene], Any]
    """(LoadedModel, Plan, Scene) -> a model of its own over the same frozen tensors, in eval mode, whose parameters
    with `requires_grad` are exactly the tuned ones. The same arguments give the same frozen structure."""
    count: Callable[[Any, Plan, Any], int]
    """(LoadedModel, Plan, options) -> parameters it should tune, counted on the base model without data."""

    @property
    def name(self) -> str:
        """Key in METHODS."""
        return self.way.name


METHODS: Registry[Method] = Registry(
    "method",
    [
        Method(CATALOGUE["full"], prepare_full, count_full),
    ],
)
