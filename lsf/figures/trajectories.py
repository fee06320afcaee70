"""Paths of the virtual and the factual transition through the latent spaces, in one common PCA, with depth as time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsf.criteria.result import Analysis, ExamplePath, Trajectories
from lsf.figures.palette import (
    FACTUAL,
    NEUTRAL,
    SMALL_SIZE,
    TUNED,
    VIRTUAL,
    Mark,
    Picture,
    ending,
    new_figure,
    number,
    share,
    untagged,
    visible,
)

FRAME_MILLISECONDS = 350
NEAR = 0.08
"""Share of the span of a picture below which two numbers would touch."""
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

SINGLE_OPACITY = 0.4
"""Of single paths: seen on a dark page too, and still behind the mean."""

Points = Sequence[Sequence[float]]


def state_labels(points: Points, span: float) -> list[str]:
    """Return the number of each state as text, empty where there would be too many or where two would collide.

    The last state is always named; one nearer than `NEAR` of the picture's span to a named one is not.

    Args:
        points: of one path.
        span: longest side of the box around all that is drawn.
    """
    count = len(points)
    step = -(-count // MAX_LABELS)
    reach = NEAR * span
    named = [count - 1]
    for state in range(0, count - 1, step):
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
    """Return one short line per state, from where the state is to where the straight path would be."""
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


@dataclass(frozen=True)
class _Path:
    """What is drawn in the foreground: the mean over positions, or one example."""

    subject: str
    factual: Points
    virtual: Points
    deviation: Sequence[float | None]
    span: float
    """Longest side of the box around it and all that is drawn behind it."""


def flat_frames(path: _Path, first_trace: int) -> list[go.Frame]:
    """Return one frame per state of a flat picture: the arrows, the virtual and the factual path up to it.

    Args:
        path: of L+1 points of at least 2 coordinates.
        first_trace: number of the arrows' trace; the virtual and the factual path follow it.
    """
    links = links_between(path.factual, path.virtual)
    frames = []
    for state in range(len(path.factual)):
        upto = slice(0, state + 1)
        sizes = arrow_sizes(links[upto], ARROW_SIZE)
        data = [go.Scatter(x=joined(links[upto], 0), y=joined(links[upto], 1), marker={"size": sizes})]
        for points in (path.virtual, path.factual):
            shown = points[upto]
            data.append(go.Scatter(x=column(shown, 0), y=column(shown, 1), text=state_labels(points, path.span)[upto]))
        frames.append(go.Frame(name=str(state), data=data, traces=[first_trace + place for place in range(3)]))
    return frames


def spatial_frames(path: _Path, first_trace: int) -> list[go.Frame]:
    """Return one frame per state of a picture in space: the links, their heads, the virtual and the factual path.

    Args:
        path: of L+1 points of 3 coordinates.
        first_trace: number of the links' trace; the heads, the virtual and the factual path follow it.
    """
    links = links_between(path.factual, path.virtual)
    frames = []
    for state in range(len(path.factual)):
        upto = slice(0, state + 1)
        lines = links[upto]
        data: list[go.Scatter3d | go.Cone] = [go.Scatter3d(x=joined(lines, 0), y=joined(lines, 1), z=joined(lines, 2))]
        data.append(go.Cone(**cones(lines)))
        for points in (path.virtual, path.factual):
            shown = points[upto]
            coordinates = {name: column(shown, axis) for axis, name in enumerate("xyz")}
            data.append(go.Scatter3d(**coordinates, text=state_labels(points, path.span)[upto]))
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


EYE = {"x": 1.55, "y": 1.55, "z": 0.9}
"""Where a picture in space is looked at from, far enough that the names of its axes fit."""


def draw_paths(
    analysis: Analysis,
    example: int | None = None,
    dimensions: int = 2,
    animated: bool = True,
    after: Points | None = None,
) -> Picture:
    """Draw where the readings go (factual) beside the straight path to the target's meaning (virtual).

    Args:
        analysis: finished or partial, with trajectories.
        example: index into `trajectories.examples`; None for the mean over them.
        dimensions: 2 or 3 principal components.
        animated: add a slider and a play button over depth.
        after: the same path as a tuned model takes it, laid over it (`lsf.lens.analyze.paths_after`).

    Returns:
        A picture whose factual end points carry the example's index in `customdata`, so that a click can pick it.

    Raises:
        ValueError: the analysis has no trajectories yet, or `dimensions` is neither 2 nor 3.
    """
    trajectories = analysis.trajectories
    if trajectories is None or dimensions not in (2, 3):
        raise ValueError(f"nothing to draw: trajectories {trajectories is not None}, dimensions {dimensions}")
    path = _path(trajectories, example)
    figure = new_figure(_title(path), height=560 if dimensions == 2 else 640, uirevision=f"{example}/{dimensions}")
    draw = _flat if dimensions == 2 else _spatial
    backdrop = trajectories.examples if example is None else ()
    if after is not None:
        _lay_over(figure, after, dimensions)
    draw(figure, path, backdrop, trajectories.explained_variance)
    if animated:
        frames = flat_frames if dimensions == 2 else spatial_frames
        before = sum(1 for _ in figure.select_traces()) - (3 if dimensions == 2 else 4)
        add_depth_slider(figure, frames(path, before), redraw=dimensions == 3)
    return Picture(figure, _alt(path, trajectories, dimensions, after), _table(path, after))


def _lay_over(figure: go.Figure, points: Points, dimensions: int) -> None:
    """Add the path after tuning, whole: it stands while the slider goes through the one before."""
    flat, places = dimensions == 2, {name: column(points, axis) for axis, name in enumerate("xyz"[:dimensions])}
    marker = {"color": TUNED.color, "symbol": TUNED.symbol, "size": 7 if flat else 4}
    line, said = _line_style(TUNED, 2.5 if flat else 5), "state %{pointNumber}<extra></extra>"
    options = {"mode": "lines+markers", "name": TUNED.label, "marker": marker, "line": line, "hovertemplate": said}
    figure.add_trace((go.Scatter if flat else go.Scatter3d)(**places, **options))


def _path(trajectories: Trajectories, example: int | None) -> _Path:
    if example is None:
        n = len(trajectories.examples)
        deviation = np.mean([one.deviation for one in trajectories.examples], axis=0).tolist()
        return _Path(
            f"Mean of the first {f'{n} positions' if n != 1 else 'position'}",
            trajectories.factual,
            trajectories.virtual,
            deviation,
            extent([point for one in trajectories.examples for point in one.factual], 2),
        )
    chosen = trajectories.examples[example]
    subject = f"Example {example + 1} ({visible(chosen.target_token)})"
    span = extent([*chosen.factual, *chosen.virtual], 2)
    return _Path(subject, chosen.factual, chosen.virtual, chosen.deviation, span)


def _peak(deviation: Sequence[float | None]) -> int | None:
    known = [(value, state) for state, value in enumerate(deviation) if value is not None]
    return max(known)[1] if known else None


def _title(path: _Path) -> str:
    peak = _peak(path.deviation)
    if peak is None:
        return f"{path.subject}: paths through {len(path.factual)} states"
    return f"{path.subject}: furthest from the virtual path at state {peak}"


def _alt(path: _Path, trajectories: Trajectories, dimensions: int, after: Points | None) -> str:
    peak = _peak(path.deviation)
    variance = sum(trajectories.explained_variance[:dimensions])
    text = (
        f"{path.subject}, states 0 to {len(path.factual) - 1}, in {dimensions} principal components that hold "
        f"{share(variance)} of the variance."
    )
    if after is not None:
        apart = [math.dist(one, other) for one, other in zip(path.factual, after, strict=True)]
        state = apart.index(max(apart))
        text += f" After tuning it is furthest from the path before at state {state}, by {number(max(apart))}."
    if peak is None:
        return text
    return (
        f"{text} The deviation is {number(path.deviation[0])} at state 0, greatest at state {peak} with "
        f"{number(path.deviation[peak])}, and {number(path.deviation[-1])} at the last state."
    )


def _table(path: _Path, after: Points | None) -> pd.DataFrame:
    rows = []
    for name, points in (("factual", path.factual), ("virtual", path.virtual), (TUNED.label, after or ())):
        for state, point in enumerate(points):
            coordinates = {f"pc_{axis + 1}": value for axis, value in enumerate(point)}
            deviation = None if name == TUNED.label else path.deviation[state]
            rows.append({"path": name, "state": state, **coordinates, "deviation": deviation})
    return pd.DataFrame(rows)


def _axis_title(axis: int, variance: Sequence[float]) -> str:
    return f"component {axis + 1} ({share(variance[axis])} of variance)"


def _hover(name: str, path: _Path) -> list[str]:
    return [f"{name}, state {state}<br>deviation {number(d, 3)}" for state, d in enumerate(path.deviation)]


def _example_hover(index: int, example: ExamplePath) -> str:
    read, target = ending(example.before_target, 70), visible(example.target_token)
    return f"example {index + 1}: {untagged(read)}<b>{untagged(target)}</b><br>click to see its own path"


def _line_style(mark: Mark, width: float) -> dict[str, Any]:
    return {"color": mark.color, "dash": mark.dash, "width": width}


def _flat(figure: go.Figure, path: _Path, backdrop: Sequence[ExamplePath], variance: Sequence[float]) -> None:
    ends = [example.factual[-1] for example in backdrop]
    figure.add_scatter(
        x=joined([example.factual for example in backdrop], 0),
        y=joined([example.factual for example in backdrop], 1),
        mode="lines",
        line={"color": FACTUAL.color, "width": 1},
        opacity=SINGLE_OPACITY,
        name="single examples",
        hoverinfo="skip",
        visible=bool(backdrop),
    )
    figure.add_scatter(
        x=column(ends, 0),
        y=column(ends, 1),
        mode="markers",
        customdata=list(range(len(ends))),
        marker={"color": FACTUAL.color, "symbol": "diamond-open", "size": 7, "opacity": 0.55},
        hovertext=[_example_hover(index, example) for index, example in enumerate(backdrop)],
        hoverinfo="text",
        name="their last state",
        showlegend=False,
        visible=bool(backdrop),
    )
    links = links_between(path.factual, path.virtual)
    figure.add_scatter(
        x=joined(links, 0),
        y=joined(links, 1),
        mode="lines+markers",
        hoverinfo="skip",
        line={"color": NEUTRAL.color, "width": 1, "dash": "dot"},
        marker={
            "color": NEUTRAL.color,
            "symbol": "arrow",
            "angleref": "previous",
            "size": arrow_sizes(links, ARROW_SIZE),
            "opacity": 1,
            "line": {"width": 0},
            "standoff": 5,
        },
        name="from factual to virtual",
    )
    for mark, points, where in ((VIRTUAL, path.virtual, "top center"), (FACTUAL, path.factual, "bottom center")):
        figure.add_scatter(
            x=column(points, 0),
            y=column(points, 1),
            mode="lines+markers+text",
            name=mark.label,
            text=state_labels(points, path.span),
            textposition=where,
            textfont={"size": SMALL_SIZE + 1},
            line=_line_style(mark, 2.5),
            marker={"color": mark.color, "symbol": mark.symbol, "size": 10},
            hovertext=_hover(mark.label, path),
            hoverinfo="text",
        )
    figure.update_xaxes(title=_axis_title(0, variance), zeroline=False)
    figure.update_yaxes(title=_axis_title(1, variance), zeroline=False, scaleanchor="x")


def _spatial(figure: go.Figure, path: _Path, backdrop: Sequence[ExamplePath], variance: Sequence[float]) -> None:
    faint = [example.factual for example in backdrop]
    figure.add_scatter3d(
        x=joined(faint, 0),
        y=joined(faint, 1),
        z=joined(faint, 2),
        mode="lines",
        opacity=SINGLE_OPACITY,
        line={"color": FACTUAL.color, "width": 2},
        name="single examples",
        hoverinfo="skip",
        visible=bool(faint),
    )
    links = links_between(path.factual, path.virtual)
    figure.add_scatter3d(
        x=joined(links, 0),
        y=joined(links, 1),
        z=joined(links, 2),
        mode="lines",
        hoverinfo="skip",
        line={"color": NEUTRAL.color, "width": 2, "dash": "dot"},
        name="from factual to virtual",
    )
    figure.add_cone(
        **cones(links),
        anchor="tip",
        sizemode="raw",
        sizeref=CONE_SIZE * extent([*path.factual, *path.virtual], 3),
        colorscale=[[0, NEUTRAL.color], [1, NEUTRAL.color]],
        showscale=False,
        hoverinfo="skip",
        name="from factual to virtual",
        showlegend=False,
    )
    for mark, points in ((VIRTUAL, path.virtual), (FACTUAL, path.factual)):
        figure.add_scatter3d(
            x=column(points, 0),
            y=column(points, 1),
            z=column(points, 2),
            mode="lines+markers+text",
            name=mark.label,
            text=state_labels(points, path.span),
            textfont={"size": SMALL_SIZE},
            line=_line_style(mark, 5),
            marker={"color": mark.color, "symbol": mark.symbol, "size": 5},
            hovertext=_hover(mark.label, path),
            hoverinfo="text",
        )
    titles = [_axis_title(axis, variance).replace(" of variance", "") for axis in range(3)]
    axes = {name: {"title": {"text": title}} for name, title in zip(("xaxis", "yaxis", "zaxis"), titles, strict=True)}
    figure.update_layout(scene={**axes, "aspectmode": "data", "dragmode": "orbit", "camera": {"eye": EYE}})
