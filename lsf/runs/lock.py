"""Who holds a run, and how a run's end is written down.

The process that has queued a run or works on it holds a kernel lock on the folder's `lock` file, and the kernel lets
go of it when the process dies, however it dies.
"""

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lsf.errors import LsfError, RunError, RunPausedError, RunStateError, first_line
from lsf.runs.result import RunResult, RunState

SPEC, METRICS, RESULT, LOG, LOCK, WEIGHTS, MERGED = (
    "spec.json",
    "metrics.jsonl",
    "result.json",
    "run.log",
    "lock",
    "weights",
    "merged",
)
_HELD: dict[Path, FileLock] = {}
_GUARD = threading.Lock()
_LOGGER = logging.getLogger(__name__)


def hold(folder: Path) -> bool:
    """Take a run for this process, so that others see it as queued or running; taking it again changes nothing.

    Returns:
        False where this process held it already.

    Raises:
        RunError: another process holds it, or its folder is gone.
    """
    folder = folder.resolve()
    with _GUARD:
        if folder in _HELD:
            return False
        lock = FileLock(folder / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=2, poll_interval=0.02)
        except Timeout:
            raise RunStateError(f"The run {folder.name} is held by another process; wait until that ends.") from None
        except OSError as error:
            raise RunError(f"Cannot hold the run {folder.name}: {error.strerror or error}.") from error
        _HELD[folder] = lock
    return True


def release(folder: Path) -> None:
    """Let go of a run this process holds; nothing happens where it does not."""
    with _GUARD:
        lock = _HELD.pop(folder.resolve(), None)
    if lock is not None:
        lock.release()


def is_held(folder: Path) -> bool:
    """Say whether a living process, this one or another, holds the run; so does one that cannot be asked.

    The lock of another user's run may be read and not written; that it is held can be seen all the same.
    """
    folder = folder.resolve()
    with _GUARD:
        if folder in _HELD:
            return True
        probe = FileLock(folder / LOCK, thread_local=False)
        try:
            if not (folder / LOCK).exists():
                return False
            probe.acquire(timeout=0.05, poll_interval=0.01)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except Timeout:
            return True
        except OSError:
            return not _is_free(folder / LOCK)
        probe.release()
        return False


def _is_free(lock: Path) -> bool:
    """Say whether nobody holds a lock file that may be read alone; False where that cannot be told."""
    try:
        import fcntl  # noqa: PLC0415 not everywhere

        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of as it is closed
    except (ImportError, OSError):
        return False
    return True


class ResultBuilder:
    """What is known of a run so far, so that even a failure leaves its numbers."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.known = RunResult(RunState.FAILED)

    def add(self, **values: Any) -> None:
        """Note fields of the result."""
        self.known = replace(self.known, **values)


@contextmanager
def run_lock(folder: Path) -> Iterator[ResultBuilder]:
    """Hold a run while it is worked on; whatever ends the work without a result is written down as its result.

    An `LsfError` becomes a failed result with its sentence; anything else one that points to run.log, where the
    traceback is. A pause leaves no result: the run is interrupted. The error goes on to the caller.

    Yields:
        An `ResultBuilder` that takes what is known on the way.
    """
    hold(folder)
    builder = ResultBuilder()
    try:
        yield builder
    except RunPausedError:
        raise
    except BaseException as error:
        record_failure(folder, error, builder.known)
        raise
    finally:
        release(folder)


def record_failure(folder: Path, error: BaseException, known: RunResult | None = None) -> None:
    """Write the failed result of a run that ended by `error`, unless it has a result or its folder is gone."""
    if not (folder / SPEC).exists() or (folder / RESULT).exists():
        return
    try:
        if not isinstance(error, LsfError | KeyboardInterrupt):
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write("".join(traceback.format_exception(error)))
        known = RunResult(RunState.FAILED) if known is None else known
        state = RunState.CANCELLED if isinstance(error, KeyboardInterrupt) else RunState.FAILED
        failure = type(error).__name__ if state is RunState.FAILED else None
        replace(known, state=state, reason=explain(error, LOG), failure=failure).save(folder / RESULT)
    except (OSError, LsfError) as fault:
        _LOGGER.warning("The end of the run %s could not be written down: %s", folder.name, first_line(fault))


def explain(error: BaseException, log: str = "the server's log") -> str:
    """Return the one sentence a user is told about an error.

    Args:
        error: what was raised.
        log: where the traceback of an unexpected one is.
    """
    if isinstance(error, LsfError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Stopped from the keyboard; nothing but the metrics was kept."
    return f"An unexpected {type(error).__name__} ended it; the traceback is in {log}: {first_line(error)}"


def finish(folder: Path, result: RunResult) -> None:
    """Write a run's result and let go of it.

    Raises:
        RunError: the folder was removed, or the disk does not take it.
        BadInputError: the folder cannot be written to.
    """
    try:
        if not (folder / SPEC).exists():
            raise RunError(f"The run folder {folder} was removed while the run was going on.")
        result.save(folder / RESULT)
    finally:
        release(folder)
