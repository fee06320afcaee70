"""One forward and backward pass that changes nothing: how long it takes, and how much memory at its peak."""

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lsf.data.encode import EncodedExample
from lsf.models.batches import IGNORED, autocasting, collate, score_tokens
from lsf.models.devices import wait
from lsf.models.loading import LoadedModel
from lsf.training.caching import blocks_of


@dataclass(frozen=True)
class Timed:
    """How long one pass took."""

    seconds: float
    """Wall seconds of forward and backward."""
    prefix_seconds: float
    """Of those, in the blocks below `depth`, whose output a cache would have."""


def one_pass(model: Any, loaded: LoadedModel, rows: Sequence[EncodedExample]) -> None:
    """Run forward and backward once; gradients are left where they are wanted, nothing is stepped."""
    batch = collate(rows)
    with torch.enable_grad(), autocasting(model, loaded.info.dtype):
        scores = score_tokens(model, batch)
        loss = scores.nll.sum() / (batch["labels"] != IGNORED).sum()
    loss.backward()


class Held(TorchDispatchMode):
    """Adds up the storages that operations make and those that die; buffers inside one operation are not seen."""

    def __init__(self) -> None:
        """Start with nothing held."""
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def know(self, model: torch.nn.Module) -> None:
        """Take the model's own tensors as there before."""
        for value in (*model.parameters(), *model.buffers()):
            self._seen.add(value.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let an operation happen and count what it made."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and (storage := value.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._let_go, storage.nbytes()).atexit = False
        self.peak = max(self.peak, self.now)
        return result

    def _let_go(self, count: int) -> None:
        self.now -= count


def peak_of_pass(model: Any, loaded: LoadedModel, rows: Sequence[EncodedExample]) -> int:
    """Return the bytes one pass holds at its peak, above what was held before it.

    On CUDA the allocator's own count. Elsewhere the storages that operations make are added up as they come
    and go: a process's resident set is blind to anything small, and grows for other reasons.

    Raises:
        RuntimeError, MemoryError: memory did not suffice.
    """
    device = loaded.device
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        one_pass(model, loaded, rows)
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with Held() as held:
        held.know(model)
        one_pass(model, loaded, rows)
    return held.peak


def time_pass(model: Any, loaded: LoadedModel, rows: Sequence[EncodedExample], depth: int) -> Timed:
    """Time one pass, and in it the blocks below `depth`."""
    marks: list[float] = []

    def mark(*_: Any) -> None:
        marks.append(_now(loaded.device))

    with _hooked(blocks_of(model, loaded)[:depth], mark):
        begun = _now(loaded.device)
        one_pass(model, loaded, rows)
        ended = _now(loaded.device)
    return Timed(ended - begun, marks[1] - marks[0] if depth else 0.0)


@contextmanager
def checking(model: Any, loaded: LoadedModel, check: Callable[[], None]) -> Iterator[None]:
    """Call `check`, which may raise, before every block of the passes inside the `with`, forward and backward."""

    def before(*_: Any) -> None:
        check()

    def after(_module: Any, _args: Any, output: Any) -> None:
        state = output if isinstance(output, torch.Tensor) else output[0]
        if state.requires_grad:
            state.register_hook(before)

    blocks = blocks_of(model, loaded)
    hooks = [
        hook
        for block in blocks
        for hook in (block.register_forward_pre_hook(before), block.register_forward_hook(after))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _hooked(blocks: Sequence[torch.nn.Module], mark: Any) -> Iterator[None]:
    hooks = [blocks[0].register_forward_pre_hook(mark), blocks[-1].register_forward_hook(mark)] if blocks else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _now(device: torch.device) -> float:
    wait(device)
    return time.perf_counter()
