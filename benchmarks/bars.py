"""A bar: what was promised, what was measured, whether it holds."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One line of the table."""

    what: str
    """What is compared with what, on which model and data."""
    measured: float
    """The ratio, share or difference."""
    limit: float | None = None
    """What it must not exceed, or must reach; None where it is shown for information only."""
    at_least: bool = False
    """Whether `limit` is to be reached, not to be kept below."""
    note: str = ""
    """The figures behind it."""
    unit: str = "x"
    """Behind the number: `x`, ` %`, or nothing."""

    @property
    def held(self) -> bool | None:
        """Whether it holds; None where nothing was promised."""
        if self.limit is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the line as text."""
        bar = "-" if self.limit is None else f"{'>=' if self.at_least else '<='} {_number(self.limit)}{self.unit}"
        held = {None: "-", True: "yes", False: "**no**"}[self.held]
        return self.what, bar, f"{_number(self.measured)}{self.unit}", held, self.note


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def markdown(bars: Iterable[Bar]) -> str:
    """Return the table as Markdown."""
    lines = ["| what | bar | measured | held | figures |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(bar.cells())} |" for bar in bars)])
