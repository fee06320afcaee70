"""Telling an exhausted device from every other failure, and going on with less at a time."""

import torch

from lsf.errors import OutOfMemoryError
from lsf.measure.batches import Batch
from lsf.measure.devices import give_back_cached


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
    give_back_cached()
    if len(batch.ids) == 1:
        raise OutOfMemoryError(
            f"{batch.ids.device} has too little memory for one example of {batch.ids.shape[1]} tokens; "
            "take shorter examples (max_length), a smaller dtype or another device."
        )
    return batch.halves()
