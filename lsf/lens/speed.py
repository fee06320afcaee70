"""How fast this machine computes with a loaded model, and how long an analysis will take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import TypeVar

import torch

from lsf.criteria.agreement import KERNEL_EXAMPLES
from lsf.criteria.registry import Need
from lsf.lens.forward import ABLATION, ABLATION_POSITIONS
from lsf.lens.gradients import GRADIENTS, TRIAL
from lsf.lens.kernels import KERNELS, SPECTRA
from lsf.lens.translators import BATCH, FITTING, TEXTS, TOKENS
from lsf.models.batches import Batch
from lsf.models.devices import places_of, wait
from lsf.models.loading import LoadedModel
from lsf.models.quantised import n_values, shape_of
from lsf.plans.cost import Load, Sizes, Speed, backward_flops, forward_flops
from lsf.progress import Phase

SIZES = (4, 64, 256, 1024, 4096)
"""Tokens of the passes, in turn."""
ROW = 16
"""Tokens of a row at most."""
LONG_ENOUGH, APART = 0.05, 4.0
"""Seconds of a pass, and times those of the shortest, after which no longer one is timed: a line needs both ends."""
ONCE, TOO_LONG = 0.5, 1.0
"""Seconds of a pass from which on it is not repeated, and after which no longer one is timed in any case."""
NOISE = 0.01
"""Share of a pass that its FLOPs are taken to cost at least."""
LEAST_REPEATS, REPEATS = 2, 5
"""Passes of one size, fewest and most, of which the fastest counts: others on a busy machine are of other work."""
VALUES = 1 << 21
"""Parameters the timed optimizer step is made on."""
SIDE = 512
"""Rows and columns of the matrices whose product is timed."""
T = TypeVar("T")
_KEPT: dict[tuple[object, ...], Speed] = {}


def sizes_of(loaded: LoadedModel) -> Sizes:
    """Return what the FLOPs of a model's passes are counted from."""
    params = tuple(sum(n_values(value) for value in block.parameters()) for block in loaded.layout.blocks)
    return Sizes(params, loaded.info.width, loaded.info.vocab_size)


def speed_of(loaded: LoadedModel, check: Callable[[], None]) -> Speed:
    """Return how fast the model's passes are here, timed at the first call for a model of its make.

    That is its class, the shapes, types and places of its parameters, its attention and context, and the threads: a
    model that is loaded again, or another one of the same sizes, is as fast.

    Passes of growing size are timed until one takes long enough; a straight line through the shortest and the longest
    gives the cost of a pass and of a FLOP. The optimizer's is timed on tensors of its own. A model spread over several
    places brings its weights over in every pass: one short pass gives the cost of that, a product of matrices that of a
    FLOP.

    Args:
        loaded: the model; it is not changed.
        check: called between passes; may raise to end the timing.
    """
    key = _make(loaded)
    if key not in _KEPT:
        _KEPT[key] = _timed(loaded, check)
    return _KEPT[key]


def _make(loaded: LoadedModel) -> tuple[object, ...]:
    """Return what the time of a pass depends on; a hash stands for the tensors, of which there may be many."""
    model = loaded.model
    tensors = [(name, tuple(value.shape), value.dtype, value.device) for name, value in model.named_parameters()]
    attention = getattr(model.config, "_attn_implementation", None)
    threads = torch.get_num_threads()
    return type(model), hash(tuple(tensors)), attention, min(ROW, loaded.context), str(loaded.device), threads


def _timed(loaded: LoadedModel, check: Callable[[], None]) -> Speed:
    check()
    if places_of(loaded.model):
        _, fixed = _seconds(lambda: _pass(loaded, SIZES[0]), loaded.device)
        return Speed(fixed, _product_seconds(loaded), _update_seconds(loaded.device))
    sizes, found = sizes_of(loaded), list[tuple[float, float]]()
    load = _pass(loaded, SIZES[0])  # untimed: the first pass of all brings the weights into memory
    for tokens in SIZES:
        check()
        seconds = list[float]()
        while len(seconds) < REPEATS and sum(seconds) < (ONCE if len(seconds) < LEAST_REPEATS else LONG_ENOUGH):
            load, took = _seconds(lambda tokens=tokens: _pass(loaded, tokens), loaded.device)
            seconds.append(took)
        found.append((forward_flops(sizes, load), min(seconds)))
        if len(found) > 1 and min(seconds) >= min(max(LONG_ENOUGH, APART * found[0][1]), TOO_LONG):
            break
    check()
    return Speed(*_line(found[0], found[-1]), _update_seconds(loaded.device))


def _line(short: tuple[float, float], long: tuple[float, float]) -> tuple[float, float]:
    """Return what a pass costs, not below 0, and what a FLOP does, above 0 also where noise hides it."""
    (flops, seconds), (more_flops, more_seconds) = short, long
    slope = max(NOISE * more_seconds, more_seconds - seconds) / (more_flops - flops)
    fixed = max(0.0, seconds - slope * flops)
    return fixed, max(slope, (more_seconds - fixed) / more_flops)


@torch.no_grad()
def _pass(loaded: LoadedModel, tokens: int) -> Load:
    """Pass so many tokens forward, logits of the last of each row alone."""
    row = min(ROW, tokens, loaded.context)
    rows = max(1, tokens // row)
    ids = torch.arange(rows * row, device=loaded.device).reshape(rows, row) % loaded.info.vocab_size
    keeps = "logits_to_keep" in signature(type(loaded.model).forward).parameters
    loaded.model(input_ids=ids, use_cache=False, **({"logits_to_keep": 1} if keeps else {}))
    return Load(1, rows * row, rows * row * row, rows * (1 if keeps else row))


def _seconds(do: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Return what something returns and how long it takes, all that a device has to do for it included."""
    wait(device)
    begun = time.perf_counter()
    done = do()
    wait(device)
    return done, time.perf_counter() - begun


def _product_seconds(loaded: LoadedModel) -> float:
    """Return the seconds of a FLOP in a product of matrices of the model's type, where its ids go."""
    square = torch.ones(SIDE, SIDE, dtype=loaded.model.dtype, device=loaded.device)
    return min(_seconds(lambda: square @ square, loaded.device)[1] for _ in range(LEAST_REPEATS)) / (2.0 * SIDE**3)


def _update_seconds(device: torch.device) -> float:
    value = torch.nn.Parameter(torch.zeros(VALUES, device=device))
    optimizer = torch.optim.AdamW([value], fused=device.type in ("cpu", "cuda"))

    def step() -> None:
        torch.nn.utils.clip_grad_norm_([value], 1.0)
        optimizer.step()

    seconds = 0.0
    for _ in range(2):  # the first step makes the state
        value.grad = torch.ones_like(value)
        _, seconds = _seconds(step, device)
    return seconds / VALUES


BASES, FORWARD, SHORT_RUNS = "semantic bases", "forward pass", "short runs"
"""Phases of an analysis that have no module of their own."""
SPECTRUM = 10.0
"""FLOPs of a matrix's singular values over m n min(m, n); slow ones are counted twice."""
PROBE_STEPS, PROBE_BATCH = 10, 16
"""Of the short run on every block; see `lsf.training.short_runs`."""


def analysis_phases(
    loaded: LoadedModel,
    batches: Sequence[Batch],
    needs: set[Need],
    n_validation: int,
    check: Callable[[], None],
    fitted: str | None = None,
) -> tuple[Phase, ...]:
    """Return the phases of an analysis with the seconds they are expected to take.

    Args:
        loaded: the model.
        batches: all that would be read.
        needs: of the criteria asked for.
        n_validation: validation examples that judge short runs.
        check: called between the passes that are timed; may raise to end them.
        fitted: the reading whose translators have to be fitted first; None where none have.
    """
    sizes, speed = sizes_of(loaded), speed_of(loaded, check)
    load = load_of(batches)
    gradients = _both_ways(sizes, speed, load)
    backward = bool(needs & {"backward", "per_example", "trial_step"})
    texts = sum(len(batch.ids) for batch in batches)
    share = min(1.0, KERNEL_EXAMPLES / texts)
    shapes = [shape_of(value) for block in loaded.layout.blocks for value in block.parameters()]
    matrices = [(shape[-2], shape[-1], shape.numel()) for shape in shapes if len(shape) > 1]
    every = float(sizes.vocab_size * sizes.width**2) + sizes.width**3 / 3
    spectra = sum(SPECTRUM * n * min(rows, columns) for rows, columns, n in matrices)
    found = {
        FITTING: None if fitted is None else _fit(sizes, speed, fitted),
        BASES: speed.of(2 * every),
        FORWARD: _reading(sizes, speed, load, "vocabulary" in needs),
        GRADIENTS: gradients * (1.5 if "per_example" in needs else 1.0) if backward else None,
        ABLATION: _bypassed(sizes, speed, load) if "bypass" in needs else None,
        TRIAL: gradients if "trial_step" in needs else None,
        KERNELS: _kernels(sizes, speed, load, share, matrices) if "kernel" in needs else None,
        SPECTRA: speed.of(spectra) if "weights" in needs else None,
        SHORT_RUNS: _short_runs(sizes, speed, load, texts, n_validation) if "runs" in needs else None,
    }
    return tuple(Phase(name, seconds) for name, seconds in found.items() if seconds is not None)


def load_of(batches: Sequence[Batch]) -> Load:
    """Return what passing all batches computes; logits are read at the probed positions alone."""
    tokens = sum(batch.ids.numel() for batch in batches)
    attended = sum(batch.ids.numel() * batch.ids.shape[1] for batch in batches)
    return Load(len(batches), tokens, attended, sum(len(batch.targets) for batch in batches))


def _reading(sizes: Sizes, speed: Speed, load: Load, vocabulary: bool) -> float:
    """Return the seconds of the forward pass: blocks, and a product per state or, where asked for, the whole head."""
    states = len(sizes.params) + 1
    per_position = states * 2.0 * sizes.width * sizes.vocab_size if vocabulary else 2.0 * states * sizes.width**2
    flops = forward_flops(sizes, load, end=len(sizes.params)) + load.head_tokens * per_position
    if vocabulary:  # the lengths of all bases, once
        flops += 2.0 * sizes.vocab_size * sizes.width**2
    return speed.of(flops, load.passes)


def _fit(sizes: Sizes, speed: Speed, kind: str) -> float:
    """Return the seconds of writing texts and of fitting translators on them: by squares, or a derivative per row."""
    tokens = TOKENS[kind]
    load = Load(-(-TEXTS // BATCH), TEXTS * tokens, TEXTS * tokens**2, 0)
    written, once = forward_flops(sizes, replace(load, head_tokens=load.tokens)), forward_flops(sizes, load)
    if kind == "affine":
        moments = 4.0 * len(sizes.params) * load.tokens * sizes.width**2
        return speed.of(written, tokens) + speed.of(once + moments, load.passes)
    rows = sizes.width * backward_flops(sizes, load, 0, 0)
    return speed.of(written, tokens) + speed.of(once + rows, sizes.width * load.passes)


def _both_ways(sizes: Sizes, speed: Speed, load: Load) -> float:
    flops = forward_flops(sizes, load) + backward_flops(sizes, load, 0, sum(sizes.params))
    return speed.of(flops, 3 * load.passes)


def _bypassed(sizes: Sizes, speed: Speed, load: Load) -> float:
    """Return the seconds of a pass and of one without each block, from there on, over a share of the positions."""
    part = load.times(min(1.0, ABLATION_POSITIONS / load.head_tokens))
    n_blocks = len(sizes.params)
    flops = sum(forward_flops(sizes, part, first) for first in range(n_blocks + 1))
    return speed.of(flops, (n_blocks + 1) * part.passes)


def _kernels(sizes: Sizes, speed: Speed, load: Load, share: float, matrices: Sequence[tuple[int, int, int]]) -> float:
    """Return the seconds of one pass over a share of the examples, and of all inner products between their tokens."""
    part = Load(1, share * load.tokens, share * load.attended, share * load.head_tokens)
    pairs = 2.0 * part.tokens**2 * sum(rows + columns for rows, columns, _ in matrices)
    return _both_ways(sizes, speed, part) + speed.of(pairs)


def _short_runs(sizes: Sizes, speed: Speed, load: Load, texts: int, n_validation: int) -> float:
    """Return the seconds of a few steps on every block alone, and of reading the validation split after each."""
    mean = Load(1, load.tokens / texts, load.attended / texts, load.head_tokens / texts)
    step, read = mean.times(PROBE_BATCH), mean.times(n_validation)
    flops = (len(sizes.params) + 1) * forward_flops(sizes, read)
    for block, count in enumerate(sizes.params):
        flops += PROBE_STEPS * (forward_flops(sizes, step) + backward_flops(sizes, step, block, count))
    return speed.of(flops)
