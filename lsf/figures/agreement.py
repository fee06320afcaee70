"""How alike criteria rank the blocks: the matrix of their rank correlations."""

import pandas as pd
import plotly.graph_objects as go

from lsf.analysis.agreement import correlation_matrix, rank_correlation
from lsf.analysis.criteria import CRITERIA
from lsf.figures.criteria import AllScores, leaders
from lsf.figures.palette import SMALL_SIZE, WITHOUT_LEGEND, new_figure
from lsf.figures.picture import Picture, number

METHOD_WORDS = {"spearman": "Spearman's rho", "kendall": "Kendall's tau"}
"""Name of a rank correlation -> how it is written."""
CELL_HEIGHT = 26


def draw_agreement(scores: AllScores, method: str = "spearman", chosen: str | None = None) -> Picture:
    """Draw the rank correlation of each criterion with each; unknown where one of both ranks nothing.

    Args:
        scores: of every criterion that was measured.
        method: spearman or kendall.
        chosen: the criterion whose row and column are marked.

    Returns:
        A picture whose cells carry the criterion of their row in `customdata`, so that a click can choose it.
    """
    matrix = correlation_matrix(scores, method)
    names = list(scores)
    labels = [f"<b>{CRITERIA[name].label}</b>" if name == chosen else CRITERIA[name].label for name in names]
    figure = new_figure(_agreement_title(scores, method), height=174 + CELL_HEIGHT * len(names), margin=WITHOUT_LEGEND)
    figure.add_heatmap(
        z=matrix,
        x=labels,
        y=labels,
        zmin=-1,
        zmax=1,
        autocolorscale=True,
        text=[["?" if value is None else f"{value:.2f}" for value in row] for row in matrix],
        texttemplate="%{text}",
        textfont={"size": SMALL_SIZE},
        customdata=[[name] * len(names) for name in names],
        hovertemplate="%{y} and %{x}: %{text}<extra></extra>",
        colorbar={"title": {"text": METHOD_WORDS[method]}, "tickvals": [-1, -0.5, 0, 0.5, 1]},
        xgap=1,
        ygap=1,
    )
    _unknown(figure, matrix, labels, names)
    figure.update_xaxes(tickangle=-50, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return Picture(figure, _agreement_alt(scores, method), _agreement_table(scores))


def _unknown(figure: go.Figure, matrix: list[list[float | None]], labels: list[str], names: list[str]) -> None:
    """Write a question mark where nothing is known; a heat map leaves such cells empty."""
    cells = [(x, y) for y, row in enumerate(matrix) for x, value in enumerate(row) if value is None]
    figure.add_scatter(
        x=[labels[x] for x, _ in cells],
        y=[labels[y] for _, y in cells],
        mode="text",
        text=["?"] * len(cells),
        customdata=[names[y] for _, y in cells],
        hovertemplate="%{y} and %{x}: unknown, one of both ranks nothing<extra></extra>",
        showlegend=False,
    )


def _pairs(scores: AllScores, method: str) -> list[tuple[float, str, str]]:
    """Return the known correlations between different criteria, controls left out, the greatest first."""
    names = [name for name in scores if CRITERIA[name].needs != "nothing"]
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    found = [(rank_correlation(scores[a], scores[b], method), a, b) for a, b in pairs]
    known = [(value, CRITERIA[a].label, CRITERIA[b].label) for value, a, b in found if value is not None]
    return sorted(known, key=lambda item: -item[0])


def _agreement_title(scores: AllScores, method: str) -> str:
    return f"Rank correlation between {len(scores)} criteria ({METHOD_WORDS[method]})"


def _agreement_alt(scores: AllScores, method: str) -> str:
    text, pairs = _agreement_title(scores, method), _pairs(scores, method)
    flat = [CRITERIA[name].label for name, values in scores.items() if not leaders(values)]
    if pairs:
        (most, a, b), (least, c, d) = pairs[0], pairs[-1]
        middle = pairs[len(pairs) // 2][0]
        text += (
            f". Controls left out: most alike are {a} and {b} with {number(most)}, least alike {c} and {d} with "
            f"{number(least)}; the median of {len(pairs)} pairs is {number(middle)}"
        )
    return text + (f". Unknown for {', '.join(flat)}: all blocks have the same score." if flat else ".")


def _agreement_table(scores: AllScores) -> pd.DataFrame:
    names = list(scores)
    return pd.DataFrame(
        [
            {
                "criterion": a,
                "other": b,
                "spearman": rank_correlation(scores[a], scores[b], "spearman"),
                "kendall": rank_correlation(scores[a], scores[b], "kendall"),
            }
            for place, a in enumerate(names)
            for b in names[place + 1 :]
        ]
    )
