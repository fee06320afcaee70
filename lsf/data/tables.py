"""Reading a local table: CSV, TSV, JSON, JSONL or Parquet, with the faulty row named."""

import csv
import io
import json
import re
from collections.abc import Callable
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
INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a nameless index in a Parquet file."""
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
        if path.is_dir():
            raise DataError(
                f"{path} is a folder without files that are called train (as train.jsonl, or "
                "train-00000-of-00002.parquet), without a data set of save_to_disk, not of texts alone; name a file."
            )
        raise DataError(
            f"The data file {path} does not exist; a CSV, TSV, JSON, JSONL, Parquet or text file was expected."
        )
    reader = READERS.get(ending(path))
    if reader is None:
        sheet = " Save the sheet as CSV." if path.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise DataError(
            f"{path.name} ends in {path.suffix!r}; accepted are: {', '.join(READERS)}, and .gz of them.{sheet}"
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(
            f"{path.name} has {size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read; take a sample."
        )
    if size == 0:
        raise DataError(f"{path.name} is empty; at least one row was expected.")
    notes: list[str] = []
    table = reader(path, notes)
    if not table.rows:
        columns = f"has columns ({', '.join(table.columns)}) but no rows" if table.columns else "has no rows"
        raise DataError(f"{path.name} {columns}; at least one was expected.")
    return replace(table, notes=(*table.notes, *notes))


def _text(path: Path, notes: list[str]) -> str:
    return decoded(file_bytes(path, MAX_BYTES), path.name, notes)


Reader = Callable[[Path, list[str]], Table]


def _read_csv(path: Path, notes: list[str]) -> Table:
    text = _text(path, notes)
    if text[:4].lower() == "sep=" and len(delimiter := text.partition("\n")[0].rstrip("\r")[4:]) == 1:
        return _quoted(path, "\n" + text.partition("\n")[2], delimiter)
    header = text.lstrip("\r\n").partition("\n")[0]
    for delimiter in ";\t|" if "," not in header else "":
        if delimiter not in header:
            continue
        try:  # only where every row has as many values as the header
            table = _quoted(path, text, delimiter)
        except DataError:
            continue
        notes.append(f"{path.name} separates its values by {DELIMITERS[delimiter]}.")
        return table
    return _quoted(path, text, ",")


DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What a CSV file may have in place of commas, tried in this order."""


def _read_tsv(path: Path, notes: list[str]) -> Table:
    """Read tab-separated values, in which a quotation mark is text; but files of writers that quote are read as such.

    A file is one of these where its lines do not have a value for every column (a quoted cell may hold tabs and line
    ends), or where every cell that begins with a quotation mark is a quoted one that holds others.
    """
    text = _text(path, notes)
    lines = [line.split("\t") for line in text.replace("\r\n", "\n").split("\n")]
    numbered = [(number, cells) for number, cells in enumerate(lines, 1) if cells != [""]]
    marked = [cell for _, cells in numbered for cell in cells if cell.startswith('"')]
    even = all(len(cells) == len(numbered[0][1]) for _, cells in numbered)
    if marked and (not even or all(_is_quoted(cell) for cell in marked)):
        return _quoted(path, text, "\t")
    return _from_cells(path, numbered)


def _is_quoted(cell: str) -> bool:
    """Say whether a cell can only be a quoted one: it has quotation marks inside, and all of them are doubled."""
    inside = cell[1:-1]
    return len(cell) > 1 and cell.endswith('"') and '""' in inside and '"' not in inside.replace('""', "")


def _quoted(path: Path, text: str, delimiter: str) -> Table:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbered: list[tuple[int, list[str]]] = []
    read = 0
    try:
        for cells in lines:
            read = lines.line_num
            if cells:
                numbered.append((read, cells))
    except csv.Error as error:
        where = f"{path.name}, line {read + 1}"
        if "end of data" in str(error):
            raise DataError(f"{where}: a cell begins with a quotation mark that is never closed.") from None
        if "expected after" in str(error):
            raise DataError(
                f"{where}: text follows a closing quotation mark; double those that are part of a quoted cell."
            ) from None
        raise DataError(f"{where}: {error}.") from None
    return _from_cells(path, numbered)


def _from_cells(path: Path, numbered: list[tuple[int, list[str]]]) -> Table:
    """Return a table whose first line names the columns; one without a name, such as an index, is left out."""
    if not numbered:
        return Table(path.name, (), (), ())
    named = numbered[0][1]
    kept = [place for place, name in enumerate(named) if name.strip()]
    columns = tuple(named[place] for place in kept)
    if not columns or len(set(columns)) != len(columns):
        raise DataError(f"{path.name} has repeated or unnamed columns in its first line: {', '.join(named)}.")
    rows = []
    for number, cells in numbered[1:]:
        if len(cells) != len(named):
            raise DataError(f"{path.name}, line {number}: {len(cells)} values for {len(named)} columns.")
        rows.append({named[place]: cells[place] for place in kept})
    return Table(path.name, columns, tuple(rows), tuple(number for number, _ in numbered[1:]))


def _read_jsonl(path: Path, notes: list[str]) -> Table:
    text = _text(path, notes)
    if (listed := _whole_list(text)) is not None:
        notes.append(f"{path.name} holds one JSON list, and not an object a line.")
        return _from_objects(path, listed, list(range(1, len(listed) + 1)), "row")
    return _from_lines(path, text)


def _from_lines(path: Path, text: str) -> Table:
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = []
    for number, line in numbered:
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number} is not valid JSON: {_reason(error)}.") from None
    if all(isinstance(row, list) and row and all(isinstance(turn, dict) for turn in row) for row in rows):
        rows = [{"messages": row} for row in rows]  # each line is a chat
    return _from_objects(path, rows, [number for number, _ in numbered], "line")


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


def _read_json(path: Path, notes: list[str]) -> Table:
    text = _text(path, notes)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if _is_object(next((line for line in text.split("\n") if line.strip()), "")):
            notes.append(f"{path.name} holds one JSON object a line (JSON Lines).")
            return _from_lines(path, text)
        raise DataError(f"{path.name}, line {error.lineno} is not valid JSON: {_reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not valid JSON: {_reason(error)}.") from None
    if isinstance(value, dict):
        value = _held(value, path, notes)
    if not isinstance(value, list):
        what = "an object" if isinstance(value, dict) else "one value"
        raise DataError(f"{path.name} holds {what}; a list of objects was expected.")
    return _from_objects(path, value, list(range(1, len(value) + 1)), "row")


def _held(value: dict[str, Any], path: Path, notes: list[str]) -> Any:
    """Return the one list of objects that an object holds, and note it; the object itself where there is not one."""
    held = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if held and held[0] in CHATS:
        return value
    if len(held) != 1:
        return _by_splits(value, path, notes) or _by_columns(value, path, notes) or value
    notes.append(f"{path.name} holds an object; its rows are those of {held[0]!r}.")
    return value[held[0]]


def _by_splits(value: dict[str, Any], path: Path, notes: list[str]) -> list[Any] | None:
    """Return the rows of an object of splits, each with its `split`; None for other objects."""
    from lsf.data.sources import SPLIT_WORDS  # noqa: PLC0415 - it imports this module

    splits = {key: rows for key, rows in value.items() if str(key).lower() in SPLIT_WORDS and isinstance(rows, list)}
    if not splits or not all(isinstance(row, dict) for rows in splits.values() for row in rows):
        return None
    notes.append(f"{path.name} holds an object; its rows are those of {', '.join(map(repr, splits))}.")
    return [{**row, "split": key} for key, rows in splits.items() for row in rows]


def _by_columns(value: dict[str, Any], path: Path, notes: list[str]) -> list[Any] | None:
    """Return the rows of an object of columns, each a list or (as pandas writes) an object by rows; None for others."""
    columns = list(value.values())
    if all(isinstance(column, dict) and column and all(key.isdigit() for key in column) for column in columns):
        if any(column.keys() != columns[0].keys() for column in columns):
            return None
        value = {name: list(column.values()) for name, column in value.items()}
    elif len(value) < 2 or not all(isinstance(column, list) and column for column in columns):
        return None
    if len({len(column) for column in value.values()}) != 1:
        return None
    notes.append(f"{path.name} holds an object of columns.")
    return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]


def _reason(error: BaseException) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return first_line(error)
    return f"{error.msg} column {error.colno}" if error.msg.endswith(" at") else error.msg


def joined(name: str, tables: list[Table]) -> Table:
    """Return tables as one, its rows counted through where there are several."""
    if len(tables) == 1:
        return tables[0]
    columns = tuple(dict.fromkeys(column for table in tables for column in table.columns))
    rows = tuple({column: row.get(column) for column in columns} for table in tables for row in table.rows)
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return Table(name, columns, rows, tuple(range(1, len(rows) + 1)), notes)


def _from_objects(path: Path, rows: list[Any], places: list[int], unit: str) -> Table:
    columns: dict[str, None] = {}
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{path.name}, {unit} {place} is not a JSON object with columns.")
        columns.update(dict.fromkeys(row))
    whole = tuple({name: _known(row.get(name)) for name in columns} for row in rows)
    return Table(path.name, tuple(columns), whole, tuple(places))


def _read_parquet(path: Path, notes: list[str]) -> Table:
    import pyarrow.parquet  # noqa: PLC0415 - needed for this format only

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(file_bytes(path, MAX_BYTES)))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file: {first_line(error).rstrip('.')}.") from None
    columns = tuple(name for name in table.column_names if not INDEX.fullmatch(name))
    if len(set(columns)) != len(columns):
        raise DataError(f"{path.name} has repeated columns: {', '.join(columns)}.")
    # By values: pandas would make floats of whole numbers where one is missing.
    rows = [{name: _known(value) for name, value in row.items()} for row in table.select(columns).to_pylist()]
    return Table(path.name, columns, tuple(rows), tuple(range(1, len(rows) + 1)))


def _read_text(path: Path, notes: list[str]) -> Table:
    found = list(pieces(_text(path, notes)))
    return Table(path.name, ("text",), tuple({"text": text} for _, text in found), tuple(line for line, _ in found))


def _known(value: Any) -> Any:
    """Return a value, None where it is missing: NaN, NaT and pandas' NA are no text."""
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
