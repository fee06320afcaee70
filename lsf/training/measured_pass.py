"""Passes that change nothing, measured: how long one takes, and how much memory at its peak.

And latency: how long a forward pass of what a run saved takes over the base's, timed in turn, with an interval.
"""

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lsf.data.encode import EncodedExample
from lsf.methods.catalogue import CATALOGUE
from lsf.models.batches import IGNORED, autocasting, collate, score_tokens
from lsf.models.devices import is_out_of_memory, wait
from lsf.models.loading import LoadedModel
from lsf.models.quantised import is_quantised
from lsf.runs.result import phase
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import find_weights, load_tuned, merge, read_about
from lsf.training.caching import blocks_of

TOKENS, ROWS = 32, 8
"""Size of a timed forward pass."""
LEAST_PAIRS, MOST_PAIRS, SECONDS = 6, 61, 1.0
"""Pairs of timed passes, and about how long they may take; fewer than six have no interval of 95 %."""
CLOSE = 0.02
"""Timing ends where the interval is no wider than this on either side."""


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


@dataclass(frozen=True)
class TimeRatio:
    """Seconds of one thing over those of another."""

    ratio: float
    """Median over the pairs."""
    low: float
    """Lower end of the median's 95 % interval."""
    high: float
    """Upper end."""


def latency_asked(folder: Path, loaded: LoadedModel, spec: RunSpec) -> dict[str, float]:
    """Return the latency of what a run saved, as its result has it.

    Nothing where it is not asked for, or where memory does not suffice to load it beside the run.
    """
    if spec.latency != "on":
        return {}
    try:
        with phase("latency"):
            found = latency_ratio(folder, loaded)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {}
    return {"latency_ratio": found.ratio, "latency_low": found.low, "latency_high": found.high}


def latency_ratio(folder: Path, loaded: Any) -> TimeRatio:
    """Return how long a forward pass of what a run saved takes, over the base's.

    It is loaded onto the base again and merged where its method can be, but into no quantised base, whose bits merging
    would give up. Both are timed in turn on the same ids.

    Args:
        folder: of the run.
        loaded: the base.

    Raises:
        BadInputError: as `load_tuned`.
    """
    tuned = load_tuned(folder, loaded)
    if CATALOGUE[read_about(find_weights(folder)).method].merges and not is_quantised(loaded.model):
        tuned = merge(tuned, loaded)
    return time_in_turn(forward_on(tuned, loaded), forward_on(loaded.model, loaded))


def forward_on(model: Any, loaded: Any) -> Callable[[], None]:
    """Return a forward pass of a model over fixed ids, to be timed; its base says how it is read."""
    tokens = min(TOKENS, loaded.context)
    ids = torch.arange(ROWS * tokens, device=loaded.device).reshape(ROWS, tokens) % loaded.info.vocab_size

    def run() -> None:
        with torch.no_grad(), autocasting(model, loaded.info.dtype):
            model(input_ids=ids, use_cache=False)
        wait(ids.device)

    return run


def time_in_turn(
    one: Callable[[], None],
    other: Callable[[], None],
    seconds: float = SECONDS,
    most: int = MOST_PAIRS,
    close: float = CLOSE,
) -> TimeRatio:
    """Return the seconds of one thing over those of another, done in turn, each once before it counts.

    What slows the machine for a while slows both of a pair, so the ratio of each pair counts and not that of sums.

    Args:
        one: timed.
        other: what it is compared with.
        seconds: about how long it may take, however wide the interval is.
        most: pairs at most.
        close: pairs end where the interval reaches no further than this to either side.
    """
    for do in (one, other):
        do()
    ratios: list[float] = []
    started = time.perf_counter()
    while True:
        if len(ratios) % 2:
            mine, base = _timed(one), _timed(other)
        else:
            base, mine = _timed(other), _timed(one)
        ratios.append(mine / base)
        if len(ratios) < LEAST_PAIRS:
            continue
        found = median_interval(ratios)
        settled = max(found.high - found.ratio, found.ratio - found.low) <= close
        if settled or len(ratios) >= most or time.perf_counter() - started >= seconds:
            return found


def median_interval(ratios: Sequence[float]) -> TimeRatio:
    """Return the median with its 95 % interval from order statistics: no assumption on how the noise is spread.

    Args:
        ratios: one per pair, six or more; below that no two of them hold the median with 95 %.
    """
    from scipy.stats import binom  # noqa: PLC0415 half a second, needed once a run

    ordered = sorted(ratios)
    outside = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return TimeRatio(median(ordered), ordered[outside], ordered[-1 - outside])


def _timed(do: Callable[[], None]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun
