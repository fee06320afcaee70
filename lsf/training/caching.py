"""What is kept of a base model: whether the states of a run's frozen prefix, and where; its readings on record.

And whether activations are computed again. A record belongs to the weights themselves (by hash) and to all else its
numbers hang on: tokens, settings, dtype, device, threads, versions. It is measured once, and used only where all of
that is the same: numbers do not change by it.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import psutil
import torch
from filelock import FileLock, Timeout
from torch.utils.checkpoint import checkpoint

from lsf.data.encode import EncodedExample
from lsf.environment import library_versions
from lsf.errors import BadInputError, LsfError, RunError
from lsf.files import cache_folder, write_text
from lsf.models.batches import by_length
from lsf.models.loading import LoadedModel, config_hash, weights_hash
from lsf.models.sharing import bits_of, foreign_hooks
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import in_words, size_in
from lsf.training.prefix import ABOUT, LOCK, Prefix, States
from lsf.training.processes import n_processes, place_on_machine, wait_for_all
from lsf.wording import counted

MEMORY_SHARE = 0.25
"""Share of the free memory a cache in memory may take."""
DISK_SHARE = 0.25
"""Share of the free disk a cache on disk may take, older ones removed first."""
DISK_BYTES = 16 << 30
"""Bytes all caches on disk may take together, unless LSF_CACHE_BYTES says otherwise."""
SHARED = "shared-"
"""Begins the names of folders that the processes of one run share."""
READING = 2
"""Version of what is read and how; another one makes every record worthless."""
KEPT_FILES, KEPT_IN_MEMORY = 1000, 200
"""Records kept on disk and in memory at most, the ones unused for longest going first."""
_READ: OrderedDict[str, Any] = OrderedDict()
_KEPT: WeakKeyDictionary[Any, dict[tuple[str, str, int], States]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Caching:
    """What was decided for one run, and why."""

    kind: str
    """off, memory or disk."""
    reason: str
    """One sentence."""
    depth: int = 0
    """Blocks whose output is kept."""
    prefix: Prefix | None = None
    """Serves the run; None where nothing is kept."""

    def close(self) -> None:
        """Let go of files; what is kept in memory stays for the next run, what processes shared goes."""
        if self.prefix is None or self.prefix.states.folder is None:
            return
        self.prefix.states.close()
        if n_processes() > 1 and place_on_machine()[0] == 0:
            shutil.rmtree(self.prefix.states.folder, ignore_errors=True)

    def summary(self) -> dict[str, Any]:
        """Return what result.json says of it: bytes held, examples served, computed, and found from an earlier run."""
        told: dict[str, Any] = {"kind": self.kind, "reason": self.reason, "depth": self.depth}
        if self.prefix is not None and self.prefix.given_up is not None:
            return told | {"kind": "off", "reason": self.prefix.given_up, "depth": 0}
        if self.prefix is not None:
            told |= {
                "bytes": self.prefix.states.bytes,
                "served": self.prefix.served,
                "computed": self.prefix.computed,
                "found": self.prefix.found,
            }
        return told


def prefix_depth(plan: Plan, tied_head: bool) -> int:
    """Return how many blocks lie below everything a plan tunes; 0 where it tunes the embedding, tied head included."""
    return 0 if plan.embedding or plan.modules or (plan.head and tied_head) or not plan.blocks else min(plan.blocks)


def expected_bytes(rows: Sequence[EncodedExample], loaded: LoadedModel) -> int:
    """Return the bytes of a prefix cache over these rows: tokens x width x bytes per value."""
    return sum(len(row.ids) for row in rows) * loaded.info.width * loaded.model.dtype.itemsize


def decide(
    loaded: LoadedModel, plan: Plan, rows: Sequence[EncodedExample], asked: str, visits: int
) -> tuple[str, str, int]:
    """Say where the states of the frozen prefix are kept.

    Args:
        loaded: the base model.
        plan: which blocks are tuned.
        rows: training rows.
        asked: off, memory, disk or auto.
        visits: examples trained on in all.

    Returns:
        Kind (off, memory or disk), the reason, and the depth.

    Raises:
        BadInputError: memory or disk was asked for and does not suffice.
    """
    depth = prefix_depth(plan, loaded.info.tied_head)
    if asked == "off":
        return "off", "It was not asked for.", 0
    if depth == 0:
        return "off", plan.tied_words(loaded.info.tied_head) or "Nothing lies below what is tuned.", 0
    if asked == "auto" and visits <= len(rows):
        return "off", "No example is seen twice.", 0
    needed = expected_bytes(rows, loaded)
    rooms = {"memory": MEMORY_SHARE * psutil.virtual_memory().available, "disk": disk_room()}
    for kind, room in rooms.items():
        if asked in (kind, "auto") and needed <= room:
            of = f"block {depth - 1} for {counted(len(rows), 'example')}"
            return kind, f"{needed / 1e6:.1f} MB hold what leaves {of}.", depth
        if asked == kind:
            raise BadInputError(
                f"The prefix cache would take {in_words(needed)} and {kind} has room for {in_words(room)}; "
                "take the cache auto or off, shorter examples (max_length), or fewer of them."
            )
    return "off", f"{in_words(needed)} fit neither into free memory nor onto the free disk.", 0


def open_caching(
    loaded: LoadedModel, model: Any, plan: Plan, rows: Sequence[EncodedExample], asked: str, visits: int
) -> Caching:
    """Decide, and bind the kept states to a run's model.

    Args:
        loaded: the base model; states in memory live as long as it.
        model: the run's prepared model.
        plan: which blocks are tuned.
        rows: training rows.
        asked: off, memory, disk or auto.
        visits: examples trained on in all.

    Raises:
        BadInputError: memory or disk was asked for and does not suffice.
        RunError: another process uses the same cache on disk.
    """
    kind, reason, depth = decide(loaded, plan, rows, asked, visits)
    if kind == "off":
        return Caching(kind, reason)
    key = rows_hash(rows)
    lengths = [len(row.ids) for row in rows]
    if n_processes() > 1:
        return Caching("disk", reason, depth, _sharded(loaded, model, key, depth, rows))
    if kind == "memory":
        states, shallower = _in_memory(loaded, "train", key, depth, lengths)
    else:
        try:
            states, shallower = _on_disk(loaded, key, depth, lengths), None
        except RunError:
            if asked == "disk":
                raise
            return Caching("off", "Another process uses the cache on disk.")
    prefix = Prefix(model, blocks_of(model, loaded), rows, loaded.info.dtype, states, shallower)
    return Caching(kind, reason, depth, prefix)


def open_held_out(
    loaded: LoadedModel, model: Any, spec: RunSpec, rows: Sequence[EncodedExample], split: str, batch_size: int
) -> Prefix | None:
    """Return what serves the frozen prefix of a tuned model on held-out rows, in memory.

    None where nothing is frozen below, it was asked to be off, or memory does not suffice. Rows are computed together
    as `evaluate` reads them together, so that numbers have the same bits with and without.

    Args:
        loaded: the base model; the states live as long as it.
        model: the run's prepared model.
        spec: of the run.
        rows: as they are given to `evaluate`.
        split: their name; states of one set of rows per name are kept.
        batch_size: as it is given to `evaluate`.
    """
    depth = prefix_depth(spec.plan, loaded.info.tied_head)
    needed = expected_bytes(rows, loaded)
    has_room = needed <= MEMORY_SHARE * psutil.virtual_memory().available
    if not rows or depth == 0 or spec.cache == "off" or n_processes() > 1 or not has_room:
        return None
    key = f"{tokens_hash(rows)} {batch_size}"  # targets decide which rows are read together
    states, shallower = _in_memory(loaded, split, key, depth, [len(row.ids) for row in rows])
    groups = list(by_length(rows, batch_size, loaded.model.config.get_text_config().vocab_size))
    return Prefix(model, blocks_of(model, loaded), rows, loaded.info.dtype, states, shallower, groups)


def _sharded(loaded: LoadedModel, model: Any, key: str, depth: int, rows: Sequence[EncodedExample]) -> Prefix:
    """Return a prefix whose states the processes of each machine computed in equal shares, into files they all map."""
    folder = cache_root() / f"{SHARED}{os.environ.get('MASTER_PORT', '0')}-{key[:16]}-{depth}"
    place, shares = place_on_machine()

    def open_prefix() -> Prefix:
        states = States(depth, [len(row.ids) for row in rows], folder, lock=False)
        return Prefix(model, blocks_of(model, loaded), rows, loaded.info.dtype, states)

    if place == 0:
        shutil.rmtree(folder, ignore_errors=True)
        open_prefix().fill_groups([0])
    wait_for_all()
    prefix = open_prefix()
    prefix.fill_groups(range(place, prefix.n_groups, shares))
    wait_for_all()
    prefix.states.reopen()
    prefix.found = 0
    prefix.fill(())  # a process without a share learns the blocks' form now: once sharded, all must run them together
    return prefix


def blocks_of(model: Any, loaded: LoadedModel) -> list[torch.nn.Module]:
    """Return the blocks of a prepared model, also where a method wrapped it."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    return [bare.get_submodule(name) for name in loaded.layout.block_names]


def rows_hash(rows: Sequence[EncodedExample]) -> str:
    """Return SHA-256 over the token ids of the rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.ids}".encode())
    return digest.hexdigest()


def _in_memory(
    loaded: LoadedModel, split: str, key: str, depth: int, lengths: Sequence[int]
) -> tuple[States, States | None]:
    """Return the kept or fresh states at this depth, and an earlier run's at the greatest smaller depth."""
    kept, key = _KEPT.setdefault(loaded.model, {}), f"{key} {torch.get_num_threads()}"
    for old in [known for known in kept if known[0] == split and known[1] != key]:
        del kept[old]  # one set of rows of each split at a time
    below = [known for known in kept if known[0] == split and known[2] < depth]
    shallower = kept[max(below, key=lambda known: known[2])] if below else None
    mine = split, key, depth
    states = kept.setdefault(mine, States(depth, lengths))
    kept[mine] = kept.pop(mine)
    while len(kept) > 1 and sum(one.bytes for one in kept.values()) > MEMORY_SHARE * psutil.virtual_memory().available:
        del kept[next(iter(kept))]
    return states, shallower


def forget_states(loaded: LoadedModel) -> None:
    """Drop every state kept in memory for a model."""
    _KEPT.pop(loaded.model, None)


def cache_root() -> Path:
    """Return the folder of all prefixes on disk."""
    return cache_folder() / "prefix"


def disk_room() -> float:
    """Return the bytes a cache on disk may take, older caches counted as free; none where its folder cannot be made.

    Raises:
        BadInputError: LSF_CACHE_BYTES holds no size.
    """
    most, root = size_in("LSF_CACHE_BYTES"), cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free + sum(size for _, size, _ in _in_cache())
    except OSError:
        return 0.0
    return min(DISK_BYTES if most is None else most, DISK_SHARE * free if os.access(root, os.W_OK) else 0.0)


def _on_disk(loaded: LoadedModel, key: str, depth: int, lengths: Sequence[int]) -> States:
    about = {**circumstances(loaded), "rows": key, "depth": depth}
    if foreign_hooks(loaded.model):
        about["once"] = secrets.token_hex()  # nobody finds it again
    folder = cache_root() / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    room = disk_room() - sum(lengths) * loaded.info.width * loaded.model.dtype.itemsize
    others = [(size, place) for _, size, place in _in_cache() if place != folder]
    while others and sum(size for size, _ in others) > room:
        shutil.rmtree(others.pop(0)[1], ignore_errors=True)
    states = States(depth, lengths, folder)
    if (folder / ABOUT).exists():
        os.utime(folder / ABOUT)
    return states


def _in_cache() -> list[tuple[float, int, Path]]:
    """Return (last use, bytes, folder) of every cache on disk that no process holds, oldest first.

    One that was left half-made, without `about.json`, is of use to nobody and the oldest.
    """
    found = []
    for place in cache_root().iterdir():
        try:
            about, size = place / ABOUT, sum(file.stat().st_size for file in place.iterdir())
            if not _is_held(place):
                found.append((about.stat().st_mtime if about.exists() else 0.0, size, place))
        except OSError:
            continue
    return sorted(found)


def _is_held(place: Path) -> bool:
    """Say whether a process uses a cache on disk; those of one run share theirs without a lock until it is made."""
    if place.name.startswith(SHARED):
        return not (place / ABOUT).exists()
    try:
        with FileLock(place / LOCK, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def recomputed(model: Any, loaded: LoadedModel, plan: Plan, kind: str) -> Iterator[None]:
    """Inside the `with`, blocks from the lowest tuned one up keep only what enters them.

    Args:
        model: a run's prepared model.
        loaded: its base.
        plan: which blocks are tuned.
        kind: off, or non_reentrant.
    """
    chosen = blocks_of(model, loaded)[min(plan.blocks, default=0) :] if kind == "non_reentrant" else []
    try:
        for block in chosen:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        yield
    finally:
        for block in chosen:
            block.__dict__.pop("forward", None)


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
    whole, key, place = _record_place(loaded, about)
    if key not in _READ:
        found = _read_record(place, whole)
        if found is None:
            found = read()
            _write_record(place, whole, found)
        _READ[key] = found
    _READ.move_to_end(key)
    while len(_READ) > KEPT_IN_MEMORY:
        _READ.popitem(last=False)
    return _READ[key]


def is_on_record(loaded: LoadedModel, about: Mapping[str, Any]) -> bool:
    """Say whether a reading need not be made, without looking into its file; see `on_record`."""
    if foreign_hooks(loaded.model):
        return False
    _, key, place = _record_place(loaded, about)
    return key in _READ or place.exists()


def _record_place(loaded: LoadedModel, about: Mapping[str, Any]) -> tuple[dict[str, Any], str, Path]:
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


def _read_record(place: Path, about: Mapping[str, Any]) -> Any:
    """Return the record in a file; None where there is none, it is damaged, or of something else."""
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["about"] != about or known["sum"] != _sum_of(known["record"]):
            return None
        os.utime(place)
        return known["record"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(place: Path, about: Mapping[str, Any], record: Any) -> None:
    with suppress(OSError, LsfError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps({"about": about, "sum": _sum_of(record), "record": record}))
        files = sorted(place.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in files[:-KEPT_FILES]:
            old.unlink(missing_ok=True)


def _sum_of(record: Any) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
