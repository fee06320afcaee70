"""What runs are expected to need in memory, part by part: one stacked bar per run, and what there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lsf.figures.deviation import PATTERN
from lsf.figures.palette import NEUTRAL, SMALL_SIZE, TEXT_SIZE, Mark, new_figure
from lsf.figures.picture import Picture

PARTS = (
    Mark("part", "#0072B2", "circle", "solid"),
    Mark("part", "#D55E00", "diamond", "solid", "/"),
    Mark("part", "#009E73", "square", "solid", "\\"),
    Mark("part", "#CC79A7", "circle", "solid", "x"),
    Mark("part", "#6B7785", "square", "solid", "."),
)
"""How the parts look, in their order."""
NEAR = 3.0
"""What there is gets a line where it is at most so many times the longest bar; else it is only told."""
BAR_HEIGHT = 46
"""Pixels per run."""


@dataclass(frozen=True)
class Need:
    """What one run is expected to take above the loaded model."""

    label: str
    """The run in a word or two."""
    parts: Mapping[str, int | None]
    """Part in words -> bytes; None where it was not tried."""

    @property
    def total(self) -> int:
        """Bytes of all parts that are known."""
        return sum(count or 0 for count in self.parts.values())

    @property
    def whole(self) -> bool:
        """Whether every part is known."""
        return None not in self.parts.values()


def draw_memory(needs: Sequence[Need], allowed: float | None = None) -> Picture:
    """Draw the parts of each run's memory as a stacked bar.

    Args:
        needs: at least one run, all with the same parts in the same order.
        allowed: bytes a run may take; None where it is not known.
    """
    factor, unit = (1e-9, "GB") if max(need.total for need in needs) >= 1e9 else (1e-6, "MB")
    figure = new_figure(
        _title(needs), height=126 + BAR_HEIGHT * len(needs), barmode="stack", legend={"traceorder": "normal"}
    )
    for place, part in enumerate(needs[0].parts):
        mark = PARTS[place % len(PARTS)]
        figure.add_bar(
            x=[(need.parts[part] or 0) * factor for need in needs],
            y=[need.label for need in needs],
            name=part,
            orientation="h",
            width=0.62,
            marker={"color": mark.color, "pattern": {**PATTERN, "shape": mark.pattern}},
            hovertemplate="%{y}: %{x:.3g} " + unit + "<extra>" + part + "</extra>",
        )
    for need in needs:
        figure.add_annotation(
            x=need.total * factor,
            y=need.label,
            text=_told(need),
            showarrow=False,
            xanchor="left",
            xshift=4,
            font={"size": TEXT_SIZE},
        )
    longest = max(need.total for need in needs)
    if allowed is not None and allowed <= NEAR * longest:
        figure.add_vline(
            x=allowed * factor,
            line={"color": NEUTRAL.color, "width": 2, "dash": "dash"},
            annotation={"text": "a run may take", "font": {"color": NEUTRAL.color, "size": SMALL_SIZE + 1}},
        )
        longest = max(longest, round(allowed))
    figure.update_xaxes(title=f"memory above the loaded model ({unit})", range=[0, 1.22 * longest * factor or 1])
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": TEXT_SIZE}, ticksuffix="  ")
    return Picture(figure, _alt(needs, allowed), _table(needs))


def _told(need: Need) -> str:
    return ("" if need.whole else "at least ") + _size(need.total)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _title(needs: Sequence[Need]) -> str:
    first, *others = needs
    beside = ", ".join(f"{_told(other)} for {other.label}" for other in others)
    return f"Memory: {_told(first)} for {first.label}" + (f", {beside}" if beside else "")


def _alt(needs: Sequence[Need], allowed: float | None) -> str:
    told = []
    for need in needs:
        parts = ", ".join(
            f"{part} {'not tried' if count is None else _size(count)}" for part, count in need.parts.items()
        )
        told.append(f"{need.label}: {_told(need)} ({parts})")
    there = "" if allowed is None else f" A run may take {_size(allowed)}."
    return f"Expected peak memory above the loaded model. {'; '.join(told)}.{there}"


def _table(needs: Sequence[Need]) -> pd.DataFrame:
    rows = []
    for need in needs:
        rows += [{"run": need.label, "part": part, "bytes": count} for part, count in need.parts.items()]
        rows.append({"run": need.label, "part": "all", "bytes": need.total if need.whole else None})
    return pd.DataFrame(rows).astype({"bytes": "Int64"})
