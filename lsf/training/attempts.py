"""The tuning itself, begun or gone on with, in micro-batches as large as memory allows."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lsf.errors import RunError
from lsf.jobs.checkpoints import Checkpoint, Keeper, latest_checkpoint
from lsf.jobs.phases import phase
from lsf.jobs.spec import RunSpec
from lsf.measure.exhaustion import is_out_of_memory
from lsf.measure.loading import LoadedModel
from lsf.training.artefacts import refuse_full_disk
from lsf.training.caching import Caching, open_caching
from lsf.training.checkpointing import recomputed
from lsf.training.fitting import Fit, FitSettings, fit
from lsf.training.logbook import Logbook
from lsf.training.material import Material
from lsf.training.memory import PeakMemory, free_memory
from lsf.training.methods import METHODS, Scene
from lsf.training.processes import n_processes
from lsf.training.proof import Fingerprint, Marks, fingerprint, marks
from lsf.training.reweighting import reweighting_of
from lsf.training.sharding import is_sharded, put_together

CHECKPOINT_BYTES = 12
"""Of a checkpoint, per tuned parameter: its value and AdamW's two moments in float32."""

Done = TypeVar("Done")


@dataclass(frozen=True)
class Attempt:
    """A fit that came to an end."""

    model: Any
    """The tuned model."""
    start: Fingerprint | Marks
    """Its tensors before the first step."""
    done: Fit
    """What the loop did."""
    caching: Caching
    """How the frozen prefix was served."""
    micro_batch: int
    """Examples per forward pass."""
    resumed_at: int | None
    """Step of the checkpoint it went on from."""
    prepare_seconds: float
    """Wall seconds until the model was there to be tuned, the search for a mask among them, also before a pause."""
    kept_step: int
    """Step whose values the model holds."""


@dataclass(frozen=True)
class Ground:
    """What every attempt at one run, and every trial of its rate, starts from."""

    loaded: LoadedModel
    """The base model."""
    spec: RunSpec
    """What is asked."""
    material: Material
    """Its rows."""
    settings: FitSettings
    """Of the loop, but for the micro-batch."""
    folder: Path
    """The run folder, where checkpoints are."""
    scene: Scene
    """What the method is prepared from, and how the run is asked to stop."""

    @property
    def micro_batch(self) -> int:
        """Examples per forward pass, as long as memory suffices."""
        return self.spec.micro_batch or self.spec.batch_size


def fit_within_memory(ground: Ground, log: Logbook, about: dict[str, Any]) -> tuple[Attempt, PeakMemory]:
    """Tune within memory; a later attempt goes on from the newest checkpoint.

    Args:
        ground: what is tuned.
        log: gets the rows.
        about: what a checkpoint says of the run, and what must be the same when it goes on.

    Returns:
        The attempt that went through, and its own peak of memory.

    Raises:
        RuntimeError, MemoryError: a single example does not fit.
    """

    def attempt(micro: int) -> tuple[Attempt, PeakMemory]:
        with PeakMemory(ground.loaded.device) as peak:
            return _attempt(ground, log, about, micro), peak

    return within_memory(ground.spec.batch_size, ground.micro_batch, attempt)


def within_memory(batch: int, micro: int, attempt: Callable[[int], Done]) -> Done:
    """Make an attempt in micro-batches; where memory does not suffice, free it and make one with half the size.

    Gradients add up over micro-batches to the same mean over the batch, so only the time changes. Several processes
    cannot do so each on its own, so there it is the end.

    Args:
        batch: examples per step.
        micro: examples per forward pass at first.
        attempt: called with the micro-batch.

    Raises:
        RuntimeError, MemoryError: a single example does not fit.
    """
    while True:
        try:
            return attempt(micro)
        except (RuntimeError, MemoryError) as error:
            smaller = next_micro_batch(batch, micro) if n_processes() == 1 else None
            if isinstance(error, RunError) or not is_out_of_memory(error) or smaller is None:
                raise
        micro = smaller
        free_memory()


def next_micro_batch(batch: int, micro: int) -> int | None:
    """Return the largest divisor of the batch that is at most half of `micro`; None below one example."""
    return next((size for size in range(micro // 2, 0, -1) if batch % size == 0), None)


@contextmanager
def carried_out(ground: Ground, model: Any) -> Iterator[Caching]:
    """Inside the `with`, steps of a prepared model are carried out as the run asks: from kept states, or recomputed."""
    loaded, spec = ground.loaded, ground.spec
    visits = ground.material.steps * spec.batch_size
    caching = open_caching(loaded, model, spec.plan, ground.material.train, spec.cache, visits)
    try:
        with recomputed(model, loaded, spec.plan, spec.activation_checkpointing):
            yield caching
    finally:
        caching.close()


def _attempt(ground: Ground, log: Logbook, about: dict[str, Any], micro: int) -> Attempt:
    loaded, spec, rows = ground.loaded, ground.spec, ground.material.train
    checkpoint = checked(latest_checkpoint(ground.folder), about)
    begun = time.perf_counter()
    model = prepared(ground, micro)
    seconds = time.perf_counter() - begun
    refuse_full_disk(model, spec, ground.folder)
    if checkpoint is not None:  # it then found what it had looked for
        seconds = checkpoint.progress.about.get("prepare_seconds", seconds)
    about = {**about, "prepare_seconds": seconds}
    with phase("proof"):
        by_hash = spec.proof == "hash" or n_processes() > 1
        start = fingerprint(model) if by_hash else marks(model, loaded.model)
    with carried_out(ground, model) as caching:
        log.begin(model, checkpoint)
        reweighting = reweighting_of(spec, loaded, model, rows, ground.scene.check)
        tuned = sum(value.numel() for value in model.parameters() if value.requires_grad)
        written, beside = CHECKPOINT_BYTES * tuned, None if log.best is None else log.best.save
        keeper = Keeper(ground.folder, about, spec.checkpoint_steps, spec.checkpoint_seconds, written, beside, log.warn)
        done = fit(
            model,
            rows,
            replace(ground.settings, micro_batch=micro),
            ground.folder,
            log.watch,
            lambda: ground.scene.stop() or log.enough,
            keeper,
            checkpoint,
            caching.prefix,
            reweighting,
        )
    model = put_together(model, prepared(ground, micro)) if is_sharded(model) else model
    if log.best is not None:
        log.best.restore(model)
    resumed_at = None if checkpoint is None else checkpoint.progress.step
    kept = done.steps if log.best is None else log.best.step or done.steps
    return Attempt(model, start, done, caching, micro, resumed_at, seconds, kept)


def prepared(ground: Ground, micro: int) -> Any:
    """Return the model as its method begins with it; where that takes steps of its own, in such micro-batches."""
    scene = replace(ground.scene, micro_batch=micro)
    return METHODS[ground.spec.method].prepare(ground.loaded, ground.spec.plan, scene)


def checked(checkpoint: Checkpoint | None, about: dict[str, Any]) -> Checkpoint | None:
    """Return a checkpoint that belongs to the run as it stands now.

    One written before 2026-11-29 says nothing of the configuration, which is then taken to be the same.

    Raises:
        RunError: the base model, its configuration or the data are not what they were.
    """
    if checkpoint is not None:
        known = {"config": about["config"], **checkpoint.progress.about}
        for key, words in (("weights", "base model"), ("config", "base model's configuration"), ("data", "data")):
            if known.get(key) != about[key]:
                raise RunError(
                    f"The {words} changed since the run's checkpoint; start it again instead of resuming it."
                )
    return checkpoint
