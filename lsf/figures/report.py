"""A page that stands alone: pictures, tables and notes in one HTML file that opens offline, plotly.js inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from lsf.figures.palette import LIGHT, themed
from lsf.figures.picture import Picture

STYLE = """
body{font-family:system-ui,-apple-system,"Segoe UI",sans-serif;color:#1F2933;max-width:1100px;margin:2.5rem auto;
padding:0 1.25rem;line-height:1.5}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2.2rem 0 .2rem}
p{max-width:46rem}p.note,figcaption,footer{color:#5B6770;font-size:.9rem}figure{margin:0}table{border-collapse:collapse;
font-size:.85rem;font-variant-numeric:tabular-nums}th,td{padding:.25rem .7rem;border-bottom:1px solid #E4E8EC;
text-align:left;white-space:nowrap}.wide{overflow-x:auto}summary{cursor:pointer;color:#0072B2;font-size:.9rem}
footer{margin-top:3rem}
"""


@dataclass(frozen=True)
class Section:
    """One part of a report."""

    title: str
    """Its heading; a picture's own title where it is empty."""
    note: str = ""
    """One or two sentences under the heading."""
    picture: Picture | None = None
    """Drawn with its data folded away beneath."""
    table: pd.DataFrame | None = None
    """Shown in full."""


def html_report(title: str, lead: str, sections: Sequence[Section], made_by: str) -> str:
    """Write a stand-alone page.

    Args:
        title: of the page.
        lead: one or two sentences on what was done.
        sections: in reading order; plotly.js is put in once, before the first picture.
        made_by: what made it and when, for the foot of the page.

    Returns:
        HTML that needs no other file and no network.
    """
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(lead)}</p>",
    ]
    with_plotly = True
    for section in sections:
        parts.append(_section(section, with_plotly))
        with_plotly = with_plotly and section.picture is None
    parts.append(f"<footer>{escape(made_by)}</footer></body></html>")
    return "\n".join(parts)


def _section(section: Section, with_plotly: bool) -> str:
    heading = section.title or (section.picture.title if section.picture else "")
    parts = [f"<h2>{escape(heading)}</h2>"]
    if section.note:
        parts.append(f"<p class='note'>{escape(section.note)}</p>")
    if section.picture is not None:
        parts.append(_figure(section.picture, with_plotly))
    if section.table is not None:
        parts.append(f"<div class='wide'>{_table(section.table)}</div>")
    return "".join(parts)


def _figure(picture: Picture, with_plotly: bool) -> str:
    figure = themed(picture.figure, LIGHT)
    figure.update_layout(title={"text": ""}, margin={"t": 40})
    div = figure.to_html(
        full_html=False,
        auto_play=False,
        include_plotlyjs=with_plotly,
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False},
    )
    return (
        f"<figure role='group' aria-label='{escape(picture.alt, quote=True)}'>{div}"
        f"<figcaption>{escape(picture.alt)}</figcaption></figure>"
        f"<details><summary>The data as a table</summary><div class='wide'>{_table(picture.table)}</div></details>"
    )


def _table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, na_rep="", float_format="{:.4g}".format, border=0, escape=True)
