"""What the head would say at each depth: a table over all positions, and the best tokens of one example."""

import pandas as pd
import plotly.graph_objects as go

from lsf.analysis.result import Analysis, ExamplePath
from lsf.figures.palette import FACTUAL, SMALL_SIZE, WITHOUT_LEGEND, new_figure
from lsf.figures.picture import Picture, number, visible
from lsf.figures.ranks import change

TOKENS = "most likely tokens (share where among the top 5)"
TOKEN_WIDTH = 12
"""Characters of a token that fit a cell."""


def lens_table(analysis: Analysis) -> pd.DataFrame:
    """Return one row per state: mean target probability, median target rank, and the best tokens over positions."""
    return pd.DataFrame(
        [
            {
                "state": row.state,
                "target probability": row.target_probability,
                "target rank (median)": row.target_rank_median,
                TOKENS: "  ".join(f"{visible(token)} {mass:.2f}" for token, mass in row.top_tokens[:5]),
            }
            for row in analysis.states
        ]
    )


def draw_lens(example: ExamplePath, state: int | None = None) -> Picture:
    """Draw one example's lens: at every state the best tokens and how each moved, the target framed where it is.

    Args:
        example: a kept position.
        state: row to frame.

    Returns:
        A picture whose cells carry their state in `customdata`, so that a click can pick it.
    """
    width = max(len(tokens) for tokens in example.top_tokens)
    n_states = len(example.top_tokens)
    figure = new_figure(_lens_title(example), height=104 + 28 * n_states, margin=WITHOUT_LEGEND)
    figure.add_heatmap(
        z=[[mass for _, mass in tokens] + [None] * (width - len(tokens)) for tokens in example.top_tokens],
        text=[_cells(example, row, width) for row in range(n_states)],
        x=list(range(1, width + 1)),
        y=list(range(n_states)),
        customdata=[[row] * width for row in range(n_states)],
        texttemplate="%{text}",
        textfont={"size": SMALL_SIZE + 1},
        hovertemplate="state %{y}, place %{x}<br>%{text}: %{z:.3f}<extra></extra>",
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
    )
    for row, tokens in enumerate(example.top_tokens):
        for place, (token, _) in enumerate(tokens, start=1):
            if token == example.target_token:
                frame_cell(figure, place - 0.5, row - 0.5, place + 0.5, row + 0.5)
    figure.update_xaxes(title="place in the lens (1 = most likely)", tickmode="linear", dtick=1, showgrid=False)
    figure.update_yaxes(title="state", tickvals=list(range(n_states)), showgrid=False)
    if state is not None:
        figure.update_yaxes(ticktext=[f"▸ {row}" if row == state else str(row) for row in range(n_states)])
    figure.update_layout(coloraxis={"cmin": 0, "cmax": 1, "colorbar": {"title": {"text": "probability"}}})
    return Picture(figure, _lens_alt(example), _lens_rows(example))


def _cells(example: ExamplePath, state: int, width: int) -> list[str]:
    tokens = example.top_tokens[state]
    words = [
        f"{short(token)}  {change(example, state, token, place)}" for place, (token, _) in enumerate(tokens, start=1)
    ]
    return words + [""] * (width - len(tokens))


def _first_right(example: ExamplePath) -> int | None:
    """The first state from which on the target stays in place 1."""
    settled = None
    for state in range(len(example.target_rank) - 1, -1, -1):
        if example.target_rank[state] != 1:
            break
        settled = state
    return settled


def _lens_title(example: ExamplePath) -> str:
    settled = _first_right(example)
    target = visible(example.target_token)
    if settled is None:
        return f"Logit lens of {target}: at place {example.target_rank[-1]:,} in the last state"
    return f"Logit lens of {target}: first from state {settled} on"


def _lens_alt(example: ExamplePath) -> str:
    last = example.top_tokens[-1][0] if example.top_tokens[-1] else ("", None)
    return (
        f"{_lens_title(example)}. Its probability is {number(example.target_probability[0], 3)} at state 0 and "
        f"{number(example.target_probability[-1], 3)} at the last state, where {visible(last[0])} is most likely with "
        f"{number(last[1], 3)}."
    )


def _lens_rows(example: ExamplePath) -> pd.DataFrame:
    rows = []
    for state, tokens in enumerate(example.top_tokens):
        for place, (token, mass) in enumerate(tokens, start=1):
            moved = change(example, state, token, place)
            rows.append({"state": state, "place": place, "token": token, "probability": mass, "change": moved})
    return pd.DataFrame(rows)


def short(token: str) -> str:
    """Write a token so that its spaces can be seen and it fits a cell."""
    shown = visible(token)
    return shown if len(shown) <= TOKEN_WIDTH else shown[: TOKEN_WIDTH - 1] + "…"


def frame_cell(figure: go.Figure, x0: float, y0: float, x1: float, y1: float) -> None:
    """Draw a frame around a cell, a row or a column."""
    figure.add_shape(type="rect", x0=x0, y0=y0, x1=x1, y1=y1, line={"color": FACTUAL.color, "width": 2.5})
