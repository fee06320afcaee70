"""What a drawing function returns: a figure, its finding in words, and its data."""

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go


@dataclass(frozen=True)
class Picture:
    """One picture and what a reader needs who cannot see it."""

    figure: go.Figure
    """The Plotly figure, without a theme; its title states what is seen."""
    alt: str
    """The finding in words and numbers, for screen readers and captions."""
    table: pd.DataFrame
    """The numbers that were drawn."""

    @property
    def title(self) -> str:
        """The figure's title, a sentence that states what is seen."""
        return str(self.figure["layout"]["title"]["text"] or "")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number for a sentence: `unknown` for None, else with `digits` decimals."""
    return "unknown" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """Write a share for a sentence: `unknown`, `< 0.1 %`, or a percentage with as many decimals as it needs."""
    if value is None:
        return "unknown"
    percent = 100 * value
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def visible(token: str) -> str:
    """Write a token so that its spaces and line ends can be seen: ` Paris` -> `␣Paris`."""
    shown = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return shown or "(empty)"
