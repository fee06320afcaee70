"""Files and folders that are either whole or absent: written beside their place, then renamed."""

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from lsf.errors import BadInputError, RunError, first_line


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Raises:
        BadInputError: the folder does not exist or cannot be written to.
        RunError: the disk does not take it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise BadInputError(f"Cannot write {path}: {error.strerror or error}.") from error
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}.") from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        BadInputError: the disk does not take it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"Cannot make the folder {path}: {error.strerror or error}.") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; raises as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN and infinity become null (unknown)."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_records(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as compact JSON whose lists and objects hold one record a line, so that a change shows in a diff.

    Whole or not at all; NaN and infinity become null (unknown).
    """

    def plain(one: Any) -> str:
        return json.dumps(one, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def lines(one: Any) -> str:
        if isinstance(one, dict):
            return "{\n" + ",\n".join(f"{plain(name)}:{plain(item)}" for name, item in one.items()) + "\n}"
        return "[\n" + ",\n".join(map(plain, one)) + "\n]" if isinstance(one, list) else plain(one)

    parts = (f"{plain(name)}:{lines(item)}" for name, item in finite(value).items())
    write_text(path, "{" + ",".join(parts) + "}\n")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: what it should be, for the error sentence ("an analysis").

    Raises:
        BadInputError: missing, a folder, not text, or not JSON (with the line).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadInputError(f"There is no file {path}; {what} was expected there.") from None
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is not {what}: line {error.lineno} is not valid JSON ({error.msg}).") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path} cannot be read as {what}: {first_line(error).rstrip('.')}.") from None


def cache_folder() -> Path:
    """Return the folder of all that can be made again: LSF_CACHE, or ~/.cache/lsf."""
    return Path(os.environ.get("LSF_CACHE") or "~/.cache/lsf").expanduser()


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder, made where it is not there yet: by one process while others wait for it.

    Args:
        place: the folder.
        make: writes it under another name, which does not exist yet; what it raises leaves nothing behind.

    Raises:
        BadInputError: the folder above cannot be written to.
    """
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_name(f".{place.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise BadInputError(f"Cannot write {place.parent}: {error.strerror or error}.") from None
    try:
        if not place.is_dir():
            fill_folder(place, make)
    finally:
        lock.release()
    return place


@contextmanager
def held_for_writing(path: Path) -> Iterator[None]:
    """Hold a file that is read, added to and written again, so that no other process does the same meanwhile.

    Raises:
        BadInputError: another process holds it, or its folder cannot be written to.
    """
    beside = path.with_name(f".{path.name}.lock")
    lock = FileLock(beside, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        words = "is being written by another process; wait until that ends, or name another file."
        raise BadInputError(f"{path} {words}") from None
    except OSError as error:
        raise BadInputError(f"Cannot hold {path} by {beside}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        with suppress(OSError):
            beside.unlink()
        lock.release()


def fill_folder(place: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder, whole or not at all.

    Args:
        place: the folder, new or empty; the one above it is there.
        make: as that of `made_once`.

    Raises:
        OSError: the disk does not take it.
    """
    place = place.resolve()
    there = place.is_dir()  # it may be a disk of its own, which takes no other folder in its place
    with TemporaryDirectory(dir=place if there else place.parent, prefix=".lsf-") as beside:
        made = Path(beside) / place.name
        make(made)
        if not there:
            made.rename(place)
        else:
            for item in list(made.iterdir()):
                item.rename(place / item.name)


TYPED = 60
"""Characters that an error tells of a path that cannot be read."""


def names_beside(path: Path) -> list[str]:
    """Return what lies in the folder of a path, the first thousand names; none where that cannot be read."""
    try:
        return [one.name for one in islice(path.parent.iterdir(), 1000)]
    except OSError:
        return []


def typed_path(text: str) -> Path:
    """Return the path that a person typed, with `~` resolved, whether or not there is anything.

    Raises:
        BadInputError: nothing can be called that, there is no such user, or it may not be looked at.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
        if "\0" in text:  # `exists` takes it for a name of nothing; every other call fails
            raise ValueError("it holds a NUL character")
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")
        raise BadInputError(f"{text[:TYPED]!r} is not a path that can be read: {why}.") from error
    return path


def finite(value: Any) -> Any:
    """Return `value` with every NaN or infinite number replaced by None, since unknown is null in our files."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
