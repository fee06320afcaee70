"""How much memory a run took above what was there before it, and the sentence when it was not enough."""

import _thread
import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType

import psutil
import torch

from lsf.errors import OutOfMemoryError, RunError
from lsf.jobs.spec import RunSpec
from lsf.measure.devices import give_back_cached
from lsf.measure.exhaustion import is_out_of_memory
from lsf.measure.loading import LoadedModel

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
        raise OutOfMemoryError(
            f"{loaded.info.device} ran out of memory while {doing} {spec.plan.label} in batches of {spec.batch_size} "
            "examples; a smaller batch, shorter examples or fewer blocks need less."
        ) from None
