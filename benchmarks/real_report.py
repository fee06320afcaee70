"""What the committed cells and runs on a real model say: gain, forgetting, waiting, forecasts; no torch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.bars import Bar, markdown
from lsf.runs.result import PHASES, WORK

SAME_FLOOR = 1e-4
"""Two floors that differ by a greater share are of different targets, and what is gained from them is not compared."""


def report(cells: Sequence[Any], runs: Sequence[dict[str, Any]]) -> str:
    """Return the tables as Markdown.

    Args:
        cells: `benchmarks.real.Cell`s of the base model and the grid.
        runs: of the product, at `default` and `auto`.
    """
    parts = [
        "### Gain over the floor in nats (forgotten nats) at every rate tried",
        "\n".join(_grid(cells)),
        "### Runs as a person starts them",
        markdown(_rates(cells, runs)),
        "### Shares of wall time by phase",
        "\n".join(_phases(runs)),
        "### Wall time",
        markdown(_forecasts(runs)),
    ]
    return "\n\n".join(parts)


def gains(cells: Sequence[Any], task: str, place: str, steps: int) -> dict[float, float]:
    """Return learning rate -> gain over the floor on the test rows, in nats; minus infinity where it diverged."""
    floor = _floor(cells, task)
    own = [cell for cell in cells if (cell.task, cell.place, cell.steps) == (task, place, steps)]
    return {cell.learning_rate: -math.inf if cell.loss is None else floor - cell.loss for cell in own}


def _floor(cells: Sequence[Any], task: str) -> float:
    base = _base(cells, task)
    return min(base.loss, base.prior_loss)


def _base(cells: Sequence[Any], task: str) -> Any:
    return next(cell for cell in cells if (cell.task, cell.place) == (task, "base"))


def _kinds(cells: Sequence[Any]) -> list[tuple[str, str, int]]:
    return list(dict.fromkeys((cell.task, cell.place, cell.steps) for cell in cells if cell.place != "base"))


def _grid(cells: Sequence[Any]) -> Iterator[str]:
    yield "| task | place | steps | floor | rate: gain (forgotten) | best |\n|---|---|---|---|---|---|"
    for kind in _kinds(cells):
        task, place, steps = kind
        base, found = _base(cells, task), gains(cells, *kind)
        general = {
            cell.learning_rate: cell.general_loss for cell in cells if (cell.task, cell.place, cell.steps) == kind
        }
        row = ", ".join(
            f"{rate:g}: {found[rate]:.3f} ({(general[rate] or math.inf) - base.general_loss:.2f})"
            for rate in sorted(found)
        )
        best = max(found, key=lambda rate: found[rate])
        yield f"| {task} | {place} | {steps} | {_floor(cells, task):.3f} | {row} | {best:g} |"


def _rates(cells: Sequence[Any], runs: Sequence[dict[str, Any]]) -> Iterator[Bar]:
    for run in runs:
        grid = gains(cells, run["task"], run["place"], run["steps"])
        best, gain = max(grid.values(), default=-math.inf), run["floor"] - run["loss"]
        if best <= 0.0 or not math.isclose(run["floor"], _floor(cells, run["task"]), rel_tol=SAME_FLOOR):
            continue
        yield Bar(
            f"{_name(run)}: gain / the best of {len(grid)} rates",
            gain / best,
            0.8 if run["asked"] == "default" else 0.95,
            at_least=True,
            note=f"{gain:.3f} / {best:.3f} nats at {run['learning_rate']:g} ({run['rate_from']}), exact match "
            f"{run['exact_match']:.1%}, forgot {run['forgotten']:.2f} nats",
        )


def _name(run: dict[str, Any]) -> str:
    return f"{run['task']}, {run['place']}, {run['steps']} steps, {run['asked']}"


def _phases(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    keys = [key for key in PHASES if any(run["phases"].get(key, 0.0) > 0.0 for run in runs)]
    yield f"| task, place, rate | {' | '.join(keys)} | beside steps and prefix | seconds |"
    yield "|" + "---|" * (len(keys) + 3)
    for run in runs:
        whole = sum(run["phases"].values())
        shares = " | ".join(f"{run['phases'].get(key, 0.0) / whole:.1%}" for key in keys)
        work = sum(run["phases"].get(key, 0.0) for key in WORK)
        yield f"| {_name(run)} | {shares} | {1 - work / whole:.1%} | {whole:.1f} |"


def _forecasts(runs: Sequence[dict[str, Any]]) -> Iterator[Bar]:
    for run in runs:
        ratio = run["predicted_seconds"] / run["wall_seconds"]
        note = f"{run['predicted_seconds']:.1f} s foreseen, {run['wall_seconds']:.1f} s taken, load {run['load']:.1f}"
        yield Bar(
            f"{_name(run)}: wall time, foreseen / taken, or the other way round", max(ratio, 1 / ratio), 1.5, note=note
        )
