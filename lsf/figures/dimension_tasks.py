"""d_90 over tasks, places and pre-training, from studies that were measured before."""

import math
import statistics
from collections.abc import Sequence

import pandas as pd

from lsf.analysis.agreement import rank_correlation
from lsf.figures.dimension import MARKS
from lsf.figures.palette import SMALL_SIZE, new_figure
from lsf.figures.picture import Picture
from lsf.jobs.dimensions import Study

LOWEST = 10.0
"""Where the axis of d_90 begins; a bar without a number has no height."""
PUBLISHED = (
    ("BERT-base", "MRPC", 1608),
    ("BERT-base", "QQP", 8030),
    ("RoBERTa-large", "MRPC", 207),
    ("RoBERTa-large", "QQP", 774),
)
"""Model, task and d_90 of SAID as published by Aghajanyan et al. 2020, arXiv 2012.13255: other models, other tasks."""


def d90_of(study: Study, method: str) -> float | None:
    """Return the median of d_90 over seeds, where every seed reached it; else None."""
    found = [curve.d_90 for curve in study.of(method)]
    known = [d for d in found if d is not None]
    return statistics.median(known) if known and len(known) == len(found) else None


def draw_tasks(studies: Sequence[Study]) -> Picture:
    """Draw d_90 of every task, SAID beside DID; a task that was not reached up to the largest d has no bar.

    Args:
        studies: of the whole model, one per task.
    """
    names = [study.data.removeprefix("lesson:") for study in studies]
    table = tasks_table(studies)
    figure = new_figure(_tasks_title(studies), height=380, barmode="group")
    for method, mark in MARKS.items():
        values = [d90_of(study, method) for study in studies]
        texts = [
            f"{value:,.0f}" if value is not None else _unreached(s, method)
            for s, value in zip(studies, values, strict=True)
        ]
        figure.add_bar(
            x=names,
            y=[value or LOWEST for value in values],
            name=mark.label,
            marker={"color": mark.color, "pattern": {"shape": mark.pattern}},
            text=texts,
            textposition="outside",
            textfont={"size": SMALL_SIZE},
            hovertemplate="%{x}: %{text}<extra>" + mark.label + "</extra>",
            cliponaxis=False,
        )
    figure.update_yaxes(title="d_90, numbers tuned", type="log", dtick=1, range=[1, 5])
    return Picture(figure, _tasks_title(studies) + ". " + _told(studies), table)


def _unreached(study: Study, method: str) -> str:
    tried = [point.d for curve in study.of(method) for point in curve.points]
    return f"> {max(tried):,}" if tried else "not measured"


def _tasks_title(studies: Sequence[Study]) -> str:
    both = [study for study in studies if all(study.of(method) for method in MARKS)]
    return f"SAID needs fewer numbers than DID on {fewer(both)} of {len(both)} lessons measured with both"


def fewer(studies: Sequence[Study]) -> int:
    """Count the tasks on which SAID's d_90 is below DID's; a DID that never got there counts where SAID did."""
    pairs = [(d90_of(study, "said"), d90_of(study, "did"), study) for study in studies]
    return sum(s is not None and (s < d if d is not None else bool(study.of("did"))) for s, d, study in pairs)


def _told(studies: Sequence[Study]) -> str:
    parts = []
    for study in studies:
        cells = [f"{MARKS[m].label} {_cell(study, m)}" for m in MARKS]
        parts.append(f"{study.data.removeprefix('lesson:')}: {', '.join(cells)}")
    return "; ".join(parts) + "."


def _cell(study: Study, method: str) -> str:
    value = d90_of(study, method)
    return _unreached(study, method) if value is None else f"{value:,.0f}"


def tasks_table(studies: Sequence[Study]) -> pd.DataFrame:
    """Return one row per study with d_90 of both methods, each seed's, and full fine-tuning's exact match."""
    rows = []
    for study in studies:
        row: dict[str, object] = {"base": study.model, "task": study.data, "tuned": study.plan.label}
        row["full"] = statistics.fmean(point.test for point in study.full) if study.full else None
        for method, mark in MARKS.items():
            row[mark.label] = _cell(study, method)
            row[f"{mark.label} by seed"] = ", ".join(str(curve.d_90 or "-") for curve in study.of(method))
        rows.append(row)
    return pd.DataFrame(rows)


def published_table(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the published d_90 of SAID and ours in one table, each with whose it is."""
    rows = [{"whose": "published", "model": m, "task": t, "d_90 of SAID": f"{d:,}"} for m, t, d in PUBLISHED]
    rows += [
        {"whose": "ours", "model": "bundled, 1.4 M", "task": s.data, "d_90 of SAID": _cell(s, "said")} for s in studies
    ]
    return pd.DataFrame(rows)


def progress_points(studies: Sequence[Study], task: str, method: str = "said") -> list[tuple[float, float]]:
    """Return (pre-training steps, d_90) of a task's checkpoints; infinite where no d tried reached 90 % of full.

    Args:
        studies: of bases called `pretraining step N`.
        task: name of the data.
        method: said or did.
    """
    mine = [study for study in studies if study.data == task and study.of(method)]
    found = [(float(study.model.rpartition(" ")[2]), d90_of(study, method)) for study in mine]
    return sorted((step, math.inf if d is None else d) for step, d in found)


def spearman(points: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rho of pairs; None below three of them, or where one side is constant."""
    if len(points) < 3:
        return None
    return rank_correlation([x for x, _ in points], [y for _, y in points], "spearman")


def draw_progress(studies: Sequence[Study]) -> Picture:
    """Draw d_90 of SAID against the steps of pre-training, one line per task.

    Args:
        studies: of bases called `pretraining step N`.
    """
    tasks = list(dict.fromkeys(study.data for study in studies))
    told = []
    figure = new_figure("", height=360)
    for task, mark in zip(tasks, (MARKS["said"], MARKS["did"]), strict=False):
        points = progress_points(studies, task)
        rho = spearman(points)
        told.append(
            f"{task.removeprefix('lesson:')} {'unknown' if rho is None else f'{rho:.2f}'} ({len(points)} checkpoints)"
        )
        figure.add_scatter(
            x=[step for step, d in points if d < math.inf],
            y=[d for _, d in points if d < math.inf],
            mode="lines+markers",
            name=task.removeprefix("lesson:"),
            line={"color": mark.color, "dash": mark.dash, "width": 2},
            marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
            hovertemplate="step %{x}: %{y:,}<extra>" + task + "</extra>",
        )
    title = f"d_90 along pre-training, Spearman: {', '.join(told)}"
    figure.update_layout(title={"text": title})
    figure.update_xaxes(title="pre-training steps")
    figure.update_yaxes(title="d_90 of SAID", type="log", dtick=1)
    return Picture(
        figure,
        f"{title}. A checkpoint at which no d tried reached 90 % of full has no mark and ranks above all others.",
        tasks_table(studies),
    )
