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
_KEPT: WeakKeyDictionary[Any, dict[tuple[str, int], Speed]] = WeakKeyDictionary()


def sizes_of(loaded: LoadedModel) -> Sizes:
    """Return what the FLOPs of a model's passes are counted from."""
    params = tuple(sum(n_values(value) for value in block.parameters()) for block in loaded.anatomy.blocks)
    return Sizes(params, loaded.info.width, loaded.info.vocab_size)


def speed_of(loaded: LoadedModel, check: Callable[[], None]) -> Speed:
    """Return how fast the model's passes are here, timed at the first call for this model, device and threads.

    Passes of growing size are timed until one takes long enough; a straight line through the shortest and the longest
    gives the cost of a pass and of a FLOP. The optimizer's is timed on tensors of its own.

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
    sizes, found = sizes_of(loaded), list[tuple[float, float]]()
    for tokens in SIZES:
        check()
        load, seconds = _pass(loaded, tokens), list[float]()
        while len(seconds) < LEAST_REPEATS or (len(seconds) < REPEATS and sum(seconds) < LONG_ENOUGH):
            begun = time.perf_counter()
            _pass(loaded, tokens)
            seconds.append(time.perf_counter() - begun)
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
    """Pass so many tokens forward, logits of the last of each row alone, and wait until it is done."""
    row = min(ROW, tokens, loaded.context)
    rows = max(1, tokens // row)
    ids = torch.arange(rows * row, device=loaded.device).reshape(rows, row) % loaded.info.vocab_size
    keeps = "logits_to_keep" in signature(type(loaded.model).forward).parameters
    logits = loaded.model(input_ids=ids, use_cache=False, **({"logits_to_keep": 1} if keeps else {})).logits
    wait(logits.device)
    return Load(1, rows * row, rows * row * row, rows * (1 if keeps else row))


def _update_seconds(device: torch.device) -> float:
    value = torch.nn.Parameter(torch.zeros(VALUES, device=device))
    optimizer = torch.optim.AdamW([value], fused=device.type in ("cpu", "cuda"))
    seconds = 0.0
    for _ in range(2):  # the first step makes the state
        value.grad = torch.ones_like(value)
        wait(device)
        begun = time.perf_counter()
        torch.nn.utils.clip_grad_norm_([value], 1.0)
        optimizer.step()
        wait(device)
        seconds = time.perf_counter() - begun
    return seconds / VALUES
