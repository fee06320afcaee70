"""Criteria side by side, one small panel each; the blocks that lead in each are marked."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lsf.analysis.agreement import first_quarter
from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import format_blocks
from lsf.analysis.policies import top_k
from lsf.analysis.result import Analysis
from lsf.figures.palette import CHOSEN, NEUTRAL, SMALL_SIZE, TEXT_SIZE, UNCHOSEN, new_figure
from lsf.figures.picture import Picture

COLUMNS = 3
ROW_HEIGHT = 158
TOP = 92
"""Pixels above the first row, for the buttons, the legend and the first row's names."""
LEGEND_LIFT = 26
"""Pixels between the first row and the legend."""
NAMED = 5
"""Blocks whose count the finding names, those of most criteria."""
TICKS = 12
"""Block numbers per panel at most."""

AllScores = Mapping[str, Sequence[float]]
"""Criterion -> score of each block, block 0 first."""


def draw_criteria(scores: AllScores, chosen: str | None = None) -> Picture:
    """Draw every criterion in a panel of its own, its first quarter of blocks marked.

    Each panel has its own axis, which need not begin at zero: what is compared between panels is which blocks lead.

    Args:
        scores: of every criterion that was measured.
        chosen: the criterion whose panel is marked.

    Returns:
        A picture whose marks carry their criterion in `customdata`, so that a click can choose it.
    """
    names = list(scores)
    n_rows = -(-len(names) // COLUMNS)
    figure = new_figure(_title(scores), height=TOP + 20 + ROW_HEIGHT * n_rows, hovermode="x")
    titles = [_panel_title(name, scores[name], name == chosen) for name in names]
    grid = make_subplots(
        n_rows, COLUMNS, subplot_titles=titles, horizontal_spacing=0.06, vertical_spacing=0.34 / max(n_rows, 1)
    )
    figure.update_layout(grid.layout.to_plotly_json())
    figure.update_layout(margin={"t": TOP}, legend={"y": 1 + LEGEND_LIFT / (ROW_HEIGHT * n_rows)})
    figure.update_annotations(font={"size": TEXT_SIZE}, yshift=2)
    for place, name in enumerate(names):
        _panel(figure, name, scores[name], place)
    _legend(figure)
    n_blocks = len(next(iter(scores.values()), ()))
    ticks = list(range(0, n_blocks, -(-n_blocks // TICKS) or 1))
    figure.update_xaxes(tickvals=ticks, showgrid=False, zeroline=False, tickfont={"size": SMALL_SIZE})
    figure.update_yaxes(nticks=5, zeroline=False, tickfont={"size": SMALL_SIZE}, exponentformat="power")
    return Picture(figure, _alt(scores, chosen), _table(scores))


def measured_scores(analysis: Analysis) -> dict[str, tuple[float, ...]]:
    """Return the score of each block by every criterion that was measured for all of them, in the registry's order."""
    found = {name: analysis.scores(name) for name in CRITERIA if name in analysis.criteria}
    return {name: tuple(score for score in scores if score is not None) for name, scores in found.items()}


def leaders(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the first quarter of the blocks, at least one; none where the criterion ranks nothing."""
    return top_k(scores, first_quarter(len(scores))) if len(set(scores)) > 1 else ()


def _panel_title(name: str, scores: Sequence[float], chosen: bool) -> str:
    label = CRITERIA[name].label
    if not leaders(scores):
        label += " (ranks nothing)"
    return f"<b>▸ {label} (chosen)</b>" if chosen else label


def _panel(figure: go.Figure, name: str, scores: Sequence[float], place: int) -> None:
    blocks, first = list(range(len(scores))), leaders(scores)
    marks = [CHOSEN if block in first else UNCHOSEN for block in blocks]
    suffix = str(place + 1) if place else ""
    figure.add_scatter(
        x=blocks,
        y=list(scores),
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        mode="lines+markers",
        line={"color": NEUTRAL.color, "width": 1},
        marker={
            "color": [mark.color for mark in marks],
            "symbol": [mark.symbol for mark in marks],
            "size": [10 if block in first else 7 for block in blocks],
            "opacity": 1,
            "line": {"width": 0},
        },
        customdata=[name] * len(blocks),
        name=CRITERIA[name].label,
        showlegend=False,
        hovertemplate="block %{x}: %{y:.4g}<br>click to choose " + CRITERIA[name].label + "<extra></extra>",
    )


def _legend(figure: go.Figure) -> None:
    for mark, name in ((CHOSEN, "first quarter of the blocks"), (UNCHOSEN, "the others")):
        marker = {"color": mark.color, "symbol": mark.symbol, "size": 9}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip")


def _votes(scores: AllScores) -> dict[int, int]:
    """Count for each block the criteria, controls left out, that have it in their first quarter; the most first."""
    judged = [leaders(values) for name, values in scores.items() if CRITERIA[name].needs != "nothing"]
    n_blocks = len(next(iter(scores.values()), ()))
    votes = {block: sum(block in first for first in judged) for block in range(n_blocks)}
    return dict(sorted(votes.items(), key=lambda item: (-item[1], item[0])))


def _judges(scores: AllScores) -> int:
    return sum(CRITERIA[name].needs != "nothing" and bool(leaders(values)) for name, values in scores.items())


def _title(scores: AllScores) -> str:
    votes, judges = _votes(scores), _judges(scores)
    if not judges:
        return f"{len(scores)} criteria side by side"
    best = next(iter(votes))
    top = f"block {best} is in the first quarter of {votes[best]} of the {judges} measured"
    return f"{len(scores)} criteria side by side: {top}"


def _alt(scores: AllScores, chosen: str | None) -> str:
    parts = []
    for name, values in scores.items():
        first = leaders(values)
        where = f"block{'s' if len(first) > 1 else ''} {format_blocks(first)}" if first else "ranks nothing"
        parts.append(f"{CRITERIA[name].label}{' (chosen)' if name == chosen else ''}: {where}")
    most = [(block, count) for block, count in _votes(scores).items() if count][:NAMED]
    told = ", ".join(f"block {block} in {count}" for block, count in most)
    return (
        f"First quarter of the blocks by each criterion. {'; '.join(parts)}. Most often there, of the "
        f"{_judges(scores)} measured criteria (controls not counted): {told or 'none'}."
    )


def _table(scores: AllScores) -> pd.DataFrame:
    votes = _votes(scores)
    columns: dict[str, Any] = {"block": sorted(votes), "first quarter of": [votes[block] for block in sorted(votes)]}
    return pd.DataFrame(columns | {name: list(values) for name, values in scores.items()})
