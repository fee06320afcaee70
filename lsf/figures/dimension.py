"""One study of dimensions: the metric against d with the level to be reached, and the generalisation gap."""

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from lsf.figures.palette import NEUTRAL, SMALL_SIZE, Mark, new_figure
from lsf.figures.picture import Picture, share
from lsf.jobs.dimension_search import bound
from lsf.jobs.dimensions import Curve, Study

MARKS = {
    "said": Mark("SAID", "#0072B2", "circle", "solid"),
    "did": Mark("DID", "#D55E00", "diamond", "dash", "/"),
}
"""Method -> how it looks."""


def draw_study(study: Study) -> Picture:
    """Draw exact match against d, one line per method and seed; the level to be reached; every d_90."""
    figure = new_figure(_title(study), height=400)
    for curve in study.curves:
        _add_curve(figure, curve, study)
    _levels(figure, study)
    _d_axis(figure, [point.d for curve in study.curves for point in curve.points], study.model)
    figure.update_yaxes(title="test exact match", tickformat=".0%", range=[-0.03, 1.06])
    return Picture(figure, _alt(study), points_table(study))


def _d_axis(figure: go.Figure, dims: Sequence[int], model: str) -> None:
    """Draw d on a logarithmic axis whose ticks are the d that were tried."""
    ticks = sorted(set(dims))
    title = f"d, numbers tuned of {model.rstrip('/').rpartition('/')[2]}"
    figure.update_xaxes(title=title, type="log", tickvals=ticks, ticktext=[f"{d:,}" for d in ticks])


def _add_curve(figure: go.Figure, curve: Curve, study: Study) -> None:
    mark, (name, looks) = MARKS[curve.method], _looks(curve, study)
    points = sorted(curve.points, key=lambda point: point.d)
    figure.add_scatter(
        x=[point.d for point in points],
        y=[point.test for point in points],
        hovertext=[f"{name}, d = {p.d:,}<br>{p.test:.1%} at rate {p.rate:.2g}" for p in points],
        hoverinfo="text",
        cliponaxis=False,
        **looks,
    )
    if curve.d_90 is not None:
        reached = next(point for point in points if point.d == curve.d_90)
        figure.add_scatter(
            x=[reached.d],
            y=[reached.test],
            mode="markers",
            marker={"symbol": f"{mark.symbol}-open", "size": 19, "color": mark.color, "line": {"width": 2}},
            name=f"{study.sought} of {name}: {curve.told}",
            hoverinfo="name",
            cliponaxis=False,
        )


def _looks(curve: Curve, study: Study) -> tuple[str, dict[str, Any]]:
    """Return the name of a curve's line, and how it is drawn: seeds after the first have open marks."""
    mark = MARKS[curve.method]
    name = f"{mark.label}, seed {curve.seed}" if study.settings.seeds > 1 else mark.label
    symbol = mark.symbol if curve.seed == 0 else f"{mark.symbol}-open"
    line, marker = {"color": mark.color, "dash": mark.dash, "width": 2}, {"symbol": symbol, "size": 8}
    return name, {"mode": "lines+markers", "name": name, "line": line, "marker": {**marker, "color": mark.color}}


def _levels(figure: go.Figure, study: Study) -> None:
    if not study.full:
        return
    full = statistics.fmean(point.test for point in study.full)
    target = study.settings.share * full
    each = "" if len({point.test for point in study.full}) < 2 else ", mean: each seed has its own"
    small = {"color": NEUTRAL.color, "size": SMALL_SIZE + 1}
    for value, text, dash in (
        (full, f"{study.whole} {full:.1%}", "dot"),
        (target, f"{study.settings.share:.0%} of {study.whole}{each}", "dash"),
    ):
        line = {"color": NEUTRAL.color, "width": 1.5, "dash": dash}
        note = {"text": text, "font": small, "xanchor": "left", "yanchor": "bottom", "x": 0}
        figure.add_hline(y=value, line=line, annotation=note)


def _asked(study: Study) -> str:
    where = "" if study.plan.is_full else f", {study.plan.label} only"
    return f"{study.sought} of {study.data}{where}"


def _title(study: Study) -> str:
    methods = [method for method in MARKS if study.of(method)]
    if not methods:
        return f"{_asked(study)}: the reference, {study.whole}, is being measured"
    return f"{_asked(study)}: " + "; ".join(f"{MARKS[m].label} {study.told(m)}" for m in methods)


def _alt(study: Study) -> str:
    told = [
        f"{MARKS[curve.method].label} under seed {curve.seed}: "
        + ", ".join(f"{share(p.test)} at d = {p.d:,}" for p in sorted(curve.points, key=lambda p: p.d))
        for curve in study.curves
        if curve.points
    ]
    return f"{_title(study)}. " + "; ".join(told) + ("." if told else "")


def points_table(study: Study) -> pd.DataFrame:
    """Return one row per point, full fine-tuning first."""
    rows = [{"method": "full", "seed": seed, **_cells(point)} for seed, point in enumerate(study.full)]
    rows += [
        {"method": curve.method, "seed": curve.seed, **_cells(point)}
        for curve in study.curves
        for point in sorted(curve.points, key=lambda point: point.d)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "d", "test", "validation", "train", "gap", "rate", "seconds"])


def _cells(point) -> dict[str, float]:
    found = {name: getattr(point, name) for name in ("d", "test", "validation", "train", "gap", "rate")}
    return {**found, "seconds": round(point.seconds, 1)}


def draw_gap(study: Study) -> Picture:
    """Draw the generalisation gap against d, and the bound's shape sqrt(d / m) beside it."""
    points = [(curve, point) for curve in study.curves for point in curve.points]
    figure = new_figure(_gap_title(study), height=360)
    for curve in study.curves:
        name, looks = _looks(curve, study)
        own = sorted((p.d, p.gap) for p in curve.points)
        figure.add_scatter(
            x=[d for d, _ in own],
            y=[gap for _, gap in own],
            hovertemplate="d = %{x:,}: %{y:.3f}<extra>" + name + "</extra>",
            **looks,
        )
    dims = sorted({point.d for _, point in points})
    figure.add_scatter(
        x=dims,
        y=[min(1.0, bound(d, study.n_train)) for d in dims],
        mode="lines",
        name="sqrt(d / m), the bound's shape, up to 1",
        line={"color": NEUTRAL.color, "dash": "dot", "width": 1.5},
        hovertemplate="d = %{x:,}: %{y:.3f}<extra>sqrt(d / m)</extra>",
    )
    _d_axis(figure, dims, study.model)
    figure.update_yaxes(title="train - test exact match", range=[-0.35, 1.15])
    table = pd.DataFrame(
        [
            {"method": c.method, "seed": c.seed, "d": p.d, "gap": p.gap, "bound": bound(p.d, study.n_train)}
            for c, p in points
        ]
    )
    beyond = next((d for d in dims if bound(d, study.n_train) >= 1), None)
    said = "" if beyond is None else f" From d = {beyond:,} on the bound is above 1 and says nothing."
    return Picture(figure, f"{_gap_title(study)}; m = {study.n_train:,} training examples.{said}", table)


def _gap_title(study: Study) -> str:
    gaps = [point.gap for curve in study.curves for point in curve.points]
    return f"Generalisation gap: {min(gaps):.2f} to {max(gaps):.2f} of exact match over every d tried"
