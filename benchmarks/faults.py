"""Faults, for real: kill -9 at random moments, a full disk, too little memory; what each leaves, and that it goes on.

python benchmarks/faults.py [--kills 20]

Every run is `python -m lsf tune` on the bundled model in a process of its own. After each fault the run is resumed by
`tune --resume` and must end with the weights, bit for bit, of a run that nothing happened to.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
TUNE = [sys.executable, "-m", "lsf", "tune"]
ASKED = ["--model", "bundled", "--data", "lesson:facts", "--blocks", "5-7", "--steps", "120", "--checkpoint-steps", "7"]


def start(runs: Path, *more: str, limit: int | None = None) -> subprocess.Popen[str]:
    """Start a run.

    Args:
        runs: folder of runs.
        *more: options.
        limit: address space in bytes.
    """

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    environment = os.environ | {"OMP_NUM_THREADS": "1", "LSF_CACHE": str(runs.parent / "cache")}
    command = [*TUNE, *ASKED, *more, "--runs", str(runs)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


def resume(folder: Path) -> tuple[int, str]:
    """Resume a run in the foreground; return its exit code and what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LSF_CACHE": str(folder.parent.parent / "cache")}
    done = subprocess.run(
        [*TUNE, "--resume", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr


def only_run(runs: Path) -> Path | None:
    """Return the run in a folder once it is there."""
    return next((path.parent for path in runs.glob("*/spec.json")), None)


def result_of(folder: Path) -> dict[str, Any]:
    """Return a run's result."""
    return json.loads((folder / "result.json").read_text())


def same_weights(one: Path, other: Path) -> bool:
    """Say whether two runs learned the same tensors, bit for bit."""
    mine, theirs = (load_file(folder / "weights" / "tuned.safetensors") for folder in (one, other))
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def kill_at(moment: float, runs: Path) -> Path | None:
    """Start a run and kill it -9 after so many seconds of its life as a run; return its folder."""
    process = start(runs)
    end = time.monotonic() + 120
    while only_run(runs) is None and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return only_run(runs)


def kills(count: int, place: Path, reference: Path, seconds: float) -> list[str]:
    """Kill and resume so many runs that had not ended; return what went wrong."""
    wrong, lot, number, in_flight = [], random.Random(0), 0, 0
    while in_flight < count and number < 4 * count:
        number += 1
        runs = place / f"kill-{number}"
        moment = lot.uniform(0.0, 0.8 * seconds)
        folder = kill_at(moment, runs)
        if folder is None:
            wrong.append(f"kill {number}: no run folder")
            continue
        at = "had ended" if (folder / "result.json").exists() else "interrupted"
        in_flight += at == "interrupted"
        code, said = (0, "") if at == "had ended" else resume(folder)
        ended = result_of(folder) if (folder / "result.json").exists() else {"state": "none", "resumed_at": None}
        same = ended["state"] == "succeeded" and same_weights(folder, reference)
        where = f"{at}, resumed at {ended['resumed_at']}, same: {same}"
        print(f"kill {number} after {moment:.2f} s ({in_flight} of {count} in flight): {where}")
        if code or not same:
            wrong.append(f"kill {number}: exit {code}, state {ended['state']}: {said[-500:]}")
        shutil.rmtree(runs)
    return wrong if in_flight == count else [*wrong, f"only {in_flight} of {count} kills hit a run in flight"]


def full_disk(place: Path, reference: Path) -> list[str]:
    """Fill a small tmpfs under a run's folder; free it, resume, compare."""
    disk = place / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        return [f"full disk: no tmpfs could be mounted here ({mounted.stderr.strip()}); not shown"]
    try:
        process = start(disk / "runs")
        end = time.monotonic() + 120
        while not list((disk / "runs").glob("*/checkpoints/step-*")):
            if process.poll() is not None or time.monotonic() > end:
                return ["full disk: the run ended before its first checkpoint"]
            time.sleep(0.01)
        with (disk / "filler").open("wb") as filler:
            try:
                while True:
                    filler.write(b"\0" * 65536)
                    filler.flush()
            except OSError:
                pass
        _, said = process.communicate(timeout=120)
        folder = only_run(disk / "runs")
        assert folder is not None
        print(f"full disk: exit {process.returncode}: {said.strip().splitlines()[-1]}")
        (disk / "filler").unlink()
        code, later = resume(folder)
        same = not code and same_weights(folder, reference)
        print(f"full disk: resumed at {result_of(folder)['resumed_at']} once there was room, same end: {same}")
        return (
            []
            if process.returncode == 1 and same
            else [f"full disk: exit {process.returncode}, {code}: {later[-500:]}"]
        )
    finally:
        subprocess.run(["umount", str(disk)], check=False)


LIMITS = (5000, 2600, 1900, 1500, 1200, 1000)
"""Address space in MB: from enough for the whole batch down to too little for anything."""


def little_memory(place: Path) -> list[str]:
    """Run under ever smaller address-space limits: smaller micro-batches, then an end with a sentence of its own."""
    wrong, micros, states = [], [], []
    for megabytes in LIMITS:
        runs = place / f"memory-{megabytes}"
        process = start(runs, "--batch-size", "1024", "--steps", "3", limit=megabytes << 20)
        _, said = process.communicate(timeout=600)
        folder = only_run(runs)
        ended = result_of(folder) if folder and (folder / "result.json").exists() else None
        states.append(ended["state"] if ended else "refused")
        micros.append(ended["micro_batch"] if ended else None)
        last = said.strip().splitlines()[-1] if said.strip() else ""
        print(f"memory limit {megabytes} MB: {states[-1]}, exit {process.returncode}, micro-batch {micros[-1]}: {last}")
        if states[-1] != "succeeded" and (process.returncode not in (1, 2) or "internal error" in last):
            wrong.append(f"memory limit {megabytes} MB: {states[-1]} without a sentence of its own: {said[-500:]}")
    if not any(micro and micro < 1024 for micro in micros) or "succeeded" not in states or states[-1] == "succeeded":
        wrong.append(f"memory limits {LIMITS}: no smaller micro-batch, or no end for want of memory, was seen")
    return wrong


def main() -> int:
    """Do all of it; exit 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        begun = time.monotonic()
        process = start(place / "reference")
        while only_run(place / "reference") is None and process.poll() is None:
            time.sleep(0.01)
        first = time.monotonic()
        process.communicate()
        reference, life = only_run(place / "reference"), time.monotonic() - first
        assert reference is not None
        print(f"reference: {result_of(reference)['state']} in {time.monotonic() - begun:.1f} s, {life:.1f} s as a run")
        wrong = [*full_disk(place, reference), *little_memory(place), *kills(asked.kills, place, reference, life)]
    print("\n".join(wrong) if wrong else "nothing was lost")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
