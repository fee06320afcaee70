"""What a run gains against what it costs: one mark per run, seeds as whiskers, the Pareto front as a line."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from lsf.figures.curves import role_mark
from lsf.figures.palette import NEUTRAL, SMALL_SIZE, new_figure
from lsf.figures.picture import Picture


@dataclass(frozen=True)
class Outcome:
    """One kind of run, over its seeds."""

    label: str
    """The tuned blocks in words."""
    role: str
    """What it stands for: one of `lsf.jobs.spec.ROLES`."""
    costs: tuple[float, ...]
    """Cost of each seed, lower is better."""
    qualities: tuple[float, ...]
    """Quality of each seed."""

    @property
    def name(self) -> str:
        """Its name in legends: what it stands for, and its blocks."""
        mark = role_mark(self.role)
        return self.label if self.label.startswith(self.role) else f"{mark.label}: {self.label}"

    @property
    def cost(self) -> float:
        """Mean cost over seeds."""
        return sum(self.costs) / len(self.costs)

    @property
    def quality(self) -> float:
        """Mean quality over seeds."""
        return sum(self.qualities) / len(self.qualities)


def draw_tradeoff(
    outcomes: Sequence[Outcome],
    front: Sequence[int],
    quality: str,
    cost: str,
    baseline: float | None = None,
    share: bool = False,
) -> Picture:
    """Draw quality against cost.

    Args:
        outcomes: at least one run.
        front: indices into `outcomes` that no other run beats in both.
        quality: what the vertical axis is, with unit.
        cost: what the horizontal axis is, with unit.
        share: the quality is a share in [0, 1], told in percent.
        baseline: quality of the model before any tuning, drawn as a level; None where it is not known.
    """
    figure = new_figure(_title(outcomes, quality, cost, share), height=440)
    ordered = sorted(front, key=lambda index: outcomes[index].cost)
    if len(ordered) > 1:
        figure.add_scatter(
            x=[outcomes[index].cost for index in ordered],
            y=[outcomes[index].quality for index in ordered],
            mode="lines",
            line={"color": NEUTRAL.color, "width": 1.5, "dash": "dot"},
            name="Pareto front",
            hoverinfo="skip",
        )
    for outcome in outcomes:
        _add_outcome(figure, outcome)
    if baseline is not None:
        figure.add_hline(
            y=baseline,
            line={"color": NEUTRAL.color, "width": 1, "dash": "dash"},
            annotation={
                "text": f"before tuning {_told(baseline, share)}",
                "font": {"color": NEUTRAL.color, "size": SMALL_SIZE + 1},
            },
        )
    figure.update_xaxes(title=cost, rangemode="tozero")
    figure.update_yaxes(title=quality, rangemode="tozero", tickformat=".0%" if share else "")
    return Picture(figure, _alt(outcomes, front, quality, cost, share), _table(outcomes, front, quality, cost))


def _add_outcome(figure: go.Figure, outcome: Outcome) -> None:
    mark = role_mark(outcome.role)
    seeds = len(outcome.costs)
    note = f"{seeds} seeds, whiskers: lowest and highest" if seeds > 1 else "1 seed, no interval"
    figure.add_scatter(
        x=[outcome.cost],
        y=[outcome.quality],
        error_x=_range(outcome.costs, outcome.cost),
        error_y=_range(outcome.qualities, outcome.quality),
        mode="markers",
        cliponaxis=False,
        marker={"color": mark.color, "symbol": mark.symbol, "size": 13},
        name=outcome.name,
        hovertemplate=f"{outcome.name}<br>%{{y:.4g}} at %{{x:.4g}}<br>{note}<extra></extra>",
    )


def _range(values: Sequence[float], mean: float) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(values) - mean],
        "arrayminus": [mean - min(values)],
        "visible": len(values) > 1,
    }


def _told(quality: float, share: bool) -> str:
    return f"{quality:.1%}" if share else f"{quality:.3g}"


def _title(outcomes: Sequence[Outcome], quality: str, cost: str, share: bool) -> str:
    best = max(outcomes, key=lambda outcome: (outcome.quality, -outcome.cost))
    told, price = _told(best.quality, share), f"{best.cost:.3g} {_unit(cost)}"
    level = sum(outcome.quality == best.quality for outcome in outcomes)
    if level > 1:
        return f"Best {quality}: {told} by {level} of {len(outcomes)}, the cheapest {best.name} at {price}"
    return f"Best {quality}: {best.name}, {told} at {price}"


def _unit(axis: str) -> str:
    return axis.rpartition("(")[2].rstrip(")") if "(" in axis else axis


def _alt(outcomes: Sequence[Outcome], front: Sequence[int], quality: str, cost: str, share: bool) -> str:
    told = "; ".join(f"{o.name} {_told(o.quality, share)} at {o.cost:.3g}" for o in outcomes)
    unbeaten = ", ".join(outcomes[index].name for index in front)
    seeds = {len(outcome.costs) for outcome in outcomes}
    note = " Each is 1 seed, without an interval." if seeds == {1} else ""
    return f"{quality} against {cost}: {told}. Not beaten in both: {unbeaten}.{note}"


def _table(outcomes: Sequence[Outcome], front: Sequence[int], quality: str, cost: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": o.name,
                "stands for": o.role,
                "seeds": len(o.costs),
                cost: o.cost,
                quality: o.quality,
                "not beaten": index in front,
            }
            for index, o in enumerate(outcomes)
        ]
    )
