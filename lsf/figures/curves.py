"""Curves of loss and validation metric of several runs, against steps, tokens or seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lsf.figures.palette import ROLES, Mark, new_figure
from lsf.figures.picture import Picture

MAX_POINTS = 600
"""Points drawn per curve; longer ones are thinned so that every minimum and maximum of a bucket stays."""


@dataclass(frozen=True)
class Curve:
    """One run's readings of one metric."""

    label: str
    """As in the legend."""
    role: str
    """What the run stands for: one of `lsf.jobs.spec.ROLES`."""
    x: tuple[float, ...]
    """Steps, tokens or seconds."""
    y: tuple[float, ...]
    """The metric."""


def thin(curve: Curve, max_points: int = MAX_POINTS) -> Curve:
    """Thin a curve, keeping its ends and the minimum and maximum of every bucket, so that no spike is lost.

    Args:
        curve: any length.
        max_points: at least 4.
    """
    count = len(curve.x)
    if count <= max_points:
        return curve
    n_buckets = (max_points - 2) // 2
    kept = {0, count - 1}
    for bucket in range(n_buckets):
        places = range(bucket * count // n_buckets, (bucket + 1) * count // n_buckets)
        kept |= {min(places, key=curve.y.__getitem__), max(places, key=curve.y.__getitem__)}
    order = sorted(kept)
    return Curve(curve.label, curve.role, tuple(curve.x[i] for i in order), tuple(curve.y[i] for i in order))


def draw_curves(
    curves: Sequence[Curve], metric: str, axis: str, lower_is_better: bool = True, share: bool = False
) -> Picture:
    """Draw several runs' readings of one metric; each run has its own colour, dash and symbol.

    Args:
        curves: the runs, in legend order; those without a reading yet are listed but draw nothing.
        metric: what is read ("training loss"), with its unit where it has one.
        axis: steps, tokens or seconds.
        lower_is_better: which end is good, for the finding.
        share: the metric is a share in [0, 1]; its whole range is shown, in percent.
    """
    figure = new_figure(_title(curves, metric, lower_is_better, share), height=340, hovermode="x unified")
    seen: dict[str, int] = {}
    for curve in (thin(curve) for curve in curves):
        mark = role_mark(curve.role)
        symbol = mark.symbol if not seen.get(curve.role) else f"{mark.symbol}-open"
        seen[curve.role] = seen.get(curve.role, 0) + 1
        figure.add_scatter(
            x=curve.x,
            y=curve.y,
            name=curve.label,
            mode="lines+markers" if len(curve.x) <= 60 else "lines",
            line={"color": mark.color, "dash": mark.dash, "width": 2},
            marker={"color": mark.color, "symbol": symbol, "size": 7},
            hovertemplate="%{y:.4g}<extra>" + curve.label + "</extra>",
        )
    figure.update_xaxes(title=axis, rangemode="tozero")
    figure.update_yaxes(title=metric)
    if share:
        figure.update_yaxes(range=[0, 1.04], tickformat=".0%")
    return Picture(figure, _alt(curves, metric, axis), _table(curves, metric, axis))


def role_mark(role: str) -> Mark:
    """Return how a role looks; an unknown one looks like a choice by hand."""
    return ROLES.get(role, ROLES["manual"])


def _title(curves: Sequence[Curve], metric: str, lower_is_better: bool, share: bool) -> str:
    last = {curve.label: curve.y[-1] for curve in curves if curve.y}
    if not last:
        return f"{metric.capitalize()}: no reading yet"
    best = min(last.values()) if lower_is_better else max(last.values())
    value = f"{best:.1%}" if share else f"{best:.4g}"
    if len(last) == 1:
        return f"{metric.capitalize()} of {next(iter(last))}: {value}"
    leaders = [label for label, reading in last.items() if reading == best]
    who = leaders[0] if len(leaders) == 1 else f"{len(leaders)} runs"
    return f"{metric.capitalize()}: {who} {'lowest' if lower_is_better else 'highest'} with {value}"


def _alt(curves: Sequence[Curve], metric: str, axis: str) -> str:
    told = [
        f"{curve.label} went from {curve.y[0]:.4g} to {curve.y[-1]:.4g} over {curve.x[-1]:.4g} {axis}"
        for curve in curves
        if curve.y
    ]
    return f"{metric.capitalize()} against {axis}: " + ("; ".join(told) if told else "no reading yet") + "."


def _table(curves: Sequence[Curve], metric: str, axis: str) -> pd.DataFrame:
    rows = [{"run": curve.label, axis: x, metric: y} for curve in curves for x, y in zip(curve.x, curve.y, strict=True)]
    return pd.DataFrame(rows, columns=["run", axis, metric])
