"""Bars over the bare passes: what all forward criteria cost, and what the gradient criteria cost."""

from benchmarks.bars import Bar
from benchmarks.models import BATCH, SHAPES, model_folder, word_rows
from benchmarks.racing import megabytes, ours, paired_ratio, rows_file, run_race
from benchmarks.turns import Contestant


def forward_bars(name: str, n: int) -> list[Bar]:
    """Measure a whole analysis by all forward criteria against the decoder without its head.

    Args:
        name: of a model in `SHAPES`.
        n: examples.
    """
    rows, model = rows_file(name, word_rows(name, n)), model_folder(name)
    runs = run_race([ours("bare", model, rows), ours("forward", model, rows)])
    mine, bare, batches = runs["ours forward"], runs["ours bare"], n // BATCH
    label = f"all forward criteria / bare decoder pass, {SHAPES[name].label}"
    return [
        _time(label, mine, bare, batches, 1.15, f"{n} examples"),
        Bar(
            f"{label}: peak memory, weights included",
            mine.result["peak"] / bare.result["peak"],
            1.10,
            note=_memory(mine, bare),
        ),
        Bar(f"{label}: peak memory over the weights", mine.result["growth"] / bare.result["growth"]),
    ]


def gradient_bars(name: str, n: int) -> list[Bar]:
    """Measure the gradient criteria against one forward and backward pass."""
    rows, model = rows_file(f"{name}-backward", word_rows(name, n)), model_folder(name)
    runs = run_race([ours(run, model, rows) for run in ("bare_backward", "norms", "fisher")])
    bare, batches = runs["ours bare_backward"], n // BATCH
    label = f"one forward + backward, {SHAPES[name].label}"
    return [
        _time(
            f"gradient_norm + relative_gradient + fisher / {label}",
            runs["ours fisher"],
            bare,
            batches,
            1.6,
            f"{n} examples",
        ),
        _time(f"gradient_norm + relative_gradient / {label}", runs["ours norms"], bare, batches, 1.1, f"{n} examples"),
        Bar(
            f"the three / {label}: peak memory, weights included",
            runs["ours fisher"].result["peak"] / bare.result["peak"],
            note=_memory(runs["ours fisher"], bare),
        ),
    ]


def _time(label: str, mine: Contestant, other: Contestant, batches: int, limit: float, what: str) -> Bar:
    figures = f"{sum(mine.seconds):.1f} s / {sum(other.seconds):.1f} s, {what}"
    return Bar(f"{label}: time", paired_ratio(mine, other, batches), limit, note=figures)


def _memory(mine: Contestant, other: Contestant) -> str:
    weights = other.result["peak"] - other.result["growth"]
    return (
        f"{megabytes(mine.result['peak'])} / {megabytes(other.result['peak'])}; weights {megabytes(weights)}, "
        f"beyond them {megabytes(mine.result['growth'])} / {megabytes(other.result['growth'])}"
    )
