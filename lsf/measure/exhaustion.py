"""Telling an exhausted device from every other failure, and going on with less at a time."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lsf.errors import LsfError, OutOfMemoryError
from lsf.measure.batches import Batch

Item = TypeVar("Item")
Found = TypeVar("Found")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory did not suffice: CUDA's, Python's, or torch's CPU allocator's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower()
        for words in ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")
    )


def halves_of(batch: Batch) -> tuple[Batch, Batch]:
    """Return the halves of a batch that did not fit.

    Raises:
        OutOfMemoryError: it is a single example.
    """
    _give_back()
    if len(batch.ids) == 1:
        raise OutOfMemoryError(
            f"{batch.ids.device} has too little memory for one example of {batch.ids.shape[1]} tokens; "
            "take shorter examples (max_length), a smaller dtype or another device."
        )
    return batch.halves()


def in_halves(items: Sequence[Item], work: Callable[[Sequence[Item]], Found], fewest: int = 1) -> list[Found]:
    """Return what work on all items gives; where memory does not suffice, what work on each half gives, and so on.

    Args:
        items: at least one.
        work: called with some of them, in their order.
        fewest: so many are not halved any more.

    Raises:
        RuntimeError, MemoryError: so few do not fit.
    """
    try:
        return [work(items)]
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, LsfError) or not is_out_of_memory(error) or len(items) <= fewest:
            raise
    _give_back()  # now that no frame of the failed call holds a tensor any more
    half = len(items) // 2
    return [*in_halves(items[:half], work, fewest), *in_halves(items[half:], work, fewest)]


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
