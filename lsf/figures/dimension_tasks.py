"""d_90 over tasks, places and pre-training, from studies that were measured before."""

import math
import statistics
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from lsf.analysis.agreement import chance_level, rank_correlation
from lsf.figures.dimension import MARKS
from lsf.figures.palette import SMALL_SIZE, new_figure
from lsf.figures.picture import Picture
from lsf.jobs.dimensions import Study

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
    names = [study.data.removeprefix("lesson:") for study in studies]
    title = _tasks_title(studies)
    return Picture(_bars(studies, names, title), f"{title}. {_told(studies, names)}", tasks_table(studies))


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
    title = (
        f"{studies[0].sought} of {studies[0].data.removeprefix('lesson:')} by the blocks that may move: "
        + "; ".join(told)
    )
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
    figure.update_yaxes(title="d_90, numbers tuned", type="log", dtick=1, range=[1, 5])
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
    return f"SAID needs fewer numbers than DID on {fewer(both)} of {len(both)} lessons measured with both"


def fewer(studies: Sequence[Study]) -> int:
    """Count the tasks on which SAID's d_90 is below DID's; a DID that never got there counts where SAID did."""
    pairs = [(study.d_90("said"), study.d_90("did"), study) for study in studies]
    return sum(s is not None and (s < d if d is not None else bool(study.of("did"))) for s, d, study in pairs)


def _told(studies: Sequence[Study], names: Sequence[str]) -> str:
    parts = []
    for study, name in zip(studies, names, strict=True):
        cells = [f"{MARKS[m].label} {study.told(m)}" for m in MARKS]
        parts.append(f"{name}: {', '.join(cells)}")
    return "; ".join(parts) + "."


def tasks_table(studies: Sequence[Study]) -> pd.DataFrame:
    """Return one row per study with d_90 of both methods, each seed's, and full fine-tuning's exact match."""
    rows = []
    for study in studies:
        row: dict[str, object] = {"base": study.model, "task": study.data, "tuned": study.plan.label}
        row["full"] = statistics.fmean(point.test for point in study.full) if study.full else None
        for method, mark in MARKS.items():
            row[mark.label] = study.told(method)
            row[f"{mark.label} by seed"] = ", ".join(str(curve.d_90 or "-") for curve in study.of(method))
        rows.append(row)
    return pd.DataFrame(rows)


def published_table(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the published d_90 of SAID and ours in one table, each with whose it is."""
    rows = [{"whose": "published", "model": m, "task": t, "d_90 of SAID": f"{d:,}"} for m, t, d in PUBLISHED]
    rows += [
        {"whose": "ours", "model": "bundled, 1.4 M", "task": s.data, "d_90 of SAID": s.told("said")} for s in studies
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
        told.append(f"{task.removeprefix('lesson:')} {_rho(rho, len(points))}")
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
            name=task.removeprefix("lesson:"),
            line={"color": mark.color, "dash": mark.dash, "width": 2},
            marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
            hovertemplate="step %{x}: %{y:,.0f}<extra>" + task + "</extra>",
        )
        above *= APART
        missed = [study for study in studies if study.data == task and study.d_90("said") is None]
        figure.add_scatter(
            x=[_step(study) for study in missed],
            y=[above] * len(missed),
            mode="markers",
            showlegend=False,
            marker={"color": mark.color, "symbol": "triangle-up-open", "size": 11},
            text=[study.told("said") for study in missed],
            hovertemplate="step %{x}: %{text}<extra>" + task + "</extra>",
        )
    title = f"d_90 along pre-training, Spearman: {', '.join(told)}"
    figure.update_layout(title={"text": title})
    figure.update_xaxes(title="pre-training steps")
    figure.update_yaxes(title="d_90 of SAID", type="log", tickvals=TICKS, ticktext=[f"{d:,}" for d in TICKS])
    return Picture(
        figure,
        f"{title}. Open triangle: under one seed or more no d tried reached 90 % of full; it ranks above all others "
        "where exact match still rose, and nowhere where it fell again.",
        tasks_table(studies),
    )
