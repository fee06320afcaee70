"""The tuning itself, begun or gone on with, in micro-batches as large as memory allows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsf.errors import RunError
from lsf.jobs.checkpoints import Checkpoint, Keeper, latest_checkpoint
from lsf.jobs.phases import phase
from lsf.jobs.spec import RunSpec
from lsf.measure.exhaustion import is_out_of_memory
from lsf.measure.loading import LoadedModel
from lsf.reporting import Stop
from lsf.training.caching import Caching, open_caching
from lsf.training.checkpointing import recomputed
from lsf.training.fitting import Fit, FitSettings, fit
from lsf.training.logbook import Logbook
from lsf.training.material import Material
from lsf.training.memory import free_memory
from lsf.training.methods import METHODS, Scene
from lsf.training.processes import n_processes
from lsf.training.proof import Fingerprint, Marks, fingerprint, marks
from lsf.training.reweighting import reweighting_of
from lsf.training.sharding import is_sharded, put_together

CHECKPOINT_BYTES = 12
"""Of a checkpoint, per tuned parameter: its value and AdamW's two moments in float32."""


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
    """What every attempt at one run starts from."""

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
    """What the method is prepared from."""
    log: Logbook
    """Gets the rows."""
    stop: Callable[[], Stop | None]
    """How the run is asked to stop."""
    about: dict[str, Any]
    """What a checkpoint says of the run, and what must be the same when it goes on."""


def fit_within_memory(ground: Ground) -> Attempt:
    """Tune; where memory does not suffice, free it and go on with micro-batches of half the size.

    Gradients add up over micro-batches to the same mean over the batch, so only the time changes. A later attempt goes
    on from the newest checkpoint. Several processes cannot do so each on its own, so there it is the end.

    Raises:
        RuntimeError, MemoryError: a single example does not fit.
    """
    micro = ground.spec.micro_batch or ground.spec.batch_size
    while True:
        try:
            return _attempt(ground, micro)
        except (RuntimeError, MemoryError) as error:
            smaller = next_micro_batch(ground.spec.batch_size, micro) if n_processes() == 1 else None
            if isinstance(error, RunError) or not is_out_of_memory(error) or smaller is None:
                raise
        micro = smaller
        free_memory()


def next_micro_batch(batch: int, micro: int) -> int | None:
    """Return the largest divisor of the batch that is at most half of `micro`; None below one example."""
    return next((size for size in range(micro // 2, 0, -1) if batch % size == 0), None)


def _attempt(ground: Ground, micro: int) -> Attempt:
    loaded, spec, rows = ground.loaded, ground.spec, ground.material.train
    checkpoint = checked(latest_checkpoint(ground.folder), ground.about)
    begun = time.perf_counter()
    model = prepared(ground)
    seconds = time.perf_counter() - begun
    if checkpoint is not None:  # it then found what it had looked for
        seconds = checkpoint.progress.about.get("prepare_seconds", seconds)
    about = {**ground.about, "prepare_seconds": seconds}
    with phase("proof"):
        by_hash = spec.proof == "hash" or n_processes() > 1
        start = fingerprint(model) if by_hash else marks(model, loaded.model)
    visits = ground.material.steps * spec.batch_size
    caching = open_caching(loaded, model, spec.plan, rows, spec.cache, visits)
    ground.log.begin(model, checkpoint)
    reweighting = reweighting_of(spec, loaded, model, rows, ground.scene.check)
    tuned = sum(value.numel() for value in model.parameters() if value.requires_grad)
    written, beside = CHECKPOINT_BYTES * tuned, None if ground.log.best is None else ground.log.best.save
    keeper = Keeper(ground.folder, about, spec.checkpoint_steps, spec.checkpoint_seconds, written, beside)
    try:
        with recomputed(model, loaded, spec.plan, spec.activation_checkpointing):
            done = fit(
                model,
                rows,
                replace(ground.settings, micro_batch=micro),
                ground.folder,
                ground.log.watch,
                lambda: ground.stop() or ground.log.enough,
                keeper,
                checkpoint,
                caching.prefix,
                reweighting,
            )
    finally:
        caching.close()
    model = put_together(model, prepared(ground)) if is_sharded(model) else model
    if ground.log.best is not None:
        ground.log.best.restore(model)
    resumed_at = None if checkpoint is None else checkpoint.progress.step
    kept = done.steps if ground.log.best is None else ground.log.best.step or done.steps
    return Attempt(model, start, done, caching, micro, resumed_at, seconds, kept)


def prepared(ground: Ground) -> Any:
    """Return the model as its method begins with it."""
    return METHODS[ground.spec.method].prepare(ground.loaded, ground.spec.plan, ground.scene)


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
