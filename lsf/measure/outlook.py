"""How long an analysis will take, by phase: FLOPs of its passes, at the speed measured on this machine."""

from collections.abc import Callable, Sequence

from lsf.analysis.cost import Load, Sizes, Speed, backward_flops, forward_flops
from lsf.analysis.criteria import Need
from lsf.measure.batches import Batch
from lsf.measure.gradients import GRADIENTS, TRIAL
from lsf.measure.kernels import KERNEL_EXAMPLES, KERNELS
from lsf.measure.loading import LoadedModel
from lsf.measure.quantised import shape_of
from lsf.measure.spectra import SPECTRA
from lsf.measure.speed import sizes_of, speed_of
from lsf.reporting import Phase

BASES, FORWARD, SHORT_RUNS = "semantic bases", "forward pass", "short runs"
"""Phases of an analysis that have no module of their own."""
SPECTRUM = 10.0
"""FLOPs of a matrix's singular values over m n min(m, n); slow ones are counted twice."""
PROBE_STEPS, PROBE_BATCH = 10, 16
"""Of the short run on every block; see `lsf.training.probing`."""


def analysis_phases(
    loaded: LoadedModel, batches: Sequence[Batch], needs: set[Need], n_validation: int, check: Callable[[], None]
) -> tuple[Phase, ...]:
    """Return the phases of an analysis with the seconds they are expected to take.

    Args:
        loaded: the model.
        batches: all that would be read.
        needs: of the criteria asked for.
        n_validation: validation examples that judge short runs.
        check: called between the passes that are timed; may raise to end them.
    """
    sizes, speed = sizes_of(loaded), speed_of(loaded, check)
    load = load_of(batches)
    gradients = _both_ways(sizes, speed, load)
    backward = bool(needs & {"backward", "per_example", "trial_step"})
    texts = sum(len(batch.ids) for batch in batches)
    share = min(1.0, KERNEL_EXAMPLES / texts)
    shapes = [shape_of(value) for block in loaded.anatomy.blocks for value in block.parameters()]
    matrices = [(shape[-2], shape[-1], shape.numel()) for shape in shapes if len(shape) > 1]
    every = float(sizes.vocab_size * sizes.width**2) + sizes.width**3 / 3
    found = {
        BASES: speed.of(2 * every),
        FORWARD: _reading(sizes, speed, load, "vocabulary" in needs),
        GRADIENTS: gradients * (1.5 if "per_example" in needs else 1.0) if backward else 0.0,
        TRIAL: gradients if "trial_step" in needs else 0.0,
        KERNELS: _kernels(sizes, speed, load, share, matrices) if "kernel" in needs else 0.0,
        SPECTRA: speed.of(sum(SPECTRUM * n * min(rows, columns) for rows, columns, n in matrices))
        if "weights" in needs
        else 0.0,
        SHORT_RUNS: _short_runs(sizes, speed, load, texts, n_validation) if "runs" in needs else 0.0,
    }
    return tuple(Phase(name, seconds) for name, seconds in found.items() if seconds)


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


def _both_ways(sizes: Sizes, speed: Speed, load: Load) -> float:
    flops = forward_flops(sizes, load) + backward_flops(sizes, load, 0, sum(sizes.params))
    return speed.of(flops, 3 * load.passes)


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
