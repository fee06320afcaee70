"""Depth as time: a slider and a play button that let both paths grow state by state."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from lsf.figures.palette import NEUTRAL, SMALL_SIZE

FRAME_MILLISECONDS = 350
NEAR = 0.05
MAX_LABELS = 13
"""Labels per path; deeper models label every other state, every third, ..."""

Points = Sequence[Sequence[float]]


def state_labels(points: Points) -> list[str]:
    """Return the number of each state as text, empty where there would be too many or where two would collide.

    The first and the last state are always named; one nearer than `NEAR` of the path's extent to a named one is not.
    """
    count = len(points)
    step = -(-count // MAX_LABELS)
    extent = max(max(column(points, axis)) - min(column(points, axis)) for axis in (0, 1)) or 1.0
    named = [0, count - 1]
    for state in range(step, count - 1, step):
        if all(math.dist(points[state][:2], points[other][:2]) > NEAR * extent for other in named):
            named.append(state)
    return [str(state) if state in named else "" for state in range(count)]


def column(points: Points, axis: int) -> list[float]:
    """Return one coordinate of every point, to the four decimals that can be seen."""
    return [round(point[axis], 4) for point in points]


def joined(lines: Sequence[Points], axis: int) -> list[float | None]:
    """Return one coordinate of several lines as one trace, with a gap after each."""
    values: list[float | None] = []
    for points in lines:
        values += [*column(points, axis), None]
    return values


def links_between(factual: Points, virtual: Points) -> list[Points]:
    """Return one short line per state, from where the state is to where the even walk would be."""
    return [[here, there] for here, there in zip(factual, virtual, strict=True)]


def add_depth_slider(figure: go.Figure, factual: Points, virtual: Points, first_trace: int) -> None:
    """Add one frame per state, a slider and a play button to a flat picture.

    Args:
        figure: holds, from trace `first_trace` on, the links, the virtual path and the factual path.
        factual: L+1 points of at least 2 coordinates.
        virtual: the same.
        first_trace: number of the links' trace; every frame names all three traces that it touches.
    """
    figure.frames = _frames(factual, virtual, first_trace)
    at_once = {"frame": {"duration": 0, "redraw": False}, "mode": "immediate", "transition": {"duration": 0}}
    playing = {**at_once, "frame": {"duration": FRAME_MILLISECONDS, "redraw": False}}
    steps = [
        {"label": str(state), "method": "animate", "args": [[str(state)], at_once]} for state in range(len(factual))
    ]
    menu = {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "buttons": [
            {"label": "▶", "method": "animate", "args": [None, playing]},
            {"label": "❚❚", "method": "animate", "args": [[None], at_once]},
        ],
        "x": 0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": 62},
        "font": {"size": SMALL_SIZE + 1},
    }
    slider = {
        "active": len(steps) - 1,
        "steps": steps,
        "x": 0.26,
        "len": 0.74,
        "y": 0,
        "pad": {"t": 44},
        "currentvalue": {"prefix": "up to state ", "font": {"size": SMALL_SIZE + 1}},
        "tickcolor": NEUTRAL.color,
    }
    figure.update_layout(updatemenus=[menu], sliders=[slider])


def _frames(factual: Points, virtual: Points, first_trace: int) -> list[go.Frame]:
    links = links_between(factual, virtual)
    frames = []
    for state in range(len(factual)):
        upto = slice(0, state + 1)
        data = [go.Scatter(x=joined(links[upto], 0), y=joined(links[upto], 1))]
        for points in (virtual, factual):
            shown = points[upto]
            data.append(go.Scatter(x=column(shown, 0), y=column(shown, 1), text=state_labels(points)[upto]))
        frames.append(go.Frame(name=str(state), data=data, traces=[first_trace, first_trace + 1, first_trace + 2]))
    return frames
