"""METHODS: how each method of the catalogue is carried out, kept and found again; the loop knows none by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsf.methods.adapters import (
    FILE,
    count_adapter,
    count_hiwi,
    count_lora,
    prepare_adapter,
    prepare_hiwi,
    prepare_lora,
    restore_hiwi,
    restore_lora,
    store_hiwi,
    store_lora,
    write_config,
)
from lsf.methods.catalogue import CATALOGUE, MethodInfo
from lsf.methods.context import MethodContext
from lsf.methods.intrinsic import INTRINSIC, IntrinsicMethod
from lsf.methods.selective import (
    SparseMethod,
    count_bitfit,
    count_full,
    drawn,
    informative,
    largest,
    prepare_bitfit,
    prepare_full,
    restore_replaced,
    restore_sparse,
    restore_tensors,
    smallest,
    store_replaced,
    store_sparse,
    ticket,
)
from lsf.plans.plan import Plan
from lsf.registry import Registry

Prepare = Callable[[Any, Plan, MethodContext], Any]
Tensors = dict[str, Tensor]
Restore = Callable[[Any, Plan, MethodContext, Mapping[str, Tensor]], Any]
TUNED = "tuned.safetensors"


@dataclass(frozen=True)
class Search:
    """What a method does first that looks for its values in the data: whole blocks are read or tuned."""

    stand_in: str
    """A method whose steps are like those that follow, and which finds its values without data."""
    bytes_per_value: int
    """Kept meanwhile beside value and gradient: sums of squares, or AdamW's moments."""


@dataclass(frozen=True)
class Method:
    """How one way of tuning is carried out."""

    info: MethodInfo
    """Name, meaning, options and default rate."""
    prepare: Prepare
    """(LoadedModel, Plan, MethodContext) -> a model of its own over the same frozen tensors, in eval mode, whose
    parameters with `requires_grad` are exactly the tuned ones. The same arguments give the same frozen structure."""
    count: Callable[[Any, Plan, Any], int]
    """(LoadedModel, Plan, options) -> parameters it should tune, counted on the base model without data; raises where
    the method cannot do what the plan asks."""
    store: Callable[[Any], Tensors]
    """Prepared model -> the least that has to be kept of it."""
    restore: Restore
    """(LoadedModel, Plan, MethodContext without rows, what was stored) -> the tuned model over a fresh base; every
    tensor is asked for once and copied, since each is brought to the device when it is asked for."""
    file: str = TUNED
    """Name of the file it is stored in."""
    beside: Callable[[Any, Path], None] | None = None
    """(Model, folder) -> None: writes what other tools want beside the file."""
    search: Search | None = None
    """None where its values follow from base, plan, options and seed."""

    @property
    def name(self) -> str:
        """Key in METHODS."""
        return self.info.name


def store_tuned(model: Any) -> Tensors:
    """Return the tuned parameters themselves, by their names in the prepared model."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def prepared_again(prepare: Prepare) -> Restore:
    """Return the restoring of a method whose frozen structure follows from base, plan, options and seed."""

    def restore(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
        model = prepare(loaded, plan, context)
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.data.copy_(stored[name])
        return model

    return restore


def _regular(name: str, prepare: Prepare, count: Callable[[Any, Plan, Any], int]) -> Method:
    return Method(CATALOGUE[name], prepare, count, store_tuned, prepared_again(prepare))


def _sparse(method: SparseMethod) -> Method:
    return _regular(method.name, method.prepare, method.count)


def _found_in_data(method: SparseMethod, search: Search) -> Method:
    info = CATALOGUE[method.name]
    return Method(info, method.prepare, method.count, store_sparse, restore_sparse, search=search)


def _intrinsic(method: IntrinsicMethod) -> Method:
    return _regular(method.name, method.prepare, method.count)


METHODS: Registry[Method] = Registry(
    "method",
    [
        Method(CATALOGUE["full"], prepare_full, count_full, store_tuned, restore_tensors),
        Method(CATALOGUE["lora"], prepare_lora, count_lora, store_lora, restore_lora, FILE, write_config),
        Method(CATALOGUE["bitfit"], prepare_bitfit, count_bitfit, store_replaced, restore_replaced),
        _regular("adapter", prepare_adapter, count_adapter),
        _sparse(SparseMethod("pafi", smallest)),
        _found_in_data(SparseMethod("fish", informative), Search("random_mask", bytes_per_value=4)),
        _found_in_data(SparseMethod("lt_sft", ticket), Search("full", bytes_per_value=8)),
        _sparse(SparseMethod("random_mask", drawn)),
        _sparse(SparseMethod("top_magnitude", largest)),
        Method(CATALOGUE["hiwi"], prepare_hiwi, count_hiwi, store_hiwi, restore_hiwi),
        *map(_intrinsic, INTRINSIC.values()),
    ],
)
