"""What files come in: gzip, several encodings, plain text cut into pieces, folders of `datasets` or of splits."""

import codecs
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TextIO, cast

from lsf.data.columns import NoLabel
from lsf.data.rows import LARGE, Table, joined_tables
from lsf.errors import DataError, first_line
from lsf.progress import Reporter

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order mark -> codec that takes it away."""
UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
"""Bytes that stand for nothing in cp1252, the Windows of western Europe, which has letters where latin-1 has none."""
LETTERS = re.compile(rb"[\x80-\x9f]")
"""Bytes that are letters in cp1252, or undefined, and control characters in latin-1."""
PIECE = 2_000
"""Characters of a piece of a plain text at least, where no paragraph is cut for it; the last one may be shorter."""
GOES_ON = "\ue000goes on"
"""Key, no column's name, of a row that is a piece of a text which goes on behind it."""
GZ = ".gz"
WHOLE = 200_000_000
"""Largest file, unpacked, that is read where its kind cannot be read row by row: a JSON list, Parquet in `.gz`."""
CHUNK = 1_000_000
"""Bytes read at a time where a file is checked."""


PLAIN_TEXT = (".txt", ".md")
"""Endings of files that are text without columns."""


def ending(path: Path) -> str:
    """Return what a file's name ends in, in small letters, that of a compressed one without its `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == GZ else path).suffix.lower()


class Opened:
    """A file read in a stream, unpacked where its name ends in `.gz`; how far that is, is told where it is large."""

    def __init__(self, path: Path, report: Reporter) -> None:
        """Read a file.

        Args:
            path: of the file, which is there.
            report: is told how far the reading is.
        """
        self.path, self.notes, self._report = path, list[str](), report
        self.size = path.stat().st_size
        self._codec: str | None = None
        self._raw: IO[bytes] | None = None

    def binary(self) -> IO[bytes]:
        """Return the file's bytes from the beginning; what was opened before is closed."""
        self.close()
        self._raw = self.path.open("rb")
        packed = self.path.suffix.lower() == GZ
        return cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw)) if packed else self._raw

    def close(self) -> None:
        """Let go of the file."""
        if self._raw is not None:
            self._raw.close()

    def tell(self, what: str) -> None:
        """Report how much of the file was read, in MB; nothing of a small one."""
        if self.size > LARGE and self._raw is not None:
            done, total = self._raw.tell() // 1_000_000, self.size // 1_000_000
            self._report.progress(min(done, total), total, f"{what} {self.path.name}, MB")

    def whole(self) -> bytes:
        """Return all of it.

        Raises:
            DataError: it is no whole gzip file, or too large to be read whole.
        """
        raw = b"".join(self._chunks())
        if len(raw) <= WHOLE:
            return raw
        raise DataError(
            f"{self.path.name} has more than {WHOLE / 1e6:.0f} MB, and a file of this kind has to be read whole; save "
            "it as JSON Lines, CSV or Parquet without .gz, which are read row by row and may be of any size."
        )

    def _chunks(self, most: int | None = WHOLE) -> Iterator[bytes]:
        """Yield the bytes in chunks, until there are more than `most`."""
        file, count = self.binary(), 0
        while most is None or count <= most:
            try:
                chunk = file.read(CHUNK)
            except EOFError:
                raise DataError(f"{self.path.name} ends early; it was not copied whole, so get it again.") from None
            except (OSError, zlib.error) as error:
                if self.path.suffix.lower() != GZ:
                    raise
                raise DataError(
                    f"{self.path.name} is not a readable gzip file: {first_line(error).rstrip('.')}."
                ) from None
            if not chunk:
                return
            count += len(chunk)
            yield chunk
            self.tell("checking")

    def text(self, newline: str | None = "\n") -> TextIO:
        """Return the file as text: UTF-8, or UTF-16 with a byte-order mark; others are guessed, and noted.

        Args:
            newline: as `open` takes it; by default a line ends where the file has a line feed.

        Raises:
            DataError: it is no text, or no whole gzip file.
        """
        if self._codec is None:
            self._codec = self._checked()
        return io.TextIOWrapper(self.binary(), encoding=self._codec, newline=newline)

    def whole_text(self) -> str:
        """Return all of it as text; raises as `text` and `whole`."""
        self.text()
        raw = self.whole()
        assert self._codec is not None
        return raw.decode(self._codec)

    def _checked(self) -> str:
        """Return the codec of the whole file."""
        name, codec, decoder, lines, fault = self.path.name, "utf-8", None, 0, ""
        letters = undefined = False
        for chunk in itertools.chain(self._chunks(None), [b""]):
            if not chunk.isascii():
                letters, undefined = letters or bool(LETTERS.search(chunk)), undefined or bool(UNDEFINED.search(chunk))
            if fault:
                continue
            if decoder is None:
                codec = next((codec for mark, codec in MARKS if chunk.startswith(mark)), "utf-8")
                decoder = codecs.getincrementaldecoder(codec)()
                if codec != "utf-16" and b"\0" in chunk[:100_000]:
                    raise DataError(f"{name} holds binary data, not text; save it as UTF-8 text or as Parquet.")
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                if codec == "utf-16":
                    raise DataError(f"{name} begins like UTF-16 but is not; save it again as UTF-8.") from None
                line = lines + error.object.count(b"\n", 0, error.start) + 1
                fault = f"byte 0x{error.object[error.start]:02x} in line {line}"
            lines += chunk.count(b"\n")
        if fault:
            codec = "cp1252" if letters and not undefined else "latin-1"
            self.notes.append(
                f"{name} is not UTF-8 ({fault}) and was read as {codec}; where letters look wrong, save it again as "
                "UTF-8."
            )
        return codec


def lines_of(file: TextIO) -> Iterator[str]:
    """Yield the lines of a text without their ends, LF or CRLF."""
    for line in file:
        yield line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def pieces(file: TextIO) -> Iterator[tuple[int, str, bool]]:
    """Yield a plain text in pieces that end at blank lines.

    Returns:
        (the line it begins in, counted from 1; the piece; whether the text goes on behind it) of each.
    """
    kept, begun, line = "", 1, 1
    for paragraph in _paragraphs(file):
        if len(kept) >= PIECE:
            yield begun, kept, True
            kept, begun = "", line
        kept += paragraph
        line += paragraph.count("\n")
    if kept.strip():
        yield begun, kept, False


def _paragraphs(file: TextIO) -> Iterator[str]:
    """Yield a text in parts, each but the last ending with blank lines and each but the first beginning without one."""
    kept = list[str]()
    for line in file:
        here = f"{line[:-2]}\n" if line.endswith("\r\n") else line
        if kept and here.strip() and not kept[-1].strip():
            yield "".join(kept)
            kept.clear()
        kept.append(here)
    yield "".join(kept)


def saved_tables(path: Path, report: Reporter | None = None) -> dict[str, Table] | None:
    """Return the tables of a folder: one of `datasets`' `save_to_disk`, or of files named by splits; None for others.

    Raises:
        DataError: `datasets` cannot read it.
    """
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets  # noqa: PLC0415 - seconds to import, and needed for such a folder only

        try:
            loaded: Any = datasets.load_from_disk(str(path))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path.name} cannot be read by datasets: {first_line(error).rstrip('.')}.") from None
        return tables_of(path.name, loaded)
    return _files_by_split(path, report)


def tables_of(name: str, loaded: Any) -> dict[str, Table]:
    """Return a data set of `datasets`, or a dictionary of them, as tables by split; one alone as `all`.

    Raises:
        DataError: a dictionary without a split for training.
    """
    from lsf.data.sources import table_splits  # noqa: PLC0415 - it imports this module

    if hasattr(loaded, "column_names") and not isinstance(loaded.column_names, dict):
        return table_splits(dataset_table(name, loaded))
    return named_splits(name, loaded, lambda rows: dataset_table(name, rows))


def named_splits(name: str, loaded: Mapping[Any, Any], table_of: Callable[[Any], Table]) -> dict[str, Table]:
    """Return what a dictionary holds as tables by split; what is called by no split's name is left out, which is noted.

    Raises:
        DataError: none is called by a split's name, or two by that of one.
    """
    from lsf.data.sources import SPLIT_WORDS  # noqa: PLC0415 - it imports this module

    found: dict[str, Any] = {}
    for key in loaded:
        if (word := SPLIT_WORDS.get(str(key).lower())) is None:
            continue
        if word in found:
            raise DataError(f"{name} has two splits for {word}: {found[word]} and {key}; leave one there.")
        found[word] = key
    if not found:
        raise DataError(f"{name} has the splits {', '.join(map(str, loaded))}; one called train was expected.")
    tables = {word: replace(table_of(loaded[key]), split=str(key)) for word, key in found.items()}
    return with_unread(tables, [str(key) for key in loaded if key not in found.values()])


def with_unread(tables: dict[str, Table], names: Sequence[str]) -> dict[str, Table]:
    """Return tables with a note on what stands beside them and is not read."""
    if not names:
        return tables
    word, table = next(iter(tables.items()))
    note = f"not read, since it is called by no split's name: {', '.join(names)}."
    return {**tables, word: replace(table, notes=(*table.notes, note))}


class DatasetRows(Sequence[dict[str, Any]]):
    """Rows of a data set of `datasets`, which keeps them on disk; class labels by their names, empty for none."""

    def __init__(self, rows: Any) -> None:
        """Show the rows of a `datasets.Dataset` as plain values in all columns, whatever format was set for reading it.

        A transform of the user's own says what the rows are, and stays.
        """
        self._rows = rows if rows.format["type"] == "custom" else rows.with_format(None)
        self._labels = class_labels(rows.features)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """Return a row; of a slice, those rows."""
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return as_written(self._rows[index], self._labels)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield all in order."""
        return (as_written(row, self._labels) for row in self._rows)

    def select(self, indices: Any) -> "DatasetRows":
        """Return the rows at some indices, in their order."""
        return DatasetRows(self._rows.select(indices))


def class_labels(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a data set of `datasets` that are, or hold, class labels."""
    return {column: feature for column, feature in features.items() if "ClassLabel" in repr(feature)}


def with_names(row: dict[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its class labels by their names, empty for none.

    Args:
        row: values by column.
        labels: of `class_labels`.
    """
    if not labels:
        return row
    named = {column: _labelled(value, labels.get(column)) for column, value in row.items()}
    return {
        column: NoLabel() if value is None and row[column] is not None else value for column, value in named.items()
    }


def without_nulls(value: Any) -> Any:
    """Return what a list of objects from Arrow holds, without keys of null, at any depth.

    Arrow gives every object of a list the keys of all of them, null where one had none: a call would be trained with
    the arguments of every other tool.
    """
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return value


def as_written(row: dict[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of Arrow as it was before: class labels by their names, lists of objects without keys of null.

    Args:
        row: values by column.
        labels: of `class_labels`.
    """
    lists = {name: without_nulls(value) for name, value in row.items() if _of_objects(value)}
    return with_names({**row, **lists} if lists else row, labels)


def _of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def dataset_table(name: str, rows: Any) -> Table:
    """Return a data set as a table; where it is not large, its rows are read at once.

    Raises:
        DataError: it is one that is read in a stream.
    """
    if not hasattr(rows, "__len__"):
        raise DataError(
            f"The data {name} is a streaming {type(rows).__name__}, whose rows are not known beforehand; a Dataset was "
            "expected: load it without streaming=True, or take its first rows: "
            "datasets.Dataset.from_list(list(data.take(10_000)), features=data.features)."
        )
    found: Sequence[dict[str, Any]] = DatasetRows(rows)
    if rows.data.nbytes <= LARGE:
        found = tuple(found)
    return Table(name, tuple(rows.column_names), found, range(1, len(rows) + 1))


def _labelled(value: Any, feature: Any) -> Any:
    """Return a value with its class labels, at any depth, by their names; None for no label (-1)."""
    if isinstance(value, list):
        inside = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return [_labelled(one, inside) for one in value]
    if isinstance(value, dict) and isinstance(feature, Mapping):
        return {name: _labelled(one, feature.get(name)) for name, one in value.items()}
    if not isinstance(value, int) or not hasattr(feature, "int2str"):
        return value
    return None if value < 0 else feature.int2str(value)


SHARD = re.compile(r"[-_.]\d+(-of-\d+)?$")
"""What the name of a part of a split ends in."""


def _files_by_split(path: Path, report: Reporter | None) -> dict[str, Table] | None:
    """Return the tables of a folder by its files' names; None where they say nothing.

    They are called train.jsonl, or train-00000-of-00002.parquet and alike, in it or in its folder `data`; or all of
    them are texts, which are read as one.

    Raises:
        DataError: two files for one split that are not its numbered parts.
    """
    from lsf.data.sources import SPLIT_WORDS  # noqa: PLC0415
    from lsf.data.tables import READERS, read_table  # noqa: PLC0415 - it imports this module

    def table_of(files: list[Path]) -> Table:
        on_disk = sum(file.stat().st_size for file in files) > LARGE
        return joined_tables(path.name, (read_table(file, report) for file in files), on_disk)

    found: dict[str, list[Path]] = {}
    unread: list[str] = []
    inside = [file for folder in (path, path / "data") if folder.is_dir() for file in sorted(folder.iterdir())]
    for file in (file for file in inside if file.is_file() and ending(file) in READERS):
        stem = file.name.partition(".")[0]
        word = SPLIT_WORDS.get(SHARD.sub("", stem).lower())
        if word is None:
            unread += [] if ending(file) in PLAIN_TEXT else [file.name]
            continue
        others = found.setdefault(word, [])
        others.append(file)
        if len(others) > 1 and not all(SHARD.search(one.name.partition(".")[0]) for one in others):
            raise DataError(f"{path.name} has two files for {word}: {others[0].name} and {file.name}; leave one there.")
    if "train" in found:
        return with_unread({word: replace(table_of(files), split=word) for word, files in found.items()}, unread)
    known = [file for file in sorted(path.rglob("*")) if file.is_file() and ending(file) in READERS]
    if known and all(ending(file) in PLAIN_TEXT for file in known):
        return {"all": table_of(known)}
    return None
