"""Depth as time: a slider and a play button that let both paths grow state by state."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from lsf.figures.palette import NEUTRAL, SMALL_SIZE

FRAME_MILLISECONDS = 350
NEAR = 0.05
MAX_LABELS = 13
"""Labels per path; deeper models label every other state, every third, ..."""

ARROW_SIZE = 9.0
"""Pixels of an arrow's head."""
CONE_SIZE = 0.06
"""Length of an arrow's head in space, as a share of the paths' extent."""
HEAD_GAP = 0.02
"""How far before the virtual point a head in space ends, as a share of the same."""
NO_LENGTH = 1e-6
"""Arrows shorter than this have no head."""

Points = Sequence[Sequence[float]]


def state_labels(points: Points) -> list[str]:
    """Return the number of each state as text, empty where there would be too many or where two would collide.

    The first and the last state are always named; one nearer than `NEAR` of the path's extent to a named one is not.
    """
    count = len(points)
    step = -(-count // MAX_LABELS)
    reach = NEAR * extent(points, 2)
    named = [0, count - 1]
    for state in range(step, count - 1, step):
        if all(math.dist(points[state][:2], points[other][:2]) > reach for other in named):
            named.append(state)
    return [str(state) if state in named else "" for state in range(count)]


def extent(points: Points, dimensions: int) -> float:
    """Return the longest side of the box around points, 1 where they are all the same."""
    return max(max(column(points, axis)) - min(column(points, axis)) for axis in range(dimensions)) or 1.0


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


def arrow_sizes(links: Sequence[Points], size: float) -> list[float]:
    """Return marker sizes for joined links: a head where the line ends, none where it begins or has no length."""
    sizes: list[float] = []
    for here, there in links:
        sizes += [0.0, size if math.dist(here, there) > NO_LENGTH else 0.0, 0.0]
    return sizes


def add_depth_slider(figure: go.Figure, frames: Sequence[go.Frame], redraw: bool) -> None:
    """Add a slider and a play button that go through frames, one per state.

    Args:
        figure: as it looks at the last state.
        frames: named by their state, 0 first; each names all traces that it touches.
        redraw: whether Plotly must draw anew for each frame, as in space.
    """
    figure.frames = frames
    at_once = {"frame": {"duration": 0, "redraw": redraw}, "mode": "immediate", "transition": {"duration": 0}}
    playing = {**at_once, "frame": {"duration": FRAME_MILLISECONDS, "redraw": redraw}}
    steps = [{"label": frame.name, "method": "animate", "args": [[frame.name], at_once]} for frame in frames]
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


def flat_frames(factual: Points, virtual: Points, first_trace: int) -> list[go.Frame]:
    """Return one frame per state of a flat picture: the arrows, the virtual and the factual path up to it.

    Args:
        factual: L+1 points of at least 2 coordinates.
        virtual: the same.
        first_trace: number of the arrows' trace; the virtual and the factual path follow it.
    """
    links = links_between(factual, virtual)
    frames = []
    for state in range(len(factual)):
        upto = slice(0, state + 1)
        sizes = arrow_sizes(links[upto], ARROW_SIZE)
        data = [go.Scatter(x=joined(links[upto], 0), y=joined(links[upto], 1), marker={"size": sizes})]
        for points in (virtual, factual):
            shown = points[upto]
            data.append(go.Scatter(x=column(shown, 0), y=column(shown, 1), text=state_labels(points)[upto]))
        frames.append(go.Frame(name=str(state), data=data, traces=[first_trace + place for place in range(3)]))
    return frames


def spatial_frames(factual: Points, virtual: Points, first_trace: int) -> list[go.Frame]:
    """Return one frame per state of a picture in space: the links, their heads, the virtual and the factual path.

    Args:
        factual: L+1 points of 3 coordinates.
        virtual: the same.
        first_trace: number of the links' trace; the heads, the virtual and the factual path follow it.
    """
    links = links_between(factual, virtual)
    frames = []
    for state in range(len(factual)):
        upto = slice(0, state + 1)
        lines = links[upto]
        data: list[go.Scatter3d | go.Cone] = [go.Scatter3d(x=joined(lines, 0), y=joined(lines, 1), z=joined(lines, 2))]
        data.append(go.Cone(**cones(lines)))
        for points in (virtual, factual):
            shown = points[upto]
            coordinates = {name: column(shown, axis) for axis, name in enumerate("xyz")}
            data.append(go.Scatter3d(**coordinates, text=state_labels(points)[upto]))
        frames.append(go.Frame(name=str(state), data=data, traces=[first_trace + place for place in range(4)]))
    return frames


def cones(links: Sequence[Points]) -> dict[str, list[float]]:
    """Return where the heads of links in space are and which way they point, as Plotly's cones want it."""
    ways = [_direction(here, there) for here, there in links]
    gap = HEAD_GAP * extent([point for link in links for point in link], 3)
    ends = [
        [at - gap * way for at, way in zip(there, toward, strict=True)]
        for (_, there), toward in zip(links, ways, strict=True)
    ]
    places = {name: column(ends, axis) for axis, name in enumerate("xyz")}
    return places | {name: column(ways, axis) for axis, name in enumerate("uvw")}


def _direction(here: Sequence[float], there: Sequence[float]) -> list[float]:
    """Return the unit vector from one point to another; zero where they are the same."""
    length = math.dist(here, there)
    return [(end - begin) / length if length > NO_LENGTH else 0.0 for begin, end in zip(here, there, strict=True)]
