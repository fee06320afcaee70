"""Criteria side by side, how alike they rank the blocks, and how many examples suffice."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lsf.criteria.agreement import (
    AGREEMENT,
    LEAST_EXAMPLES,
    Stability,
    correlation_matrix,
    first_quarter,
    rank_correlation,
    stability,
    top_k,
)
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.figures.palette import (
    CHOSEN,
    FACTUAL,
    NEUTRAL,
    ROLES,
    SMALL_SIZE,
    TEXT_SIZE,
    UNCHOSEN,
    VIRTUAL,
    WITHOUT_LEGEND,
    Mark,
    Picture,
    new_figure,
    number,
    share,
)
from lsf.plans.plan import format_blocks
from lsf.wording import counted

COLUMNS = 3
ROW_HEIGHT = 158
TOP = 92
"""Pixels above the first row, for the buttons, the legend and the first row's names."""
LEGEND_LIFT = 26
"""Pixels between the first row and the legend."""
NAMED = 5
"""Blocks that a title names, those that come first, and whose count the finding names, those of most criteria."""
EVERY, TICKS = 10, 6
"""Blocks up to which a panel names each, and how many it names at most of more."""

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
    figure = new_figure(_title(scores, chosen), height=TOP + 40 + ROW_HEIGHT * n_rows, hovermode="x")
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
    ticks = list(range(0, n_blocks, 1 if n_blocks <= EVERY else -(-n_blocks // TICKS)))
    figure.update_xaxes(tickvals=ticks, tickangle=0, showgrid=False, zeroline=False, tickfont={"size": SMALL_SIZE})
    for place in range(max(0, len(names) - COLUMNS), len(names)):  # the lowest of each column
        figure.layout[f"xaxis{place + 1 if place else ''}"].title = "block"
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


def _title(scores: AllScores, chosen: str | None) -> str:
    votes, judges = _votes(scores), _judges(scores)
    first = () if chosen is None or chosen not in scores else leaders(scores[chosen])
    if chosen is not None and first:
        ranked = [str(block) for block in sorted(first, key=lambda block: (scores[chosen][block], block), reverse=True)]
        shown = ", ".join(ranked[:NAMED]) + (f" and {len(ranked) - NAMED} more" if len(ranked) > NAMED else "")
        named = f"block{'s' if len(first) > 1 else ''} {shown}"
        others = [leaders(values) for name, values in scores.items() if name != chosen and _judges({name: values})]
        alike = sum(other == first for other in others)
        told = (
            f"{alike} of the other {len(others)} criteria do"
            if alike
            else f"none of the other {len(others)} criteria does"
        )
        return f"{CRITERIA[chosen].label} puts {named} first, as {told}"
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
            f"{number(least)}; the median of {counted(len(pairs), 'pair')} is {number(middle)}"
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


SHARED = ROLES["first"]
"""How the share of common blocks looks: neither of the two paths' colours, another symbol, another dash."""


def draw_growth(analysis: Analysis, criterion: str) -> Picture:
    """Draw how far the ranking of growing samples agrees with that of all examples, and of two halves with each other.

    Args:
        analysis: with growing samples recorded for the criterion.
        criterion: one of the forward pass, or of tangent kernels.

    Raises:
        ValueError: no growing sample was recorded for this criterion.
    """
    rows = stability(analysis, criterion)
    if not rows:
        raise ValueError(f"no growing samples of {criterion}")
    label = CRITERIA[criterion].label
    figure = new_figure(_growth_title(rows, label), height=360, hovermode="x unified")
    counts = [row.n_examples for row in rows]
    curves: tuple[tuple[Mark, str, list[float | None]], ...] = (
        (VIRTUAL, "ranking: sample and all examples (tau)", [row.tau for row in rows]),
        (SHARED, "first quarter of blocks in common", [row.shared for row in rows]),
        (FACTUAL, "ranking: two halves of the sample (tau)", [row.halves for row in rows]),
    )
    for mark, name, values in curves:
        figure.add_scatter(
            x=counts,
            y=values,
            mode="lines+markers",
            name=name,
            line={"color": mark.color, "dash": mark.dash, "width": 2},
            marker=_marker(mark),
            hovertemplate="%{y:.3f}",
        )
    figure.add_hline(y=AGREEMENT, line={"color": NEUTRAL.color, "dash": "dot", "width": 1})
    stop = _stop(rows)
    if stop is not None:
        figure.add_vline(x=stop, line={"color": NEUTRAL.color, "width": 1.5})
        # On a logarithmic axis a line stands at its value, but a note at the logarithm of its own.
        place = {"x": math.log10(stop), "y": 1, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(text=f"settled: {stop}", font={"size": SMALL_SIZE + 1}, showarrow=False, **place)
    figure.update_xaxes(title="examples read", type="log", tickvals=counts, ticktext=[f"{n:,}" for n in counts])
    known = [value for _, _, values in curves for value in values if value is not None]
    figure.update_yaxes(title="agreement", range=[min(-0.03, *known) - 0.02, 1.06])
    return Picture(figure, _growth_alt(rows, label), _growth_table(rows))


def _marker(mark: Mark) -> dict[str, object]:
    """Triangles are open and larger, since they often lie on the circles."""
    if mark is SHARED:
        return {"color": mark.color, "symbol": f"{mark.symbol}-open", "size": 15, "line": {"width": 2}}
    return {"color": mark.color, "symbol": mark.symbol, "size": 9}


def _stop(rows: Sequence[Stability]) -> int | None:
    """Return the first number of examples at which `--limit auto` would stop."""
    return next((row.n_examples for row in rows if row.settled), None)


def _stable_from(rows: Sequence[Stability]) -> int | None:
    """Return the number of examples from which on every sample agrees with all; None where none but all does."""
    stable = None
    for row in reversed(rows[:-1]):
        if not row.agrees:
            break
        stable = row.n_examples
    return stable


def _growth_title(rows: Sequence[Stability], label: str) -> str:
    stable, whole = _stable_from(rows), rows[-1].n_examples
    if stable is None:
        return f"Examples that suffice for {label}: unknown, no part of the {whole:,} ranks the blocks as all do"
    return f"Examples that suffice for {label}: {stable:,} of {whole:,} rank the blocks as all do"


def _growth_alt(rows: Sequence[Stability], label: str) -> str:
    smallest, whole = rows[0], rows[-1].n_examples
    stable, stop = _stable_from(rows), _stop(rows)
    told = (
        f"{label}: the first {smallest.n_examples:,} examples rank the blocks with Kendall's tau "
        f"{number(smallest.tau)} to all {whole:,} and share {share(smallest.shared)} of their first quarter of blocks."
    )
    if stable is None:
        told += f" No smaller sample keeps the same first quarter with a tau over {AGREEMENT}."
    else:
        told += f" From {stable:,} examples on the first quarter stays the same and tau is over {AGREEMENT}."
    if all(row.settled is None for row in rows):
        return told
    if stop is None:
        return f"{told} Reading until the ranking settles would not have stopped before the end."
    return f"{told} Reading until the ranking settles, which looks from {LEAST_EXAMPLES} on, would stop at {stop:,}."


def _growth_table(rows: Sequence[Stability]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "examples": row.n_examples,
                "tau to all": row.tau,
                "first quarter shared": row.shared,
                "tau of halves": row.halves,
                "auto stops": row.settled,
            }
            for row in rows
        ]
    )
