"""The training loop: transformers' Trainer over the tuned parameters, watched after every step."""

import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsf.data.encode import EncodedExample
from lsf.environment import own_environment
from lsf.methods.optimization import OPTIMIZERS
from lsf.models.batches import OrderedRows, training_order
from lsf.models.devices import input_device
from lsf.progress import Stop, never
from lsf.runs.checkpoints import Checkpoint, CheckpointManager
from lsf.runs.result import phase
from lsf.training.prefix import Prefix
from lsf.training.processes import n_processes
from lsf.training.proof import storages
from lsf.training.reweighting import Reweighting
from lsf.training.trainer import CompletionTrainer, DivergedError, FitSettings, StepRow, StepTimer

__all__ = ["DivergedError", "Fit", "FitSettings", "StepRow", "fit", "short_run"]

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Fit:
    """What the loop did."""

    steps: int
    """Optimizer steps done."""
    tokens: int
    """Real tokens trained on."""
    seconds: float
    """Wall seconds of those steps."""
    step_seconds: tuple[float, ...]
    """Wall seconds per step, one value per logged row."""
    trainable_params: int
    """Parameters the optimizer held."""
    stopped: Stop | None
    """How it was asked to stop; None where it ran to its end."""
    written: frozenset[int] = frozenset()
    """Addresses of the storages the optimizer held."""


def fit(
    model: Any,
    rows: Sequence[EncodedExample],
    settings: FitSettings,
    folder: Path,
    watch: Callable[[StepRow], None],
    stop: Callable[[], Stop | None],
    manager: CheckpointManager | None = None,
    start: Checkpoint | None = None,
    prefix: Prefix | None = None,
    reweighting: Reweighting | None = None,
) -> Fit:
    """Tune the parameters of `model` that want gradients, in place, on completions only.

    The model stays in eval mode: no dropout, in the tuned part neither, so that what is compared is where a model is
    tuned and not how much noise each place gets. Data order depends on the seed alone. One loop runs at a time in a
    process, since Trainer's accelerator and the random generators it seeds are global; both are put back afterwards.

    Args:
        model: a prepared model of its own (lsf.methods).
        rows: training rows, end-of-text appended; general ones last.
        settings: of the loop.
        folder: where Trainer may keep its files: what `report_to` writes there, such as TensorBoard's `runs`.
        watch: called after each logged step with what is known; it may raise to end the loop.
        stop: asked after each step.
        manager: writes checkpoints; None writes none.
        start: the checkpoint to go on from; None begins.
        prefix: serves the frozen prefix of `model`; None computes it every time.
        reweighting: of `rows` and `model`; None gives every row the same weight.

    Raises:
        DivergedError: the loss or its gradient is not finite any more.
        RunError: a checkpoint cannot be written, or does not belong to this model.
    """
    n_wanted, mixing = settings.steps * settings.batch_size, (settings.n_general, settings.general_share)
    data = OrderedRows(rows, training_order(len(rows), n_wanted, settings.seed, *mixing))
    progress = None if start is None else start.progress
    timer = StepTimer(data.tokens_after_batch(settings.batch_size), watch, stop, manager, progress)
    while not _ONE_AT_A_TIME.acquire(timeout=0.1):
        if stop() is not None:
            return Fit(0, 0, 0.0, (), 0, stop())  # the model does not even have the checkpoint's values
    try:
        device = input_device(model)
        with own_environment(), kept_random_state(), kept_in_eval_mode(model), _on(device), torch.enable_grad():
            trainer = CompletionTrainer(model, settings, data, folder, device, manager, prefix, timer, reweighting)
            with phase("steps"):
                trainer.train(resume_from_checkpoint=None if start is None else str(start.place))
    finally:
        _forget_overrides(settings.optimizer)
        _ONE_AT_A_TIME.release()
    return _done(trainer, timer)


def _done(trainer: Any, timer: StepTimer) -> Fit:
    """Return what a loop did that has ended."""
    held = {id(value): value for group in trainer.optimizer.param_groups for value in group["params"]}
    return Fit(
        timer.step,
        timer.tokens,
        timer.seconds,
        tuple(timer.step_seconds),
        sum(value.numel() for value in held.values()),
        timer.stopped,
        storages(held.values()) if n_processes() == 1 else frozenset(),
    )


def unwatched(_row: StepRow) -> None:
    """Watch a loop whose rows nobody wants."""


def short_run(
    model: Any,
    rows: Sequence[EncodedExample],
    settings: FitSettings,
    stop: Callable[[], Stop | None] = never,
    watch: Callable[[StepRow], None] = unwatched,
    prefix: Prefix | None = None,
    reweighting: Reweighting | None = None,
) -> Fit:
    """Tune as `fit` does, in place, and leave no file: for whoever trains briefly and looks at the model afterwards.

    Args and errors: as those of `fit`.
    """
    with tempfile.TemporaryDirectory(prefix="lsf-short-run-") as folder:
        return fit(model, rows, settings, Path(folder), watch, stop, prefix=prefix, reweighting=reweighting)


def _forget_overrides(optimizer: str) -> None:
    """Let bitsandbytes forget the embeddings of a fit: it keeps them by `id`, which a later tensor may have again."""
    if OPTIMIZERS[optimizer].package == "bitsandbytes":
        from bitsandbytes.optim.optimizer import GlobalOptimManager  # noqa: PLC0415 optional

        GlobalOptimManager.get_instance().initialize()


@contextmanager
def kept_in_eval_mode(model: Any) -> Iterator[None]:
    """Let nobody switch a model to training mode: Trainer does before each step, walking every module."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put Python's, numpy's and torch's global generators back as they were: Trainer seeds all of them."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 what Trainer seeds is this one
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
