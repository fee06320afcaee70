"""Reading a local table: CSV, TSV, JSON, JSONL or Parquet, with the faulty row named."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lsf.errors import DataError, first_line

MAX_BYTES = 200_000_000
"""Largest file that is read; a short fine-tune needs thousands of rows, not millions."""
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
    """Row (Parquet, JSON) or line (CSV, TSV, JSONL) number of each, from 1."""


def read_table(path: Path) -> Table:
    """Read a local file by its ending.

    Raises:
        DataError: no such file, an unknown ending, larger than `MAX_BYTES`, not UTF-8 text, empty, ragged, a broken
            line (named by number).
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"The data file {path} {what}; a CSV, TSV, JSON, JSONL or Parquet file was expected.")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name} ends in {path.suffix!r}; accepted are: {', '.join(READERS)}.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(
            f"{path.name} has {size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read; take a sample."
        )
    if size == 0:
        raise DataError(f"{path.name} is empty; a header and at least 3 rows were expected.")
    table = reader(path)
    if not table.rows:
        columns = f"has columns ({', '.join(table.columns)}) but no rows" if table.columns else "has no rows"
        raise DataError(f"{path.name} {columns}; at least 3 were expected.")
    return table


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if b"\0" in raw[:100_000]:
        raise DataError(f"{path.name} holds binary data, not text; save it as UTF-8 text or as Parquet.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name} is not UTF-8 (byte 0x{raw[error.start]:02x} in line {line}); save it again as UTF-8 "
            "(it may be latin-1)."
        ) from None


def _delimited(delimiter: str) -> Callable[[Path], Table]:
    def read(path: Path) -> Table:
        lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
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


def _read_jsonl(path: Path) -> Table:
    numbered = [(number, line) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    rows = []
    for number, line in numbered:
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number} is not valid JSON: {_reason(error)}.") from None
    return _from_objects(path, rows, [number for number, _ in numbered], "line")


def _read_json(path: Path) -> Table:
    try:
        value = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name}, line {error.lineno} is not valid JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not valid JSON: {_reason(error)}.") from None
    if not isinstance(value, list):
        raise DataError(f"{path.name} holds a JSON {type(value).__name__}; a list of objects was expected.")
    return _from_objects(path, value, list(range(1, len(value) + 1)), "row")


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


def _read_parquet(path: Path) -> Table:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file: {first_line(error).rstrip('.')}.") from None
    rows: list[dict[str, Any]] = [
        {str(name): _known(value) for name, value in row.items()} for row in frame.to_dict(orient="records")
    ]
    return Table(path.name, tuple(map(str, frame.columns)), tuple(rows), tuple(range(1, len(rows) + 1)))


def _known(value: Any) -> Any:
    """Return a value, None where it is missing: NaN, NaT and pandas' NA are no text."""
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
