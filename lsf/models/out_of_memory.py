"""Telling an exhausted device from every other failure, and going on with less at a time."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from safetensors import SafetensorError

from lsf.errors import LsfError, OutOfMemoryError
from lsf.models.batches import Batch
from lsf.models.devices import give_back_cached
from lsf.wording import counted

WORDS = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "std::bad_alloc",
    "status_alloc_failed",
)  # fmt: skip
"""What is said where memory did not suffice; the last one is CUBLAS_STATUS_ALLOC_FAILED and its like."""

Item = TypeVar("Item")
Found = TypeVar("Found")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory did not suffice.

    It may be Python's, the allocator's of a device (Apple's is known by its words alone) or of the CPU, that of a
    library of CUDA's, or the system's where a file is mapped.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError | OSError | SafetensorError) and any(words in told for words in WORDS)


def halves_of(batch: Batch) -> tuple[Batch, Batch]:
    """Return the halves of a batch that did not fit.

    Raises:
        OutOfMemoryError: it is a single example.
    """
    give_back_cached()
    if len(batch.ids) == 1:
        raise OutOfMemoryError(
            f"{batch.ids.device} has too little memory for one example of {counted(batch.ids.shape[1], 'token')}; "
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
    give_back_cached()  # now that no frame of the failed call holds a tensor any more
    half = len(items) // 2
    return [*in_halves(items[:half], work, fewest), *in_halves(items[half:], work, fewest)]
