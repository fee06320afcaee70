"""Pages that stand alone, one HTML file that opens offline: an analysis with its choice, a comparison of runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

import lsf
from lsf.criteria.agreement import stability
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.figures.criteria import draw_agreement, draw_criteria, draw_growth, measured_scores
from lsf.figures.deviation import draw_deviation, draw_scores, score_intervals
from lsf.figures.lens import draw_lens, draw_targets, lens_table
from lsf.figures.palette import LIGHT, Picture, themed
from lsf.figures.trajectories import draw_paths
from lsf.plans.plan import Plan
from lsf.wording import counted

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


OURS = (
    "The deviation follows the idea of arXiv 2406.11753; the formulas of deviation and gain are our own reading of it, "
    "not the paper's."
)


def analysis_page(analysis: Analysis, plan: Plan | None = None) -> str:
    """Return the page of an analysis, with the chosen blocks where there is a plan."""
    model, data = analysis.model, analysis.data
    sections: list[Section] = []
    if analysis.trajectories is not None:
        note = "Paths in one common PCA; the slider under the picture goes through the states."
        sections.append(Section("", note, draw_paths(analysis)))
    sections.append(Section("", OURS, draw_deviation(analysis)))
    sections += _choice(analysis, plan)
    sections += _side_by_side(analysis, plan)
    if analysis.trajectories is not None and analysis.trajectories.examples:
        sections.append(
            Section("", "One column per token to be predicted.", draw_targets(analysis.trajectories.examples))
        )
        note = (
            "The first example kept. Arrows: ranks gained or lost since the state before; new: below the kept tokens."
        )
        sections.append(Section("", note, draw_lens(analysis.trajectories.examples[0])))
    sections.append(Section("Logit lens per state", table=lens_table(analysis)))
    lead = (
        f"{model.name} ({model.family}, {counted(model.n_blocks, 'block')}, {counted(model.n_params, 'parameter')}, "
        f"{model.dtype}) on {counted(data.n_examples, 'example')} of {data.name} ({data.split}), "
        f"{counted(data.n_positions, 'position')}, {data.reading} reading, {data.virtual} virtual transition; "
        f"{counted(data.n_dropped, 'example')} did not fit."
    )
    lead = " ".join([lead, *data.told])
    return html_report(f"Deviation of {model.name} on {data.name}", lead, sections, made_by())


def _side_by_side(analysis: Analysis, plan: Plan | None) -> list[Section]:
    """Return what compares the criteria with each other, and growing samples with all examples."""
    scores = measured_scores(analysis)
    if not scores:
        return []
    chosen = _criterion(analysis, plan)
    note = "Every panel has its own axis, which need not begin at zero; diamonds: the first quarter of the blocks."
    unknown = "?: one of both criteria gives all blocks the same score."
    sections = [
        Section("", note, draw_criteria(scores, chosen)),
        Section("", unknown, draw_agreement(scores, chosen=chosen)),
    ]
    grown = next((name for name in (chosen, *scores) if name and stability(analysis, name)), None)
    if grown is not None:
        note = "Samples end in agreement with the whole by construction; two halves of a sample share no example."
        sections.append(Section("", note, draw_growth(analysis, grown)))
    return sections


def _criterion(analysis: Analysis, plan: Plan | None) -> str | None:
    """Return the plan's criterion, or the first that was measured."""
    wanted = plan.criterion if plan is not None else None
    return wanted if wanted in analysis.criteria else next(iter(analysis.criteria), None)


def _choice(analysis: Analysis, plan: Plan | None) -> list[Section]:
    name = _criterion(analysis, plan)
    sections: list[Section] = []
    if name is not None:
        entry, chosen = CRITERIA[name], plan.blocks if plan is not None else ()
        ends = score_intervals(analysis, name)
        picture = draw_scores(analysis.scores(name), chosen, entry.label, entry.unit, intervals=ends)
        sections.append(Section("", f"{entry.meaning} Source: {entry.source}.", picture))
    if plan is not None:
        reasons = pd.DataFrame({"block": list(plan.reasons), "why": list(plan.reasons.values())})
        sections.append(Section(f"The plan: tune {plan.label}", table=reasons))
    return sections


def comparison_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page of a comparison; its sections are those of the app's page."""
    return html_report(title, lead, sections, made_by())


def made_by() -> str:
    """Return who made a page, and when."""
    return f"Made by LSF {lsf.__version__} on {time.strftime('%Y-%m-%d %H:%M')}."
