"""How many CPU threads a run computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_on(threads: int | None) -> Iterator[int]:
    """Compute with so many threads inside the `with`, in the thread that entered it, and yield their number.

    Args:
        threads: None leaves them as the machine is set (lsf.environment.settle_threads).
    """
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
