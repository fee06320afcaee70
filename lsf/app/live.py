"""The live chart: a Components-v2 wrapper around `Plotly.react`.

`st.plotly_chart` builds a chart anew whenever its figure changes and loses the reader's zoom; this one is updated in
place. plotly.js travels once per browser session, afterwards only a figure's data does. Text and grid colours are put
in by the browser, so that a chart follows a switch between light and dark at once.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
import streamlit.components.v2 as components
from plotly.offline import get_plotlyjs

from lsf.figures.palette import DARK, LIGHT, Picture, template, without_hints

LOADER = """
// plotly.js and the templates, put into the page once
export default function (component) {
  window.lsfTemplates = component.data;
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = %s;
  document.head.appendChild(script);
}
"""
TITLE_SPACE = 4
"""Pixels a figure needs less when its title stands above it as text; the rest is for the buttons over the legend."""


@cache
def _loader() -> Any:
    return components.component("lsf_plotly", js=LOADER % json.dumps(get_plotlyjs()))


@cache
def _chart() -> Any:
    return components.component(
        "lsf_chart",
        html="<div class='lsf-chart' role='figure'></div>",
        js=Path(__file__).with_name("live_chart.js").read_text(encoding="utf-8"),
        isolate_styles=False,
    )


def send_plotly() -> None:
    """Send plotly.js to this browser; once in a script run, before or after the charts."""
    _loader()(key="lsf_plotly", data=_templates(), height=1)


def live_chart(picture: Picture, key: str, on_click: Callable[[Any], None] | None = None) -> None:
    """Draw a picture, or update the one drawn under the same key.

    Args:
        picture: its title is left to the caller, who shows it as text; it comes back in a saved image.
        key: names the chart from one script run to the next.
        on_click: called before the script run that a click starts, with what the clicked mark carries in `customdata`.
    """
    figure = picture.figure.to_dict() if on_click is not None else without_hints(picture.figure.to_dict())
    layout = figure["layout"]
    top, height = layout["margin"]["t"], layout["height"]
    figure["layout"] = {
        **layout,
        "title": {"text": ""},
        "height": height - TITLE_SPACE,
        "margin": {**layout["margin"], "t": top - TITLE_SPACE},
    }
    _chart()(
        key=key,
        data={
            "figure": json.dumps(figure),
            "height": height - TITLE_SPACE,
            "title": picture.title,
            "alt": picture.alt,
            "clickable": on_click is not None,
        },
        height=height - TITLE_SPACE,  # reserved before the chart is drawn, so that nothing below it jumps
        on_clicked_change=lambda: _report_click(key, on_click),
    )


@cache
def _templates() -> dict[str, Any]:
    return {"light": template(LIGHT), "dark": template(DARK)}


def _report_click(key: str, on_click: Callable[[Any], None] | None) -> None:
    value = st.session_state[key].clicked
    if on_click is not None and value is not None:
        on_click(value)
