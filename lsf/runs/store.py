"""The run store: one folder per run, whose state is told by its files and its lock; and how much room it takes."""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from lsf.errors import BadInputError, LsfError, NoRunError, RunError, RunStateError
from lsf.files import finite, write_text
from lsf.runs.checkpoints import CHECKPOINTS, checkpoint_step, has_unreadable
from lsf.runs.graft import GRAFT
from lsf.runs.lock import LOCK, MERGED, METRICS, RESULT, SPEC, WEIGHTS, hold, is_held, release
from lsf.runs.result import RunResult, RunState
from lsf.runs.spec import METHODS_OWN, RunSpec

QUOTA_VARIABLE = "LSF_RUNS_QUOTA"
"""Environment variable: bytes the folder of runs may take, such as 50G; unset or empty: as much as the disk has."""
Record = TypeVar("Record", RunSpec, RunResult)
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


class FullQuotaError(BadInputError):
    """The folder of runs has no room for another run."""


def runs_quota() -> float | None:
    """Return the bytes the folder of runs may take; None where there is no limit. Raises as `size_in`."""
    return size_in(QUOTA_VARIABLE)


def size_in(variable: str) -> float | None:
    """Return the bytes that a variable of the environment holds; None where it is not set.

    Raises:
        BadInputError: the variable holds no size.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if (found := bytes_in(text)) is None:
        raise BadInputError(f"{variable} is {text!r}; a number of bytes such as 50G was expected.")
    return found


def bytes_in(text: str) -> float | None:
    """Return the bytes that a text such as 50G names; None where it names none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:E\+?\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    return None if match is None else float(match[1]) * UNITS[match[2]]


def bytes_of(runs: Path) -> int:
    """Return the bytes of all files in the folder of runs; one that vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(runs):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue
    return total


def check_quota(runs: Path) -> None:
    """Refuse another run where the quota is used up; runs that go on are left alone.

    Raises:
        FullQuotaError: it is.
        BadInputError: the variable holds no size.
    """
    quota = runs_quota()
    if quota is not None and (used := bytes_of(runs)) >= quota:
        raise FullQuotaError(
            f"The runs in {runs} take {in_words(used)} of the {in_words(quota)} that {QUOTA_VARIABLE} grants; delete "
            "some, or raise it."
        )


def usage(runs: Path) -> str:
    """Say what the runs take, and of how much."""
    quota = runs_quota()
    return f"{in_words(bytes_of(runs))} in {runs}" + ("" if quota is None else f", of {in_words(quota)} granted")


def in_words(count: float) -> str:
    """Write bytes for a sentence: `3.2 MB`, `14.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


RUNS_VARIABLE = "LSF_RUNS"
"""Environment variable: the folder of runs where none is named."""


def runs_folder() -> Path:
    """Return the folder of runs: `LSF_RUNS`, or `./runs`."""
    return Path(os.environ.get(RUNS_VARIABLE) or "runs").expanduser()


@dataclass(frozen=True)
class Run:
    """One run folder as it was when it was read."""

    folder: Path
    """Where it lies."""
    id: str
    """Its folder's name."""
    spec: RunSpec | None
    """What was asked; None where spec.json cannot be read."""
    state: RunState
    """Where it stands."""
    result: RunResult | None
    """What it came to; None until it ended."""
    problem: str | None
    """One sentence on what is wrong with the folder, or why the run failed; None where all is well."""


def create_run(runs: Path, spec: RunSpec) -> Path:
    """Make a run's folder, with a name that can be read and is new, and write its spec.

    Raises:
        RunError: the folder cannot be made.
        FullQuotaError: the folder of runs has no room left.
    """
    check_quota(runs)
    while True:
        words = [time.strftime("%Y%m%d-%H%M%S"), _slug(spec.data), _slug(spec.plan.label), secrets.token_hex(2)]
        folder = runs / "-".join(words)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir():  # a file in the place of `runs`
                raise RunError(f"Cannot make the run folder {folder}: File exists.") from None
            continue  # two runs of one second drew the same last word
        except OSError as error:
            raise RunError(f"Cannot make the run folder {folder}: {error.strerror or error}.") from error
        try:
            spec.save(folder / SPEC)
        except LsfError as error:  # a folder without a spec would be nobody's
            shutil.rmtree(folder, ignore_errors=True)
            raise RunError(str(error)) from error
        return folder


@contextmanager
def new_run(runs: Path, spec: RunSpec) -> Iterator[Path]:
    """Make a run's folder, as `create_run` does, for work inside the `with` that waits for its result.

    What is refused there before anything was measured leaves no folder behind, neither the run's nor the folder of
    runs where that was made for it: whoever waits is told why. A run that fails later, as one whose search of a rate
    found only divergence, keeps what it came to.

    Yields:
        The run's folder.
    """
    existed = runs.exists()
    folder = create_run(runs, spec)
    try:
        yield folder
    except BadInputError:
        if left_nothing(load_run(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # other runs are in it by now
                if not existed:
                    runs.rmdir()
        raise


def _slug(text: str) -> str:
    words = re.findall(r"[a-z0-9]+", text.removeprefix("lesson:").removeprefix("hub:").rsplit("/", 1)[-1].lower())
    return "-".join(words)[:32].strip("-") or "run"


def load_run(folder: Path) -> Run:
    """Read one run folder; a broken one is a run with a problem.

    Raises:
        NoRunError: there is no such folder, or it is none of a run.
    """
    if not folder.is_dir():
        raise NoRunError(f"There is no run folder {folder}.")
    if not any((folder / name).exists() for name in (SPEC, RESULT, METRICS, LOCK)):
        raise NoRunError(f"{folder} is not a run folder: it has no {SPEC}.")
    spec, result, problem = None, None, None
    try:
        spec = _read(RunSpec, folder / SPEC)
    except LsfError as error:
        problem = str(error)
    if is_held(folder):  # what an earlier attempt came to stays there until a resumed one takes its first step
        state = RunState.RUNNING if (folder / METRICS).exists() else RunState.QUEUED
        return Run(folder, folder.name, spec, state, None, problem)
    try:
        result = _read(RunResult, folder / RESULT) if (folder / RESULT).exists() else None
    except LsfError as error:
        return Run(folder, folder.name, spec, RunState.FAILED, None, str(error))
    if result is not None:
        return Run(folder, folder.name, spec, result.state, result, problem or result.reason)
    return Run(folder, folder.name, spec, RunState.INTERRUPTED, None, problem or _interrupted(folder))


def _interrupted(folder: Path) -> str:
    """Return the sentence on a run whose process ended: from where it can go on."""
    step = checkpoint_step(folder)
    goes_on = f"it can be resumed from {'its start' if step is None else f'step {step}'}."
    if step is None and has_unreadable(folder):
        goes_on = f"none of its checkpoints can be read, so it cannot go on; start it again from its {SPEC}."
    return f"Its process ended before the run did; {goes_on}"


def _read(kind: type[Record], path: Path) -> Record:
    """Read a record that pages look at again and again; one that is written anew is a new file."""
    try:
        now = path.stat()
    except OSError:
        return kind.load(path)
    return _as_of(kind, path, (now.st_ino, now.st_mtime_ns, now.st_size))


@lru_cache(maxsize=4096)
def _as_of(kind: type[Record], path: Path, _written: tuple[int, int, int]) -> Record:
    return kind.load(path)


def tuned_run(folder: Path) -> tuple[Run, RunSpec]:
    """Return a run that has ended, and what it was asked.

    Raises:
        RunError: it has not ended, or kept nothing.
        NoRunError: there is no such run.
    """
    run = load_run(folder)
    ended = run.result is not None and run.state in (RunState.SUCCEEDED, RunState.CANCELLED) and run.result.kept
    if run.spec is None or not ended:
        why = run.problem or f"it is {run.state}"
        raise RunStateError(
            f"The run {run.id} has no tuned model: {why.rstrip('.')}. Accepted is a run that ended well."
        )
    return run, run.spec


def list_runs(runs: Path) -> list[Run]:
    """Return every run under `runs`, newest first; a folder that is broken or vanishes meanwhile stops nothing."""
    found: list[Run] = []
    folders = sorted((path for path in runs.iterdir() if path.is_dir()), reverse=True) if runs.is_dir() else []
    for folder in folders:
        if any((folder / name).exists() for name in (SPEC, RESULT, METRICS, LOCK)):
            try:
                found.append(load_run(folder))
            except (RunError, FileNotFoundError):
                continue
    return found


def append_metrics(folder: Path, row: Mapping[str, Any]) -> None:
    """Append one whole line to metrics.jsonl; a number that is not finite is written as null.

    Raises:
        RunError: the folder was removed, or the disk does not take it.
    """
    line = json.dumps(finite(dict(row)), allow_nan=False) + "\n"
    if not (folder / SPEC).exists():
        raise RunError(f"The run folder {folder} was removed while the run was going on.")
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(line)
    except FileNotFoundError:
        raise RunError(f"The run folder {folder} was removed while the run was going on.") from None
    except OSError as error:
        raise RunError(f"Cannot write the metrics of {folder.name}: {error.strerror or error}.") from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the logged rows of a run, oldest first; a last line still being written is left out."""
    try:
        lines = (folder / METRICS).read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return []
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def take_up(folder: Path, step: int | None) -> None:
    """Take back the rows logged after a step, an earlier result, its weights and what was measured; None: all rows.

    Raises:
        RunError: the disk does not take it.
    """
    kept = [] if step is None else [row for row in read_metrics(folder) if row["step"] <= step]
    try:
        for name in (RESULT, GRAFT):
            (folder / name).unlink(missing_ok=True)
        for name in (WEIGHTS, MERGED):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
        if kept:
            write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
        else:
            (folder / METRICS).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write the metrics of {folder.name}: {error.strerror or error}.") from error


def can_resume(run: Run) -> bool:
    """Say whether a run ended early and left what to go on from."""
    if run.spec is None or run.state in (RunState.QUEUED, RunState.RUNNING, RunState.SUCCEEDED):
        return False
    return run.state is RunState.INTERRUPTED or (run.result is not None and run.result.kept)


def reopen_run(folder: Path) -> RunSpec:
    """Hold a run that ended early, so that it can go on; return what it was asked.

    What it came to until now stays on disk until the first new step, so that an attempt that comes to nothing costs
    nothing.

    Raises:
        RunError: there is no such run, its spec cannot be read, it succeeded, was discarded, or a process holds it.
    """
    run = load_run(folder)
    if run.spec is None:
        raise RunStateError(f"The run {run.id} cannot be resumed: {run.problem}")
    if run.state in (RunState.RUNNING, RunState.QUEUED):
        raise RunStateError(f"The run {run.id} is still {run.state}; only a run that ended early can be resumed.")
    if run.state is RunState.SUCCEEDED:
        raise RunStateError(f"The run {run.id} has succeeded; there is nothing to resume.")
    if run.result is not None and not run.result.kept:
        raise RunStateError(f"The run {run.id} was discarded; start it again from {folder / SPEC}.")
    if not hold(folder):
        raise RunStateError(f"The run {run.id} is being resumed already.")
    return run.spec


def spec_to_repeat(path: Path) -> RunSpec:
    """Read a run's spec.json so that repeating it gives its numbers.

    A default rate becomes the number the run used, since a later version may have another default.

    Raises:
        BadInputError: it is not a whole spec.
        RunError: the result beside it cannot be read.
    """
    spec, result = RunSpec.load(path), path.parent / RESULT
    if spec.learning_rate != METHODS_OWN or not result.is_file():
        return spec
    used = RunResult.load(result).learning_rate
    return spec if used is None else replace(spec, learning_rate=used)


def has_begun(folder: Path) -> bool:
    """Say whether a run has left anything that would be lost if it were discarded: rows, a result, a checkpoint."""
    return (folder / METRICS).exists() or (folder / RESULT).exists() or (folder / CHECKPOINTS).exists()


def left_nothing(run: Run) -> bool:
    """Say whether a run that ended has neither a row of its course nor a search of a rate: it came to nothing."""
    return not (run.folder / METRICS).exists() and (run.result is None or not run.result.search)


def delete_run(folder: Path) -> None:
    """Remove a run's folder.

    Raises:
        RunError: it does not exist, is not a run, a process holds it, or the disk does not let go of it.
    """
    if not folder.is_dir():
        raise NoRunError(f"There is no run folder {folder}.")
    if not ((folder / SPEC).exists() or (folder / RESULT).exists()):
        raise NoRunError(f"{folder} is not a run folder: it has neither {SPEC} nor {RESULT}.")
    if is_held(folder) or not hold(folder):  # held while it goes, so that nobody resumes it meanwhile
        raise RunStateError(f"The run {folder.name} is still queued or running; stop it first.")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"Cannot delete the run {folder.name}: {error.strerror or error}.") from error
    finally:
        release(folder)
