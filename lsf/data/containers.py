"""What files come in: gzip, several encodings, plain text cut into pieces, folders of `datasets` or of splits."""

import codecs
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsf.errors import DataError, first_line

if TYPE_CHECKING:
    from lsf.data.tables import Table

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order mark -> codec that takes it away."""
UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
"""Bytes that stand for nothing in cp1252, the Windows of western Europe, which has letters where latin-1 has none."""
PIECE = 2_000
"""Characters of a piece of a plain text at least, where no paragraph is cut for it; the last one may be shorter."""
GZ = ".gz"


def ending(path: Path) -> str:
    """Return what a file's name ends in, in small letters, that of a compressed one without its `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == GZ else path).suffix.lower()


def file_bytes(path: Path, most: int) -> bytes:
    """Return a file's bytes, unpacked where its name ends in `.gz`.

    Args:
        path: the file.
        most: bytes it may have, unpacked.

    Raises:
        DataError: it is no whole gzip file, or is larger unpacked.
    """
    if path.suffix.lower() != GZ:
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            raw = file.read(most + 1)
    except EOFError:
        raise DataError(f"{path.name} ends early; it was not copied whole, so get it again.") from None
    except (OSError, zlib.error) as error:
        raise DataError(f"{path.name} is not a readable gzip file: {first_line(error).rstrip('.')}.") from None
    if len(raw) > most:
        raise DataError(f"{path.name} has more than {most / 1e6:.0f} MB unpacked; take a sample.")
    return raw


def decoded(raw: bytes, name: str, notes: list[str]) -> str:
    """Return bytes as text: UTF-8 with or without a byte-order mark, UTF-16 with one; others are guessed, and noted.

    Args:
        raw: the bytes.
        name: of the file.
        notes: gets a sentence where the text had to be guessed.

    Raises:
        DataError: it is no text.
    """
    codec = next((codec for mark, codec in MARKS if raw.startswith(mark)), "utf-8")
    if codec != "utf-16" and b"\0" in raw[:100_000]:
        raise DataError(f"{name} holds binary data, not text; save it as UTF-8 text or as Parquet.")
    try:
        return raw.decode(codec)
    except UnicodeDecodeError as error:
        if codec == "utf-16":
            raise DataError(f"{name} begins like UTF-16 but is not; save it again as UTF-8.") from None
        line = raw.count(b"\n", 0, error.start) + 1
        other = "latin-1"
        if any(0x80 <= byte < 0xA0 for byte in raw) and not UNDEFINED.search(raw):
            other = "cp1252"
        notes.append(
            f"{name} is not UTF-8 (byte 0x{raw[error.start]:02x} in line {line}) and was read as {other}; where "
            "letters look wrong, save it again as UTF-8."
        )
        return raw.decode(other)


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield a plain text in pieces that end at blank lines, each with the line it begins in, counted from 1."""
    kept, begun, line = "", 1, 1
    for paragraph in re.split(r"(?<=\n)(?=[^\S\n]*\n)", text.replace("\r\n", "\n")):
        if len(kept) >= PIECE:
            yield begun, kept
            kept, begun = "", line
        kept += paragraph
        line += paragraph.count("\n")
    if kept.strip():
        yield begun, kept


def saved_tables(path: Path) -> "dict[str, Table] | None":
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
    return _files_by_split(path)


def tables_of(name: str, loaded: Any) -> "dict[str, Table]":
    """Return a data set of `datasets`, or a dictionary of them, as tables by split; one alone as `all`.

    Raises:
        DataError: a dictionary without a split for training.
    """
    from lsf.data.sources import SPLIT_WORDS, table_splits  # noqa: PLC0415 - they import this module

    if hasattr(loaded, "column_names") and not isinstance(loaded.column_names, dict):
        return table_splits(_table(name, loaded))
    found = {word: _table(name, rows) for key, rows in loaded.items() if (word := SPLIT_WORDS.get(str(key).lower()))}
    if not found:
        raise DataError(f"{name} has the splits {', '.join(map(str, loaded))}; one called train was expected.")
    return found


def _table(name: str, rows: Any) -> "Table":
    """Return a data set as a table, its class labels by their names."""
    from lsf.data.sources import MAX_ROWS  # noqa: PLC0415
    from lsf.data.tables import Table  # noqa: PLC0415

    kept = rows.select(range(min(len(rows), MAX_ROWS)))
    notes = () if len(kept) == len(rows) else (f"Of {name}, the first {len(kept):,} of {len(rows):,} rows are read.",)
    named: dict[str, Callable[[int], str]] = {
        column: feature.int2str for column, feature in kept.features.items() if hasattr(feature, "int2str")
    }
    plain = tuple({column: _labelled(value, named.get(column)) for column, value in row.items()} for row in kept)
    return Table(name, tuple(kept.column_names), plain, tuple(range(1, len(kept) + 1)), notes)


def _labelled(value: Any, name_of: Callable[[int], str] | None) -> Any:
    if name_of is None or not isinstance(value, int):
        return value
    return None if value < 0 else name_of(value)  # -1: no label


SHARD = re.compile(r"[-_.]\d+(-of-\d+)?$")
"""What the name of a part of a split ends in."""


def _files_by_split(path: Path) -> "dict[str, Table] | None":
    """Return the tables of a folder by its files' names; None where they say nothing.

    They are called train.jsonl, or train-00000-of-00002.parquet and alike, in it or in its folder `data`; or all of
    them are texts, which are read as one.

    Raises:
        DataError: two files for one split that are not its numbered parts.
    """
    from lsf.data.sources import SPLIT_WORDS  # noqa: PLC0415
    from lsf.data.tables import READERS, joined, read_table  # noqa: PLC0415

    found: dict[str, list[Path]] = {}
    inside = [file for folder in (path, path / "data") if folder.is_dir() for file in sorted(folder.iterdir())]
    for file in (file for file in inside if file.is_file() and ending(file) in READERS):
        stem = file.name.partition(".")[0]
        word = SPLIT_WORDS.get(SHARD.sub("", stem).lower())
        if word is None:
            continue
        others = found.setdefault(word, [])
        others.append(file)
        if len(others) > 1 and not all(SHARD.search(one.name.partition(".")[0]) for one in others):
            raise DataError(f"{path.name} has two files for {word}: {others[0].name} and {file.name}; leave one there.")
    if "train" in found:
        return {word: joined(path.name, [read_table(file) for file in files]) for word, files in found.items()}
    known = [file for file in sorted(path.rglob("*")) if file.is_file() and ending(file) in READERS]
    if known and all(ending(file) in (".txt", ".md") for file in known):
        return {"all": joined(path.name, [read_table(file) for file in known])}
    return None
