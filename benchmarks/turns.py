"""Taking turns: every contestant is a process of its own that works only while it has the turn.

A contestant stops after each batch, says how long that took, and waits for its next turn; so all of them run under
the same conditions, and the peak memory of each is its process's own. Seconds are CPU seconds of all its threads, which
other processes on a shared machine disturb less than the clock on the wall; that is kept beside them. This file uses
the standard library only: peers import it from virtual environments of their own.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOGS = Path.home() / ".cache/lsf/bench/logs"


class Turn:
    """The contestant's side: hands the turn over and measures only what happens while it holds it."""

    def __init__(self) -> None:
        """Note the memory taken by imports alone; call it before a model is loaded."""
        self._pipe = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever libraries print must not mix with the answers
        self._before_load = resident_bytes("VmRSS")
        self._after_load = self._before_load
        self._since, self._wall = 0.0, 0.0

    def ready(self) -> None:
        """Say that everything is loaded and warm; returns when the first turn is given."""
        trim()
        self._after_load = resident_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here: loading is not what is compared
        self._answer({"ready": True})

    def over(self) -> None:
        """End this turn; returns when the next one is given."""
        self._answer(self._spent())

    def finish(self, **result: Any) -> None:
        """End the last turn with the result; functions in it are called when nothing is measured any more."""
        spent = self._spent()
        peak = resident_bytes("VmHWM")
        late = {key: value() if callable(value) else value for key, value in result.items()}
        self._say(
            {
                **spent,
                "peak": peak - self._before_load,
                "growth": peak - self._after_load,
                "process": peak,
                **late,
            }
        )

    def _spent(self) -> dict[str, float]:
        return {"seconds": time.process_time() - self._since, "wall": time.perf_counter() - self._wall}

    def _answer(self, value: dict[str, Any]) -> None:
        self._say(value)
        if not sys.stdin.readline():
            sys.exit(1)
        self._since, self._wall = time.process_time(), time.perf_counter()

    def _say(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), file=self._pipe, flush=True)


def resident_bytes(what: str) -> int:
    """Return this process's resident memory: `VmRSS` now, `VmHWM` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {what}.")


def trim() -> None:
    """Give freed memory back, so that what an earlier step left does not hide what the next one takes."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


class Contestant:
    """The referee's side of one contestant."""

    def __init__(self, name: str, python: str | Path, module: str, *arguments: str) -> None:
        """Start its process; `wait_ready` must follow.

        Args:
            name: in tables and errors.
            python: the interpreter of its virtual environment.
            module: what it runs, such as `benchmarks.ours`.
            *arguments: for that module.
        """
        self.name = name
        self.seconds: list[float] = []
        self.wall: list[float] = []
        self.result: dict[str, Any] = {}
        log = LOGS / f"{name.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", module, *arguments],
                cwd=ROOT,
                env=quiet_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._hear()

    def turn(self) -> bool:
        """Give it one turn; return False once it has finished."""
        if self.result:
            return False
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()
        heard = self._hear()
        self.seconds.append(heard.pop("seconds"))
        self.wall.append(heard.pop("wall"))
        if heard:
            self.result = heard
            self._process.wait(60)
        return True

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._log.read_text().splitlines()[-12:])
            raise RuntimeError(f"{self.name} ended with {self._process.wait(60)}:\n{tail}")
        return json.loads(line)


def quiet_environment() -> dict[str, str]:
    """Return the environment of every contestant: one thread policy, no network, no progress bars."""
    threads = str(max(1, (os.cpu_count() or 2) - 1))  # what the app and the command line take, see lsf/environment.py
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
        "PYTHONWARNINGS": "ignore",
    }


def race(contestants: list[Contestant]) -> None:
    """Give turns until everybody has finished; who begins a round changes from round to round."""
    round_ = 0
    while True:
        order = contestants[round_ % len(contestants) :] + contestants[: round_ % len(contestants)]
        if not any([contestant.turn() for contestant in order]):
            return
        round_ += 1
