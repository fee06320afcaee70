"""What a method may look at beside the model and the plan: its options, the training rows, a seed, a place to write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsf.data.encode import EncodedExample
from lsf.jobs.spec import RunSpec
from lsf.reporting import Stop
from lsf.training.catalogue import options_of
from lsf.training.evaluation import do_nothing


def never() -> Stop | None:
    """Say that nobody asks to stop."""
    return None


@dataclass(frozen=True)
class Scene:
    """Everything a method is prepared from; the same scene prepares the same frozen structure."""

    options: Any = None
    """The method's options record; None only for a method that has none."""
    rows: tuple[EncodedExample, ...] = ()
    """Training rows, end-of-text appended; empty where there are none."""
    seed: int = 0
    """Of every random choice of the method."""
    batch_size: int = 16
    """Examples per step, where the method takes steps of its own."""
    base_dtype: str = "float32"
    """Of the base model."""
    micro_batch: int | None = None
    """Examples per forward pass of such steps; None: the whole batch at once."""
    activation_checkpointing: str = "off"
    """off or non_reentrant: whether such steps compute activations again instead of keeping them."""
    folder: Path | None = None
    """Where what was costly to find is kept for a resumed run; None: nowhere."""
    stop: Callable[[], Stop | None] = never
    """How the run is asked to stop, if it is."""
    check: Callable[[], None] = do_nothing
    """Raises where the run is to end."""
    keep_draws: bool = False
    """Whether what a projection draws stays in memory: faster, and no longer small (lsf.training.dimension)."""


def scene_of(
    spec: RunSpec,
    rows: tuple[EncodedExample, ...],
    base_dtype: str,
    folder: Path,
    stop: Callable[[], Stop | None],
    check: Callable[[], None],
) -> Scene:
    """Return the scene of a run.

    Args:
        spec: method, options, seed, and how steps are carried out.
        rows: training rows.
        base_dtype: of the loaded model.
        folder: the run's own, for scratch.
        stop: says how the run is asked to stop.
        check: raises where it is.
    """
    options = options_of(spec.method, spec.options)
    return Scene(
        options,
        rows,
        spec.seed,
        spec.batch_size,
        base_dtype,
        spec.micro_batch,
        spec.activation_checkpointing,
        folder,
        stop,
        check,
    )
