"""d_90: one study's curve and gap, and studies over tasks, blocks and pre-training."""

import math
import statistics
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from lsf.criteria.agreement import chance_level, rank_correlation
from lsf.data.lessons import data_words
from lsf.dimension.study import Curve, Study, bound
from lsf.figures.palette import NEUTRAL, SMALL_SIZE, Mark, Picture, new_figure, share
from lsf.runs.verdict import percent

MARKS = {
    "said": Mark("SAID", "#0072B2", "circle", "solid"),
    "did": Mark("DID", "#D55E00", "diamond", "dash", "/"),
}
"""Method -> how it looks."""
NAME_WIDTH = 12
"""Characters of a task's name on one line under its bars."""


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
        hovertext=[f"{name}, d = {p.d:,}<br>{percent(p.test)} at rate {p.rate:.2g}" for p in points],
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
            name=f"{study.sought} of {name}: {curve.summary}",
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
        (full, f"{study.whole} {percent(full)}", "dot"),
        (target, f"{percent(study.settings.share)} of {study.whole}{each}", "dash"),
    ):
        line = {"color": NEUTRAL.color, "width": 1.5, "dash": dash}
        note = {"text": text, "font": small, "xanchor": "left", "yanchor": "bottom", "x": 0}
        figure.add_hline(y=value, line=line, annotation=note)


def _asked(study: Study) -> str:
    where = "" if study.plan.is_full else f", {study.plan.label} only"
    return f"{study.sought} of {data_words(study.data)}{where}"


def _title(study: Study) -> str:
    methods = [method for method in MARKS if study.of(method)]
    if not methods:
        return f"{_asked(study)}: the reference, {study.whole}, is being measured"
    return f"{_asked(study)}: " + "; ".join(f"{MARKS[m].label} {study.summary(m)}" for m in methods)


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


LOWEST = 10.0
"""Where the axis of d_90 begins; a bar without a number has no height."""
TICKS = [step * 10**power for power in range(1, 5) for step in (1, 3)]
"""Of the axis of d_90 along pre-training: the d of the grid."""
APART = 1.4
"""How much higher than the largest d, or than those of another task, the marks lie of what no d reached."""
PUBLISHED = (
    ("BERT-base", "MRPC", 1608),
    ("BERT-base", "QQP", 8030),
    ("RoBERTa-large", "MRPC", 207),
    ("RoBERTa-large", "QQP", 774),
)
"""Model, task and d_90 of SAID as published by Aghajanyan et al. 2020, arXiv 2012.13255: other models, other tasks."""


def draw_tasks(studies: Sequence[Study]) -> Picture:
    """Draw d_90 of every task, SAID beside DID; a task that was not reached up to the largest d has no bar.

    Args:
        studies: of the whole model, one per task.
    """
    names = [data_words(study.data) for study in studies]
    title, ticks = _tasks_title(studies), ["<br>".join(wrap(name, NAME_WIDTH)) for name in names]
    return Picture(_bars(studies, ticks, title), f"{title}. {_told(studies, names)}", tasks_table(studies))


def draw_blocks(studies: Sequence[Study]) -> Picture:
    """Draw d_90 of one task against the blocks that may move, fewest values first.

    Args:
        studies: of one task, each with its full fine-tuning; under one number of seeds, or they would not be alike.
    """
    places = ["whole model" if study.plan.is_full else study.plan.label for study in studies]
    names = [f"{place},<br>{study.full[0].d:,} values" for place, study in zip(places, studies, strict=True)]
    told = []
    for method, mark in MARKS.items():
        known = [(study.d_90(method), place) for study, place in zip(studies, places, strict=True)]
        if (ends := [f"{d:,.0f} on {place}" for d, place in known if d is not None])[1:]:
            told.append(f"{mark.label} {ends[0]}, {ends[-1]}")
    title = f"{studies[0].sought} of {data_words(studies[0].data)} by the blocks that may move: " + "; ".join(told)
    plain = [name.replace("<br>", " ") for name in names]
    return Picture(_bars(studies, names, title), f"{title}. {_told(studies, plain)}", tasks_table(studies))


def _bars(studies: Sequence[Study], names: Sequence[str], title: str) -> go.Figure:
    figure = new_figure(title, height=380, barmode="group")
    for method, mark in MARKS.items():
        values = [study.d_90(method) for study in studies]
        figure.add_bar(
            x=names,
            y=[value or LOWEST for value in values],
            name=mark.label,
            marker={"color": mark.color, "pattern": {"shape": mark.pattern}},
            text=[_short(study, method) for study in studies],
            textposition="outside",
            textfont={"size": SMALL_SIZE},
            hovertemplate="%{x}: %{text}<extra>" + mark.label + "</extra>",
            cliponaxis=False,
        )
    figure.update_yaxes(title="d_90, numbers tuned", type="log", dtick=1, tickformat=",d", range=[1, 5])
    return figure


def _short(study: Study, method: str) -> str:
    """Return what stands on a bar."""
    value = study.d_90(method)
    if value is not None:
        return f"{'≤ ' if study.at_most(method) else ''}{value:,.0f}"
    tried = [curve for curve in study.of(method) if curve.points]
    reached = sum(curve.d_90 is not None for curve in tried)
    return (f"{reached} of {len(tried)}" if reached else "none") if tried else "?"


def _tasks_title(studies: Sequence[Study]) -> str:
    both = [study for study in studies if all(study.of(method) for method in MARKS)]
    return f"How few numbers suffice (d_90): SAID needs fewer than DID on {fewer(both)} of {len(both)} lessons"


def fewer(studies: Sequence[Study]) -> int:
    """Count the tasks on which SAID's d_90 is below DID's; a DID that never got there counts where SAID did."""
    pairs = [(study.d_90("said"), study.d_90("did"), study) for study in studies]
    return sum(s is not None and (s < d if d is not None else bool(study.of("did"))) for s, d, study in pairs)


def _told(studies: Sequence[Study], names: Sequence[str]) -> str:
    parts = []
    for study, name in zip(studies, names, strict=True):
        cells = [f"{MARKS[m].label} {study.summary(m)}" for m in MARKS]
        parts.append(f"{name}: {', '.join(cells)}")
    return "; ".join(parts) + "."


def tasks_table(studies: Sequence[Study]) -> pd.DataFrame:
    """Return one row per study with d_90 of both methods, each seed's, and full fine-tuning's exact match."""
    rows = []
    for study in studies:
        row: dict[str, object] = {"base": study.model, "task": study.data, "tuned": study.plan.label}
        row["full"] = statistics.fmean(point.test for point in study.full) if study.full else None
        for method, mark in MARKS.items():
            row[mark.label] = study.summary(method)
            row[f"{mark.label} by seed"] = ", ".join(str(curve.d_90 or "-") for curve in study.of(method))
        rows.append(row)
    return pd.DataFrame(rows)


def published_table(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the published d_90 of SAID and ours in one table, each with whose it is."""
    rows = [{"whose": "published", "model": m, "task": t, "d_90 of SAID": f"{d:,}"} for m, t, d in PUBLISHED]
    rows += [
        {"whose": "ours", "model": "bundled, 1.4 M", "task": s.data, "d_90 of SAID": s.summary("said")} for s in studies
    ]
    return pd.DataFrame(rows)


def progress_points(studies: Sequence[Study], task: str, method: str = "said") -> list[tuple[float, float]]:
    """Return (pre-training steps, d_90) of a task's checkpoints, those where it is known.

    It is infinite where exact match still rose up to the largest d tried and fell short of 90 % of full; where it fell
    again before, nothing is known.

    Args:
        studies: of bases called `pretraining step N`.
        task: name of the data.
        method: said or did.
    """
    mine = [study for study in studies if study.data == task and study.of(method)]
    known = [study for study in mine if not any(curve.falls for curve in study.of(method))]
    found = [(_step(study), study.d_90(method)) for study in known]
    return sorted((step, math.inf if d is None else d) for step, d in found)


def _step(study: Study) -> float:
    """Return the step of pre-training that a base of the name `pretraining step N` is."""
    return float(study.model.rpartition(" ")[2])


def _seed_ends(studies: Sequence[Study], task: str, method: str = "said") -> dict[float, tuple[int, int]]:
    """Return pre-training steps -> least and greatest d_90 over the seeds that reached it."""
    found = {}
    for study in studies:
        reached = [curve.d_90 for curve in study.of(method) if curve.d_90 is not None]
        if study.data == task and reached:
            found[_step(study)] = min(reached), max(reached)
    return found


def spearman(points: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rho of pairs; None below three of them, or where one side is constant."""
    if len(points) < 3:
        return None
    return rank_correlation([x for x, _ in points], [y for _, y in points], "spearman")


def _rho(rho: float | None, count: int) -> str:
    """Tell a correlation with the size that chance reaches."""
    chance = chance_level(count)
    beside = "" if rho is None else f", chance reaches {1.0 if chance is None else chance:.2f}"
    return f"{'unknown' if rho is None else f'{rho:.2f}'} ({count} checkpoints{beside})"


def draw_progress(studies: Sequence[Study]) -> Picture:
    """Draw d_90 of SAID against the steps of pre-training, one line per task.

    Args:
        studies: of bases called `pretraining step N`.
    """
    tasks = list(dict.fromkeys(study.data for study in studies))
    told = []
    figure = new_figure("", height=360)
    above = max((point.d for study in studies for curve in study.of("said") for point in curve.points), default=LOWEST)
    for task, mark in zip(tasks, (MARKS["said"], MARKS["did"]), strict=False):
        points = progress_points(studies, task)
        rho = spearman(points)
        told.append(f"{data_words(task)} {_rho(rho, len(points))}")
        known = [(step, d) for step, d in points if d < math.inf]
        ends = _seed_ends(studies, task)
        figure.add_scatter(
            x=[step for step, _ in known],
            y=[d for _, d in known],
            error_y={
                "array": [ends[step][1] - d for step, d in known],
                "arrayminus": [d - ends[step][0] for step, d in known],
                "thickness": 1,
            },
            mode="lines+markers",
            name=data_words(task),
            line={"color": mark.color, "dash": mark.dash, "width": 2},
            marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
            hovertemplate="step %{x}: %{y:,.0f}<extra>" + data_words(task) + "</extra>",
        )
        above *= APART
        missed = [study for study in studies if study.data == task and study.d_90("said") is None]
        figure.add_scatter(
            x=[_step(study) for study in missed],
            y=[above] * len(missed),
            mode="markers",
            showlegend=False,
            marker={"color": mark.color, "symbol": "triangle-up-open", "size": 11},
            text=[study.summary("said") for study in missed],
            hovertemplate="step %{x}: %{text}<extra>" + data_words(task) + "</extra>",
        )
    title = f"How few numbers suffice (d_90) along pretraining, Spearman: {', '.join(told)}"
    figure.update_layout(title={"text": title})
    figure.update_xaxes(title="pretraining steps")
    figure.update_yaxes(title="d_90 of SAID", type="log", tickvals=TICKS, ticktext=[f"{d:,}" for d in TICKS])
    return Picture(
        figure,
        f"{title}. Open triangle: under at least one seed no d that was tried reached 90 % of full; it ranks above all "
        "others if exact match still rose, and is not ranked if it fell again.",
        tasks_table(studies),
    )
