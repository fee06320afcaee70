"""Setting up races and reading their results."""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.models import CACHE
from benchmarks.peers.venvs import interpreter
from benchmarks.turns import Contestant, race


def rows_file(name: str, rows: Iterable[tuple[str, str]]) -> str:
    """Write prompts and completions where contestants can read them; return the path."""
    path = CACHE / f"rows-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows)), encoding="utf-8")
    return str(path)


def ours(run: str, model: Path, rows: str, rounds: int = 1) -> Contestant:
    """Start one of `benchmarks.ours`."""
    return Contestant(f"ours {run}", sys.executable, "benchmarks.ours", run, str(model), rows, "--rounds", str(rounds))


def peer(name: str, model: Path, rows: str, rounds: int = 1, sparing: bool = False) -> Contestant:
    """Start one of `benchmarks.peers`."""
    more = ["--sparing"] if sparing else []
    label = f"{name} (sparing)" if sparing else name
    arguments = [name, str(model), rows, "--rounds", str(rounds), *more]
    return Contestant(label, interpreter(name), "benchmarks.peers.worker", *arguments)


def run_race(contestants: list[Contestant]) -> dict[str, Contestant]:
    """Let them run in turn and return them by name."""
    race(contestants)
    for one in contestants:
        print(
            f"  {one.name}: {sum(one.seconds):.2f} s ({sum(one.wall):.2f} s on the wall) in {len(one.seconds)} turns, "
            f"{one.result['growth'] / 1e6:.0f} MB over its weights",
            file=sys.stderr,
            flush=True,
        )
    return {one.name: one for one in contestants}


def total_seconds(one: Contestant, batches: int) -> float:
    """Return the seconds of a whole pass from its turns: the median turn for every batch, plus what it took beyond.

    For batches of equal size. A turn that began a pass or ended it holds more than a batch (token ids, semantic bases,
    scores); what exceeds the median there is counted whole.
    """
    middle = statistics.median(one.seconds)
    ends = max(0.0, one.seconds[0] - middle) + one.seconds[-1]
    return middle * batches + ends


def round_seconds(one: Contestant, rounds: int) -> list[float]:
    """Return the seconds of each of several whole passes."""
    length = len(one.seconds) // rounds
    return [sum(one.seconds[start : start + length]) for start in range(0, length * rounds, length)]


def megabytes(n: float) -> str:
    """Return bytes in words."""
    return f"{n / 1e6:.0f} MB"
