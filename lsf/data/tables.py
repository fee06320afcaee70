"""Reading a local table: CSV, TSV, JSON, JSONL or Parquet, with the faulty row named."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lsf.data.containers import decoded, ending, file_bytes, pieces
from lsf.errors import DataError, first_line

MAX_BYTES = 200_000_000
"""Largest file that is read; a short fine-tune needs thousands of rows, not millions."""
CHATS = ("messages", "conversations")
"""Lists of objects that are one chat, and no table."""
csv.field_size_limit(MAX_BYTES)  # one long prompt is no fault


@dataclass(frozen=True)
class Table:
    """Rows of named columns, each with its place in the file."""

    name: str
    """The file, as the user named it."""
    columns: tuple[str, ...]
    """In the file's order."""
    rows: tuple[dict[str, Any], ...]
    """One mapping per row, every column present."""
    places: tuple[int, ...]
    """Row (Parquet, JSON) or line (CSV, TSV, JSONL, text) number of each, from 1."""
    notes: tuple[str, ...] = ()
    """Sentences on how the file was read, where that had to be guessed."""


def read_table(path: Path) -> Table:
    """Read a local file by its ending.

    Raises:
        DataError: no such file, an unknown ending, larger than `MAX_BYTES`, not text, empty, ragged, a broken line
            (named by number).
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"The data file {path} {what}; a CSV, TSV, JSON, JSONL, Parquet or text file was expected.")
    reader = READERS.get(ending(path))
    if reader is None:
        raise DataError(f"{path.name} ends in {path.suffix!r}; accepted are: {', '.join(READERS)}, and .gz of them.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(
            f"{path.name} has {size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read; take a sample."
        )
    if size == 0:
        raise DataError(f"{path.name} is empty; a header and at least 3 rows were expected.")
    notes: list[str] = []
    table = reader(path, notes)
    if not table.rows:
        columns = f"has columns ({', '.join(table.columns)}) but no rows" if table.columns else "has no rows"
        raise DataError(f"{path.name} {columns}; at least 3 were expected.")
    return replace(table, notes=(*table.notes, *notes))


def _text(path: Path, notes: list[str]) -> str:
    return decoded(file_bytes(path, MAX_BYTES), path.name, notes)


Reader = Callable[[Path, list[str]], Table]


def _delimited(delimiter: str) -> Reader:
    def read(path: Path, notes: list[str]) -> Table:
        lines = csv.reader(io.StringIO(_text(path, notes), newline=""), delimiter=delimiter, strict=True)
        try:
            columns = tuple(next(lines, ()))
            _check_columns(path, columns)
            records = list(_records(path, lines, columns))
        except csv.Error as error:
            raise DataError(f"{path.name}, line {lines.line_num}: {error}.") from None
        return Table(path.name, columns, tuple(row for _, row in records), tuple(place for place, _ in records))

    return read


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    if len(set(columns)) != len(columns) or not all(name.strip() for name in columns):
        raise DataError(f"{path.name} has repeated or unnamed columns in its first line: {', '.join(columns)}.")


def _records(path: Path, lines: Any, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    for values in lines:
        if not values:
            continue
        if len(values) != len(columns):
            raise DataError(f"{path.name}, line {lines.line_num}: {len(values)} values for {len(columns)} columns.")
        yield lines.line_num, dict(zip(columns, values, strict=True))


def _read_jsonl(path: Path, notes: list[str]) -> Table:
    numbered = [(number, line) for number, line in enumerate(_text(path, notes).split("\n"), 1) if line.strip()]
    rows = []
    for number, line in numbered:
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number} is not valid JSON: {_reason(error)}.") from None
    return _from_objects(path, rows, [number for number, _ in numbered], "line")


def _read_json(path: Path, notes: list[str]) -> Table:
    try:
        value = json.loads(_text(path, notes))
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name}, line {error.lineno} is not valid JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not valid JSON: {_reason(error)}.") from None
    if isinstance(value, dict):
        value = _held(value, path, notes)
    if not isinstance(value, list):
        raise DataError(f"{path.name} holds a JSON {type(value).__name__}; a list of objects was expected.")
    return _from_objects(path, value, list(range(1, len(value) + 1)), "row")


def _held(value: dict[str, Any], path: Path, notes: list[str]) -> Any:
    """Return the one list of objects that an object holds, and note it; the object itself where there is not one."""
    held = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if len(held) != 1 or held[0] in CHATS:
        return value
    notes.append(f"{path.name} holds an object; its rows are those of {held[0]!r}.")
    return value[held[0]]


def _reason(error: BaseException) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)


def _from_objects(path: Path, rows: list[Any], places: list[int], unit: str) -> Table:
    columns: dict[str, None] = {}
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{path.name}, {unit} {place} is not a JSON object with columns.")
        columns.update(dict.fromkeys(row))
    whole = tuple({name: _known(row.get(name)) for name in columns} for row in rows)
    return Table(path.name, tuple(columns), whole, tuple(places))


def _read_parquet(path: Path, notes: list[str]) -> Table:
    try:
        frame = pd.read_parquet(io.BytesIO(file_bytes(path, MAX_BYTES)))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file: {first_line(error).rstrip('.')}.") from None
    rows: list[dict[str, Any]] = [
        {str(name): _known(value) for name, value in row.items()} for row in frame.to_dict(orient="records")
    ]
    return Table(path.name, tuple(map(str, frame.columns)), tuple(rows), tuple(range(1, len(rows) + 1)))


def _read_text(path: Path, notes: list[str]) -> Table:
    found = list(pieces(_text(path, notes)))
    return Table(path.name, ("text",), tuple({"text": text} for _, text in found), tuple(line for line, _ in found))


def _known(value: Any) -> Any:
    """Return a value, None where it is missing: NaN, NaT and pandas' NA are no text."""
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


READERS: dict[str, Reader] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_text,
    ".md": _read_text,
}
