"""Proof, in anybody's Trainer, that frozen tensors stayed as they were and tuned ones moved."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from lsf.errors import PlanError, RunError, first_line
from lsf.methods.context import planned_names
from lsf.models.loading import Model, base_of, is_adapted, layout_of
from lsf.models.quantised import refuse_packed
from lsf.plans.plan import Plan
from lsf.runs.result import Proof
from lsf.training.proof import Fingerprint, fingerprint, prove

UNPROVEN = "unproven"
"""Folder beside the checkpoints that a model is saved to before its proof fails."""


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
        if self.proof.frozen_identical and not self.proof.tuned_unmoved:
            return
        what = "A frozen tensor moved"
        if self.proof.frozen_identical and (names := self.proof.tuned_unmoved):
            what = f"{len(names)} tuned tensor{'s' if len(names) > 1 else ''} did not move, such as {min(names)}"
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
