"""States of a frozen prefix, one stretch of rows per example: in memory, or in a mapped file that outlives the run."""

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor

from lsf.errors import RunError
from lsf.files import write_json

WRITTEN = 1 << 24
"""Zeros written at a time where the system reserves no blocks by itself."""
STATES, SUMS, ABOUT, LOCK = "states.bin", "sums.bin", "about.json", "lock"


class States:
    """The states that leave block depth-1, for every example of a training split that was seen so far.

    An entry belongs to an example and not to a batch, so that shuffling and padding do not matter.
    """

    def __init__(self, depth: int, lengths: Sequence[int], folder: Path | None = None, lock: bool = True) -> None:
        """Make room; memory is taken when the first states come.

        Args:
            depth: blocks passed.
            lengths: tokens of each example.
            folder: where they are kept as mapped files; None keeps them in memory.
            lock: whether this process wants the folder for itself; processes of one run share theirs.

        Raises:
            RunError: another process uses that folder.
        """
        self.depth, self.lengths, self.folder = depth, np.asarray(lengths, dtype=np.int64), folder
        self.offsets = np.concatenate([[0], self.lengths.cumsum()])
        self._flat: Tensor | None = None
        self._here = np.zeros(len(self.lengths), dtype=bool)
        self._sums: np.ndarray | None = None
        self._lock: FileLock | None = None
        self._size = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if lock:
                self._take(folder)
            self.reopen()

    @property
    def n_tokens(self) -> int:
        """Tokens of all examples, seen or not."""
        return int(self.offsets[-1])

    @property
    def bytes(self) -> int:
        """Bytes held, in memory or on disk."""
        return self._size if self._flat is None else self._flat.numel() * self._flat.element_size()

    @property
    def n_known(self) -> int:
        """Examples whose states are known."""
        return int(self._here.sum())

    def has(self, numbers: Sequence[int]) -> bool:
        """Say whether the states of all these examples are known."""
        return bool(self._here[list(numbers)].all())

    def get(self, number: int) -> Float[Tensor, "tokens width"]:
        """Return one example's states; they must be known."""
        assert self._flat is not None
        return self._flat[self.offsets[number] : self.offsets[number + 1]]

    def put(self, number: int, states: Float[Tensor, "tokens width"]) -> None:
        """Keep one example's states.

        Raises:
            OSError: the disk has no room for the file, before anything is kept; see `discard`.
        """
        if self._here[number]:
            return
        if self._flat is None:
            self._flat = self._make(states.shape[1], states.dtype)
        place = self._flat[self.offsets[number] : self.offsets[number + 1]]
        place.copy_(states)
        if self._sums is not None:
            self._sums[number] = _sum(place)
        self._here[number] = True

    def close(self) -> None:
        """Let go of files and lock."""
        self._size = self.bytes
        self._flat, self._sums = None, None
        self._here[:] = False
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Let go of files and lock, and leave nothing on disk."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def _make(self, width: int, dtype: torch.dtype) -> Tensor:
        if self.folder is None:
            return torch.empty(self.n_tokens, width, dtype=dtype)
        name = str(dtype).removeprefix("torch.")
        for file, size in ((STATES, self.n_tokens * width * dtype.itemsize), (SUMS, 4 * len(self.lengths))):
            _reserve(self.folder / file, size)
        write_json(self.folder / ABOUT, {"width": width, "dtype": name, "n_tokens": self.n_tokens})
        return self._map(width, dtype)

    def _take(self, folder: Path) -> None:
        self._lock = FileLock(folder / LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=0.1)
        except Timeout:
            raise RunError(f"The prefix cache {folder} is used by another process.") from None

    def reopen(self) -> None:
        """Go on with what an earlier run or another process left, as far as its check sums hold."""
        assert self.folder is not None
        try:
            about: dict[str, Any] = json.loads((self.folder / ABOUT).read_text())
            if about["n_tokens"] != self.n_tokens:
                return
            self._flat = self._map(about["width"], getattr(torch, about["dtype"]))
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError):
            return
        assert self._sums is not None
        for number in np.flatnonzero(self._sums):
            self._here[number] = self._sums[number] == _sum(self.get(int(number)))

    def _map(self, width: int, dtype: torch.dtype) -> Tensor:
        assert self.folder is not None
        self._sums = np.memmap(self.folder / SUMS, dtype=np.uint32, mode="r+", shape=(len(self.lengths),))
        whole = self.n_tokens * width
        if (self.folder / STATES).stat().st_size < whole * dtype.itemsize:  # a mapping past the end would kill us
            raise OSError("the file of states is too short")
        flat = torch.from_file(str(self.folder / STATES), shared=True, size=whole, dtype=dtype)
        return flat.view(self.n_tokens, width)


def _sum(states: Tensor) -> int:
    """Return a check sum of states that is never 0, the mark of an absent entry."""
    return zlib.crc32(states.contiguous().view(torch.uint8).numpy().data) or 1


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros whose blocks are really there: writing to a mapped hole on a full disk kills a process.

    Raises:
        OSError: the disk does not take it.
    """
    path.unlink(missing_ok=True)
    size = max(1, size)
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        for start in range(0, size, WRITTEN):
            file.write(bytes(min(WRITTEN, size - start)))
