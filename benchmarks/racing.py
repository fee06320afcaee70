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


def paired_ratio(one: Contestant, other: Contestant, batches: int) -> float:
    """Return how many times as long one pass takes as another, from turns that were given side by side.

    For batches of equal size: the median over batches of the ratio of two neighbouring turns, plus what a pass takes
    beyond its batches (token ids, semantic bases, scores), counted whole.
    """
    per_batch = statistics.median(a / b for a, b in zip(one.seconds[:batches], other.seconds[:batches], strict=True))
    middle = statistics.median(other.seconds[:batches])
    whole = per_batch * batches * middle + _ends(one, batches)
    return whole / (batches * middle + _ends(other, batches))


def _ends(one: Contestant, batches: int) -> float:
    """Return the seconds of a pass that no batch took: those of its first turn over the median, and those after."""
    return max(0.0, one.seconds[0] - statistics.median(one.seconds[:batches])) + sum(one.seconds[batches:])


def round_seconds(one: Contestant, rounds: int) -> list[float]:
    """Return the seconds of each of several whole passes."""
    length = len(one.seconds) // rounds
    return [sum(one.seconds[start : start + length]) for start in range(0, length * rounds, length)]


def megabytes(n: float) -> str:
    """Return bytes in words."""
    return f"{n / 1e6:.0f} MB"
