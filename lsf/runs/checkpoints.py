"""What a run can go on from: tuned values, optimizer, schedule, random state and place in the data, whole or absent.

A checkpoint is a folder `checkpoints/step-N`, written beside its place and renamed, so that a process killed at any
moment leaves the one before. Optimizer, schedule and random state are Trainer's own files; the tuned values are
safetensors.
"""

import errno
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from lsf.errors import RunError, first_line
from lsf.files import read_json, write_json
from lsf.schema import decode

CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""
TUNED, PROGRESS, STATE = "tuned.safetensors", "progress.json", "trainer_state.json"
LITTLE_DISK = 1 << 20
"""Bytes free on a disk that counts as full."""
SHARE = 0.05
"""Share of the time that checkpoints by the clock may take."""
BYTES_PER_SECOND = 2e8
"""How fast a checkpoint is taken to be written until one was."""
KEPT = 2
"""Newest checkpoints kept: the older one is there in case the newer cannot be read."""
FAILURES = (OSError, SafetensorError, RuntimeError, LookupError)
"""What a write that fails raises; torch says only that it fell short."""
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stood, in words that outlive the process."""

    step: int
    """Optimizer steps done."""
    tokens: int
    """Real tokens trained on."""
    seconds: float
    """Wall seconds of those steps."""
    step_seconds: tuple[float, ...]
    """Wall seconds per step, one value per logged row."""
    about: dict[str, Any]
    """What must be as it was, or was found before: learning rate, fingerprints."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds of everything done until then, by phase; empty in checkpoints before 2026-11-30."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be read."""

    place: Path
    """Its folder."""
    progress: Progress
    """Where the run stood."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run, as it was begun."""
        return int(read_json(self.place / STATE, "a checkpoint's state")["max_steps"])


class CheckpointManager:
    """Says when a checkpoint is due, and writes it."""

    def __init__(
        self,
        run: Path,
        about: dict[str, Any],
        every_steps: int | None = None,
        every_seconds: float = 60.0,
        n_bytes: int = 0,
        beside: Callable[[Path], None] | None = None,
        warn: Callable[[str], None] = _LOGGER.warning,
    ) -> None:
        """Start the clock, and remove what a process that died left unfinished.

        Args:
            run: the run folder.
            about: kept with every checkpoint; plain JSON values.
            every_steps: steps between two checkpoints; None goes by time alone.
            every_seconds: least wall seconds between two checkpoints by the clock; more where writing one is slow.
            n_bytes: about what a checkpoint takes.
            beside: puts further files into every checkpoint.
            warn: told of a checkpoint that cannot be written and need not be.
        """
        for old in (run / CHECKPOINTS).glob("unfinished-*"):
            shutil.rmtree(old, ignore_errors=True)
        self.run, self.about, self._beside, self._warn = run, about, beside, warn
        self._every_steps, self._every_seconds = every_steps, every_seconds
        self._last, self._cost = time.monotonic(), n_bytes / BYTES_PER_SECOND
        self._asked = checkpoint_step(run) or 0

    @property
    def every_seconds(self) -> float:
        """Seconds between two checkpoints by the clock: as asked, and so many that the last one was `SHARE` of them."""
        return max(self._every_seconds, self._cost / SHARE)

    def took(self, seconds: float) -> None:
        """Learn how long the last checkpoint took, copying from the device included, and start the clock again."""
        self._last, self._cost = time.monotonic(), seconds

    def is_due(self, step: int) -> bool:
        """Say whether a checkpoint is to be written after this step; a long run asks after some of its steps alone."""
        every, since, self._asked = self._every_steps, self._asked, step
        by_steps = every is not None and step // every > since // every
        return by_steps or time.monotonic() - self._last >= self.every_seconds

    def unfinished(self, step: int) -> Path:
        """Return the folder a checkpoint is written to before it counts."""
        return self.run / CHECKPOINTS / f"unfinished-{step}"

    def keep(self, progress: Progress, write: Callable[[Path], None], needed: bool) -> None:
        """Write a checkpoint and let the oldest go.

        Args:
            progress: where the run stands.
            write: puts every other file into the folder it is given.
            needed: whether the run would be lost without it: it pauses. Else training goes on where the disk does not
                take it, and a warning is given.

        Raises:
            RunError: the run folder was removed, or the disk does not take what is needed.
        """
        unfinished = self.unfinished(progress.step)
        try:
            with_room(self.run, lambda: self._write(unfinished, progress, write))
        except FAILURES as error:
            explained = _explained(self.run, error)
            shutil.rmtree(unfinished, ignore_errors=True)
            if needed or not (self.run / "spec.json").exists():
                raise explained from error
            self._warn(f"{explained} Training went on without it.")
        for old in _beyond(self.run, KEPT):
            shutil.rmtree(old, ignore_errors=True)

    def _write(self, unfinished: Path, progress: Progress, write: Callable[[Path], None]) -> None:
        place = unfinished.with_name(f"step-{progress.step}")
        unfinished.mkdir(parents=(self.run / "spec.json").exists(), exist_ok=True)
        write(unfinished)
        if self._beside is not None:
            self._beside(unfinished)
        write_json(unfinished / PROGRESS, asdict(progress))
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)


def with_room(run: Path, write: Callable[[], None]) -> None:
    """Write into a run's folder; where the disk is full, drop its checkpoints but one (`_beyond`) and try again."""
    try:
        return write()
    except FAILURES as error:
        older = _beyond(run, 1)
        if not older or not _is_full(run, error):
            raise
    for old in older:
        shutil.rmtree(old, ignore_errors=True)
    return write()


def _is_full(run: Path, error: Exception) -> bool:
    """Say whether a write failed since the disk is full, or a quota."""
    said = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    return said or shutil.disk_usage(run).free < LITTLE_DISK


def _explained(run: Path, error: Exception) -> RunError:
    if isinstance(error, RunError):
        return error
    if not (run / "spec.json").exists():
        return RunError(f"The run folder {run} was removed while the run was going on.")
    if _is_full(run, error):
        return RunError(f"Cannot write a checkpoint of {run.name}: No space left on device.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return RunError(f"Cannot write a checkpoint of {run.name}: {reason}.")


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest checkpoint that can be read; None where there is none."""
    return next(_readable(run), None)


def has_unreadable(run: Path) -> bool:
    """Say whether there are checkpoints and none of them can be read."""
    return bool(_folders(run)) and latest_checkpoint(run) is None


def checkpoint_step(run: Path) -> int | None:
    """Return the step that a run can go on from; None where there is none. No tensor is read."""
    found = latest_checkpoint(run)
    return None if found is None else found.progress.step


def drop_checkpoints(run: Path) -> None:
    """Remove every checkpoint of a run."""
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def _readable(run: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints that can be read, newest first; of their tensors the headers are looked at."""
    for place in _folders(run):
        try:
            plain = read_json(place / PROGRESS, "a checkpoint's progress")
            for tensors in {place / TUNED, *place.glob("*.safetensors")}:
                with safe_open(tensors, "np"):
                    pass
            if not all(is_zipfile(file) for kind in ("*.pt", "*.pth") for file in place.glob(kind)):
                continue  # torch's files are archives, whose end is written last
            progress = decode(plain, Progress, str(place), "checkpoint's progress")
        except (OSError, ValueError, SafetensorError):
            continue
        yield Checkpoint(place, progress)


def _beyond(run: Path, count: int) -> list[Path]:
    """Return the checkpoints but so many of the newest that can be read; where none can, but so many of the newest."""
    there = _folders(run)
    kept = [found.place for found in islice(_readable(run), count)] or there[:count]
    return [place for place in there if place not in kept]


def _folders(run: Path) -> list[Path]:
    """Return the finished checkpoints of a run, newest first."""
    found = {
        int(match[1]): path
        for path in (run / CHECKPOINTS).glob("step-*")
        if (match := re.fullmatch(r"step-(\d+)", path.name))
    }
    return [found[step] for step in sorted(found, reverse=True)]
