"""Runs: their curves, what each gains against what it costs, and what memory they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from lsf.figures.deviation import PATTERN
from lsf.figures.palette import (
    NEUTRAL,
    ROLES,
    SMALL_SIZE,
    TEXT_SIZE,
    Mark,
    Picture,
    bytes_words,
    new_figure,
    untagged,
)
from lsf.runs.verdict import percent

LOW = 0.1
"""Share up to which a whole axis from 0 to 100 % would show nothing but a flat line."""
FEW = 10
"""Steps up to which each has a tick of its own, and none lies between two."""
MAX_POINTS = 600
"""Points drawn per curve; longer ones are thinned so that every minimum and maximum of a bucket stays."""


@dataclass(frozen=True)
class Curve:
    """One run's readings of one metric."""

    label: str
    """As in the legend."""
    role: str
    """What the run stands for: one of `lsf.runs.spec.ROLES`."""
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
        share: the metric is a share in [0, 1]; in percent, and its whole range is shown where any curve rises so far.
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
            hovertemplate=f"%{{y:{'.1%' if share else '.4g'}}}<extra>{untagged(curve.label)}</extra>",
        )
    last = max((value for curve in curves for value in curve.x), default=FEW + 1)
    figure.update_xaxes(title=axis, rangemode="tozero", dtick=1 if axis == "steps" and last <= FEW else None)
    figure.update_yaxes(title=metric)
    if share:
        best = max((value for curve in curves for value in curve.y), default=1.0)
        figure.update_yaxes(range=[0, 1.04] if best > LOW else [0, 1.5 * LOW], tickformat=".0%")
    return Picture(figure, _alt(curves, metric, axis, share), _table(curves, metric, axis))


def role_mark(role: str) -> Mark:
    """Return how a role looks; an unknown one looks like a choice by hand."""
    return ROLES.get(role, ROLES["manual"])


def _title(curves: Sequence[Curve], metric: str, lower_is_better: bool, share: bool) -> str:
    last = {curve.label: curve.y[-1] for curve in curves if curve.y}
    if not last:
        return f"{metric.capitalize()}: nothing measured yet"
    best = min(last.values()) if lower_is_better else max(last.values())
    value = percent(best) if share else f"{best:.4g}"
    if len(last) == 1:
        return f"{metric.capitalize()} of {next(iter(last))}: {value}"
    leaders = [label for label, reading in last.items() if reading == best]
    who = leaders[0] if len(leaders) == 1 else f"{len(leaders)} runs"
    return f"{metric.capitalize()}: {who} {'lowest' if lower_is_better else 'highest'} with {value}"


def _alt(curves: Sequence[Curve], metric: str, axis: str, share: bool) -> str:
    def write(value: float) -> str:
        return percent(value) if share else f"{value:.4g}"

    told = [
        f"{curve.label} went from {write(curve.y[0])} to {write(curve.y[-1])} over {curve.x[-1]:,.4g} {axis}"
        for curve in curves
        if curve.y
    ]
    return f"{metric.capitalize()} against {axis}: " + ("; ".join(told) if told else "nothing measured yet") + "."


def _table(curves: Sequence[Curve], metric: str, axis: str) -> pd.DataFrame:
    rows = [{"run": curve.label, axis: x, metric: y} for curve in curves for x, y in zip(curve.x, curve.y, strict=True)]
    return pd.DataFrame(rows, columns=["run", axis, metric])


@dataclass(frozen=True)
class Outcome:
    """One kind of run, over its seeds."""

    label: str
    """The tuned blocks in words."""
    role: str
    """What it stands for: one of `lsf.runs.spec.ROLES`."""
    costs: tuple[float, ...]
    """Cost of each seed, lower is better."""
    qualities: tuple[float, ...]
    """Quality of each seed."""

    @property
    def name(self) -> str:
        """Its name in legends: what it stands for, and its blocks."""
        mark = role_mark(self.role)
        told = self.role in self.label or self.label.startswith(mark.label)
        return self.label if told else f"{mark.label}: {self.label}"

    @property
    def cost(self) -> float:
        """Mean cost over seeds."""
        return sum(self.costs) / len(self.costs)

    @property
    def quality(self) -> float:
        """Mean quality over seeds."""
        return sum(self.qualities) / len(self.qualities)


def draw_tradeoff(
    outcomes: Sequence[Outcome],
    front: Sequence[int],
    quality: str,
    cost: str,
    baseline: float | None = None,
    share: bool = False,
) -> Picture:
    """Draw quality against cost.

    Args:
        outcomes: at least one run.
        front: indices into `outcomes` that no other run beats in both.
        quality: what the vertical axis is, with unit.
        cost: what the horizontal axis is, with unit.
        share: the quality is a share in [0, 1], told in percent.
        baseline: quality of the model before any tuning, drawn as a level; None where it is not known.
    """
    figure = new_figure(_trade_title(outcomes, quality, cost, share), height=440)
    ordered = sorted(front, key=lambda index: outcomes[index].cost)
    if len(ordered) > 1:
        figure.add_scatter(
            x=[outcomes[index].cost for index in ordered],
            y=[outcomes[index].quality for index in ordered],
            mode="lines",
            line={"color": NEUTRAL.color, "width": 1.5, "dash": "dot"},
            name="Pareto front",
            hoverinfo="skip",
        )
    seen: list[str] = []
    for outcome in outcomes:
        _add_outcome(figure, outcome, outcome.role in seen, share, _unit(cost))
        seen.append(outcome.role)
    if baseline is not None:
        figure.add_hline(
            y=baseline,
            line={"color": NEUTRAL.color, "width": 1, "dash": "dash"},
            annotation={
                "text": f"before tuning {_told(baseline, share)}",
                "font": {"color": NEUTRAL.color, "size": SMALL_SIZE + 1},
            },
        )
    figure.update_xaxes(title=cost, rangemode="tozero")
    low = max(outcome.quality for outcome in outcomes) <= LOW
    figure.update_yaxes(title=quality, rangemode="tozero", tickformat=(".1%" if low else ".0%") if share else "")
    return Picture(
        figure, _trade_alt(outcomes, front, quality, cost, share), _trade_table(outcomes, front, quality, cost)
    )


def _add_outcome(figure: go.Figure, outcome: Outcome, again: bool, share: bool, unit: str) -> None:
    mark = role_mark(outcome.role)
    seeds = len(outcome.costs)
    reached = "%{y:.1%}" if share else "%{y:.4g}"
    note = f"{seeds} seeds, whiskers: lowest and highest" if seeds > 1 else "1 seed, no interval"
    figure.add_scatter(
        x=[outcome.cost],
        y=[outcome.quality],
        error_x=_range(outcome.costs, outcome.cost),
        error_y=_range(outcome.qualities, outcome.quality),
        mode="markers",
        cliponaxis=False,
        marker={"color": mark.color, "symbol": f"{mark.symbol}-open" if again else mark.symbol, "size": 13},
        name=outcome.name,
        hovertemplate=f"{outcome.name}<br>{reached} at %{{x:.4g}} {unit}<br>{note}<extra></extra>",
    )


def _range(values: Sequence[float], mean: float) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(values) - mean],
        "arrayminus": [mean - min(values)],
        "visible": len(values) > 1,
    }


def _told(quality: float, share: bool) -> str:
    return percent(quality) if share else f"{quality:.3g}"


def _trade_title(outcomes: Sequence[Outcome], quality: str, cost: str, share: bool) -> str:
    best = max(outcomes, key=lambda outcome: (outcome.quality, -outcome.cost))
    told, price = _told(best.quality, share), f"{best.cost:.3g} {_unit(cost)}"
    level = sum(outcome.quality == best.quality for outcome in outcomes)
    if level > 1:
        return f"Best {quality}: {told} by {level} of {len(outcomes)}, the cheapest {best.name} at {price}"
    return f"Best {quality}: {best.name}, {told} at {price}"


def _unit(axis: str) -> str:
    return axis.rpartition("(")[2].rstrip(")") if "(" in axis else axis


def _trade_alt(outcomes: Sequence[Outcome], front: Sequence[int], quality: str, cost: str, share: bool) -> str:
    told = "; ".join(f"{o.name} {_told(o.quality, share)} at {o.cost:.3g} {_unit(cost)}" for o in outcomes)
    unbeaten = ", ".join(outcomes[index].name for index in front)
    seeds = {len(outcome.costs) for outcome in outcomes}
    note = " Each is 1 seed, without an interval." if seeds == {1} else ""
    return f"{quality} against {cost}: {told}. Not beaten in both: {unbeaten}.{note}"


def _trade_table(outcomes: Sequence[Outcome], front: Sequence[int], quality: str, cost: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": o.name,
                "stands for": o.role,
                "seeds": len(o.costs),
                cost: o.cost,
                quality: o.quality,
                "not beaten": index in front,
            }
            for index, o in enumerate(outcomes)
        ]
    )


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
        _memory_title(needs), height=126 + BAR_HEIGHT * len(needs), barmode="stack", legend={"traceorder": "normal"}
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
            text=_memory_told(need),
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
            annotation={"text": "limit for a run", "font": {"color": NEUTRAL.color, "size": SMALL_SIZE + 1}},
        )
        longest = max(longest, round(allowed))
    figure.update_xaxes(title=f"memory beyond the loaded model ({unit})", range=[0, 1.22 * longest * factor or 1])
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": TEXT_SIZE}, ticksuffix="  ")
    return Picture(figure, _memory_alt(needs, allowed), _memory_table(needs))


def _memory_told(need: Need) -> str:
    return ("" if need.whole else "at least ") + bytes_words(need.total)


def _memory_title(needs: Sequence[Need]) -> str:
    first, *others = needs
    beside = ", ".join(f"{_memory_told(other)} for {other.label}" for other in others)
    return f"Memory: {_memory_told(first)} for {first.label}" + (f", {beside}" if beside else "")


def _memory_alt(needs: Sequence[Need], allowed: float | None) -> str:
    told = []
    for need in needs:
        parts = ", ".join(
            f"{part} {'not tried' if count is None else bytes_words(count)}" for part, count in need.parts.items()
        )
        told.append(f"{need.label}: {_memory_told(need)} ({parts})")
    there = "" if allowed is None else f" A run may take {bytes_words(allowed)}."
    return f"Expected peak memory beyond the loaded model. {'; '.join(told)}.{there}"


def _memory_table(needs: Sequence[Need]) -> pd.DataFrame:
    rows = []
    for need in needs:
        rows += [{"run": need.label, "part": part, "bytes": count} for part, count in need.parts.items()]
        rows.append({"run": need.label, "part": "all", "bytes": need.total if need.whole else None})
    return pd.DataFrame(rows).astype({"bytes": "Int64"})
