"""Readings of base models on record: measured once per model, rows and settings, in memory and on disk.

A record belongs to the weights themselves (by hash) and to all else its numbers hang on: tokens, settings, dtype,
device, threads, versions. It is used only where all of that is the same: numbers do not change by it.
"""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lsf.data.encode import EncodedExample
from lsf.environment import library_versions
from lsf.errors import LsfError
from lsf.files import cache_folder, write_text
from lsf.models.loading import LoadedModel, config_hash, weights_hash
from lsf.models.sharing import bits_of, foreign_hooks

READING = 2
"""Version of what is read and how; another one makes every record worthless."""
KEPT_FILES, KEPT_IN_MEMORY = 1000, 200
"""Records kept on disk and in memory at most, the ones unused for longest going first."""
_READ: OrderedDict[str, Any] = OrderedDict()


def on_record(loaded: LoadedModel, about: Mapping[str, Any], read: Callable[[], Any]) -> Any:
    """Return what is on record of a base model; else read it and put it on record, but for one with hooks.

    A file that is damaged, or cannot be written, costs a reading and nothing else.

    Args:
        loaded: the base model.
        about: what is read, and all that is particular to it; plain JSON values.
        read: measures it; returns plain JSON values.
    """
    if foreign_hooks(loaded.model):
        return read()
    whole, key, place = _place(loaded, about)
    if key not in _READ:
        found = _load(place, whole)
        if found is None:
            found = read()
            _save(place, whole, found)
        _READ[key] = found
    _READ.move_to_end(key)
    while len(_READ) > KEPT_IN_MEMORY:
        _READ.popitem(last=False)
    return _READ[key]


def is_on_record(loaded: LoadedModel, about: Mapping[str, Any]) -> bool:
    """Say whether a reading need not be made, without looking into its file; see `on_record`."""
    if foreign_hooks(loaded.model):
        return False
    _, key, place = _place(loaded, about)
    return key in _READ or place.exists()


def _place(loaded: LoadedModel, about: Mapping[str, Any]) -> tuple[dict[str, Any], str, Path]:
    """Return all that a reading hangs on, its key, and its file."""
    whole = {**circumstances(loaded), **about}
    key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return whole, key, cache_folder() / "readings" / f"{key[:32]}.json"


def forget_records() -> None:
    """Drop what is in memory; what is on disk stays."""
    _READ.clear()


def tokens_hash(rows: Sequence[EncodedExample]) -> str:
    """Return SHA-256 over the ids of rows, where their targets, turns and ends are, and the bytes of plain text."""
    parts = [
        (row.ids, row.n_prompt, row.spans, row.turns, row.ends, row.n_bytes) if row.spans else (row.ids, row.n_prompt)
        for row in rows
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def circumstances(loaded: LoadedModel) -> dict[str, Any]:
    """Return all that the numbers of a base model hang on, but for what it is given; plain JSON values."""
    device = loaded.device
    cuda = device.type == "cuda"
    return {
        "reading": READING,
        "weights": weights_hash(loaded.model),
        "dtype": loaded.info.dtype,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "processor": None if cuda else torch.backends.cpu.get_cpu_capability(),
        "threads": None if cuda else torch.get_num_threads(),
        "attention": getattr(loaded.model.config, "_attn_implementation", None),
        "config": config_hash(loaded.model),
        "buffers": bits_of(loaded.model.buffers()),
        **library_versions(),
    }


def _load(place: Path, about: Mapping[str, Any]) -> Any:
    """Return the record in a file; None where there is none, it is damaged, or of something else."""
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["about"] != about or known["sum"] != _sum(known["record"]):
            return None
        os.utime(place)
        return known["record"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(place: Path, about: Mapping[str, Any], record: Any) -> None:
    with suppress(OSError, LsfError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps({"about": about, "sum": _sum(record), "record": record}))
        files = sorted(place.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in files[:-KEPT_FILES]:
            old.unlink(missing_ok=True)


def _sum(record: Any) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
