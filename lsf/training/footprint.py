"""What a run is expected to need, part by part: the records a forecast is told in; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from lsf.analysis.plan import Predicted
from lsf.jobs.spec import RunSpec

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
    """Wall seconds of the whole run by phase (lsf.jobs.phases.PHASES), evaluation included."""
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
    needs = f"needs {least}{in_words(parts.known)} beside the loaded model"
    if free is None:
        return None, f"It {needs}; how much memory {device} has free is not known."
    has = f"{device} has {in_words(free)} free"
    if parts.known > RUN_SHARE * free:
        return False, f"It {needs} and {has}, of which a run may take {RUN_SHARE:.0%}: it does not fit."
    if parts.total is None:
        return None, f"It {needs}; {has}."
    return True, f"It {needs}; {has}: it fits."
