"""What a run is expected to need, part by part, and the next smaller run to ask for; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lsf.plans.plan import Plan, Predicted
from lsf.runs.spec import RunSpec
from lsf.wording import counted

RUN_SHARE = 0.9
"""Share of the free memory a run may be expected to take: allocators waste some, and others use the machine too."""
PART_WORDS = {
    "own_weights": "weights of its own",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "cache": "prefix cache",
}
"""Part of a run's memory -> what a person reads."""


@dataclass(frozen=True)
class Parts:
    """Peak memory of a run above the loaded base model, in bytes, by what it is for."""

    own_weights: int
    """What is tuned, and whatever else the method adds, beside the shared frozen tensors."""
    gradients: int
    """One float32 per tuned parameter; of whole blocks where a method looks for its values by tuning them first."""
    optimizer: int
    """What the optimizer keeps between steps, tensor by tensor, or what such a search keeps beside gradients."""
    activations: int | None
    """What a forward and backward pass over one (micro-)batch of the longest examples takes at its peak, or the
    optimizer while it steps, whichever is more; None where no pass was tried, because the rest does not fit already."""
    cache: int
    """The kept output of the frozen prefix, where it is kept in the device's memory."""

    @property
    def known(self) -> int:
        """Bytes of all parts that are known."""
        return sum(value or 0 for value in vars(self).values())

    @property
    def total(self) -> int | None:
        """Bytes of all parts; None where the activations are not known."""
        return None if self.activations is None else self.known


@dataclass(frozen=True)
class Offer:
    """The nearest version of a run that is expected to fit."""

    spec: RunSpec
    """What would be asked instead."""
    words: str
    """What is made smaller, as one phrase."""
    forecast: "Forecast"
    """What it is expected to need."""


@dataclass(frozen=True)
class Forecast:
    """What one run is expected to cost on this machine, and whether it fits."""

    spec: RunSpec
    """What is asked."""
    device: str
    """Where it would run."""
    trainable_params: int
    """Parameters the optimizer would hold."""
    flops_ratio: float
    """Training FLOPs per token over those of full fine-tuning, by counting; a prefix cache is not counted."""
    parts: Parts
    """Peak memory above the loaded model."""
    step_seconds: float | None
    """Seconds of the mean step, from one pass over the longest batch; None where none was timed."""
    phases: Mapping[str, float]
    """Wall seconds of the whole run by phase (lsf.runs.result.PHASES), evaluation included."""
    free_bytes: int | None
    """Memory the device has to give beside the loaded model; None where the system does not tell."""
    fits: bool | None
    """Whether the parts fit into that; None where it is not known."""
    sentence: str
    """What it needs, what there is, and whether that suffices."""
    offer: Offer | None = None
    """What would fit, where this does not; None where it fits, or where nothing smaller is left."""

    @property
    def predicted(self) -> Predicted:
        """The same in the terms of a plan and of a result; bytes are above the loaded model, as a run measures them."""
        return Predicted(self.trainable_params, self.flops_ratio, self.parts.total, self.step_seconds, self.phases)


def in_words(count: int) -> str:
    """Write bytes for a sentence: `3.2 MB`, `14.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def verdict(parts: Parts, free: int | None, device: str) -> tuple[bool | None, str]:
    """Say whether the parts fit into the free memory.

    Args:
        parts: what is needed.
        free: bytes; None where it is not known.
        device: its name.
    """
    least = "" if parts.total is not None else "at least "
    needs = f"needs {least}{in_words(parts.known)} beyond the loaded model"
    if free is None:
        return None, f"It {needs}; how much memory {device} has free is not known."
    has = f"{device} has {in_words(free)} free"
    if parts.known > RUN_SHARE * free:
        return False, f"It {needs} and {has}, of which a run may take {100 * RUN_SHARE:.0f} %: it does not fit."
    if parts.total is None:
        return None, f"It {needs}; {has}."
    return True, f"It {needs}; {has}: it fits."


SHORTEST = 16
"""Tokens below which examples are not cut any further."""


def smaller_spec(spec: RunSpec, longest: int = 1024) -> tuple[RunSpec, str] | None:
    """Return the next smaller version of a run that ran out of memory, and what was made smaller.

    What leaves the result as it is comes first: one example at a time, then activations computed again; then half the
    blocks (the deepest, whose backward pass is the shortest), then half the tokens.

    Args:
        spec: that did not fit.
        longest: tokens an example may have where the spec does not say.

    Returns:
        None where nothing is left to make smaller.
    """
    if spec.activation_checkpointing == "off":
        return replace(spec, micro_batch=1, activation_checkpointing="non_reentrant"), (
            "one example at a time, activations computed again"
        )
    plan = spec.plan
    if len(plan.blocks) > 1:
        kept = plan.blocks[len(plan.blocks) // 2 :]
        fewer = Plan(
            model=plan.model,
            n_blocks=plan.n_blocks,
            blocks=kept,
            criterion=plan.criterion,
            policy=plan.policy,
            budget={"blocks": len(kept)},
            reasons={key: reason for key, reason in plan.reasons.items() if int(key) in kept},
        )
        return replace(spec, plan=fewer, role="manual"), f"only {fewer.label}"
    length = spec.max_length or longest
    if length >= 2 * SHORTEST:
        return replace(spec, max_length=length // 2), f"at most {counted(length // 2, 'token')} per example"
    return None
