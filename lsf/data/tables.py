"""Reading a local table: CSV, TSV, JSON, JSONL or Parquet, with the faulty row named."""

import csv
import io
import itertools
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lsf.data.containers import GZ, WHOLE, Opened, ending, lines_of, pieces
from lsf.data.rows import RowCollector
from lsf.errors import DataError, first_line
from lsf.progress import Reporter, Silent

TOLD = 2_000
"""Rows between two reports of how far the reading is."""
CHATS = ("messages", "conversations")
"""Lists of objects that are one chat, and no table."""
INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a nameless index in a Parquet file."""
csv.field_size_limit(WHOLE)  # one long prompt is no fault


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
    """Row (Parquet, JSON) or line (CSV, TSV, JSONL, text) number of each, from 1."""
    notes: tuple[str, ...] = ()
    """Sentences on how the file was read, where that had to be guessed."""


def read_table(path: Path, report: Reporter | None = None) -> Table:
    """Read a local file by its ending, row by row where its kind allows that.

    Args:
        path: of the file.
        report: is told how far the reading of a large file is.

    Raises:
        DataError: no such file, an unknown ending, too large where it has to be read whole, not text, empty, ragged, a
            broken line (named by number).
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"The data file {path} {what}; a CSV, TSV, JSON, JSONL, Parquet or text file was expected.")
    reader = READERS.get(ending(path))
    if reader is None:
        raise DataError(f"{path.name} ends in {path.suffix!r}; accepted are: {', '.join(READERS)}, and .gz of them.")
    file = Opened(path, report or Silent())
    if file.size == 0:
        raise DataError(f"{path.name} is empty; a header and at least 3 rows were expected.")
    try:
        table = reader(file)
    finally:
        file.close()
    if not table.rows:
        columns = f"has columns ({', '.join(table.columns)}) but no rows" if table.columns else "has no rows"
        raise DataError(f"{path.name} {columns}; at least 3 were expected.")
    return replace(table, notes=(*table.notes, *file.notes))


Reader = Callable[[Opened], Table]


def _collected(file: Opened, columns: Iterable[str] | None, rows: Iterable[tuple[int, dict[str, Any], int]]) -> Table:
    """Return a table of rows as they come.

    Args:
        file: they are read from.
        columns: their names; None for all that occur.
        rows: place, row, and about how many bytes it takes in the file.
    """
    kept, places, seen = RowCollector[dict[str, Any]](), array("q"), dict[str, None]()
    for place, row, size in rows:
        if columns is None and not row.keys() <= seen.keys():
            seen.update(dict.fromkeys(row))
        kept.add(row, size)
        places.append(place)
        if len(places) % TOLD == 0:
            file.tell("reading")
    return Table(file.path.name, tuple(seen if columns is None else columns), kept.rows(), places)


def _read_csv(file: Opened) -> Table:
    return _quoted(file, ",")


def _read_tsv(file: Opened) -> Table:
    """Read tab-separated values, in which a quotation mark is text; but files of writers that quote are read as such.

    A file is one of these where its lines do not have a value for every column (a quoted cell may hold tabs and line
    ends), or where every cell that begins with a quotation mark is a quoted one that holds others.
    """
    width, even, marked, quoted = None, True, False, True
    for _, cells, _ in _tabbed(file):
        width = len(cells) if width is None else width
        even = even and len(cells) == width
        for cell in cells:
            if cell.startswith('"'):
                marked, quoted = True, quoted and _is_quoted(cell)
    if marked and (not even or quoted):
        return _quoted(file, "\t")
    return _from_cells(file, _tabbed(file))


def _tabbed(file: Opened) -> Iterator[tuple[int, list[str], int]]:
    for number, line in enumerate(lines_of(file.text()), 1):
        if line:
            yield number, line.split("\t"), len(line)


def _is_quoted(cell: str) -> bool:
    """Say whether a cell can only be a quoted one: it has quotation marks inside, and all of them are doubled."""
    inside = cell[1:-1]
    return len(cell) > 1 and cell.endswith('"') and '""' in inside and '"' not in inside.replace('""', "")


def _quoted(file: Opened, delimiter: str) -> Table:
    return _from_cells(file, _quoted_lines(file, delimiter))


def _quoted_lines(file: Opened, delimiter: str) -> Iterator[tuple[int, list[str], int]]:
    lines = csv.reader(file.text(newline=""), delimiter=delimiter, strict=True)
    read = 0
    try:
        for cells in lines:
            read = lines.line_num
            if cells:
                yield read, cells, sum(map(len, cells))
    except csv.Error as error:
        where = f"{file.path.name}, line {read + 1}"
        if "end of data" in str(error):
            raise DataError(f"{where}: a cell begins with a quotation mark that is never closed.") from None
        if "expected after" in str(error):
            raise DataError(
                f"{where}: text follows a closing quotation mark; double those that are part of a quoted cell."
            ) from None
        raise DataError(f"{where}: {error}.") from None


def _from_cells(file: Opened, numbered: Iterator[tuple[int, list[str], int]]) -> Table:
    """Return a table whose first line names the columns; one without a name, such as an index, is left out."""
    name, first = file.path.name, next(numbered, None)
    if first is None:
        return Table(name, (), (), ())
    named = first[1]
    kept = [place for place, column in enumerate(named) if column.strip()]
    columns = tuple(named[place] for place in kept)

    def rows() -> Iterator[tuple[int, dict[str, Any], int]]:
        for number, cells, size in numbered:
            if len(cells) != len(named):
                raise DataError(f"{name}, line {number}: {len(cells)} values for {len(named)} columns.")
            yield number, {named[place]: cells[place] for place in kept}, size

    if not columns or len(set(columns)) != len(columns):
        raise DataError(f"{name} has repeated or unnamed columns in its first line: {', '.join(named)}.")
    return _collected(file, columns, rows())


def _read_jsonl(file: Opened) -> Table:
    begins = next((line.strip()[:1] for line in lines_of(file.text()) if line.strip()), "")
    if begins == "[" and file.size <= WHOLE and (listed := _whole_list(file.whole_text())) is not None:
        file.notes.append(f"{file.path.name} holds one JSON list, and not an object a line.")
        return _from_list(file, listed)
    return _from_lines(file)


def _from_lines(file: Opened) -> Table:
    name = file.path.name

    def rows() -> Iterator[tuple[int, dict[str, Any], int]]:
        for number, line in enumerate(file.text(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{name}, line {number} is not valid JSON: {_reason(error)}.") from None
            yield number, _object(name, "line", number, row), len(line)

    return _collected(file, None, rows())


def _object(name: str, unit: str, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{name}, {unit} {number} is not a JSON object with columns.")
    return {column: _known(value) for column, value in row.items()}


def _from_list(file: Opened, listed: list[Any]) -> Table:
    name = file.path.name
    rows = ((number, _object(name, "row", number, row), 0) for number, row in enumerate(listed, 1))
    return _collected(file, None, rows)


def _whole_list(text: str) -> list[Any] | None:
    """Return the JSON list that a text is; None where it begins otherwise, or is none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(row, dict) for row in value) else None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_json(file: Opened) -> Table:
    path, notes = file.path, file.notes
    if file.size > WHOLE and _is_object(next(filter(str.strip, itertools.islice(file.text(), 100)), "")):
        notes.append(f"{path.name} holds one JSON object a line (JSON Lines).")
        return _from_lines(file)
    text = file.whole_text()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if _is_object(next((line for line in text.split("\n") if line.strip()), "")):
            notes.append(f"{path.name} holds one JSON object a line (JSON Lines).")
            return _from_lines(file)
        raise DataError(f"{path.name}, line {error.lineno} is not valid JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not valid JSON: {_reason(error)}.") from None
    if isinstance(value, dict):
        value = _held(value, path, notes)
    if not isinstance(value, list):
        raise DataError(f"{path.name} holds a JSON {type(value).__name__}; a list of objects was expected.")
    return _from_list(file, value)


def _held(value: dict[str, Any], path: Path, notes: list[str]) -> Any:
    """Return the one list of objects that an object holds, and note it; the object itself where there is not one."""
    held = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if len(held) != 1 or held[0] in CHATS:
        return value
    notes.append(f"{path.name} holds an object; its rows are those of {held[0]!r}.")
    return value[held[0]]


def _reason(error: BaseException) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)


def _read_parquet(file: Opened) -> Table:
    import pyarrow.parquet  # noqa: PLC0415 - needed for this format only

    name, packed = file.path.name, file.path.suffix.lower() == GZ
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(file.whole()) if packed else file.binary()) as table:
            columns = tuple(column for column in table.schema_arrow.names if not INDEX.fullmatch(column))
            if len(set(columns)) != len(columns):
                raise DataError(f"{name} has repeated columns: {', '.join(columns)}.")
            return _collected(file, columns, _parquet_rows(table, columns))
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{name} is not a readable Parquet file: {first_line(error).rstrip('.')}.") from None


def _parquet_rows(table: Any, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Yield rows by values: pandas would make floats of whole numbers where one is missing."""
    place = 0
    for batch in table.iter_batches(batch_size=TOLD):
        size = batch.nbytes // max(1, batch.num_rows)
        for place, row in enumerate(batch.to_pylist(), place + 1):  # noqa: B020 - goes on counting
            yield place, {name: _known(row[name]) for name in columns}, size


def _read_text(file: Opened) -> Table:
    found = ((line, {"text": text}, len(text)) for line, text in pieces(file.text()))
    return _collected(file, ("text",), found)


PLAIN = (str, int, bool, list, dict)
"""Kinds of values that are never missing."""


def _known(value: Any) -> Any:
    """Return a value, None where it is missing: NaN, NaT and pandas' NA are no text."""
    if type(value) in PLAIN:
        return value
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


READERS: dict[str, Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_text,
    ".md": _read_text,
}
