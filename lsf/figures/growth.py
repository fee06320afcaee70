"""How many examples suffice: how soon growing samples rank the blocks as all examples do."""

from collections.abc import Sequence

import pandas as pd

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.result import Analysis
from lsf.analysis.settling import AGREEMENT, LEAST_EXAMPLES, Stability, stability
from lsf.figures.palette import FACTUAL, NEUTRAL, ROLES, SMALL_SIZE, VIRTUAL, Mark, new_figure
from lsf.figures.picture import Picture, number, share

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
    figure = new_figure(_title(rows, label), height=360, hovermode="x unified")
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
        note = {"text": f"--limit auto: {stop}", "font": {"size": SMALL_SIZE + 1}, "yanchor": "bottom"}
        figure.add_vline(x=stop, line={"color": NEUTRAL.color, "width": 1.5}, annotation=note)
    figure.update_xaxes(title="examples read", type="log", tickvals=counts, ticktext=[f"{n:,}" for n in counts])
    known = [value for _, _, values in curves for value in values if value is not None]
    figure.update_yaxes(title="agreement", range=[min(-0.03, *known) - 0.02, 1.06])
    return Picture(figure, _alt(rows, label), _table(rows))


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


def _title(rows: Sequence[Stability], label: str) -> str:
    stable, whole = _stable_from(rows), rows[-1].n_examples
    if stable is None:
        return f"Examples that suffice for {label}: more than the samples of {whole:,}"
    return f"Examples that suffice for {label}: {stable:,} of {whole:,} rank the blocks as all do"


def _alt(rows: Sequence[Stability], label: str) -> str:
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


def _table(rows: Sequence[Stability]) -> pd.DataFrame:
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
