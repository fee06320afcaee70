"""Activation checkpointing from the lowest tuned block up: activations are computed again instead of kept.

Below that block nothing is kept anyway, since no gradient passes there. The non-reentrant kind only: the reentrant one
gives wrong (missing) gradients where a block's input wants none, which is the rule above a frozen prefix.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from lsf.analysis.plan import Plan
from lsf.measure.loading import LoadedModel
from lsf.training.caching import blocks_of


@contextmanager
def recomputed(model: Any, loaded: LoadedModel, plan: Plan, kind: str) -> Iterator[None]:
    """Inside the `with`, blocks from the lowest tuned one up keep only what enters them.

    Args:
        model: a run's prepared model.
        loaded: its base.
        plan: which blocks are tuned.
        kind: off, or non_reentrant.
    """
    chosen = blocks_of(model, loaded)[min(plan.blocks, default=0) :] if kind == "non_reentrant" else []
    try:
        for block in chosen:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        yield
    finally:
        for block in chosen:
            block.__dict__.pop("forward", None)
