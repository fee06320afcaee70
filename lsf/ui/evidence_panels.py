"""Evidence on a page: verdicts on every way of choosing, pictures of a sweep, the recommendation and its why."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import format_blocks
from lsf.analysis.recommend import ENDS_FROM, RECOMMENDED, lacking, recommended_plan
from lsf.analysis.result import Analysis
from lsf.compare.chance import decided
from lsf.compare.evidence import Measured, packed_evidence
from lsf.compare.recommended import Elsewhere, RecommendationRecord, elsewhere, gaining, packed_record, rule_words
from lsf.compare.regret import Truth
from lsf.compare.rules import Rule
from lsf.compare.study import Entry, entries, of_rule
from lsf.compare.verdicts import Verdict
from lsf.figures.sweeps import as_metric, draw_profile, draw_triangle
from lsf.ui.guard import attempt
from lsf.ui.panels import show, table
from lsf.ui.state import Session

THIN = 10
"""Below so many models the evidence is called thin."""
ROW_WORDS = {
    "recommended": "The recommendation",
    "random": "Drawn by lot (mean)",
    "full": "Full fine-tuning",
    "constant": "Best constant",
}
"""Row of the study that is no criterion -> what a person reads."""


def verdict_table(verdicts: Sequence[Verdict], metric: str, key: str) -> None:
    """Show what every way of choosing would have tuned and lost, as a table that can be taken away."""
    rows = [
        {
            "way of choosing": one.label,
            "kind": one.kind,
            "tunes": "by lot" if one.choice is None else format_blocks(one.choice),
            metric.replace("_", " "): None if one.score is None else as_metric(one.score, metric),
            "regret": one.regret,
            "relative regret": None if one.relative is None else 100 * one.relative,
            "within chance": {True: "yes", False: "no", None: "unknown"}[one.within_chance],
        }
        for one in verdicts
    ]
    decimals = st.column_config.NumberColumn(format="%.3f")
    table(
        pd.DataFrame(rows),
        key,
        column_config={
            metric.replace("_", " "): decimals,
            "regret": decimals,
            "relative regret": st.column_config.NumberColumn(format="%.1f %%"),
        },
    )


def sweep_pictures(truth: Truth, metric: str, key: str) -> None:
    """Show the profile of single blocks, and the triangle of runs of blocks where longer ones were measured."""
    seeds = len(truth.full)
    whiskers = "One seed: no spread is known." if seeds < 2 else f"Whiskers: standard deviation over {seeds} seeds."
    show(
        draw_profile(truth, metric),
        f"{key}-profile",
        f"Each block tuned alone, everything else frozen. {whiskers} Dashed: full fine-tuning; dotted: the base model.",
    )
    if all(len(blocks) == 1 for blocks in truth.scores):
        return
    show(
        draw_triangle(truth, metric),
        f"{key}-triangle",
        "Every measured run of neighbouring blocks; the diagonal is the profile above. Framed: the best. Empty: not "
        "measured, and not filled in.",
    )


def not_decided(truth: Truth, budget: int) -> None:
    """Say so where plans of a budget differ by no more than chance makes of them, or where seeds cannot tell."""
    sure = decided(truth, budget)
    if sure is None:
        st.info(
            "Differences of plans cannot be told from chance: that takes two seeds which do not agree in everything.",
            icon=":material/casino:",
        )
    elif not sure:
        st.info(
            "Not decided: plans of this budget differ by no more than chance makes of their seeds (Tukey's test, 5 %).",
            icon=":material/balance:",
        )


def record_panel(sites: Sequence[Measured]) -> None:
    """Show the mean relative regret of every criterion and control over everything that was measured."""
    known = gaining(sites)
    record = packed_record()
    st.markdown(_evidence_words(record))
    own = Entry("recommended", "recommendation", of_rule(known, Rule(RECOMMENDED, ENDS_FROM is not None)))
    rows = [own, *entries(known)]
    budgets = sorted({budget for row in rows for _, budget in row.relative})
    columns = {f"{budget} block{'s' if budget > 1 else ''}": budget for budget in budgets}
    found = [
        {
            "way of choosing": CRITERIA[row.name].label if row.name in CRITERIA else ROW_WORDS[row.name],
            "kind": row.kind,
            **{name: _percent(row.mean(budget)) for name, budget in columns.items()},
            "mean": _percent(row.mean()),
            "worst": _percent(max(row.relative.values())),
            "sites": len({site for site, _ in row.relative}),
        }
        for row in rows
    ]
    shown = pd.DataFrame(found).sort_values("mean", kind="stable")
    percent = st.column_config.NumberColumn(format="%.1f %%")
    table(shown, "regrets", column_config=dict.fromkeys([*columns, "mean", "worst"], percent))
    st.caption(
        "Relative regret: what the best measured plan of as many blocks has more, over what full fine-tuning gains. "
        "Lower is better; below zero full fine-tuning beats every plan of that size. *Best constant*: one plan per "
        "model for all its tasks, picked in hindsight."
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def recommendation_panel(here: Session, found: Analysis, budget: int) -> None:
    """Show what is recommended for this analysis, why, and what the same rule did elsewhere; offer to take it.

    Args:
        here: this session; taking the recommendation is a choice by hand.
        found: the analysis that is looked at.
        budget: number of blocks.
    """
    sites = attempt(packed_evidence)
    if not sites:
        return
    with st.expander("What the evidence recommends", icon=":material/lightbulb:", key="recommendation"):
        needs_criterion = ENDS_FROM is None or budget < ENDS_FROM
        if needs_criterion and lacking(found):
            names = ", ".join(CRITERIA[name].label for name in lacking(found))
            st.write(f"The recommendation needs {names}, which this analysis did not measure.")
        else:
            _offer(here, found, budget)
        _why(sites, budget)


def _offer(here: Session, found: Analysis, budget: int) -> None:
    plan = recommended_plan(found, budget)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**Tune {plan.label}.** {rule_words(RECOMMENDED, ENDS_FROM)}")
        if st.button("Take it", icon=":material/check:", key="take-recommendation"):
            here.by_hand = plan.blocks
            st.rerun()


def _why(sites: Sequence[Measured], budget: int) -> None:
    record = packed_record()
    st.markdown(_evidence_words(record))
    if record.n_models < THIN or record.failing:
        failing = "".join(
            f" On {one.model} it lost {100 * one.mean:.1f} %, more than blocks drawn by lot ({100 * one.random:.1f} %)."
            for one in record.failing
        )
        st.warning(
            f"Thin evidence: {record.n_models} small model{'s' if record.n_models > 1 else ''} and {record.n_tasks} "
            f"tasks.{failing} Measure it on yours: the page Evidence runs a small sweep.",
            icon=":material/warning:",
        )
    rows = elsewhere(sites, RECOMMENDED, ENDS_FROM, budget)
    if not rows:
        st.caption(f"Plans of {budget} blocks were measured nowhere; the figures above are of smaller budgets.")
        return
    table(_elsewhere_table(rows), "elsewhere", column_config={
        name: st.column_config.NumberColumn(format="%.1f %%") for name in ("lost", "drawn by lot loses")
    })  # fmt: skip


def _evidence_words(record: RecommendationRecord) -> str:
    return (
        f"Elsewhere, over {record.n_sites} measured pairs of a model and a task, this rule lost "
        f"**{100 * record.mean:.1f} %** of what full fine-tuning gains, on average against the best plan of the same "
        f"size (budgets of 1, 2 and a quarter of the blocks; worst case {100 * record.worst:.0f} %, "
        f"{record.worst_site}). Always the first blocks: {100 * record.first:.0f} %; always the last: "
        f"{100 * record.last:.0f} %; by lot: {100 * record.random:.0f} %. These pairs also chose the rule; chosen "
        f"without the task it is judged on, it lost **{100 * record.without_task:.1f} %**, without the model "
        f"**{100 * record.without_model:.1f} %**."
    )


def _elsewhere_table(rows: Sequence[Elsewhere]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": one.model,
                "task": one.task,
                "recommended": format_blocks(one.choice),
                "best": format_blocks(one.best),
                "lost": None if one.relative is None else 100 * one.relative,
                "drawn by lot loses": None if one.by_lot is None else 100 * one.by_lot,
                "decided": {True: "yes", False: "no", None: "unknown"}[one.decided],
            }
            for one in rows
        ]
    )
