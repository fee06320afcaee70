"""Blocks x methods: one cell per choice of blocks and method, its number, its colour, and the trade of all cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from lsf.figures.palette import NEUTRAL, SMALL_SIZE, WITHOUT_LEGEND, Picture, new_figure
from lsf.figures.runs import role_mark
from lsf.registry import Registry
from lsf.runs.comparison import Row
from lsf.wording import counted


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
        Measure("gain", "gain over the floor (nats per token)", "gain", " nats", more_is_better=True),
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


def in_words(value: float | None, measure: Measure) -> str:
    """Write a cell's number."""
    if value is None:
        return "?"
    if measure.percent:
        return f"{100 * value:.3g} %"
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}") + measure.unit


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


def draw_front(cells: Sequence[Cell], front: Sequence[int], cost: str, by: str = "exact_match_after") -> Picture:
    """Draw what was reached against one cost, one mark per cell; colour and symbol tell the place, the text the method.

    Args:
        cells: those that ended, with both measures.
        front: indices of the cells no other cell beats in both.
        cost: a key of `MEASURES`.
        by: another, of what was reached.
    """
    quality, axis = MEASURES[by], MEASURES[cost]
    points = [(cell.apart(axis) or 0.0, cell.value(quality) or 0.0) for cell in cells]
    best = max(range(len(cells)), key=lambda index: (points[index][1], -points[index][0]))
    unbeaten = ", ".join(f"{cells[i].method} on {cells[i].place}" for i in front)
    which = f"{len(front)} of {counted(len(cells), 'cell')} {'is' if len(front) == 1 else 'are'}"
    title = f"{which} not beaten in both {quality.short} and {axis.short}"
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
            hovertext=[
                f"{cells[i].method} on {place}<br>{in_words(points[i][1], quality)} at {in_words(points[i][0], axis)}"
                "<br>click for its run"
                for i in part
            ],
            hoverinfo="text",
        )
    _cost_axis(figure, axis, [cost for cost, _ in points])
    figure.update_yaxes(title=quality.label)
    if quality.percent:
        figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.08])
    reached = in_words(points[best][1], quality)
    told_best = f"{cells[best].method} on {cells[best].place} with {reached} at {in_words(points[best][0], axis)}"
    rows = [
        {"place": c.place, "method": c.method, axis.label: p[0], quality.label: p[1], "not beaten": i in front}
        for i, (c, p) in enumerate(zip(cells, points, strict=True))
    ]
    return Picture(figure, f"{title}: {unbeaten}. Best: {told_best}.", pd.DataFrame(rows))


WIDEST = 8.0
"""Ratios beyond this (or below one over it) have the strongest colour."""


def draw_places(cells: Sequence[Cell], measure: str = "exact_match_after", picked: str | None = None) -> Picture:
    """Draw the grid.

    Args:
        cells: at least one; those that have not ended show how they stand.
        measure: a key of `MEASURES`.
        picked: id of the run whose cell is framed.

    Returns:
        A picture whose cells carry the id of their run in `customdata`, so that a click can pick it.
    """
    shown = MEASURES[measure]
    places, methods = (list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("place", "method"))
    at = {(cell.place, cell.method): cell for cell in cells}
    grid = [[at.get((place, method)) for method in methods] for place in places]
    reference = full_value(cells, shown)
    figure = new_figure(_title(cells, shown, reference), height=190 + 46 * len(places), margin=WITHOUT_LEGEND)
    figure.add_heatmap(
        z=[[_colour(cell, shown, reference) for cell in line] for line in grid],
        x=methods,
        y=places,
        zmin=-1,
        zmax=1,
        autocolorscale=True,
        customdata=[[cell.row.run if cell else None for cell in line] for line in grid],
        text=[[_text(cell, shown, picked) for cell in line] for line in grid],
        texttemplate="%{text}",
        textfont={"size": SMALL_SIZE + 1},
        hovertext=[[_hover(cell, shown, reference) for cell in line] for line in grid],
        hoverinfo="text",
        hoverongaps=False,
        colorbar=_bar(shown),
        xgap=3,
        ygap=3,
    )
    _write_uncoloured(figure, cells, shown, picked)
    across, down = [-0.5, len(methods) - 0.5], [len(places) - 0.5, -0.5]
    figure.update_xaxes(showgrid=False, tickangle=-30, range=across, categoryarray=methods)
    figure.update_yaxes(showgrid=False, range=down, categoryarray=places)
    return Picture(figure, _alt(cells, shown, reference), table_of(cells))


def _colour(cell: Cell | None, measure: Measure, reference: float | None) -> float | None:
    """Return -1 (much worse than full) .. 1 (much better), 0 at full's own number; None where nothing is known.

    What is timed is 0 too where its interval holds full's number: noise has no colour.
    """
    found = ratio(cell.value(measure), reference) if cell is not None else None
    if cell is None or found is None or reference is None:
        return None
    ends = cell.interval(measure)
    if ends is not None and ends[0] <= reference <= ends[1]:
        return 0.0
    if measure.percent:
        return max(-1.0, min(1.0, found - 1.0))
    turned = math.log(max(found, 1 / WIDEST)) / math.log(WIDEST)
    return max(-1.0, min(1.0, turned if measure.more_is_better else -turned))


def _bar(measure: Measure) -> dict[str, object]:
    if measure.percent:
        ticks = {-1.0: "0", -0.5: "0.5 x", 0.0: "as full", 0.5: "1.5 x", 1.0: "2 x"}
    else:
        most, least = (1.0, -1.0) if measure.more_is_better else (-1.0, 1.0)
        ticks = {most: f"{WIDEST:g} x", 0.0: "as full", least: f"1/{WIDEST:g} x"}
    if measure.interval is not None:
        ticks[0.0] = "as the base"
    title = {"text": f"ratio to {'the base' if measure.interval else 'full'}; blue is better"}
    return {"title": title, "tickvals": list(ticks), "ticktext": list(ticks.values())}


def _write_uncoloured(figure: go.Figure, cells: Sequence[Cell], measure: Measure, picked: str | None) -> None:
    """Write the cells that have no ratio to full yet: a heat map leaves them empty, and they can be clicked too."""
    reference = full_value(cells, measure)
    plain = [cell for cell in cells if _colour(cell, measure, reference) is None]
    figure.add_scatter(
        x=[cell.method for cell in plain],
        y=[cell.place for cell in plain],
        mode="markers+text",
        marker={"symbol": "square", "size": 30, "color": "rgba(0,0,0,0)"},
        text=[_text(cell, measure, picked) for cell in plain],
        textfont={"size": SMALL_SIZE + 1},
        customdata=[cell.row.run for cell in plain],
        hovertext=[_hover(cell, measure, reference) for cell in plain],
        hoverinfo="text",
        showlegend=False,
    )


def _text(cell: Cell | None, measure: Measure, picked: str | None) -> str:
    if cell is None:
        return ""
    text = in_words(cell.value(measure), measure)
    if cell.row.state != "succeeded":
        text = cell.row.state if cell.value(measure) is None else f"{text}, {cell.row.state}"
    return f"<b>[{text}]</b>" if cell.row.run == picked else text


def _hover(cell: Cell | None, measure: Measure, reference: float | None) -> str:
    if cell is None:
        return "not asked for"
    times = ratio(cell.value(measure), reference)
    over = "" if times is None or measure.interval else f", {times:.2f} x full fine-tuning"
    ends = cell.interval(measure)
    within = "" if ends is None else f" (95 %: {ends[0]:.3f} to {ends[1]:.3f})"
    value = f"{measure.label}: {in_words(cell.value(measure), measure)}{within}{over}"
    return f"{cell.method} on {cell.place}<br>{value}<br>click for its run"


def _ended(cells: Sequence[Cell], measure: Measure) -> list[tuple[float, Cell]]:
    found = [(cell.value(measure), cell) for cell in cells if cell.row.state == "succeeded"]
    known = [(value, cell) for value, cell in found if value is not None]
    return sorted(known, key=lambda pair: pair[0], reverse=measure.more_is_better)


def _title(cells: Sequence[Cell], measure: Measure, reference: float | None) -> str:
    ended = _ended(cells, measure)
    if not ended and (n_finished := sum(cell.row.state == "succeeded" for cell in cells)):
        return f"{measure.short.capitalize()}: not measured in any of {n_finished} finished cells"
    if not ended:
        return f"Blocks x methods: none of {counted(len(cells), 'cell')} has finished yet"
    if measure.interval is not None:
        return _slower(ended, measure)
    value, best = ended[0]
    name = f"{best.method} on {best.place}"
    itself = (best.role, best.row.method) == ("full", "full")
    full = "" if reference is None or itself else f", full {in_words(reference, measure)}"
    if len({value for value, _ in ended}) == 1 < len(ended):
        return f"All {len(ended)} finished cells have the same {measure.short}, {in_words(value, measure)}"
    return f"Best {measure.short}: {name}, {in_words(value, measure)}{full}"


def _slower(ended: Sequence[tuple[float, Cell]], measure: Measure) -> str:
    """Say which cells are slower than the base beyond the noise of timing; that one is faster is never said."""
    slower = [(value, cell) for value, cell in ended if (ends := cell.interval(measure)) is not None and ends[0] > 1.0]
    which = f"{len(slower)} of {counted(len(ended), 'cell')} {'is' if len(slower) == 1 else 'are'}"
    title = f"{which} slower than the base at inference, beyond the noise of timing"
    if not slower:
        return title
    value, cell = slower[-1]
    return f"{title}; slowest {cell.method} on {cell.place}, {in_words(value, measure)}"


def _alt(cells: Sequence[Cell], measure: Measure, reference: float | None) -> str:
    ended = _ended(cells, measure)
    have = f"{len(ended)} of {counted(len(cells), 'cell')} {'has' if len(ended) == 1 else 'have'}"
    text = f"{_title(cells, measure, reference)}. {have} this measure."
    if len(ended) > 1:
        value, worst = ended[-1]
        text += f" Worst: {worst.method} on {worst.place}, {in_words(value, measure)}."
    return text
