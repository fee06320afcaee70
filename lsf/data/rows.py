"""Rows of a source: in memory while they are few, and else in a file of their own, each block read when asked for.

And the table of named columns that a source is read as.
"""

import itertools
import pickle
import tempfile
import threading
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from lsf.errors import DataError
from lsf.files import cache_folder

T = TypeVar("T")
LARGE = 16_000_000
"""Bytes of a source, from which on its rows are kept on disk, and reading it is a work whose progress is told."""
BLOCK = 64
"""Rows written, and read, at a time."""


class _File:
    """Blocks of rows in a file without a name, which is gone with the process; safe from several threads."""

    def __init__(self) -> None:
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - as long as its rows
        except OSError as error:
            raise _no_room(error) from None
        self._ends, self._lock = array("q", [0]), threading.Lock()
        self._last: tuple[int, list[Any]] = -1, []

    def write(self, rows: list[Any]) -> None:
        """Add a block."""
        raw = pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)
        try:
            self._file.write(raw)
        except OSError as error:
            raise _no_room(error) from None
        self._ends.append(self._ends[-1] + len(raw))

    def flush(self) -> None:
        """Let the disk take what was written, or say that it does not."""
        try:
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from None

    def read(self, row: int) -> Any:
        """Return a row by its number."""
        block, place = divmod(row, BLOCK)
        number, rows = self._last
        if number != block:
            with self._lock:
                self._file.seek(self._ends[block])
                raw = self._file.read(self._ends[block + 1] - self._ends[block])
            rows = pickle.loads(raw)
            self._last = block, rows
        return rows[place]


def _no_room(error: OSError) -> DataError:
    return DataError(
        f"The rows of a large file are kept under {cache_folder()}, and it cannot be written ({error.strerror}); "
        "make room there, or set LSF_CACHE to a folder that has some."
    )


class RowsOnDisk(Sequence[T]):
    """Rows in a file; each is made anew when it is asked for. A slice is a view."""

    def __init__(self, file: _File, places: NDArray[np.int64]) -> None:
        """Show the rows at some places of a file.

        Args:
            file: that holds them.
            places: numbers of rows.
        """
        self._file, self._places = file, places

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "RowsOnDisk[T]": ...
    def __getitem__(self, index: int | slice) -> "T | RowsOnDisk[T]":
        """Return a row, or a view of some."""
        if isinstance(index, slice):
            return RowsOnDisk(self._file, self._places[index])
        return self._file.read(int(self._places[index]))

    def select(self, indices: "Sequence[int] | NDArray[np.int64]") -> "RowsOnDisk[T]":
        """Return a view of the rows at some indices, in their order."""
        return RowsOnDisk(self._file, self._places[np.asarray(indices, dtype=np.int64)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a tuple."""
        return tuple, (list(self),)


class RowCollector(Generic[T]):
    """Takes rows one by one: keeps them in memory while their source is not large, else in a file."""

    def __init__(self, on_disk: bool = False) -> None:
        """Begin with none.

        Args:
            on_disk: whether the first one is kept in a file already.
        """
        self._rows: list[T] = []
        self._size = self._count = 0
        self._file = _File() if on_disk else None

    def add(self, row: T, size: int = 0) -> None:
        """Take one more.

        Args:
            row: any value that can be pickled.
            size: bytes it takes in its source.
        """
        self._rows.append(row)
        self._size += size
        self._count += 1
        if self._file is None and self._size > LARGE:
            self._file = _File()
        if self._file is not None and len(self._rows) >= BLOCK:
            whole = len(self._rows) // BLOCK * BLOCK
            for start in range(0, whole, BLOCK):
                self._file.write(self._rows[start : start + BLOCK])
            del self._rows[:whole]

    def rows(self) -> Sequence[T]:
        """Return all that were taken, in order; to be called once."""
        if self._file is None:
            return tuple(self._rows)
        if self._rows:
            self._file.write(self._rows)
        self._file.flush()
        return RowsOnDisk(self._file, np.arange(self._count, dtype=np.int64))


def selected(rows: Sequence[T], indices: "Iterable[int] | NDArray[np.int64]") -> Sequence[T]:
    """Return rows at some indices: a tuple of those in memory, a view of those on disk."""
    select = getattr(rows, "select", None)
    return select(np.fromiter(indices, np.int64)) if select else tuple(rows[index] for index in indices)


def joined(*parts: Sequence[T]) -> Sequence[T]:
    """Return all rows of several parts, one part after the other."""
    if not any(isinstance(part, RowsOnDisk) for part in parts):
        return tuple(row for part in parts for row in part)
    whole = RowCollector[T](on_disk=True)
    for part in parts:
        for row in part:
            whole.add(row)
    return whole.rows()


@dataclass(frozen=True)
class Table:
    """Rows of named columns, each with its place in the file."""

    name: str
    """The file, as the user named it."""
    columns: tuple[str, ...]
    """In the file's order."""
    rows: Sequence[dict[str, Any]]
    """One mapping per row; a column that a row lacks may be missing in it. Those of a large source are on disk."""
    places: Sequence[int]
    """Number of each, from 1: of the row, or of the line it begins in."""
    notes: tuple[str, ...] = ()
    """Sentences on how the file was read, where that had to be guessed."""
    unit: str = "row"
    """What `places` count: `row` (Parquet, Arrow, a JSON list, several files), or `line` (CSV, TSV, JSONL, text)."""
    split: str = ""
    """What the split is called whose rows these are, where each split has places of its own; else empty."""

    def where(self, place: int) -> str:
        """Return what a row is called by its place: `row 3`, `line 3`, or `row 3 of test`."""
        return f"{self.unit} {place} of {self.split}" if self.split else f"{self.unit} {place}"


def joined_tables(name: str, tables: Iterable[Table], on_disk: bool) -> Table:
    """Return tables as one, its rows counted through where there are several.

    Args:
        name: of the folder they are from.
        tables: each is let go before the next is asked for.
        on_disk: whether their rows are kept in a file, since there are many.
    """
    first, *more = itertools.islice(tables := iter(tables), 2)
    if not more:
        return first
    rows, columns, notes = RowCollector[dict[str, Any]](on_disk), dict[str, None](), dict[str, None]()
    for table in itertools.chain([first, *more], tables):
        columns.update(dict.fromkeys(table.columns))
        notes.update(dict.fromkeys(table.notes))
        for row in table.rows:
            rows.add(row)
    kept = rows.rows()
    return Table(name, tuple(columns), kept, range(1, len(kept) + 1), tuple(notes))
