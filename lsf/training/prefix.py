"""The frozen prefix, computed once per example: kept states, and stand-ins for the blocks below the lowest tuned."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor, nn

from lsf.data.encode import EncodedExample
from lsf.errors import RunError
from lsf.files import write_json
from lsf.models.batches import autocasting, collate_numbered, score_tokens
from lsf.models.devices import in_halves
from lsf.models.layout import handing_on, standing_in
from lsf.runs.result import phase
from lsf.training.processes import n_processes

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


GROUP = 16
"""Rows computed together."""


class _Enough(Exception):
    """The prefix has run; what lies above it is not wanted."""


class Prefix:
    """Blocks 0 .. depth-1 of one tuned model, and the states that leave them."""

    def __init__(
        self,
        model: Any,
        blocks: Sequence[nn.Module],
        rows: Sequence[EncodedExample],
        base_dtype: str,
        states: States,
        shallower: States | None = None,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Take a model of the run's own; it works as ever outside of `serving`.

        Args:
            model: the tuned model.
            blocks: all its blocks, in order.
            rows: training rows, or held-out ones.
            base_dtype: of the base model.
            states: kept at the run's depth.
            shallower: kept by an earlier run at a smaller depth; used where `states` lacks a row.
            groups: row numbers that are computed together; None: `groups_of` their lengths.
        """
        self.states, self.shallower = states, shallower
        self._model, self._blocks, self._rows, self._dtype = model, blocks, rows, base_dtype
        self._groups = groups_of([len(row.ids) for row in rows]) if groups is None else groups
        self._group_of = {number: place for place, group in enumerate(self._groups) for number in group}
        self._form: Callable[[Tensor], Any] | None = None
        self.served = self.computed = 0
        self.given_up: str | None = None
        """Why the states are not kept any more: the whole model runs on every batch; None while they are."""
        self.found = max(kept.n_known for kept in (states, shallower) if kept is not None)

    @contextmanager
    def serving(self, batch: dict[str, Any]) -> Iterator[None]:
        """Inside the `with`, a forward pass of this batch starts above the prefix.

        Args:
            batch: of `collate_numbered`.
        """
        numbers: list[int] = batch["numbers"]
        self.fill(numbers)
        if self.given_up is not None:
            yield
            return
        self.served += len(numbers)
        with self._standing_in(self.states, numbers, batch):
            yield

    def fill(self, numbers: Iterable[int]) -> None:
        """Compute and keep what is not known of these rows and of those grouped with them."""
        if self.given_up is not None:
            return
        wanted = {self._group_of[number] for number in numbers if not self.states.has([number])}
        if self._form is None and not wanted:
            self._run(self._groups[0][:1], keep=False)
        with phase("prefix"):
            for place in sorted(wanted):
                in_halves(self._groups[place], partial(self._run, keep=True))
                if self.given_up is not None:
                    return

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(self._groups)

    def fill_groups(self, places: Iterable[int]) -> None:
        """Compute and keep the groups with these numbers."""
        for place in places:
            self.fill(self._groups[place])

    @torch.no_grad()
    def _run(self, numbers: Sequence[int], keep: bool) -> None:
        """Run the prefix on these rows together, and learn the form in which this family's blocks hand on a state."""

        def take(_module: nn.Module, _args: Any, output: Any) -> None:
            self._form = handing_on(output)
            if keep:
                states = (output if isinstance(output, Tensor) else output[0]).cpu()
                self._keep(numbers, states)
            raise _Enough

        batch = collate_numbered([(number, self._rows[number]) for number in numbers])
        below = self.shallower
        with ExitStack() as stack:
            if keep and below is not None and self._form is not None and below.has(numbers):
                stack.enter_context(self._standing_in(below, numbers, batch))
            handle = self._blocks[self.states.depth - 1].register_forward_hook(take)
            stack.callback(handle.remove)
            stack.enter_context(suppress(_Enough))
            stack.enter_context(autocasting(self._model, self._dtype))
            score_tokens(self._model, batch)
        self.computed += len(numbers) if keep else 0

    def _keep(self, numbers: Sequence[int], states: Tensor) -> None:
        """Keep what was computed; where the disk filled up since there was room, go on without keeping anything."""
        try:
            for row, number in enumerate(numbers):
                self.states.put(number, states[row, : self.states.lengths[number]])
        except OSError as error:
            if n_processes() > 1:  # they share the files, and must run the blocks together
                raise
            self.states.discard()
            self.given_up = f"The disk did not take the states: {error.strerror or error}."

    def _standing_in(
        self, states: States, numbers: Sequence[int], batch: dict[str, Any]
    ) -> AbstractContextManager[None]:
        """Let the blocks below `states.depth` hand on what is known."""
        assert self._form is not None
        width = batch["attention_mask"].shape[1]

        def give(entering: Tensor) -> Tensor:
            return padded(states, numbers, width, entering.device)

        return standing_in(self._blocks[: states.depth], self._form, give)


def groups_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return row numbers in groups of `GROUP` neighbours by length; the same rows always give the same groups."""
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    return [order[start : start + GROUP] for start in range(0, len(order), GROUP)]


def padded(
    states: States, numbers: Sequence[int], width: int, device: torch.device
) -> Float[Tensor, "examples tokens width"]:
    """Return the states of a batch, zeros behind each example's end: no causal block looks there."""
    parts = [states.get(number) for number in numbers]
    whole = torch.zeros(len(parts), width, parts[0].shape[1], dtype=parts[0].dtype)
    for row, part in enumerate(parts):
        whole[row, : len(part)] = part
    return whole.to(device)  # waited for: the memory it is copied from is gone with `whole`
