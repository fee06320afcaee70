"""Proof of what a run changed, on the tensors themselves: by identity, or by hashes of all bytes.

By identity nothing is read: every frozen tensor must be in the storage it was in, unwritten by its version counter and
not held by the optimizer. (Fused optimizers write without counting, so the counter alone would miss the one writer
there is; a write through `.data`, or from outside torch, is seen by the hash only.) By hash every byte is read, twice a
run.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lsf.models.quantised import scales
from lsf.runs.result import Proof


@dataclass(frozen=True)
class Fingerprint:
    """The tensors of a prepared model at one moment, by their bytes."""

    frozen: int
    """Number of frozen tensors."""
    frozen_hash: str
    """SHA-256 over their names and bytes."""
    tuned: dict[str, str]
    """Name -> SHA-256 of each tuned tensor."""


@dataclass(frozen=True)
class Marks:
    """The tensors of a prepared model before a run, by where they lie and how often they were written."""

    frozen: dict[str, tuple[Any, ...]]
    """Name -> storage, offset, strides, shape, dtype and version of each frozen tensor."""
    tuned: dict[str, torch.Tensor]
    """Name -> start of each tuned tensor: the base's own where it begins as that, else a copy."""


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's values as bytes, exactly, whatever its dtype or device."""
    return tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes()


def fingerprint(model: Any) -> Fingerprint:
    """Hash a model's parameters, with the scales of packed ones, and persistent buffers.

    Those with `requires_grad` are the tuned ones.
    """
    digest, frozen, tuned = hashlib.sha256(), 0, {}
    for name, tensor in _tensors(model):
        if tensor.requires_grad:
            tuned[name] = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
        else:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
            frozen += 1
    return Fingerprint(frozen, digest.hexdigest(), tuned)


def marks(model: Any, base: Any) -> Marks:
    """Note where a prepared model's tensors lie and what the tuned ones start from.

    Args:
        model: prepared by a method, before its first step.
        base: the loaded model, which nobody changes.
    """
    own, frozen, tuned = dict(base.named_parameters()), {}, {}
    for name, tensor in _tensors(model):
        if not tensor.requires_grad:
            frozen[name] = _mark(tensor)
            continue
        start = own.get(name)
        begins_there = start is not None and start.shape == tensor.shape and torch.equal(start.to(tensor), tensor)
        tuned[name] = start.detach() if start is not None and begins_there else tensor.detach().clone()
    return Marks(frozen, tuned)


def prove(
    before: Fingerprint | Marks, model: Any, written: frozenset[int], trainable_params: int, planned_params: int
) -> Proof:
    """Compare a model after its run with what it was before, in the way it was noted then.

    Args:
        before: at the start of the run.
        model: at its end.
        written: addresses of the storages the optimizer held.
        trainable_params: parameters the optimizer held.
        planned_params: parameters the plan names, counted on the base model.
    """
    if isinstance(before, Marks):
        now = {name: tensor for name, tensor in _tensors(model) if not tensor.requires_grad}
        own = dict(model.named_parameters())
        untouched = {name: _mark(tensor) for name, tensor in now.items()} == before.frozen
        identical = untouched and not any(mark[0] in written for mark in before.frozen.values())
        unmoved = tuple(name for name, start in before.tuned.items() if torch.equal(start.to(own[name]), own[name]))
        level, count, digest = "identity", len(before.frozen), None
    else:
        after = fingerprint(model)
        identical = (before.frozen, before.frozen_hash) == (after.frozen, after.frozen_hash)
        unmoved = tuple(name for name, value in before.tuned.items() if after.tuned.get(name) == value)
        level, count, digest = "hash", before.frozen, before.frozen_hash
    return Proof(
        frozen_tensors=count,
        frozen_hash=digest,
        frozen_identical=identical,
        tuned_tensors=len(before.tuned),
        tuned_moved=len(before.tuned) - len(unmoved),
        tuned_unmoved=unmoved,
        trainable_params=trainable_params,
        planned_params=planned_params,
        level=level,
    )


def storages(tensors: Any) -> frozenset[int]:
    """Return the addresses of the storages in which tensors lie."""
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors)


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters, persistent buffers, and the scales of packed weights, with their names."""
    kept = model.state_dict().keys()
    yield from model.named_parameters()
    yield from (item for item in model.named_buffers() if item[0] in kept)
    yield from scales(model)


def _mark(tensor: torch.Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.storage_offset(), tensor.stride(), tuple(tensor.shape), tensor.dtype, tensor._version
