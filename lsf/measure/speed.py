"""How fast this machine computes with a loaded model: a few short passes, timed once and kept in memory."""

import time
from collections.abc import Callable
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lsf.analysis.cost import Load, Sizes, Speed, forward_flops
from lsf.measure.devices import wait
from lsf.measure.loading import LoadedModel
from lsf.measure.offload import places_of
from lsf.measure.quantised import n_values

SIZES = (4, 64, 256, 1024, 4096)
"""Tokens of the passes, in turn."""
ROW = 16
"""Tokens of a row at most."""
LONG_ENOUGH = 0.05
"""Seconds of a pass, the first one left out, after which no longer one is timed."""
LEAST_REPEATS, REPEATS = 3, 5
"""Passes of one size, fewest and most, of which the fastest counts: others on a busy machine are of other work."""
VALUES = 1 << 21
"""Parameters the timed optimizer step is made on."""
SIDE = 512
"""Rows and columns of the matrices whose product is timed."""
_KEPT: WeakKeyDictionary[Any, dict[tuple[str, int], Speed]] = WeakKeyDictionary()


def sizes_of(loaded: LoadedModel) -> Sizes:
    """Return what the FLOPs of a model's passes are counted from."""
    params = tuple(sum(n_values(value) for value in block.parameters()) for block in loaded.anatomy.blocks)
    return Sizes(params, loaded.info.width, loaded.info.vocab_size)


def speed_of(loaded: LoadedModel, check: Callable[[], None]) -> Speed:
    """Return how fast the model's passes are here, timed at the first call for this model, device and threads.

    Passes of growing size are timed until one takes long enough; a straight line through the shortest and the longest
    gives the cost of a pass and of a FLOP. The optimizer's is timed on tensors of its own. A model spread over several
    places brings its weights over in every pass: one short pass gives the cost of that, a product of matrices that of a
    FLOP.

    Args:
        loaded: the model; it is not changed.
        check: called between passes; may raise to end the timing.
    """
    kept = _KEPT.setdefault(loaded.model, {})
    key = str(loaded.device), torch.get_num_threads()
    if key not in kept:
        kept[key] = _timed(loaded, check)
    return kept[key]


def _timed(loaded: LoadedModel, check: Callable[[], None]) -> Speed:
    check()
    if places_of(loaded.model):
        fixed = _seconds(lambda: _pass(loaded, SIZES[0]), loaded.device)
        return Speed(fixed, _product_seconds(loaded), _update_seconds(loaded.device))
    sizes, found = sizes_of(loaded), list[tuple[float, float]]()
    for tokens in SIZES:
        check()
        load, seconds = _pass(loaded, tokens), list[float]()
        while len(seconds) < LEAST_REPEATS or (len(seconds) < REPEATS and sum(seconds) < LONG_ENOUGH):
            seconds.append(_seconds(lambda tokens=tokens: _pass(loaded, tokens), loaded.device))
        found.append((forward_flops(sizes, load), min(seconds)))
        if len(found) > 1 and found[-1][1] >= LONG_ENOUGH:
            break
    check()
    return Speed(*_line(found[0], found[-1]), _update_seconds(loaded.device))


def _line(short: tuple[float, float], long: tuple[float, float]) -> tuple[float, float]:
    """Return what a pass costs and what a FLOP does, from two passes; neither is below 0."""
    (flops, seconds), (more_flops, more_seconds) = short, long
    slope = max(0.0, more_seconds - seconds) / (more_flops - flops)
    fixed = max(0.0, seconds - slope * flops)
    return fixed, max(0.0, more_seconds - fixed) / more_flops


@torch.no_grad()
def _pass(loaded: LoadedModel, tokens: int) -> Load:
    """Pass so many tokens forward, logits of the last of each row alone."""
    row = min(ROW, tokens, loaded.context)
    rows = max(1, tokens // row)
    ids = torch.arange(rows * row, device=loaded.device).reshape(rows, row) % loaded.info.vocab_size
    keeps = "logits_to_keep" in signature(type(loaded.model).forward).parameters
    loaded.model(input_ids=ids, use_cache=False, **({"logits_to_keep": 1} if keeps else {}))
    return Load(1, rows * row, rows * row * row, rows * (1 if keeps else row))


def _seconds(do: Callable[[], object], device: torch.device) -> float:
    """Return how long something takes, all that a device has to do for it included."""
    wait(device)
    begun = time.perf_counter()
    do()
    wait(device)
    return time.perf_counter() - begun


def _product_seconds(loaded: LoadedModel) -> float:
    """Return the seconds of a FLOP in a product of matrices of the model's type, where its ids go."""
    square = torch.ones(SIDE, SIDE, dtype=loaded.model.dtype, device=loaded.device)
    return min(_seconds(lambda: square @ square, loaded.device) for _ in range(LEAST_REPEATS)) / (2.0 * SIDE**3)


def _update_seconds(device: torch.device) -> float:
    value = torch.nn.Parameter(torch.zeros(VALUES, device=device))
    optimizer = torch.optim.AdamW([value], fused=device.type in ("cpu", "cuda"))

    def step() -> None:
        torch.nn.utils.clip_grad_norm_([value], 1.0)
        optimizer.step()

    seconds = 0.0
    for _ in range(2):  # the first step makes the state
        value.grad = torch.ones_like(value)
        seconds = _seconds(step, device)
    return seconds / VALUES
