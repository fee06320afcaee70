"""The verdict as a picture: the four numbers of a choice beside the whole model, LoRA on all blocks, and controls."""

import pandas as pd
import plotly.graph_objects as go

from lsf.figures.palette import NEUTRAL, SMALL_SIZE, TEXT_SIZE, Picture, new_figure
from lsf.figures.runs import role_mark
from lsf.runs.seeds import ONE_SEED, Estimate
from lsf.runs.verdict import MEASURES, TIED, Measure, Standing, Verdict

ROW_HEIGHT = 46
"""Pixels per thing compared."""
TOP, BOTTOM = 62, 30
NATS = " nats"
NONE = {"share": 0.0, "forgetting": 0.0}
"""Where each measure's axis has a line: nothing gained, nothing forgotten; ratios have theirs at the whole model's."""
LEFT, RIGHT = 0.08, 1.0
"""Room beyond the outermost marks, to the right for the numbers, as a share of what lies between them."""


def draw_verdict(verdict: Verdict) -> Picture:
    """Draw one panel per known measure, one row per thing compared, and intervals where there are several seeds.

    Args:
        verdict: of one choice.
    """
    standings = verdict.standings
    figure = new_figure(verdict.headline, height=TOP + BOTTOM + ROW_HEIGHT * len(standings), showlegend=False)
    known = [one for one in MEASURES if any(getattr(standing, one.name) is not None for standing in standings)]
    measures = known or MEASURES
    titles = [_title(measure) for measure in measures]
    figure.set_subplots(1, len(measures), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.05)
    figure.update_layout(margin={"t": TOP, "b": BOTTOM})
    figure.update_annotations(font={"size": TEXT_SIZE})
    for place, measure in enumerate(measures, start=1):
        low, high = 0.0, 1.0 if measure.name != "forgetting" else 1e-3
        for standing in standings:
            found: Estimate | None = getattr(standing, measure.name)
            if found is None:
                continue
            low = min(low, found.mean if found.low is None else found.low)
            high = max(high, found.mean if found.high is None else found.high)
            _add(figure, place, measure, standing, found)
        line, level = {"color": NEUTRAL.color, "width": 1}, NONE.get(measure.name, 1.0)
        ends = {"y0": 0, "y1": 1, "yref": "paper", "xref": f"x{place if place > 1 else ''}"}
        figure.add_shape(type="line", layer="below", x0=level, x1=level, line=line, **ends)
        span = high - low
        ticks = ".0%" if measure.name == "share" else ""
        ends = [low - LEFT * span, high + RIGHT * span]
        figure.update_xaxes(range=ends, nticks=3, tickangle=0, zeroline=False, tickformat=ticks, row=1, col=place)
    rows = [standing.name for standing in standings][::-1]
    figure.update_yaxes(categoryorder="array", categoryarray=rows, range=[-0.5, len(rows) - 0.5], showgrid=False)
    labels = [_label(standing) for standing in verdict.standings][::-1]
    figure.update_yaxes(tickvals=rows, ticktext=labels, tickfont={"size": TEXT_SIZE}, ticksuffix="  ", row=1, col=1)
    return Picture(figure, _alt(verdict), _table(verdict))


def _title(measure: Measure) -> str:
    """Return what is over a panel; nats stand there, since beside every number they would not fit at 800 pixels."""
    return measure.label.lower() + (f" ({NATS.strip()})" if measure.write(0.0).endswith(NATS) else "")


def _label(standing: Standing) -> str:
    """Return what is beside a row: its name, and under it how the choice stands to it."""
    if standing.apart is None:
        return standing.name
    apart = {ONE_SEED: "1 seed, not told apart", TIED: TIED}.get(standing.apart, f"the choice is {standing.apart}")
    return f"{standing.name}<br><span style='font-size:{SMALL_SIZE}px'>{apart}</span>"


def _add(figure: go.Figure, place: int, measure: Measure, standing: Standing, found: Estimate) -> None:
    mark = role_mark(standing.role)
    whiskers = None
    if found.low is not None and found.high is not None:
        whiskers = {"type": "data", "symmetric": False, "array": [found.high - found.mean]}
        whiskers |= {"arrayminus": [found.mean - found.low], "color": mark.color}
    words = found.words(measure.write)
    figure.add_scatter(
        x=[found.mean],
        y=[standing.name],
        error_x=whiskers,
        mode="markers+text",
        text=[f"  {measure.write(found.mean).removesuffix(NATS)}"],
        textposition="middle right",
        textfont={"size": SMALL_SIZE + 1},
        marker={"color": mark.color, "symbol": mark.symbol, "size": 11},
        cliponaxis=False,
        hovertemplate=f"{standing.name}<br>{measure.label}: {measure.write(found.mean)}<br>{words}<extra></extra>",
        row=1,
        col=place,
    )


def _alt(verdict: Verdict) -> str:
    told = []
    for standing in verdict.standings:
        known = [(measure, getattr(standing, measure.name)) for measure in MEASURES]
        numbers = [
            f"{measure.label.lower()} {measure.write(found.mean)} ({found.words(measure.write)})"
            for measure, found in known
            if found is not None
        ]
        told.append(f"{standing.name}: {', '.join(numbers) or 'no ratio'}")
    return f"{verdict.sentence} {'; '.join(told)}. {' '.join(verdict.warnings)}".rstrip()


def _table(verdict: Verdict) -> pd.DataFrame:
    rows = []
    for standing in verdict.standings:
        row: dict[str, object] = {"tuned": standing.name, "runs": len(standing.runs)}
        for measure in MEASURES:
            found: Estimate | None = getattr(standing, measure.name)
            row[measure.label.lower()] = None if found is None else found.mean
            row[f"{measure.label.lower()}, interval"] = None if found is None else found.words(measure.write)
        rows.append({**row, "the choice is": standing.apart, "note": " ".join(standing.notes) or None})
    return pd.DataFrame(rows)
