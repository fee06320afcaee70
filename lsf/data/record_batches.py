"""Reading Parquet and Arrow, batch by batch, by values, with the names of the class labels that `datasets` notes."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from lsf.data.containers import GZ, Opened, as_written, class_labels, ending
from lsf.data.tables import TOLD, Table, collected, known
from lsf.errors import DataError, first_line

INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a nameless index in a file."""
ARROW = b"ARROW1"
"""How a file of Arrow begins that is no stream."""


def read_batches(file: Opened) -> Table:
    """Read a file of Parquet, or of Arrow, by its ending.

    Raises:
        DataError: it cannot be read, or has repeated columns.
    """
    return _read_parquet(file) if ending(file.path) == ".parquet" else _read_arrow(file)


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
        is_stream = held.read(len(ARROW)) != ARROW
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
    columns = tuple(column for column in schema.names if not INDEX.fullmatch(column))
    if len(set(columns)) != len(columns):
        raise DataError(f"{file.path.name} has repeated columns: {', '.join(columns)}.")
    labels = _labels_in(schema)

    def rows() -> Iterator[tuple[int, dict[str, Any], int]]:
        place = 0
        for batch in batches:
            size = batch.nbytes // max(1, batch.num_rows)
            for place, row in enumerate(batch.to_pylist(), place + 1):  # noqa: B020 - goes on counting
                yield place, as_written({name: known(row[name]) for name in columns}, labels), size

    return collected(file, columns, rows(), "row")


def _labels_in(schema: Any) -> dict[str, Any]:
    """Return the class labels that `datasets` notes in a file it writes, such as those of the hub."""
    if b"ClassLabel" not in (schema.metadata or {}).get(b"huggingface", b""):
        return {}
    from datasets import Features  # noqa: PLC0415 - two seconds to import

    return class_labels(Features.from_arrow_schema(schema))
