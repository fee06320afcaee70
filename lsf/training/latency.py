"""How long a forward pass of what a run saved takes over the base's, timed in turn, with an interval."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lsf.methods.catalogue import CATALOGUE
from lsf.models.batches import autocasting
from lsf.models.devices import is_out_of_memory, wait
from lsf.models.loading import LoadedModel
from lsf.models.quantised import is_quantised
from lsf.runs.result import phase
from lsf.runs.spec import RunSpec
from lsf.training.artefacts import find_weights, load_tuned, merge, read_about

TOKENS, ROWS = 32, 8
"""Size of a timed forward pass."""
LEAST_PAIRS, MOST_PAIRS, SECONDS = 6, 61, 1.0
"""Pairs of timed passes, and about how long they may take; fewer than six have no interval of 95 %."""
CLOSE = 0.02
"""Timing ends where the interval is no wider than this on either side."""


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
