"""Where x how in numbers: the cells of places and methods, what is measured of each, and its ratio to full tuning."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lsf.compare.table import Row
from lsf.registry import Registry


@dataclass(frozen=True)
class Measure:
    """One number that the grid can show."""

    name: str
    """Column of a comparison's row."""
    label: str
    """What a person reads, with the unit."""
    short: str
    """The number without unit in a title."""
    unit: str = ""
    """Written behind a number."""
    factor: float = 1.0
    """From the column's unit to the label's."""
    percent: bool = False
    """Whether it is a share, written in percent."""
    more_is_better: bool = False
    """Of the quality; costs are better small."""
    interval: tuple[str, str] | None = None
    """Columns with the ends of its 95 % interval, for what is timed against the base."""


MEASURES: Registry[Measure] = Registry(
    "measure",
    [
        Measure("exact_match_after", "test exact match", "exact match", percent=True, more_is_better=True),
        Measure("loss_after", "test loss (nats per token)", "test loss", " nats"),
        Measure("tuning_seconds", "training time (s), search for a mask included", "training time", " s"),
        Measure("peak_memory_bytes", "peak memory (MB)", "peak memory", " MB", 1e-6),
        Measure("stored_bytes", "stored (kB)", "stored bytes", " kB", 1e-3),
        Measure("latency_ratio", "latency over the base's", "latency", " x", interval=("latency_low", "latency_high")),
        Measure("forgetting", "forgetting (nats per token)", "forgetting", " nats"),
    ],
)


@dataclass(frozen=True)
class Cell:
    """One run in the grid."""

    place: str
    """Where: label of the plan."""
    method: str
    """How."""
    row: Row
    """What was measured, as far as the run has come."""
    role: str
    """What the place stands for."""

    def value(self, measure: Measure) -> float | None:
        """Return the number in the measure's unit; None where it is not known."""
        value = getattr(self.row, measure.name)
        return None if value is None else float(value) * measure.factor

    def apart(self, measure: Measure) -> float | None:
        """Return the number as far as it can be told from the base's: 1 where its interval holds 1."""
        ends = self.interval(measure)
        return 1.0 if ends is not None and ends[0] <= 1.0 <= ends[1] else self.value(measure)

    def interval(self, measure: Measure) -> tuple[float, float] | None:
        """Return the ends of the number's 95 % interval; None where it has none or it is not known."""
        if measure.interval is None:
            return None
        low, high = (getattr(self.row, name) for name in measure.interval)
        return None if low is None or high is None else (low, high)


def full_value(cells: Sequence[Cell], measure: Measure) -> float | None:
    """Return full fine-tuning's number, on which the ratios rest; None where that run did not go well to its end.

    One that is below the floor or forgot more than a nat is no reference.

    What is timed against the base rests on the base, 1.
    """
    if measure.interval is not None:
        return 1.0
    whole = (cell for cell in cells if cell.role == "full" and cell.row.method == "full")
    return next(
        (cell.value(measure) for cell in whole if cell.row.state == "succeeded" and cell.row.fault is None), None
    )


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return a value over full's; None where one of both is unknown or full's is not above zero."""
    return None if value is None or reference is None or reference <= 0 else value / reference


def table_of(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return one row per cell with every measure and its ratio to full."""
    rows = []
    for cell in cells:
        found = {"place": cell.place, "method": cell.method, "state": cell.row.state, "rate": cell.row.learning_rate}
        found |= {"fault": cell.row.fault, "rate to try": cell.row.rate_to_try, "steps": cell.row.steps}
        for measure in MEASURES.values():
            found[measure.label] = cell.value(measure)
            if measure.interval is not None:
                low, high = cell.interval(measure) or (None, None)
                found |= {f"{measure.short}, 95 % from": low, f"{measure.short}, 95 % to": high}
            found[f"x {measure.short}"] = ratio(cell.value(measure), full_value(cells, measure))
        rows.append(found)
    return pd.DataFrame(rows)


def told(value: float | None, measure: Measure) -> str:
    """Write a cell's number."""
    if value is None:
        return "?"
    if measure.percent:
        return f"{value:.1%}"
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}") + measure.unit
