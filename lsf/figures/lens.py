"""What the model would predict at each depth: a table over all positions, one example's best tokens, a map."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from lsf.criteria.result import Analysis, ExamplePath
from lsf.figures.deviation import every
from lsf.figures.palette import (
    FACTUAL,
    NEUTRAL,
    SMALL_SIZE,
    WITHOUT_LEGEND,
    Picture,
    new_figure,
    share,
    untagged,
    visible,
)
from lsf.registry import Registry
from lsf.wording import counted

UP, DOWN, SAME, NEW = "▲", "▼", "=", "+"


def place_before(example: ExamplePath, state: int, token: str) -> int | None:
    """Return the place a token had one state before, 1 for the most likely.

    Only the best few tokens of each state are kept; of the target every rank is. None where the token was below them,
    and at state 0, before which there is none.
    """
    if state == 0:
        return None
    if token == example.target_token:
        return example.target_rank[state - 1]
    before = [name for name, _ in example.top_tokens[state - 1]]
    return before.index(token) + 1 if token in before else None


def change(example: ExamplePath, state: int, token: str, place: int) -> str:
    """Return a token's change of place since the state before: `▲ 2`, `▼ 1`, `=`, `+` (new); empty at state 0."""
    if state == 0:
        return ""
    before = place_before(example, state, token)
    if before is None:
        return NEW
    moved = before - place
    return SAME if moved == 0 else f"{UP if moved > 0 else DOWN} {abs(moved)}"


def ranks_table(example: ExamplePath, state: int) -> pd.DataFrame:
    """Return the best tokens of one state, where each was one state before, and the target where it is not among them.

    Args:
        example: a kept position.
        state: 0 .. L.

    Returns:
        One row per token, the best first; empty cells are unknown: a token marked `+` was below the kept ones.
    """
    kept = example.top_tokens[state]
    rows = [_row(example, state, token, place, mass) for place, (token, mass) in enumerate(kept, start=1)]
    if example.target_token not in [token for token, _ in kept]:
        rank, mass = example.target_rank[state], example.target_probability[state]
        rows.append(_row(example, state, example.target_token, rank, mass))
    table = pd.DataFrame(rows)
    return table.astype({"place before": "Int64"})


def _row(example: ExamplePath, state: int, token: str, place: int, mass: float) -> dict[str, object]:
    return {
        "place": place,
        "token": visible(token),
        "target": "target" if token == example.target_token else "",
        "probability": mass,
        "place before": place_before(example, state, token),
        "change": change(example, state, token, place),
    }


def ranks_words(example: ExamplePath, state: int) -> str:
    """Return what the table of one state shows, as one or two sentences."""
    target = visible(example.target_token)
    told = f"State {state}: the target {target} has rank {example.target_rank[state]:,}"
    if state == 0:
        return f"{told}; no state comes before."
    told += f", one state before {example.target_rank[state - 1]:,}."
    best = example.top_tokens[state][0][0] if example.top_tokens[state] else ""
    before = place_before(example, state, best)
    if before == 1:
        return f"{told} {visible(best)} stays first."
    came = (
        f"from rank {before:,}" if before is not None else f"from below the {len(example.top_tokens[state - 1])} kept"
    )
    return f"{told} {visible(best)} comes first {came}."


TOKENS = "most likely tokens (share where among the top 5)"
TOKEN_WIDTH = 9
"""Characters of a token that fit a cell."""
MAP_HEIGHT = 460
"""Pixels of a map's cells at most, however many states there are."""
ROWS_WITH_TEXT = 33
"""States whose tokens are written; of deeper models every other state, every third, ... is."""


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
    shown = states_shown(len(example.top_tokens), state)
    figure = new_figure(_lens_title(example), height=_height(len(shown)), margin=WITHOUT_LEGEND)
    best = [example.top_tokens[row] for row in shown]
    figure.add_heatmap(
        z=[[mass for _, mass in tokens] + [None] * (width - len(tokens)) for tokens in best],
        text=[_cells(example, row, width) for row in shown],
        x=list(range(1, width + 1)),
        y=list(range(len(shown))),
        customdata=[[row] * width for row in shown],
        texttemplate="%{text}",
        textfont={"size": SMALL_SIZE if len(shown) < ROWS_WITH_TEXT / 2 else SMALL_SIZE - 1},
        hovertemplate="state %{customdata}, rank %{x}<br>%{text}: %{z:.3g}<extra></extra>",
        coloraxis="coloraxis",
        xgap=2,
        ygap=2 if len(shown) < ROWS_WITH_TEXT / 2 else 1,
    )
    for row, tokens in enumerate(best):
        for place, (token, _) in enumerate(tokens, start=1):
            if token == example.target_token:
                frame_cell(figure, place - 0.5, row - 0.5, place + 0.5, row + 0.5)
    figure.update_xaxes(title="rank in the lens (1 = most likely)", tickmode="linear", dtick=1, showgrid=False)
    names = [f"▸ {row}" if row == state else str(row) for row in shown]
    figure.update_yaxes(title="state", tickvals=list(range(len(shown))), ticktext=names, showgrid=False)
    figure.update_layout(coloraxis={"cmin": 0, "cmax": 1, "colorbar": {"title": {"text": "probability"}}})
    return Picture(figure, _lens_alt(example), _lens_rows(example))


def states_shown(n_states: int, picked: int | None = None) -> list[int]:
    """Return the states that have a row of tokens: evenly many, counted from the last, and the picked one."""
    step = -(-n_states // ROWS_WITH_TEXT)
    return sorted({*range(n_states - 1, -1, -step), 0} | ({picked} if picked is not None else set()))


def _height(n_rows: int) -> int:
    return round(104 + min(28.0, MAP_HEIGHT / n_rows) * n_rows)


def _cells(example: ExamplePath, state: int, width: int) -> list[str]:
    tokens = example.top_tokens[state]
    words = [
        f"{untagged(short(token))}  {change(example, state, token, place)}"
        for place, (token, _) in enumerate(tokens, start=1)
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
        return f"Logit lens of {target}: rank {example.target_rank[-1]:,} in the last state"
    return f"Logit lens of {target}: first from state {settled} on"


def _lens_alt(example: ExamplePath) -> str:
    last = example.top_tokens[-1][0] if example.top_tokens[-1] else ("", None)
    return (
        f"{_lens_title(example)}. Its probability is {share(example.target_probability[0])} at state 0 and "
        f"{share(example.target_probability[-1])} at the last state, where {visible(last[0])} is most likely with "
        f"{share(last[1])}."
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


LOWEST_DECADE = -5
"""Probabilities are coloured by their logarithm, from ten to this power up to 1; lower ones look like it."""
DEEPEST_RANK = 5
"""Ranks are coloured by their logarithm, from 1 down to ten to this power; deeper ones look like it."""
NAMES_WIDTH = 48
"""Characters that fit under a map as narrow as half a page; a group of columns gets its share of them for its name."""


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


VIEWS: Registry[View] = Registry(
    "view",
    (
        View(
            "rank",
            "Target's rank",
            "Colour: the target's rank among all tokens, on a logarithmic scale; fullest is rank 1.",
            _rank_decade,
            "rank",
            {-float(decade): f"{10**decade:,}" for decade in range(DEEPEST_RANK, -1, -1)},
        ),
        View(
            "probability",
            "Target's probability",
            "Colour: the probability the target has, on a logarithmic scale.",
            _target_decade,
            "probability",
            {float(decade): f"{10.0**decade:.{-decade}f}" for decade in range(LOWEST_DECADE, 1)},
        ),
    ),
)


def draw_targets(
    examples: Sequence[ExamplePath], selected: int | None = None, state: int | None = None, view: str = "rank"
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
    rows, order = range(n_states), grouped(examples)
    figure = new_figure(_title(examples), height=_height(n_states), margin=WITHOUT_LEGEND)
    gap = 1 if n_states <= ROWS_WITH_TEXT else 0
    figure.add_heatmap(
        z=[[shown.value(examples[index], row) for index in order] for row in rows],
        x=list(range(len(order))),
        y=list(rows),
        customdata=[[[index, row] for index in order] for row in rows],
        hovertext=[[_hover(index, examples[index], row) for index in order] for row in rows],
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=gap,
        ygap=gap,
    )
    _name_groups(figure, [examples[index].target_token for index in order])
    figure.update_yaxes(title="state", tickmode="array", tickvals=every(list(rows)), showgrid=False)
    figure.update_layout(coloraxis=_colors(shown))
    if selected is not None:
        column = order.index(selected)
        low, high = (-0.5, n_states - 0.5) if state is None else (state - 0.5, state + 0.5)
        frame_cell(figure, column - 0.5, low, column + 0.5, high)
    return Picture(figure, _alt(examples), _table(examples))


def grouped(examples: Sequence[ExamplePath]) -> list[int]:
    """Return the examples' indices with those of one target side by side, the targets in order of appearance."""
    targets = list(dict.fromkeys(example.target_token for example in examples))
    return sorted(range(len(examples)), key=lambda index: targets.index(examples[index].target_token))


def _name_groups(figure: go.Figure, targets: Sequence[str]) -> None:
    """Part the columns of different targets by a line, and write each target once, level, where there is room."""
    starts = [place for place, target in enumerate(targets) if place == 0 or target != targets[place - 1]]
    ends = [*starts[1:], len(targets)]
    if len(starts) < len(targets):  # lines between groups of one say nothing
        for start in starts[1:]:
            line = {"color": NEUTRAL.color, "width": 1.5}
            figure.add_shape(type="line", x0=start - 0.5, x1=start - 0.5, y0=0, y1=1, yref="paper", line=line)
    room = [int(NAMES_WIDTH * (end - start) / len(targets)) - 1 for start, end in zip(starts, ends, strict=True)]
    names = [untagged(_cut(visible(targets[start]), width)) for start, width in zip(starts, room, strict=True)]
    centres = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    unnamed = "" if all(names) else "; more under the pointer"
    figure.update_xaxes(
        title=f"token to be predicted{unnamed}",
        tickvals=centres,
        ticktext=names,
        tickangle=0,
        tickfont={"size": SMALL_SIZE},
        showgrid=False,
    )


def _cut(name: str, width: int) -> str:
    """Return a name of so many characters at most; empty where hardly any of it would be left."""
    return name if len(name) <= width else f"{name[: width - 1]}…" if width > 3 else ""


def _colors(shown: View) -> dict[str, object]:
    values = list(shown.ticks)
    bar = {"title": {"text": shown.title}, "tickvals": values, "ticktext": list(shown.ticks.values())}
    return {"cmin": values[0], "cmax": values[-1], "colorbar": bar}


def _best(example: ExamplePath, state: int) -> str:
    return example.top_tokens[state][0][0] if example.top_tokens[state] else ""


def _hover(index: int, example: ExamplePath, state: int) -> str:
    best = example.top_tokens[state][0] if example.top_tokens[state] else ("", 0.0)
    target, first = untagged(visible(example.target_token)), untagged(visible(best[0]))
    return (
        f"position {index + 1}, state {state}<br>target {target}: probability "
        f"{example.target_probability[state]:.3g}, rank {example.target_rank[state]:,}<br>"
        f"most likely {first}: {best[1]:.3g}<br>click for all kept tokens"
    )


def _title(examples: Sequence[ExamplePath]) -> str:
    right = sum(example.target_rank[-1] == 1 for example in examples)
    return f"Logit lens: the last state puts the target first at {right} of {counted(len(examples), 'position')}"


def _alt(examples: Sequence[ExamplePath]) -> str:
    n_states = len(examples[0].target_probability)
    means = [
        sum(example.target_probability[state] for example in examples) / len(examples) for state in range(n_states)
    ]
    rise = max(range(1, n_states), key=lambda state: means[state] - means[state - 1]) if n_states > 1 else 0
    rises = rise and means[rise] > means[rise - 1]
    return (
        f"{_title(examples)}. The target's mean probability goes from {share(means[0])} at state 0 to "
        f"{share(means[-1])} at state {n_states - 1}; it {f'rises most into state {rise}' if rises else 'never rises'}."
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
