"""What the head would say at each depth: a table of the lens, and heat maps over states."""

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from lsf.analysis.result import Analysis, ExamplePath
from lsf.figures.palette import FACTUAL, SMALL_SIZE, new_figure
from lsf.figures.picture import Picture, number, share, visible

TOKEN_WIDTH = 12
"""Characters of a token that fit a cell."""
LOWEST_DECADE = -5
"""Probabilities are coloured by their logarithm, from ten to this power up to 1; lower ones look like it."""


def lens_table(analysis: Analysis) -> pd.DataFrame:
    """Return one row per state: mean target probability, median target rank, and the best tokens over positions."""
    return pd.DataFrame(
        [
            {
                "state": row.state,
                "target probability": row.target_probability,
                "target rank (median)": row.target_rank_median,
                "most likely tokens": "  ".join(f"{visible(token)} {mass:.2f}" for token, mass in row.top_tokens[:5]),
            }
            for row in analysis.states
        ]
    )


def draw_targets(examples: Sequence[ExamplePath], selected: int | None = None) -> Picture:
    """Draw the lens probability of each example's target token at each state: state by example.

    Args:
        examples: the kept positions.
        selected: index of the example to frame.

    Returns:
        A picture whose cells carry the example's index in `customdata`, so that a click can pick it.
    """
    n_states = len(examples[0].target_probability)
    names = [f"{index + 1} {_short(example.target_token)}" for index, example in enumerate(examples)]
    figure = new_figure(_targets_title(examples), height=130 + 26 * n_states)
    figure.add_heatmap(
        z=[[_log(example.target_probability[state]) for example in examples] for state in range(n_states)],
        x=list(range(len(examples))),
        y=list(range(n_states)),
        customdata=[list(range(len(examples)))] * n_states,
        hovertext=[
            [
                f"example {index + 1}, state {state}<br>target {visible(example.target_token)}<br>"
                f"probability {example.target_probability[state]:.3f}, rank {example.target_rank[state]}"
                for index, example in enumerate(examples)
            ]
            for state in range(n_states)
        ],
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
    )
    figure.update_xaxes(
        title="example and its target token", tickvals=list(range(len(examples))), ticktext=names, tickangle=-60
    )
    figure.update_yaxes(title="state", tickmode="array", tickvals=list(range(n_states)))
    decades = list(range(LOWEST_DECADE, 1))
    ticks = {
        "tickvals": decades,
        "ticktext": ["1", *(f"{10.0**decade:.{-decade}f}" for decade in decades[-2::-1])][::-1],
    }
    bar = {"title": {"text": "probability"}, **ticks}
    figure.update_layout(coloraxis={"cmin": LOWEST_DECADE, "cmax": 0, "colorbar": bar})
    if selected is not None:
        _frame(figure, selected - 0.5, -0.5, selected + 0.5, n_states - 0.5)
    return Picture(figure, _targets_alt(examples), _targets_table(examples))


def _log(probability: float) -> float:
    return math.log10(max(probability, 10.0**LOWEST_DECADE))


def _targets_title(examples: Sequence[ExamplePath]) -> str:
    right = sum(example.target_rank[-1] == 1 for example in examples)
    return f"The last state puts the target first in {right} of {len(examples)} examples"


def _targets_alt(examples: Sequence[ExamplePath]) -> str:
    n_states = len(examples[0].target_probability)
    means = [sum(e.target_probability[state] for e in examples) / len(examples) for state in range(n_states)]
    rise = max(range(1, n_states), key=lambda state: means[state] - means[state - 1]) if n_states > 1 else 0
    return (
        f"{_targets_title(examples)}. The target's mean probability goes from {share(means[0])} at state 0 to "
        f"{share(means[-1])} at state {n_states - 1}; it rises most into state {rise}."
    )


def _targets_table(examples: Sequence[ExamplePath]) -> pd.DataFrame:
    rows = []
    for index, example in enumerate(examples):
        for state, probability in enumerate(example.target_probability):
            rank = example.target_rank[state]
            rows.append(
                {
                    "example": index + 1,
                    "target": example.target_token,
                    "state": state,
                    "probability": probability,
                    "rank": rank,
                }
            )
    return pd.DataFrame(rows)


def draw_lens(example: ExamplePath) -> Picture:
    """Draw one example's lens: at every state the best tokens, the target framed where it is among them."""
    width = max(len(tokens) for tokens in example.top_tokens)
    n_states = len(example.top_tokens)
    figure = new_figure(_lens_title(example), height=130 + 28 * n_states)
    figure.add_heatmap(
        z=[[mass for _, mass in tokens] + [None] * (width - len(tokens)) for tokens in example.top_tokens],
        text=[[_short(token) for token, _ in tokens] + [""] * (width - len(tokens)) for tokens in example.top_tokens],
        x=list(range(1, width + 1)),
        y=list(range(n_states)),
        texttemplate="%{text}",
        textfont={"size": SMALL_SIZE + 1},
        hovertemplate="state %{y}, place %{x}<br>%{text}: %{z:.3f}<extra></extra>",
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
    )
    for state, tokens in enumerate(example.top_tokens):
        for place, (token, _) in enumerate(tokens, start=1):
            if token == example.target_token:
                _frame(figure, place - 0.5, state - 0.5, place + 0.5, state + 0.5)
    figure.update_xaxes(title="place in the lens (1 = most likely)", tickmode="linear", dtick=1, showgrid=False)
    figure.update_yaxes(title="state", tickmode="array", tickvals=list(range(n_states)), showgrid=False)
    figure.update_layout(coloraxis={"cmin": 0, "cmax": 1, "colorbar": {"title": {"text": "probability"}}})
    return Picture(figure, _lens_alt(example), _lens_rows(example))


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
        return f"The target {target} is at place {example.target_rank[-1]} in the last state"
    return f"The target {target} is first from state {settled} on"


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
            rows.append({"state": state, "place": place, "token": token, "probability": mass})
    return pd.DataFrame(rows)


def _short(token: str) -> str:
    shown = visible(token)
    return shown if len(shown) <= TOKEN_WIDTH else shown[: TOKEN_WIDTH - 1] + "…"


def _frame(figure: go.Figure, x0: float, y0: float, x1: float, y1: float) -> None:
    figure.add_shape(type="rect", x0=x0, y0=y0, x1=x1, y1=y1, line={"color": FACTUAL.color, "width": 2.5})
