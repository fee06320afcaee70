"""The budget curve: what a step costs and what memory is taken against the number of tuned blocks; quality of runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from plotly.subplots import make_subplots

from lsf.figures.palette import (
    CHOSEN,
    NEUTRAL,
    ROLES,
    SMALL_SIZE,
    UNCHOSEN,
    WITHOUT_LEGEND,
    Picture,
    bytes_words,
    new_figure,
    share,
)
from lsf.figures.runs import NEAR
from lsf.wording import counted

UNITS = ((1e9, "GB"), (1e6, "MB"))


@dataclass(frozen=True)
class BudgetPoint:
    """What the best plan of so many blocks is predicted to cost."""

    n_blocks: int
    """How many blocks are tuned."""
    compute: float | None
    """FLOPs per token over those of full fine-tuning."""
    memory_bytes: float | None
    """Weights, gradients and optimizer state above the loaded model: at least what a run takes."""
    tried_bytes: float | None = None
    """With activations, as a measured pass found it; None where none was made."""


@dataclass(frozen=True)
class RunPoint:
    """What one run reached."""

    n_blocks: int
    """How many blocks it tuned."""
    role: str
    """What it stands for, a key of `lsf.figures.palette.ROLES`."""
    name: str
    """As people call it."""
    quality: float
    """Share of the test's answers that are right."""


def draw_budget(
    points: Sequence[BudgetPoint],
    own: BudgetPoint,
    n_blocks: int,
    limit: float | None = None,
    runs: Sequence[RunPoint] = (),
) -> Picture:
    """Draw compute and memory against the number of tuned blocks, and below them what runs of so many reached.

    Args:
        points: at least one, by ascending number of blocks.
        own: of the plan at hand, marked; blocks chosen by hand need not lie on the curve.
        n_blocks: L of the model.
        limit: bytes a run may take; None where it is not known. Drawn where it is near.
        runs: that have ended, on the same model and data.
    """
    known = [size for point in (*points, own) for size in (point.memory_bytes, point.tried_bytes) if size is not None]
    size, unit = next((one for one in UNITS if max(known, default=0) >= one[0]), UNITS[-1])
    titles = ["compute of a step", f"memory, at least ({unit})"] + (["right answers"] if runs else [])
    figure: Any = make_subplots(rows=1, cols=len(titles), horizontal_spacing=0.09, subplot_titles=titles)
    title = _title(own, n_blocks)
    figure.update_layout(new_figure(title, height=300, showlegend=False, margin={**WITHOUT_LEGEND, "t": 66}).layout)
    written = ("%{y:.1%} of a full step", f"%{{y:.3g}} {unit}")
    for column, values in enumerate((_computes, partial(_memories, size=size)), 1):
        _add_curve(figure, points, values, column, written[column - 1])
        _add_own(figure, own, values, column, written[column - 1])
    _add_tried(figure, own, n_blocks, size, unit)
    if limit is not None and known and limit <= NEAR * max(known):
        line = {"color": NEUTRAL.color, "width": 2, "dash": "dash"}
        note = {"text": "limit for a run", "font": {"color": NEUTRAL.color, "size": SMALL_SIZE + 1}}
        figure.add_hline(y=limit / size, line=line, annotation=note, row=1, col=2)
    for run in runs:
        mark = ROLES.get(run.role, NEUTRAL)
        figure.add_scatter(
            x=[run.n_blocks],
            y=[run.quality],
            mode="markers",
            marker={"color": mark.color, "symbol": mark.symbol, "size": 11},
            hovertemplate=f"{run.name}<br>%{{y:.1%}} right<extra></extra>",
            row=1,
            col=3,
        )
    figure.update_xaxes(title="blocks tuned", range=[0.4, n_blocks + 0.6], showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    if own.tried_bytes is not None:
        figure.update_yaxes(range=[0, 1.2 * max(known) / size], row=1, col=2)  # room for its number
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    if runs:
        figure.update_yaxes(tickformat=".0%", row=1, col=3)
    return Picture(figure, _alt(points, own, title, limit, runs), _table(points, own, runs))


def runs_words(runs: Sequence[RunPoint]) -> str:
    """Say which mark is which run's, as a sentence after others; nothing where there are none."""
    roles = [role for role in ROLES if any(run.role == role for run in runs)]
    marks = ", ".join(f"{ROLES[role].symbol.replace('-', ' ')} {ROLES[role].label}" for role in roles)
    told = f" Right answers: the share of the test that finished runs on this model and data get right; {marks}."
    return told if runs else ""


Values = Callable[[Sequence[BudgetPoint]], list[float | None]]


def _computes(points: Sequence[BudgetPoint]) -> list[float | None]:
    return [point.compute for point in points]


def _memories(points: Sequence[BudgetPoint], size: float) -> list[float | None]:
    return [None if point.memory_bytes is None else point.memory_bytes / size for point in points]


def _add_curve(figure: Any, points: Sequence[BudgetPoint], values: Values, column: int, written: str) -> None:
    figure.add_scatter(
        x=[point.n_blocks for point in points],
        y=values(points),
        mode="lines+markers",
        line={"color": UNCHOSEN.color, "width": 2},
        marker={"color": UNCHOSEN.color, "symbol": UNCHOSEN.symbol, "size": 7, "opacity": 1},
        text=[counted(point.n_blocks, "block") for point in points],
        hovertemplate=f"%{{text}}: {written}<extra></extra>",
        row=1,
        col=column,
    )


def _add_own(figure: Any, own: BudgetPoint, values: Values, column: int, written: str) -> None:
    figure.add_scatter(
        x=[own.n_blocks],
        y=values([own]),
        mode="markers",
        marker={"color": CHOSEN.color, "symbol": CHOSEN.symbol, "size": 13, "opacity": 1},
        hovertemplate=f"the plan, {counted(own.n_blocks, 'block')}: {written}<extra></extra>",
        row=1,
        col=column,
    )


def _add_tried(figure: Any, own: BudgetPoint, n_blocks: int, size: float, unit: str) -> None:
    """Add, above the least, what a pass that was tried took: the number that the pages tell."""
    if own.tried_bytes is None or own.memory_bytes is None:
        return
    value = own.tried_bytes / size
    figure.add_scatter(
        x=[own.n_blocks] * 2,
        y=[own.memory_bytes / size, value],
        mode="lines+markers+text",
        line={"color": CHOSEN.color, "width": 2, "dash": "dot"},
        marker={"color": CHOSEN.color, "symbol": CHOSEN.symbol, "size": [0, 13], "opacity": 1},
        text=["", f"{value:.1f} {unit}"],
        textposition="top left" if own.n_blocks > n_blocks / 2 else "top right",  # away from curve and axis
        textfont={"size": SMALL_SIZE + 1},
        cliponaxis=False,
        hovertemplate=f"{counted(own.n_blocks, 'block')}, with activations: %{{y:.3g}} {unit}<extra></extra>",
        row=1,
        col=2,
    )


def _title(own: BudgetPoint, n_blocks: int) -> str:
    of = f"{own.n_blocks} of {counted(n_blocks, 'block')}"
    return (
        f"{of}: cost unknown"
        if own.compute is None
        else f"{of}: a step costs {share(own.compute)} of full fine-tuning's"
    )


def _alt(
    points: Sequence[BudgetPoint], own: BudgetPoint, title: str, limit: float | None, runs: Sequence[RunPoint]
) -> str:
    first, last = points[0], points[-1]
    text = title + "."
    if len(points) > 1:
        text += (
            f" By the criterion, from {first.n_blocks} to {last.n_blocks} blocks it goes from {share(first.compute)} "
            f"to {share(last.compute)}."
        )
    if own.tried_bytes is not None:
        take = "takes" if own.n_blocks == 1 else "take"
        text += f" With activations {counted(own.n_blocks, 'block')} {take} {bytes_words(own.tried_bytes)}."
    if limit is not None:
        fitting = [point.n_blocks for point in points if point.memory_bytes is not None and point.memory_bytes <= limit]
        most = max(fitting, default=0)
        fit = "fits" if most == 1 else "fit"
        text += f" By weights and optimizer alone at most {counted(most, 'block')} {fit} this machine's memory."
    reached = "; ".join(f"{run.name} {share(run.quality)}" for run in runs)
    return f"{text} Right answers of runs: {reached}." if reached else text


def _table(points: Sequence[BudgetPoint], own: BudgetPoint, runs: Sequence[RunPoint]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [{**vars(point), "plan": "by the criterion"} for point in points]
    rows.append({**vars(own), "plan": "at hand"})
    rows += [{"n_blocks": run.n_blocks, "run": run.name, "quality": run.quality} for run in runs]
    return pd.DataFrame(rows)
