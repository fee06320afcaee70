"""Proof of what a run changed, on the tensors themselves: by identity, or by hashes of all bytes.

By identity nothing is read: every frozen tensor must be in the storage it was in, unwritten by its version counter and
not held by the optimizer. (Fused optimizers write without counting, so the counter alone would miss the one writer
there is; a write through `.data`, or from outside torch, is seen by the hash only.) By hash every byte is read, twice a
run.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lsf.errors import PlanError, RunError, first_line
from lsf.methods.context import planned_names
from lsf.models.loading import Model, base_of, is_adapted, layout_of
from lsf.models.quantised import refuse_packed, scales
from lsf.plans.plan import Plan, check_plan
from lsf.runs.result import Proof
from lsf.wording import counted


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


UNPROVEN = "unproven"
"""Folder beside the checkpoints that a model is saved to before its proof fails."""
LORA_A = ".lora_A."
"""In the names of the factors that the first step cannot move: their gradient goes through the others, which are 0."""


class FrozenProof(TrainerCallback):
    """A callback of transformers' Trainer that proves what a training changed.

    When training begins it reads which parameters want gradients, compares them with the plan, and hashes all of them;
    when it ends it hashes again. Nothing is changed by it. Under peft the base model's tensors are the frozen ones and
    the adapters the tuned ones; the plan must then have been applied by `plan.lora_config()` or by hand.

    A finished training is never lost: Trainer ends it when every checkpoint is written and, where it was asked to, the
    best one is loaded. Where the proof then fails, the model is saved to `output_dir/unproven` before the error is
    raised; it also stays in memory as `trainer.model`, and `proof` holds what was found. (Of peft's wrapper the
    adapters are saved, as peft does.) A training that is interrupted is not proved.

    Args:
        plan: what was to be tuned; None only compares what was frozen at the start with what it is at the end.

    Raises:
        PlanError: at the beginning, where what wants gradients is not what the plan names.
        RunError: at the end, where a frozen tensor moved or a tuned one did not. In bfloat16 a tensor of ones does not
            move at small rates: rounding undoes every step.

    Example:
        >>> import lsf
        >>> callback = lsf.FrozenProof()
        >>> callback.proof is None  # until a Trainer(..., callbacks=[callback]) has trained
        True
    """

    def __init__(self, plan: Plan | None = None) -> None:
        """Prove nothing yet."""
        if plan is not None:
            check_plan(plan)
        self.plan = plan
        self.proof: Proof | None = None
        self._before: Fingerprint | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_rest: Any) -> None:
        """Compare with the plan, and hash."""
        if self.plan is not None:
            check_trainable(model, self.plan)
        self.proof, self._before = None, fingerprint(model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_rest: Any) -> None:
        """Hash again, and raise where something is not as it should be."""
        assert self._before is not None  # Trainer calls this after on_train_begin
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        try:
            self.proof = prove(self._before, model, frozenset(), trained, trained)
        except BaseException:
            _keep(model, args, state)
            raise
        names = [name for name in self.proof.tuned_unmoved if not (state.global_step == 1 and LORA_A in name)]
        if self.proof.frozen_identical and not names:
            return
        what = "A frozen tensor moved"
        if self.proof.frozen_identical:
            what = f"{counted(len(names), 'tuned tensor')} did not move, such as {min(names)}"
        raise RunError(f"{what}; {_keep(model, args, state)}.")


def _keep(model: Any, args: Any, state: Any) -> str:
    """Save a trained model beside the checkpoints, once of all processes, and say where it is."""
    place = Path(args.output_dir) / UNPROVEN
    try:
        if state.is_world_process_zero:
            model.save_pretrained(place)
    except (OSError, RuntimeError, ValueError) as error:  # a full disk, tensors that cannot be written
        return f"the trained model is in memory as trainer.model and could not be saved ({first_line(error)})"
    return f"the trained model is kept in {place}"


def check_trainable(model: Any, plan: Plan) -> None:
    """Refuse a model whose parameters with `requires_grad` are not those of a plan.

    Args:
        model: a causal LM of transformers, or peft's wrapper of one.
        plan: for a model of as many blocks.

    Raises:
        PlanError: with the first parameter that is frozen and should not be, or the other way round.
    """
    base = base_of(model)
    layout = layout_of(base)
    wants = {name for name, parameter in base.named_parameters() if parameter.requires_grad}
    names = set(planned_names(_Seen(base, layout), plan))
    if is_adapted(model):
        planned = tuple(f"{layout.block_names[block]}." for block in plan.blocks)
        if astray := [name for name in wants if not name.startswith(planned)]:
            raise PlanError(f"{astray[0]} is tuned and lies outside {plan.label}; make adapters by plan.lora_config().")
        if lacking := [name for name in planned if not any(own.startswith(name) for own in wants)]:
            raise PlanError(f"Nothing is tuned in {lacking[0][:-1]}, which the plan names.")
        return
    if more := sorted(wants - names):
        raise PlanError(f"{more[0]} wants gradients and is not in the plan ({plan.label}); call lsf.freeze first.")
    if fewer := sorted(names - wants):
        raise PlanError(f"{fewer[0]} is in the plan ({plan.label}) and wants no gradients; call lsf.freeze first.")


def freeze(model: Any, plan: Plan) -> int:
    """Let exactly the parameters of a plan want gradients, in place, for any trainer.

    Args:
        model: a causal LM of transformers in memory; of `lsf.load` and `lsf.wrap` their `.model` is meant.
        plan: for a model of as many blocks.

    Returns:
        How many parameters are left to tune.

    Raises:
        PlanError: the plan is for another number of blocks, or the model is wrapped by peft, whose adapters
            `plan.lora_config()` restricts.
        BadInputError: the plan names maps in 4 or 8 bits, which take no gradients.
        UnknownFamilyError: an architecture that is not supported.

    Example:
        >>> import lsf
        >>> model = lsf.load("bundled").model
        >>> lsf.freeze(model, lsf.Plan("bundled", 8, (5, 6)))
        297472
        >>> model.model.layers[5].mlp.up_proj.weight.requires_grad, model.lm_head.weight.requires_grad
        (True, False)
    """
    check_plan(plan)
    model = model.model if isinstance(model, Model) else model
    if is_adapted(model):
        raise PlanError("This model has peft's adapters already; make them with plan.lora_config() instead.")
    names = set(planned_names(_Seen(model, layout_of(model)), plan))
    refuse_packed(model, names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class _Seen:
    """A model as `planned_names` looks at it."""

    def __init__(self, model: Any, layout: Any) -> None:
        self.model, self.layout, self.info = model, layout, self
        self.name, self.n_blocks = type(model).__name__, len(layout.blocks)
