"""Bars over the bare passes: what all forward criteria cost, and what the gradient criteria cost."""

from dataclasses import replace

from benchmarks.bars import Bar
from benchmarks.models import BATCH, SHAPES, model_folder, word_rows
from benchmarks.racing import megabytes, ours, paired_ratio, rows_file, run_race
from benchmarks.turns import Contestant


def forward_bars(name: str, n: int, alone: int = 1) -> list[Bar]:
    """Measure a whole analysis by all forward criteria against the decoder without its head.

    Time comes from a race. Memory comes from runs without waiting, each alone: of a process that waits for its turn the
    system takes memory back, from whichever happens to be idle.

    Args:
        name: of a model in `SHAPES`.
        n: examples.
        alone: runs of each whose memory is read; the median counts.
    """
    rows, model = rows_file(name, word_rows(name, n)), model_folder(name)
    runs = run_race([ours("bare", model, rows), ours("forward", model, rows)])
    label = f"all forward criteria / bare decoder pass, {SHAPES[name].label}"
    found = [_time(label, runs["ours forward"], runs["ours bare"], n // BATCH, 1.15, f"{n} examples")]
    pairs = [
        (run_race([ours("forward", model, rows)])["ours forward"], run_race([ours("bare", model, rows)])["ours bare"])
        for _ in range(alone)
    ]
    return [*found, _middle([_peak(label, mine, bare, 1.10) for mine, bare in pairs])]


def gradient_bars(name: str, n: int) -> list[Bar]:
    """Measure the gradient criteria against one forward and backward pass.

    Two race at a time: of three processes with a gradient each, the system takes memory from those that wait.

    Args:
        name: of a model in `SHAPES`.
        n: examples.
    """
    rows, model = rows_file(f"{name}-backward", word_rows(name, n)), model_folder(name)
    label, batches = f"one forward + backward, {SHAPES[name].label}", n // BATCH
    found = []
    for run, what, limit in (
        ("fisher", "gradient_norm + relative_gradient + fisher", 1.6),
        ("norms", "gradient_norm + relative_gradient", 1.1),
    ):
        runs = run_race([ours("bare_backward", model, rows), ours(run, model, rows)])
        mine, bare = runs[f"ours {run}"], runs["ours bare_backward"]
        found.append(_time(f"{what} / {label}", mine, bare, batches, limit, f"{n} examples"))
        if run == "fisher":
            found.append(_peak(f"the three / {label}", mine, bare, None))
    return found


def _time(label: str, mine: Contestant, other: Contestant, batches: int, limit: float, what: str) -> Bar:
    figures = f"{sum(mine.seconds):.1f} s / {sum(other.seconds):.1f} s, {what}"
    return Bar(f"{label}: time", paired_ratio(mine, other, batches), limit, note=figures)


def _peak(label: str, mine: Contestant, other: Contestant, limit: float | None) -> Bar:
    ratio = mine.result["peak"] / other.result["peak"]
    return Bar(f"{label}: peak memory, weights included", ratio, limit, note=_memory(mine, other))


def _middle(bars: list[Bar]) -> Bar:
    """Return the bar in the middle; where there are several, with all values."""
    ordered = sorted(bars, key=lambda bar: bar.measured)
    middle = ordered[len(ordered) // 2]
    every = f"; median of {', '.join(f'{bar.measured:.3g}x' for bar in ordered)}" if len(bars) > 1 else ""
    return replace(middle, note=middle.note + every)


def _memory(mine: Contestant, other: Contestant) -> str:
    weights = other.result["peak"] - other.result["growth"]
    return (
        f"{megabytes(mine.result['peak'])} / {megabytes(other.result['peak'])}; weights {megabytes(weights)}, "
        f"beyond them {megabytes(mine.result['growth'])} / {megabytes(other.result['growth'])}"
    )
