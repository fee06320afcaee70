"""Bars: the deviation of each state with its interval, and the score of each block with the chosen ones marked."""

import math
from collections.abc import Collection, Sequence

import pandas as pd

from lsf.criteria.result import Analysis, StateRow
from lsf.figures.palette import CHOSEN, FACTUAL, UNCHOSEN, VIRTUAL, Picture, new_figure, number
from lsf.plans.plan import format_blocks
from lsf.wording import counted

BAR_WIDTH = 0.72
HALF = 17
"""Numbers that stand level under a picture of half the page's width."""
FEW = 16
"""Blocks at most whose bars are wide enough for a word above them."""
PATTERN = {"fillmode": "overlay", "fgcolor": "#FFFFFF", "fgopacity": 0.55, "size": 8}


def draw_deviation(analysis: Analysis) -> Picture:
    """Draw the deviation and the target deviation of every state, each with its 95 % interval over examples."""
    rows = analysis.states
    known = [(row.deviation, row.state) for row in rows if row.deviation is not None]
    title = f"Deviation is greatest at state {max(known)[1]}" if known else "Deviation per state"
    figure = new_figure(title, height=460, bargap=0.3)
    states = [row.state for row in rows]
    figure.add_bar(
        x=states,
        y=[row.deviation for row in rows],
        name="deviation from the virtual path",
        error_y=_whiskers([(row.deviation, row.deviation_low, row.deviation_high) for row in rows]),
        marker={"color": VIRTUAL.color, "opacity": 0.85},
        customdata=states,
        hovertemplate="state %{x}<br>deviation %{y:.3f}<extra></extra>",
    )
    targets = [(row.target_deviation, row.target_deviation_low, row.target_deviation_high) for row in rows]
    figure.add_scatter(
        x=states,
        y=[row.target_deviation for row in rows],
        mode="lines+markers",
        name="deviation from the target",
        error_y=_whiskers(targets),
        line={"color": FACTUAL.color, "dash": FACTUAL.dash, "width": 2},
        marker={"color": FACTUAL.color, "symbol": FACTUAL.symbol, "size": 9},
        hovertemplate="state %{x}<br>target deviation %{y:.3f}<extra></extra>",
    )
    ends = [-0.6, len(rows) - 0.4]  # states that are not read yet have their place
    figure.update_xaxes(
        title="state", tickmode="array", tickvals=every(states, HALF), tickangle=0, showgrid=False, range=ends
    )
    beginning = axis_beginning(rows)
    if beginning:
        figure.update_yaxes(title=f"1 - cos (the axis begins at {beginning:g})", range=[beginning, _highest(rows)])
        if (first := rows[0].deviation) is not None and first < beginning:
            figure.add_annotation(
                x=0, y=beginning, text=f"{first:.2f}".rstrip("0").rstrip("."), showarrow=False, yanchor="bottom"
            )
    else:
        figure.update_yaxes(title="1 - cos", rangemode="tozero")
    return Picture(figure, _deviation_alt(rows), pd.DataFrame([_deviation_row(row) for row in rows]))


SEEN = 0.5
"""Where all states but the first lie within this share of the highest, the axis does not begin at zero."""


def axis_beginning(rows: Sequence[StateRow]) -> float:
    """Return where the axis of the deviations begins: at zero, or where their differences can be seen.

    State 0 is left out: there both paths begin in the same point.
    """
    ends = [(row.deviation, row.deviation_low) for row in rows[1:]]
    ends += [(row.target_deviation, row.target_deviation_low) for row in rows]
    known = [value if low is None else low for value, low in ends if value is not None]
    if not known or min(known) < SEEN * _highest(rows):
        return 0.0
    return math.floor(10 * min(known) - 0.3) / 10


def _highest(rows: Sequence[StateRow]) -> float:
    ends = [(row.deviation, row.deviation_high) for row in rows]
    ends += [(row.target_deviation, row.target_deviation_high) for row in rows]
    return 1.02 * max((value if high is None else high for value, high in ends if value is not None), default=1.0)


def _deviation_row(row: StateRow) -> dict[str, float | None]:
    names = ("deviation", "deviation_low", "deviation_high")
    names += tuple(f"target_{name}" for name in names)
    return {"state": row.state, **{name: getattr(row, name) for name in names}}


def _deviation_alt(rows: Sequence[StateRow]) -> str:
    known = [row for row in rows if row.deviation is not None]
    if not known:
        return f"No deviation is known yet for the {len(rows)} states."
    peak = max(known, key=lambda row: row.deviation or 0.0)
    text = f"The deviation of {len(rows)} states is greatest at state {peak.state} with {number(peak.deviation)}"
    if peak.deviation_low is not None and peak.deviation_high is not None:
        text += f" (95 % interval {number(peak.deviation_low)} to {number(peak.deviation_high)})"
    first, last = number(rows[0].target_deviation), number(rows[-1].target_deviation)
    return f"{text}. The deviation from the target goes from {first} at state 0 to {last} at state {rows[-1].state}."


Ends = Sequence[tuple[float | None, float | None]]
"""Low and high end of each block's interval."""


def score_intervals(analysis: Analysis, criterion: str) -> Ends | None:
    """Return the 95 % interval of each block's score; None for criteria whose interval is not known.

    The score of `deviation` is that of the state leaving the block, whose interval over examples is known.
    """
    if criterion != "deviation":
        return None
    return [(row.deviation_low, row.deviation_high) for row in analysis.states[1:]]


LONG = 40
"""Characters of an axis title beyond which the unit stands alone; what the score is stands above the picture."""


def draw_scores(
    scores: Sequence[float | None],
    chosen: Collection[int],
    label: str,
    unit: str,
    height: int = 340,
    intervals: Ends | None = None,
) -> Picture:
    """Draw one score per block; the chosen blocks are marked by colour, by a hatched fill, and by a word.

    Args:
        scores: of each block, block 0 first; None where it was not measured.
        chosen: blocks that the plan tunes.
        label: what the score is, for the title and the axis.
        unit: of the score; empty for none.
        height: in pixels.
        intervals: ends of each score's 95 % interval, drawn as whiskers; None where they are unknown.

    Returns:
        A picture whose bars carry their block in `customdata`, so that a click can toggle it.
    """
    blocks = list(range(len(scores)))
    title = f"{label}: {_chosen_words(chosen)} of {len(scores)} chosen"
    figure = new_figure(title, height=height, barmode="overlay")
    for mark, own in ((UNCHOSEN, [b for b in blocks if b not in chosen]), (CHOSEN, [b for b in blocks if b in chosen])):
        figure.add_bar(
            x=own,
            y=[scores[block] for block in own],
            error_y=None if intervals is None else _whiskers([(scores[block], *intervals[block]) for block in own]),
            name="tuned" if mark is CHOSEN else "frozen",
            customdata=own,
            width=BAR_WIDTH,
            marker={"color": mark.color, "pattern": {**PATTERN, "shape": mark.pattern}},
            text=["tuned" if mark is CHOSEN and len(blocks) <= FEW else ""] * len(own),
            textposition="outside",
            cliponaxis=False,
            hovertemplate="block %{x}<br>" + label + " %{y:.4g}<br>click to change the choice<extra></extra>",
        )
    axis = label if not unit else unit if len(unit) + len(label) > LONG else f"{label} ({unit})"
    figure.update_xaxes(title="block", tickmode="array", tickvals=every(blocks, HALF), tickangle=0, showgrid=False)
    figure.update_yaxes(title=axis)
    table = pd.DataFrame({"block": blocks, "score": list(scores), "tuned": [block in chosen for block in blocks]})
    if intervals is not None:
        table["low"], table["high"] = [low for low, _ in intervals], [high for _, high in intervals]
    return Picture(figure, _scores_alt(scores, chosen, label), table)


def _chosen_words(chosen: Collection[int]) -> str:
    if not chosen:
        return "no block"
    return f"block{'s' if len(chosen) > 1 else ''} {format_blocks(chosen)}"


def _scores_alt(scores: Sequence[float | None], chosen: Collection[int], label: str) -> str:
    known = [(score, block) for block, score in enumerate(scores) if score is not None]
    if not known:
        return f"{label} was measured for none of the {counted(len(scores), 'block')}; tuned: {_chosen_words(chosen)}."
    best, worst = max(known), min(known)
    return (
        f"{label} per block: highest {best[0]:.4g} at block {best[1]}, lowest {worst[0]:.4g} at block {worst[1]}. "
        f"Tuned: {_chosen_words(chosen)} of {len(scores)}; the others stay frozen."
    )


def _whiskers(values: Sequence[tuple[float | None, float | None, float | None]]) -> dict[str, object]:
    """Plotly error bars from (value, low, high); a bar without an interval gets none."""

    def distance(value: float | None, end: float | None) -> float:
        return 0.0 if value is None or end is None else abs(end - value)

    return {
        "type": "data",
        "symmetric": False,
        "array": [distance(value, high) for value, _, high in values],
        "arrayminus": [distance(value, low) for value, low, _ in values],
        "thickness": 1.5,
        "width": 5,
    }


def every(numbers: Sequence[int], most: int = 33) -> list[int]:
    """Return the numbers that an axis names: all of `most`; of more every other, every third, ..."""
    return list(numbers[:: -(-len(numbers) // most) or 1])
