"""Colours, symbols and text sizes of every picture, one template per theme, and what a drawing function returns."""

import re
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go


@dataclass(frozen=True)
class Mark:
    """How one thing looks wherever it is drawn."""

    label: str
    """Its name in legends."""
    color: str
    """Hex colour."""
    symbol: str
    """Plotly marker symbol, also in 3-D."""
    dash: str
    """Plotly line dash."""
    pattern: str = ""
    """Plotly fill pattern of bars; empty for a solid fill."""


VIRTUAL = Mark("virtual", "#0072B2", "circle", "solid")
FACTUAL = Mark("factual", "#D55E00", "diamond", "dash", "/")
TUNED = Mark("factual after tuning", "#009E73", "square", "dashdot")
NEUTRAL = Mark("not chosen", "#6B7785", "square", "dot")
CHOSEN = Mark("chosen", "#D55E00", "diamond", "solid", "/")
UNCHOSEN = Mark("not chosen", "#0072B2", "circle", "solid")

ROLES = {
    "base": Mark("base model", "#6B7785", "x", "dot"),
    "choice": Mark("choice", "#D55E00", "diamond", "solid", "/"),
    "full": Mark("whole model", "#0072B2", "circle", "dash"),
    "first": Mark("first blocks", "#009E73", "triangle-up", "dot", "\\"),
    "middle": Mark("middle blocks", "#B58900", "hexagon", "dashdot", "-"),
    "last": Mark("last blocks", "#CC79A7", "triangle-down", "dashdot", "x"),
    "random": Mark("random blocks", "#6B7785", "square", "longdash", "."),
    "lora": Mark("LoRA on all blocks", "#0072B2", "hourglass", "dashdot", "-"),
    "manual": Mark("by hand", "#8A6FDF", "star", "longdashdot", "+"),
}
"""What a run stands for in a comparison -> how it looks."""

TEXT_SIZE = 13
TITLE_SIZE = 16
SMALL_SIZE = 11
FONT = "Source Sans, Source Sans Pro, system-ui, -apple-system, Segoe UI, sans-serif"


@dataclass(frozen=True)
class Theme:
    """What a template needs to know of a page."""

    name: str
    """light or dark."""
    background: str
    """Of the page."""
    text: str
    """Of titles and labels."""
    muted: str
    """Of ticks and notes."""
    grid: str
    """Of grid lines."""
    scale: tuple[tuple[float, str], ...]
    """Sequential colour scale, from nothing to much."""
    diverging: tuple[tuple[float, str], ...]
    """Diverging colour scale, from opposite over nothing to alike."""


LIGHT = Theme(
    "light",
    background="#FFFFFF",
    text="#1F2933",
    muted="#5B6770",
    grid="#E4E8EC",
    scale=((0.0, "#F3F6F9"), (0.25, "#BBD6EA"), (0.5, "#6AAED6"), (0.75, "#2380BE"), (1.0, "#084A82")),
    diverging=((0.0, "#A64500"), (0.25, "#E8A06B"), (0.5, "#F7F7F7"), (0.75, "#6AAED6"), (1.0, "#084A82")),
)
DARK = Theme(
    "dark",
    background="#0E1117",
    text="#E6EAEE",
    muted="#9AA7B4",
    grid="#2A323C",
    # Dark enough everywhere for white text: Plotly writes dark grey on what is lighter, which cannot be read on blue.
    scale=((0.0, "#171D26"), (0.25, "#12314E"), (0.5, "#174A75"), (0.75, "#1F619A"), (1.0, "#2878B5")),
    diverging=((0.0, "#B85A14"), (0.25, "#7A3400"), (0.5, "#1B222C"), (0.75, "#17507C"), (1.0, "#2878B5")),
)


def template(theme: Theme) -> dict[str, Any]:
    """Return the Plotly template of a theme: everything about a figure that is not its data."""
    axis = {
        "gridcolor": theme.grid,
        "linecolor": theme.grid,
        "zerolinecolor": theme.grid,
        "tickfont": {"color": theme.muted, "size": SMALL_SIZE + 1},
        "title": {"font": {"color": theme.muted, "size": TEXT_SIZE}, "standoff": 10},
        "automargin": True,
    }
    scene_axis = {
        "gridcolor": theme.grid,
        "zerolinecolor": theme.grid,
        "showbackground": False,
        "tickfont": {"color": theme.muted, "size": SMALL_SIZE},
        "title": {"font": {"color": theme.muted, "size": SMALL_SIZE + 1}},
    }
    return {
        "data": {
            "bar": [{"type": "bar", "error_y": {"color": theme.text}}],
            "heatmap": [{"type": "heatmap", "colorbar": _color_bar(theme)}],
        },
        "layout": {
            "font": {"family": FONT, "size": TEXT_SIZE, "color": theme.text},
            "title": {"font": {"size": TITLE_SIZE, "color": theme.text}, "x": 0, "xref": "paper", "xanchor": "left"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "scene": {"xaxis": scene_axis, "yaxis": scene_axis, "zaxis": scene_axis},
            "coloraxis": {"colorscale": [list(stop) for stop in theme.scale], "colorbar": _color_bar(theme)},
            "colorscale": {"diverging": [list(stop) for stop in theme.diverging]},
            "hoverlabel": {
                "bgcolor": theme.background,
                "bordercolor": theme.grid,
                "font": {"color": theme.text, "size": TEXT_SIZE, "family": FONT},
                "align": "left",
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "yanchor": "bottom",
                "font": {"size": TEXT_SIZE, "color": theme.text},
                "bgcolor": "rgba(0,0,0,0)",
            },
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.muted, "activecolor": theme.text},
            "sliderdefaults": {"bgcolor": theme.muted, "bordercolor": theme.muted, "activebgcolor": theme.text},
            "updatemenudefaults": {"bgcolor": theme.background, "bordercolor": theme.muted},
            "dragmode": "zoom",
        },
    }


def _color_bar(theme: Theme) -> dict[str, Any]:
    small = {"color": theme.muted, "size": SMALL_SIZE + 1}
    return {"outlinewidth": 0, "thickness": 12, "tickfont": small, "title": {"font": small, "side": "right"}}


WITHOUT_LEGEND = {"l": 8, "r": 8, "t": 40, "b": 8}
"""Margins of a figure that has no legend; room for the buttons stays."""


def new_figure(title: str, height: int, **layout: Any) -> go.Figure:
    """Return an empty figure with the house layout and no theme yet.

    Args:
        title: what is seen, in one short sentence.
        height: in pixels.
        layout: further Plotly layout properties; they win over the defaults.
    """
    figure = go.Figure()
    defaults = {
        "template": {},
        "title": {"text": title},
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 66, "b": 8},
        "uirevision": "keep",
    }
    figure.update_layout(**{**defaults, **layout})
    return figure


def themed(figure: go.Figure, theme: Theme) -> go.Figure:
    """Return a copy of the figure that stands alone on a page of that theme, where no click does anything."""
    copy = go.Figure(without_hints(figure.to_dict()))
    copy.update_layout(template=template(theme))
    return copy


HINT = re.compile(r"<br>click [^<]*")
"""What a click does, at the end of what is written under the pointer."""


def without_hints(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure as Plotly's plain values without the words on what a click does."""

    def plain(text: Any) -> Any:
        if isinstance(text, str):
            return HINT.sub("", text)
        return [plain(one) for one in text] if isinstance(text, list | tuple) else text

    named = ("hovertemplate", "hovertext")
    traces = [{**trace, **{name: plain(trace[name]) for name in named if name in trace}} for trace in figure["data"]]
    return {**figure, "data": traces}


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


def bytes_words(count: float) -> str:
    """Write bytes for people: `0.0 MB`, `8.2 kB`, `3.2 MB`, `14.1 GB`; what is small is not written as nothing."""
    if 0 < count < 0.05e6:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 0.99995e9 else f"{count / 1e6:.1f} MB"


def ending(text: str, characters: int) -> str:
    """Return a text, or where it is longer its last so many characters behind an ellipsis."""
    return text if len(text) <= characters else f"…{text[-characters:]}"


def untagged(text: str) -> str:
    """Return a text that Plotly shows as it stands; of quotes it knows no entity, and they need none."""
    return escape(text, quote=False)


def visible(token: str) -> str:
    """Write a token so that its spaces and line ends can be seen: ` Paris` -> `␣Paris`."""
    shown = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return shown or "(empty)"
