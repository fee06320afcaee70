"""The logit lens as a map: states by tokens to be predicted, coloured by what the head would say of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from lsf.analysis.result import ExamplePath
from lsf.figures.lens import frame_cell, short
from lsf.figures.palette import FACTUAL, SMALL_SIZE, WITHOUT_LEGEND, new_figure
from lsf.figures.picture import Picture, share, visible
from lsf.registry import Registry

LOWEST_DECADE = -5
"""Probabilities are coloured by their logarithm, from ten to this power up to 1; lower ones look like it."""
DEEPEST_RANK = 5
"""Ranks are coloured by their logarithm, from 1 down to ten to this power; deeper ones look like it."""
COLUMNS_WITH_TEXT = 14
"""Tokens are written into the cells of maps of so many columns at most; in wider ones they show under the pointer."""


@dataclass(frozen=True)
class View:
    """One thing a map can show of each cell."""

    name: str
    """Key."""
    label: str
    """Short name of the switch, and title of the colours."""
    meaning: str
    """One sentence on what a cell's colour says."""
    value: Callable[[ExamplePath, int], float]
    """Example and state -> colour value."""
    title: str
    """Of the colour bar."""
    ticks: Mapping[float, str]
    """Colour value -> how it is written, from the palest colour to the fullest."""


def _target_decade(example: ExamplePath, state: int) -> float:
    return math.log10(max(example.target_probability[state], 10.0**LOWEST_DECADE))


def _rank_decade(example: ExamplePath, state: int) -> float:
    return -min(math.log10(example.target_rank[state]), DEEPEST_RANK)


def _best_mass(example: ExamplePath, state: int) -> float:
    return example.top_tokens[state][0][1] if example.top_tokens[state] else 0.0


VIEWS: Registry[View] = Registry(
    "view",
    (
        View(
            "probability",
            "Target's probability",
            "Colour: the probability the target has, on a logarithmic scale.",
            _target_decade,
            "probability",
            {float(decade): f"{10.0**decade:.{-decade}f}" for decade in range(LOWEST_DECADE, 1)},
        ),
        View(
            "rank",
            "Target's rank",
            "Colour: the target's rank among all tokens, on a logarithmic scale; fullest is rank 1.",
            _rank_decade,
            "rank",
            {-float(decade): f"{10**decade:,}" for decade in range(DEEPEST_RANK, -1, -1)},
        ),
        View(
            "best",
            "Most likely token",
            "Colour: the probability of the token the head would say; a diamond where it is the target.",
            _best_mass,
            "its probability",
            {0.0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1"},
        ),
    ),
)


def draw_targets(
    examples: Sequence[ExamplePath], selected: int | None = None, state: int | None = None, view: str = "probability"
) -> Picture:
    """Draw the logit lens of every kept token to be predicted, state by token.

    Args:
        examples: the kept positions, one column each.
        selected: index of the column to frame.
        state: row to frame in that column; None for the whole column.
        view: a key of `VIEWS`.

    Returns:
        A picture whose cells carry the example's index and the state in `customdata`, so that a click can pick both.
    """
    shown = VIEWS[view]
    n_states = len(examples[0].target_probability)
    rows, columns = range(n_states), range(len(examples))
    figure = new_figure(_title(examples), height=124 + 26 * n_states, margin=WITHOUT_LEGEND)
    written = view == "best" and len(examples) <= COLUMNS_WITH_TEXT
    figure.add_heatmap(
        z=[[shown.value(example, row) for example in examples] for row in rows],
        x=list(columns),
        y=list(rows),
        customdata=[[[column, row] for column in columns] for row in rows],
        text=[[short(_best(example, row)) for example in examples] for row in rows],
        texttemplate="%{text}" if written else "",
        textfont={"size": SMALL_SIZE},
        hovertext=[[_hover(index, example, row) for index, example in enumerate(examples)] for row in rows],
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
    )
    if view == "best" and not written:
        _mark_right(figure, examples, n_states)
    names = [f"{index + 1} {short(example.target_token)}" for index, example in enumerate(examples)]
    figure.update_xaxes(title="token to be predicted", tickvals=list(columns), ticktext=names, tickangle=-60)
    figure.update_yaxes(title="state", tickmode="array", tickvals=list(rows))
    figure.update_layout(coloraxis=_colors(shown))
    if selected is not None:
        low, high = (-0.5, n_states - 0.5) if state is None else (state - 0.5, state + 0.5)
        frame_cell(figure, selected - 0.5, low, selected + 0.5, high)
    return Picture(figure, _alt(examples), _table(examples))


def _colors(shown: View) -> dict[str, object]:
    values = list(shown.ticks)
    bar = {"title": {"text": shown.title}, "tickvals": values, "ticktext": list(shown.ticks.values())}
    return {"cmin": values[0], "cmax": values[-1], "colorbar": bar}


def _mark_right(figure: go.Figure, examples: Sequence[ExamplePath], n_states: int) -> None:
    right = [(c, r) for c, example in enumerate(examples) for r in range(n_states) if example.target_rank[r] == 1]
    figure.add_scatter(
        x=[column for column, _ in right],
        y=[row for _, row in right],
        mode="markers",
        marker={"symbol": FACTUAL.symbol, "color": FACTUAL.color, "size": 7},
        customdata=[[column, row] for column, row in right],
        hovertext=[_hover(column, examples[column], row) for column, row in right],
        hoverinfo="text",
        showlegend=False,
    )


def _best(example: ExamplePath, state: int) -> str:
    return example.top_tokens[state][0][0] if example.top_tokens[state] else ""


def _hover(index: int, example: ExamplePath, state: int) -> str:
    best = example.top_tokens[state][0] if example.top_tokens[state] else ("", 0.0)
    return (
        f"position {index + 1}, state {state}<br>target {visible(example.target_token)}: probability "
        f"{example.target_probability[state]:.3f}, rank {example.target_rank[state]:,}<br>"
        f"most likely {visible(best[0])}: {best[1]:.3f}<br>click for all kept tokens"
    )


def _title(examples: Sequence[ExamplePath]) -> str:
    right = sum(example.target_rank[-1] == 1 for example in examples)
    return f"Logit lens: the last state puts the target first at {right} of {len(examples)} positions"


def _alt(examples: Sequence[ExamplePath]) -> str:
    n_states = len(examples[0].target_probability)
    means = [
        sum(example.target_probability[state] for example in examples) / len(examples) for state in range(n_states)
    ]
    rise = max(range(1, n_states), key=lambda state: means[state] - means[state - 1]) if n_states > 1 else 0
    return (
        f"{_title(examples)}. The target's mean probability goes from {share(means[0])} at state 0 to "
        f"{share(means[-1])} at state {n_states - 1}; it rises most into state {rise}."
    )


def _table(examples: Sequence[ExamplePath]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "position": index + 1,
                "target": example.target_token,
                "state": state,
                "probability": probability,
                "rank": example.target_rank[state],
                "most likely": _best(example, state),
            }
            for index, example in enumerate(examples)
            for state, probability in enumerate(example.target_probability)
        ]
    )
