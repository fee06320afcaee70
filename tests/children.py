"""Python processes of their own that need not import torch: forked off one that has, once for all of a worker's tests.

What they are asked is what `python` is asked on a command line, and they are real processes: they can be killed, have
memory limits, a folder and an environment of their own. Only the start of the interpreter and the imports are shared,
4 s of the processor each time; tests of just these start `sys.executable`.
"""

import atexit
import os
import runpy
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from multiprocessing import get_context
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

ROOT = Path(__file__).parents[1]
FORKING = get_context("forkserver")
FORKING.set_forkserver_preload(["tests.imported"])


class Child:
    """A process that does what `python ARGUMENTS` would: `-m MODULE ...`, `-c CODE ...` or `SCRIPT ...`."""

    def __init__(self, *arguments: object, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
        """Start it in a folder, with these variables beside the environment of the tests."""
        self._kept = tempfile.TemporaryDirectory(prefix="child", ignore_cleanup_errors=True)  # as long as this object
        self._said = Path(self._kept.name)
        asked = [str(argument) for argument in arguments]
        inherited = {**os.environ, **(environment or {})}
        given = asked, str(folder), inherited, str(self._said)
        self._process = FORKING.Process(target=_become, args=given, daemon=True)  # none outlives the tests
        with _importable():
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def out(self) -> str:
        """What it wrote to its standard output so far."""
        return self._read("out")

    @property
    def err(self) -> str:
        """What it wrote to its standard error so far."""
        return self._read("err")

    def _read(self, name: str) -> str:
        path = self._said / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def poll(self) -> int | None:
        """Return its exit code, minus the signal where one ended it; None while it lives."""
        return self._process.exitcode

    def wait(self, seconds: float = 180.0) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutExpired("python", seconds, stderr=self.err)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def finished(*arguments: object, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> Child:
    """Let a child come to its end."""
    child = Child(*arguments, folder=folder, environment=environment)
    child.wait()
    return child


@contextmanager
def _importable() -> Iterator[None]:
    """Let the process that forks, which starts with the first child, find what it imports."""
    with pytest.MonkeyPatch.context() as patch, chdir(ROOT):
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def _become(asked: list[str], folder: str, environment: dict[str, str], said: str) -> None:
    """Do in a child what `python` was asked to, and at its end what was asked for the end."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _carry_out(*asked)
    finally:
        # multiprocessing leaves out what is registered with `atexit`, which an interpreter does once its threads ended
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()


def _carry_out(how: str, *rest: str) -> None:
    if how == "-m":
        sys.argv = [*rest]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = [how, *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [how, *rest]
        runpy.run_path(how, run_name="__main__")
