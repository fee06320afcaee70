"""Reading a local table: CSV, TSV, JSON, JSONL, Parquet or Arrow, with the faulty row named."""

import csv
import io
import itertools
import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from lsf.data.containers import GOES_ON, GZ, WHOLE, Opened, as_written, class_labels, ending, lines_of, pieces
from lsf.data.rows import RowCollector, Table
from lsf.errors import DataError, did_you_mean, first_line
from lsf.files import names_beside
from lsf.progress import Reporter, Silent
from lsf.wording import counted

TOLD = 2_000
"""Rows between two reports of how far the reading is."""
CHATS = ("messages", "conversations")
"""Lists of objects that are one chat, and no table."""
csv.field_size_limit(WHOLE)  # one long prompt is no fault


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
        if path.is_dir():
            raise DataError(
                f"{path} is a folder without files that are called train (as train.jsonl, or "
                "train-00000-of-00002.parquet), which holds neither a data set of save_to_disk nor texts alone; "
                "name a file."
            )
        raise DataError(
            f"The data file {path} does not exist; a CSV, TSV, JSON, JSONL, Parquet, Arrow or text file was expected."
            f"{did_you_mean(path.name, names_beside(path))}"
        )
    reader = READERS.get(ending(path))
    if reader is None:
        sheet = " Save the sheet as CSV." if path.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise DataError(
            f"{path.name} ends in {path.suffix!r}; accepted are: {', '.join(READERS)}, and .gz of them.{sheet}"
        )
    file = Opened(path, report or Silent())
    if file.size == 0:
        raise DataError(f"{path.name} is empty; at least one row was expected.")
    try:
        table = reader(file)
    finally:
        file.close()
    if not table.rows:
        columns = f"has columns ({', '.join(table.columns)}) but no rows" if table.columns else "has no rows"
        raise DataError(f"{path.name} {columns}; at least one was expected.")
    return replace(table, notes=(*table.notes, *file.notes))


Reader = Callable[[Opened], Table]


def _collected(
    file: Opened, columns: Iterable[str] | None, rows: Iterable[tuple[int, dict[str, Any], int]], unit: str
) -> Table:
    """Return a table of rows as they come.

    Args:
        file: they are read from.
        columns: their names; None for all that occur.
        rows: place, row, and about how many bytes it takes in the file.
        unit: what their places count.
    """
    kept, places, seen = RowCollector[dict[str, Any]](), array("q"), dict[str, None]()
    for place, row, size in rows:
        if columns is None and not row.keys() <= seen.keys():
            seen.update(dict.fromkeys(row))
        kept.add(row, size)
        places.append(place)
        if len(places) % TOLD == 0:
            file.tell("reading")
    return Table(file.path.name, tuple(seen if columns is None else columns), kept.rows(), places, unit=unit)


def _read_csv(file: Opened) -> Table:
    first = next(lines_of(file.text()), "")
    if first[:4].lower() == "sep=" and len(first) == 5:
        return _from_cells(file, _quoted_lines(file, first[4], skipped=1))
    header = next((line for line in lines_of(file.text()) if line.strip("\r")), "")
    fault = None
    if "," in header:
        try:
            return _quoted(file, ",")
        except DataError as error:  # its names may hold the comma
            fault = error
    for delimiter in DELIMITERS:
        if delimiter not in header:
            continue
        try:  # only where every row has as many values as the header
            table = _quoted(file, delimiter)
        except DataError:
            continue
        file.notes.append(f"{file.path.name} separates its values by {DELIMITERS[delimiter]}.")
        return table
    if fault is not None:
        raise fault
    return _quoted(file, ",")


DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What a CSV file may have in place of commas, tried in this order."""


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


def _quoted_lines(file: Opened, delimiter: str, skipped: int = 0) -> Iterator[tuple[int, list[str], int]]:
    text = file.text(newline=None)
    for _ in range(skipped):
        text.readline()
    lines = csv.reader(itertools.chain(["\n"] * skipped, text), delimiter=delimiter, strict=True)
    read = 0
    try:
        for cells in lines:
            begun, read = read + 1, lines.line_num
            if cells:
                yield begun, cells, sum(map(len, cells))
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
                raise DataError(
                    f"{name}, line {number}: {counted(len(cells), 'value')} for {counted(len(named), 'column')}."
                )
            yield number, {named[place]: cells[place] for place in kept}, size

    if not columns or len(set(columns)) != len(columns):
        raise DataError(f"{name} has repeated or unnamed columns in its first line: {', '.join(named)}.")
    return _collected(file, columns, rows(), "line")


def _read_jsonl(file: Opened) -> Table:
    lines = filter(str.strip, file.text())
    first, more = next(lines, ""), next(lines, "")
    several = more and _of_objects(first) is not None  # a chat a line
    if not several and first.lstrip().startswith("[") and (listed := _of_objects(file.whole_text())) is not None:
        file.notes.append(f"{file.path.name} holds one JSON list, and not an object a line.")
        return _from_list(file, listed)
    return _from_lines(file)


def _from_lines(file: Opened) -> Table:
    name = file.path.name

    def rows() -> Iterator[tuple[int, dict[str, Any], int]]:
        chats = None
        for number, line in enumerate(file.text(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{name}, line {number} is not valid JSON: {_reason(error)}.") from None
            is_chat = isinstance(row, list) and bool(row) and all(isinstance(turn, dict) for turn in row)
            chats = is_chat if chats is None else chats and is_chat
            yield number, _object(name, "line", number, {"messages": row} if chats else row), len(line)

    return _collected(file, None, rows(), "line")


def _object(name: str, unit: str, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{name}, {unit} {number} is not a JSON object with columns.")
    return {column: _known(value) for column, value in row.items()}


def _from_list(file: Opened, listed: list[Any]) -> Table:
    name = file.path.name
    rows = ((number, _object(name, "row", number, row), 0) for number, row in enumerate(listed, 1))
    return _collected(file, None, rows, "row")


def _of_objects(text: str) -> list[Any] | None:
    """Return the JSON list of objects that a text is; None where it is something else."""
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
        raise DataError(f"{path.name}, line {error.lineno} is not valid JSON: {_reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not valid JSON: {_reason(error)}.") from None
    if isinstance(value, dict):
        value = _inside(value, path, notes)
    if not isinstance(value, list):
        what = "an object" if isinstance(value, dict) else "one value"
        raise DataError(f"{path.name} holds {what}; a list of objects was expected.")
    return _from_list(file, value)


def _inside(value: dict[str, Any], path: Path, notes: list[str]) -> Any:
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
        value = {name: [column[key] for key in columns[0]] for name, column in value.items()}
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


def _read_text(file: Opened) -> Table:
    found = pieces(file.text())
    rows = ((line, {"text": text, **({GOES_ON: True} if on else {})}, len(text)) for line, text, on in found)
    return _collected(file, ("text",), rows, "line")


_PLAIN = (str, int, bool, list, dict)
"""Kinds of values that are never missing."""


def _known(value: Any) -> Any:
    """Return a value, None where it is missing: NaN, NaT and pandas' NA are no text."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and needed for what only Parquet holds

    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a nameless index in a file."""
_ARROW = b"ARROW1"
"""How a file of Arrow begins that is no stream."""


def _read_parquet(file: Opened) -> Table:
    import pyarrow.parquet  # noqa: PLC0415 - needed for this format only

    packed = file.path.suffix.lower() == GZ
    with _readable(file, "Parquet"), pyarrow.parquet.ParquetFile(_held(file) if packed else file.binary()) as table:
        return _from_batches(file, table.schema_arrow, table.iter_batches(batch_size=TOLD))


def _read_arrow(file: Opened) -> Table:
    """Read Arrow's own files and streams, as `datasets` keeps them and pandas' Feather is."""
    import pyarrow.ipc  # noqa: PLC0415 - needed for this format only

    with _readable(file, "Arrow"):
        held = _held(file) if file.path.suffix.lower() == GZ else file.binary()
        is_stream = held.read(len(_ARROW)) != _ARROW
        held.seek(0)
        source: Any = (pyarrow.ipc.open_stream if is_stream else pyarrow.ipc.open_file)(held)
        batches = source if is_stream else map(source.get_batch, range(source.num_record_batches))
        parts = (batch.slice(at, TOLD) for batch in batches for at in range(0, batch.num_rows, TOLD))
        return _from_batches(file, source.schema, parts)


def _held(file: Opened) -> IO[bytes]:
    return io.BytesIO(file.whole())


@contextmanager
def _readable(file: Opened, kind: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{file.path.name} is not a readable {kind} file: {first_line(error).rstrip('.')}.") from None


def _from_batches(file: Opened, schema: Any, batches: Iterable[Any]) -> Table:
    """Return a table of record batches, by values: pandas would make floats of whole numbers where one is missing."""
    columns = tuple(column for column in schema.names if not _INDEX.fullmatch(column))
    if len(set(columns)) != len(columns):
        raise DataError(f"{file.path.name} has repeated columns: {', '.join(columns)}.")
    labels = _labels_in(schema)

    def rows() -> Iterator[tuple[int, dict[str, Any], int]]:
        place = 0
        for batch in batches:
            size = batch.nbytes // max(1, batch.num_rows)
            for place, row in enumerate(batch.to_pylist(), place + 1):  # noqa: B020 - goes on counting
                yield place, as_written({name: _known(row[name]) for name in columns}, labels), size

    return _collected(file, columns, rows(), "row")


def _labels_in(schema: Any) -> dict[str, Any]:
    """Return the class labels that `datasets` notes in a file it writes, such as those of the hub."""
    if b"ClassLabel" not in (schema.metadata or {}).get(b"huggingface", b""):
        return {}
    from datasets import Features  # noqa: PLC0415 - two seconds to import

    return class_labels(Features.from_arrow_schema(schema))


READERS: dict[str, Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".txt": _read_text,
    ".md": _read_text,
}
