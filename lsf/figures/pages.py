"""Whole pages that stand alone: an analysis with its choice, and a comparison of runs."""

import time
from collections.abc import Sequence

import pandas as pd

import lsf
from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import Plan
from lsf.analysis.result import Analysis
from lsf.analysis.settling import stability
from lsf.figures.agreement import draw_agreement
from lsf.figures.criteria import draw_criteria, measured_scores
from lsf.figures.deviation import draw_deviation, draw_scores, score_intervals
from lsf.figures.growth import draw_growth
from lsf.figures.lens import draw_lens, lens_table
from lsf.figures.lens_map import draw_targets
from lsf.figures.report import Section, html_report
from lsf.figures.trajectories import draw_paths

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
            "The first example kept. Arrows: places gained or lost since the state before; new: below the kept tokens."
        )
        sections.append(Section("", note, draw_lens(analysis.trajectories.examples[0])))
    sections.append(Section("Logit lens per state", table=lens_table(analysis)))
    lead = (
        f"{model.name} ({model.family}, {model.n_blocks} blocks, {model.n_params:,} parameters, {model.dtype}) on "
        f"{data.n_examples:,} examples of {data.name} ({data.split}), {data.n_positions:,} positions, {data.reading} "
        f"reading, {data.virtual} virtual transition; {data.n_dropped} examples did not fit."
    )
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
