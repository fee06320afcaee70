"""What was learned, added into the base's own tensors: a plain model that costs at inference what the base costs."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from lsf.errors import BadInputError
from lsf.measure.sharing import share_model
from lsf.training.artefacts import find_weights, load_tuned, read_about
from lsf.training.batches import autocasting
from lsf.training.catalogue import CATALOGUE
from lsf.training.methods.adapter import Bottleneck
from lsf.training.parametrization import held_still

TOKENS, ROWS = 32, 8
"""Size of a timed forward pass."""
LEAST_PAIRS, MOST_PAIRS, SECONDS = 5, 31, 0.5
"""Pairs of timed passes, and about how long they may take together."""


@torch.no_grad()
def merge(model: Any, loaded: Any) -> Any:
    """Return a plain model, of the base's own module tree, that computes what a tuned one computes.

    Args:
        model: tuned: from a method's `prepare`, or from `load_tuned`; it is not changed.
        loaded: its base.

    Returns:
        A model of its own that owns the changed tensors, in the base's dtype, and shares all others with the base.

    Raises:
        BadInputError: the method added steps of its own that no tensor of the base can take in.
    """
    if any(isinstance(module, Bottleneck) for module in model.modules()):
        raise BadInputError(
            "Adapters cannot be merged: they are non-linear steps between the base's layers; keep them beside the base."
        )
    with held_still(model):
        changed = {
            name: value
            for name, base in loaded.model.named_parameters()
            if (value := _effective(model, name)).data_ptr() != base.data_ptr()
        }
        plain = share_model(loaded.model, own=changed)
        for name, value in changed.items():
            place = plain.get_parameter(name)
            place.data = value.detach().to(place.dtype, copy=True)
    return plain.eval()


def _effective(model: Any, name: str) -> Tensor:
    """Return the value a model computes with in place of one of the base's tensors."""
    owner, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(owner)
    if not isinstance(module, Linear):
        return getattr(module, leaf)
    base: Any = module.get_base_layer()
    if leaf != "weight":
        return getattr(base, leaf)
    return base.weight.float() + module.get_delta_weight("default").float()


def latency_ratio(folder: Path, loaded: Any) -> float:
    """Return how long a forward pass of what a run saved takes, over the base's.

    It is loaded onto the base again and merged where its method can be. Both are timed in turn on the same ids, and the
    medians are compared.

    Args:
        folder: of the run.
        loaded: the base.

    Raises:
        BadInputError: as `load_tuned`.
    """
    tuned = load_tuned(folder, loaded)
    if CATALOGUE[read_about(find_weights(folder)).method].merges:
        tuned = merge(tuned, loaded)
    return time_in_turn(forward_on(tuned, loaded), forward_on(loaded.model, loaded))


def forward_on(model: Any, loaded: Any) -> Callable[[], None]:
    """Return a forward pass of a model over fixed ids, to be timed; its base says how it is read."""
    tokens = min(TOKENS, loaded.context)
    ids = torch.arange(ROWS * tokens, device=loaded.device).reshape(ROWS, tokens) % loaded.info.vocab_size

    def run() -> None:
        with torch.no_grad(), autocasting(model, loaded.info.dtype):
            model(input_ids=ids, use_cache=False)
        if ids.device.type == "cuda":
            torch.cuda.synchronize(ids.device)

    return run


def time_in_turn(
    one: Callable[[], None], other: Callable[[], None], seconds: float = SECONDS, most: int = MOST_PAIRS
) -> float:
    """Return the median seconds of one thing over those of another, done in turn, each once before it counts.

    Args:
        one: timed.
        other: what it is compared with.
        seconds: about how long it may take.
        most: pairs at most.
    """
    times: tuple[list[float], list[float]] = [], []
    for do in (one, other):
        do()
    started = time.perf_counter()
    while len(times[0]) < most and (len(times[0]) < LEAST_PAIRS or time.perf_counter() - started < seconds):
        turns = list(zip((one, other), times, strict=True))
        for do, into in turns if len(times[0]) % 2 else reversed(turns):
            begun = time.perf_counter()
            do()
            into.append(time.perf_counter() - begun)
    return median(times[0]) / median(times[1])
