"""The tuning itself, begun or gone on with, in micro-batches as large as memory allows; and the memory it took."""

import _thread
import ctypes
import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
import torch

from lsf.data.encode import EncodedExample
from lsf.errors import OutOfMemoryError, RunError
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.methods.selective import mask_seconds
from lsf.models.devices import give_back_cached, is_out_of_memory
from lsf.models.loading import LoadedModel
from lsf.progress import Stop
from lsf.runs.checkpoints import Checkpoint, CheckpointManager, latest_checkpoint
from lsf.runs.result import phase
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import refuse_full_disk
from lsf.training.caching import Caching, open_caching, recomputed, tokens_hash
from lsf.training.fitting import Fit, fit
from lsf.training.metrics_logger import MetricsLogger
from lsf.training.processes import n_processes
from lsf.training.proof import Fingerprint, Marks, fingerprint, marks
from lsf.training.reweighting import reweighting_of
from lsf.training.short_runs import first_tuning
from lsf.training.splits import EncodedSplits
from lsf.training.trainer import FitSettings, is_sharded, put_together

SAMPLE_SECONDS = 0.02
"""Time between two looks at the process's resident memory."""


class PeakMemory(AbstractContextManager["PeakMemory"]):
    """Measures the peak inside the `with`.

    On CUDA: the allocator's peak above what was allocated at the start. On the CPU: the growth of the process's
    resident set, sampled every 20 ms; other threads of the process count too, and memory that an earlier run left with
    the allocator would hide growth, so it is given back first. Elsewhere unknown: None.
    """

    def __init__(self, device: torch.device) -> None:
        """Choose what to measure.

        Args:
            device: where the model is.
        """
        self._device = device
        self._stop, self._stopped = threading.Event(), threading.Event()
        self._start = self._peak = 0
        self.source: str | None = {"cuda": "cuda", "cpu": "rss"}.get(device.type)

    def __enter__(self) -> "PeakMemory":
        """Free what can be freed and start."""
        free_memory()
        if self.source == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
        elif self.source == "rss":
            self._start = self._peak = psutil.Process().memory_info().rss
            with suppress(RuntimeError):  # no memory left for a thread: start and end are all that is seen
                # `threading.Thread.start` would wait for ever for a thread that lacks memory in its first moment
                _thread.start_new_thread(self._sample, ())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop sampling."""
        if self.source == "cuda":
            self._peak = torch.cuda.max_memory_allocated(self._device)
        elif self.source == "rss":
            self._stop.set()
            self._stopped.wait(SAMPLE_SECONDS)
            self._look()

    @property
    def bytes(self) -> int | None:
        """Peak above the start; None where it cannot be measured."""
        return None if self.source is None else max(0, self._peak - self._start)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._look()
        self._stopped.set()

    def _look(self) -> None:
        self._peak = max(self._peak, psutil.Process().memory_info().rss)


def free_memory() -> None:
    """Collect garbage and give unused memory back to the system and the GPU."""
    gc.collect()
    give_back_cached()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


@contextmanager
def explained_memory(loaded: LoadedModel, spec: RunSpec, doing: str = "tuning") -> Iterator[None]:
    """Turn every way of running out of memory into an `OutOfMemoryError` that says what would need less.

    Args:
        loaded: the base model.
        spec: of the run.
        doing: what memory is needed for.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RunError) or not is_out_of_memory(error):
            raise
        _let_go(error)
        raise OutOfMemoryError(
            f"{loaded.info.device} ran out of memory while {doing} {spec.plan.label} in batches of {spec.batch_size} "
            "examples; a smaller batch, shorter examples or fewer blocks need less."
        ) from None


def _let_go(error: BaseException | None) -> None:
    """Free what the frames an error came through still hold, so that there is memory to write down how it ended."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    free_memory()


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
    distance_fell: float | None
    """Share of training rows that are nearer to their targets in the model than before, in [0, 1]; None without
    re-weighting."""


@dataclass(frozen=True)
class FitInputs:
    """What every attempt at one run, and every trial of its rate, starts from."""

    loaded: LoadedModel
    """The base model."""
    spec: RunSpec
    """What is asked."""
    splits: EncodedSplits
    """Its rows."""
    settings: FitSettings
    """Of the loop, but for the micro-batch."""
    folder: Path
    """The run folder, where checkpoints are."""
    context: MethodContext
    """What the method is prepared from, and how the run is asked to stop."""

    @property
    def micro_batch(self) -> int:
        """Examples per forward pass, as long as memory suffices."""
        return self.spec.micro_batch or self.spec.batch_size


def fit_within_memory(inputs: FitInputs, log: MetricsLogger, about: dict[str, Any]) -> tuple[Attempt, PeakMemory]:
    """Tune within memory; a later attempt goes on from the newest checkpoint.

    Args:
        inputs: what is tuned.
        log: gets the rows.
        about: what a checkpoint says of the run, and what must be the same when it goes on.

    Returns:
        The attempt that went through, and its own peak of memory.

    Raises:
        RuntimeError, MemoryError: a single example does not fit.
    """
    about = {**about, "texts": tokens_hash(inputs.splits.train)}

    def attempt(micro: int) -> tuple[Attempt, PeakMemory]:
        with PeakMemory(inputs.loaded.device) as peak:
            return _attempt(inputs, log, about, micro), peak

    return within_memory(inputs.spec.batch_size, inputs.micro_batch, attempt)


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
def carried_out(inputs: FitInputs, model: Any) -> Iterator[Caching]:
    """Inside the `with`, steps of a prepared model are carried out as the run asks: from kept states, or recomputed."""
    loaded, spec = inputs.loaded, inputs.spec
    visits = inputs.splits.steps * spec.batch_size
    caching = open_caching(loaded, model, spec.plan, inputs.splits.train, spec.cache, visits)
    try:
        with recomputed(model, loaded, spec.plan, spec.activation_checkpointing):
            yield caching
    finally:
        caching.close()


def _attempt(inputs: FitInputs, log: MetricsLogger, about: dict[str, Any], micro: int) -> Attempt:
    loaded, spec, rows = inputs.loaded, inputs.spec, inputs.splits.train
    checkpoint = checked(latest_checkpoint(inputs.folder), about)
    begun = time.perf_counter() - mask_seconds(inputs.context.folder)  # found by a trial, or an attempt before
    model = prepared(inputs, micro)
    seconds = time.perf_counter() - begun
    refuse_full_disk(model, spec, inputs.folder)
    if checkpoint is not None:  # it then found what it had looked for
        seconds = checkpoint.progress.about.get("prepare_seconds", seconds)
    about = {**about, "prepare_seconds": seconds}
    with phase("proof"):
        by_hash = spec.proof == "hash" or n_processes() > 1
        start = fingerprint(model) if by_hash else marks(model, loaded.model)
    with carried_out(inputs, model) as caching:
        log.begin(model, checkpoint)
        reweighting = reweighting_of(spec, loaded, model, rows, log.check)
        tuned = sum(value.numel() for value in model.parameters() if value.requires_grad)
        written, beside = CHECKPOINT_BYTES * tuned, None if log.best is None else log.best.save
        manager = CheckpointManager(
            inputs.folder, about, spec.checkpoint_steps, spec.checkpoint_seconds, written, beside, log.warn
        )
        done = fit(
            model,
            rows,
            replace(inputs.settings, micro_batch=micro),
            inputs.folder,
            log.watch,
            lambda: _ending(inputs.context.stop(), log.enough),
            manager,
            checkpoint,
            caching.prefix,
            reweighting,
        )
    model = put_together(model, prepared(inputs, micro)) if is_sharded(model) else model
    if log.best is not None:
        log.best.restore(model)
    resumed_at = None if checkpoint is None else checkpoint.progress.step
    kept = done.steps if log.best is None else log.best.step or done.steps
    read = reweighting is not None and done.steps and done.stopped not in ("discard", "pause")
    fell = reweighting.fallen() if reweighting is not None and read else None
    return Attempt(model, start, done, caching, micro, resumed_at, seconds, kept, fell)


def _ending(asked: Stop | None, enough: Stop | None) -> Stop | None:
    """Return how the loop ends; one that is flat is whole, whoever stops it: the next step would be one too many."""
    return enough or asked if asked in ("pause", "keep") else asked or enough


def prepared(inputs: FitInputs, micro: int) -> Any:
    """Return the model as its method begins with it; where that takes steps of its own, in such micro-batches."""
    context = replace(inputs.context, micro_batch=micro)
    return METHODS[inputs.spec.method].prepare(inputs.loaded, inputs.spec.plan, context)


CHECKED = {
    "weights": "base model", "config": "base model's configuration", "data": "data", "general": "general data",
    "texts": "texts that the model's tokenizer and chat template make of the rows",
}  # fmt: skip
"""What must be the same when a run goes on -> what it is called."""


def checked(checkpoint: Checkpoint | None, about: dict[str, Any]) -> Checkpoint | None:
    """Return a checkpoint that belongs to the run as it stands now.

    One written before 2026-11-29 says nothing of the configuration, one before 2026-11-30 nothing of texts, which are
    then taken to be the same, nor the first of general data, of which there was none.

    Raises:
        RunError: the base model, its configuration, the data, the general data or their texts are not what they were.
    """
    if checkpoint is not None:
        same = {"config": about["config"], "texts": about["texts"]}
        known = {**same, "general": None, **checkpoint.progress.about}
        for key, words in CHECKED.items():
            if known.get(key) != about[key]:
                raise RunError(
                    f"The {words} changed since the run's checkpoint; start it again instead of resuming it."
                )
    return checkpoint


def method_context(
    spec: RunSpec,
    rows: tuple[EncodedExample, ...],
    base_dtype: str,
    folder: Path,
    stop: Callable[[], Stop | None],
    check: Callable[[], None],
) -> MethodContext:
    """Return the context of a run.

    Args:
        spec: method, options, seed, and how steps are carried out.
        rows: training rows.
        base_dtype: of the loaded model.
        folder: the run's own, for scratch.
        stop: says how the run is asked to stop.
        check: raises where it is.
    """
    options = options_of(spec.method, spec.options)
    return MethodContext(
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
        first_tuning,
    )
