"""The budget curve: what a step costs and what memory is taken against the number of tuned blocks; quality of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from plotly.subplots import make_subplots

from lsf.figures.palette import CHOSEN, NEUTRAL, ROLES, SMALL_SIZE, UNCHOSEN, WITHOUT_LEGEND, Picture, new_figure, share
from lsf.figures.runs import NEAR

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
    points: Sequence[BudgetPoint], chosen: int, limit: float | None = None, runs: Sequence[RunPoint] = ()
) -> Picture:
    """Draw compute and memory against the number of tuned blocks, and below them what runs of so many reached.

    Args:
        points: at least one, by ascending number of blocks.
        chosen: how many blocks the plan tunes; marked.
        limit: bytes a run may take; None where it is not known. Drawn where it is near.
        runs: that have ended, on the same model and data.
    """
    known = [size for point in points for size in (point.memory_bytes, point.tried_bytes) if size is not None]
    size, unit = next((one for one in UNITS if max(known, default=0) >= one[0]), UNITS[-1])
    panels: list[tuple[str, list[float | None]]] = [
        ("compute of a step", [point.compute for point in points]),
        (f"memory, at least ({unit})", [None if p.memory_bytes is None else p.memory_bytes / size for p in points]),
    ]
    titles = [name for name, _ in panels] + (["right answers"] if runs else [])
    figure: Any = make_subplots(rows=1, cols=len(titles), horizontal_spacing=0.09, subplot_titles=titles)
    own = new_figure(_title(points, chosen), height=300, showlegend=False, margin={**WITHOUT_LEGEND, "t": 66})
    figure.update_layout(own.layout)
    counts = [point.n_blocks for point in points]
    for column, (_, values) in enumerate(panels, 1):
        marks = [CHOSEN if count == chosen else UNCHOSEN for count in counts]
        figure.add_scatter(
            x=counts,
            y=values,
            mode="lines+markers",
            line={"color": UNCHOSEN.color, "width": 2},
            marker={
                "color": [mark.color for mark in marks],
                "symbol": [mark.symbol for mark in marks],
                "size": [13 if mark is CHOSEN else 7 for mark in marks],
                "opacity": 1,
            },
            hovertemplate="%{x} blocks: %{y:.3g}<extra></extra>",
            row=1,
            col=column,
        )
    _add_tried(figure, points, chosen, size, unit)
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
    figure.update_xaxes(title="blocks tuned", range=[0.4, max(counts) + 0.6], showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    if runs:
        figure.update_yaxes(tickformat=".0%", row=1, col=3)
    return Picture(figure, _alt(points, chosen, limit, runs), _table(points, runs))


def _add_tried(figure: Any, points: Sequence[BudgetPoint], chosen: int, size: float, unit: str) -> None:
    """Add, above the least, what a pass that was tried took: the number that the pages tell."""
    for point in points:
        if point.tried_bytes is None or point.memory_bytes is None:
            continue
        mark = CHOSEN if point.n_blocks == chosen else UNCHOSEN
        value = point.tried_bytes / size
        figure.add_scatter(
            x=[point.n_blocks] * 2,
            y=[point.memory_bytes / size, value],
            mode="lines+markers+text",
            line={"color": mark.color, "width": 2, "dash": "dot"},
            marker={"color": mark.color, "symbol": mark.symbol, "size": [0, 13], "opacity": 1},
            text=["", f"{value:.1f} {unit}"],
            textposition="middle left" if point.n_blocks > len(points) / 2 else "middle right",
            textfont={"size": SMALL_SIZE + 1},
            cliponaxis=False,
            hovertemplate="%{x} blocks, with activations: %{y:.3g}<extra></extra>",
            row=1,
            col=2,
        )


def _title(points: Sequence[BudgetPoint], chosen: int) -> str:
    own = next((point for point in points if point.n_blocks == chosen), None)
    if own is None or own.compute is None:
        return f"What {len(points)} budgets cost"
    return f"{chosen} of {len(points)} blocks: a step costs {share(own.compute)} of full fine-tuning's"


def _alt(points: Sequence[BudgetPoint], chosen: int, limit: float | None, runs: Sequence[RunPoint]) -> str:
    first, last = points[0], points[-1]
    text = (
        f"{_title(points, chosen)}. From {first.n_blocks} to {last.n_blocks} blocks it goes from "
        f"{share(first.compute)} to {share(last.compute)}."
    )
    tried = [point for point in points if point.tried_bytes is not None]
    for point in tried:
        text += f" With activations {point.n_blocks} blocks take {(point.tried_bytes or 0) / 1e6:,.1f} MB."
    if limit is not None:
        fitting = [point.n_blocks for point in points if point.memory_bytes is not None and point.memory_bytes <= limit]
        text += f" By weights and optimizer alone at most {max(fitting, default=0)} blocks fit this machine's memory."
    reached = "; ".join(f"{run.name} {share(run.quality)}" for run in runs)
    return f"{text} Right answers of runs: {reached}." if reached else text


def _table(points: Sequence[BudgetPoint], runs: Sequence[RunPoint]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [vars(point) for point in points]
    rows += [{"n_blocks": run.n_blocks, "run": run.name, "quality": run.quality} for run in runs]
    return pd.DataFrame(rows)
