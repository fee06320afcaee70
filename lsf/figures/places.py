"""Where x how as a picture: one cell per place and method, its number, its colour by the ratio to full fine-tuning."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from lsf.figures.cells import MEASURES, Cell, Measure, full_value, ratio, table_of, told
from lsf.figures.palette import SMALL_SIZE, WITHOUT_LEGEND, new_figure
from lsf.figures.picture import Picture

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
        ticks = {-1.0: f"{WIDEST:g} x", 0.0: "as full", 1.0: f"1/{WIDEST:g} x"}
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
    text = told(cell.value(measure), measure)
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
    value = f"{measure.label}: {told(cell.value(measure), measure)}{within}{over}"
    return f"{cell.method} on {cell.place}<br>{value}<br>click for its run"


def _ended(cells: Sequence[Cell], measure: Measure) -> list[tuple[float, Cell]]:
    found = [(cell.value(measure), cell) for cell in cells if cell.row.state == "succeeded"]
    known = [(value, cell) for value, cell in found if value is not None]
    return sorted(known, key=lambda pair: pair[0], reverse=measure.more_is_better)


def _title(cells: Sequence[Cell], measure: Measure, reference: float | None) -> str:
    ended = _ended(cells, measure)
    if not ended:
        return f"Where x how: none of {len(cells)} cells has gone to its end yet"
    if measure.interval is not None:
        return _slower(ended, measure)
    value, best = ended[0]
    name = f"{best.method} on {best.place}"
    full = "" if reference is None or name == "full on whole model" else f", full {told(reference, measure)}"
    if len({value for value, _ in ended}) == 1 < len(ended):
        return f"All {len(ended)} cells that ended have the same {measure.short}, {told(value, measure)}"
    return f"Best {measure.short}: {name}, {told(value, measure)}{full}"


def _slower(ended: Sequence[tuple[float, Cell]], measure: Measure) -> str:
    """Say which cells are slower than the base beyond the noise of timing; that one is faster is never said."""
    slower = [(value, cell) for value, cell in ended if (ends := cell.interval(measure)) is not None and ends[0] > 1.0]
    title = f"{len(slower)} of {len(ended)} cells are slower than the base at inference, beyond the noise of timing"
    if not slower:
        return title
    value, cell = slower[-1]
    return f"{title}; slowest {cell.method} on {cell.place}, {told(value, measure)}"


def _alt(cells: Sequence[Cell], measure: Measure, reference: float | None) -> str:
    ended = _ended(cells, measure)
    text = f"{_title(cells, measure, reference)}. {len(ended)} of {len(cells)} cells have this number."
    if len(ended) > 1:
        value, worst = ended[-1]
        text += f" Worst: {worst.method} on {worst.place}, {told(value, measure)}."
    return text
