"""Where x how as a trade: exact match against one cost, and the cells that no other beats in both."""

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from lsf.figures.cells import MEASURES, Cell, Measure
from lsf.figures.curves import role_mark
from lsf.figures.palette import NEUTRAL, SMALL_SIZE, new_figure
from lsf.figures.picture import Picture

WIDE = 64.0
"""Costs further apart than this are drawn on a logarithmic axis."""


def _cost_axis(figure: go.Figure, axis: Measure, costs: Sequence[float]) -> None:
    """Draw costs on a logarithmic axis where they lie more than `WIDE` times apart, else from zero."""
    wide = min(costs) > 0 and max(costs) / min(costs) > WIDE
    room = 0.12 * math.log10(max(costs) / min(costs)) if wide else 0.0
    if wide:
        span = [math.log10(min(costs)) - room, math.log10(max(costs)) + room]
        figure.update_xaxes(title=axis.label, type="log", dtick=1, range=span)
    else:
        figure.update_xaxes(title=axis.label, rangemode="tozero")


def draw_front(cells: Sequence[Cell], front: Sequence[int], cost: str) -> Picture:
    """Draw exact match against one cost, one mark per cell; colour and symbol tell the place, the text the method.

    Args:
        cells: those that ended, with exact match and this cost.
        front: indices of the cells no other cell beats in both.
        cost: a key of `MEASURES`.
    """
    quality, axis = MEASURES["exact_match_after"], MEASURES[cost]
    points = [(cell.apart(axis) or 0.0, cell.value(quality) or 0.0) for cell in cells]
    best = max(range(len(cells)), key=lambda index: (points[index][1], -points[index][0]))
    unbeaten = ", ".join(f"{cells[i].method} on {cells[i].place}" for i in front)
    title = f"{len(front)} of {len(cells)} cells are not beaten in both exact match and {axis.short}"
    figure = new_figure(title, height=440)
    ordered = sorted(front, key=lambda index: points[index])
    figure.add_scatter(
        x=[points[i][0] for i in ordered],
        y=[points[i][1] for i in ordered],
        mode="lines",
        line={"color": NEUTRAL.color, "width": 1.5, "dash": "dot"},
        name="not beaten",
        hoverinfo="skip",
    )
    for place in dict.fromkeys(cell.place for cell in cells):
        part = [index for index, cell in enumerate(cells) if cell.place == place]
        mark = role_mark(cells[part[0]].role)
        figure.add_scatter(
            x=[points[i][0] for i in part],
            y=[points[i][1] for i in part],
            mode="markers+text",
            text=[cells[i].method if i in front else "" for i in part],
            textposition="top center",
            textfont={"size": SMALL_SIZE},
            cliponaxis=False,
            marker={"color": mark.color, "symbol": mark.symbol, "size": 11},
            name=place,
            customdata=[cells[i].row.run for i in part],
            hovertext=[f"{cells[i].method} on {place}<br>{points[i][1]:.1%} at {points[i][0]:.3g}" for i in part],
            hoverinfo="text",
        )
    _cost_axis(figure, axis, [cost for cost, _ in points])
    figure.update_yaxes(title=quality.label, tickformat=".0%", range=[-0.03, 1.08])
    told_best = f"{cells[best].method} on {cells[best].place} with {points[best][1]:.1%} at {points[best][0]:.3g}"
    rows = [
        {"place": c.place, "method": c.method, axis.label: p[0], quality.label: p[1], "not beaten": i in front}
        for i, (c, p) in enumerate(zip(cells, points, strict=True))
    ]
    return Picture(figure, f"{title}: {unbeaten}. Best: {told_best}.", pd.DataFrame(rows))
