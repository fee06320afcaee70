"""What a folder's files of weights hold, by their headers alone: names, dtypes, shapes; whether the files are whole."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsf.errors import ModelError

POINTER = b"version https://git-lfs.github.com/spec/"
"""How the small text begins that git keeps in the place of a large file."""
HEADER_BYTES = 100_000_000
"""Largest header that the safetensors format allows."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the dtypes of values that are not quantised."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    name: str
    """In the file."""
    dtype: str
    """As safetensors calls it: F32, BF16, U8."""
    shape: tuple[int, ...]
    """Its sizes."""


def refuse_pointers(name: str, paths: Iterable[Path]) -> None:
    """Refuse files that git-lfs has not fetched.

    Raises:
        ModelError: one of the files is a pointer; the sentence says how the file itself is fetched.
    """
    for path in paths:
        if path.is_file() and _beginning(path, len(POINTER)) == POINTER:
            raise ModelError(
                f"{path.name} of {name} is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder."
            )


def stored_tensors(name: str, paths: Iterable[Path]) -> tuple[StoredTensor, ...]:
    """Return the tensors of safetensors files, of which only the headers are read.

    Raises:
        ModelError: a file that is no safetensors file, or one that ends early.
    """
    return tuple(tensor for path in paths for tensor in _header(name, path))


def quantised_names(tensors: Iterable[StoredTensor]) -> list[str]:
    """Return the tensors whose values are quantised; masks and other flat buffers of integers are not."""
    return [
        tensor.name
        for tensor in tensors
        if tensor.dtype not in FLOATS and len(tensor.shape) > 1 and not tensor.name.endswith("bias")
    ]


def _header(name: str, path: Path) -> list[StoredTensor]:
    size = path.stat().st_size
    n_bytes = int.from_bytes(_beginning(path, 8), "little")
    if not 2 <= n_bytes <= HEADER_BYTES:
        raise ModelError(f"{path.name} of {name} is not a safetensors file; download the weights again.")
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(n_bytes)
    try:
        entries: dict[str, Any] = json.loads(raw) if len(raw) == n_bytes else {}
        entries.pop("__metadata__", None)
        found = [StoredTensor(key, str(it["dtype"]), tuple(it["shape"])) for key, it in entries.items()]
        end = max((it["data_offsets"][1] for it in entries.values()), default=0)
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise ModelError(f"{path.name} of {name} is not a safetensors file; download the weights again.") from None
    if len(raw) < n_bytes or size < 8 + n_bytes + end:
        raise ModelError(
            f"{path.name} of {name} ends early: it has {size:,} bytes and should have {8 + n_bytes + end:,} or more; "
            "download the weights again."
        )
    return found


def _beginning(path: Path, n_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None
