"""Proof of what a run changed: hashes of the tensors themselves, before and after."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from lsf.jobs.result import Proof
from lsf.measure.quantised import scales


@dataclass(frozen=True)
class Fingerprint:
    """The tensors of a prepared model at one moment."""

    frozen: int
    """Number of frozen tensors."""
    frozen_hash: str
    """SHA-256 over their names and bytes."""
    tuned: dict[str, str]
    """Name -> SHA-256 of each tuned tensor."""


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's values as bytes, exactly, whatever its dtype or device."""
    return tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes()


def fingerprint(model: Any) -> Fingerprint:
    """Hash a model's parameters, with the scales of packed ones, and persistent buffers.

    Those with `requires_grad` are the tuned ones.
    """
    digest, frozen, tuned = hashlib.sha256(), 0, {}
    kept = model.state_dict().keys()
    buffers = (item for item in model.named_buffers() if item[0] in kept)
    for name, tensor in (*model.named_parameters(), *buffers, *scales(model)):
        if tensor.requires_grad:
            tuned[name] = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
        else:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
            frozen += 1
    return Fingerprint(frozen, digest.hexdigest(), tuned)


def prove(before: Fingerprint, after: Fingerprint, trainable_params: int, planned_params: int) -> Proof:
    """Compare two fingerprints of the same model.

    Args:
        before: at the start of the run.
        after: at its end.
        trainable_params: parameters the optimizer held.
        planned_params: parameters the plan names, counted on the base model.
    """
    unmoved = tuple(name for name, digest in before.tuned.items() if after.tuned.get(name) == digest)
    return Proof(
        frozen_tensors=before.frozen,
        frozen_hash=before.frozen_hash,
        frozen_identical=(before.frozen, before.frozen_hash) == (after.frozen, after.frozen_hash),
        tuned_tensors=len(before.tuned),
        tuned_moved=len(before.tuned) - len(unmoved),
        tuned_unmoved=unmoved,
        trainable_params=trainable_params,
        planned_params=planned_params,
    )
