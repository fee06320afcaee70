"""Evidence on a page: verdicts on every way of choosing, pictures of a sweep, the recommendation and its why."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import format_blocks
from lsf.analysis.recommend import ENDS_FROM, RECOMMENDED
from lsf.compare.chance import decided
from lsf.compare.evidence import Measured
from lsf.compare.recommended import gaining, packed_record
from lsf.compare.regret import Truth
from lsf.compare.rules import Rule
from lsf.compare.study import Entry, entries, of_rule
from lsf.compare.verdicts import Verdict
from lsf.figures.sweeps import as_metric, draw_profile, draw_triangle
from lsf.ui.panels import show, table
from lsf.ui.recommendation import evidence_words

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
            "tunes": _tuned(one),
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


def _tuned(one: Verdict) -> str:
    if one.label == ROW_WORDS["full"]:
        return "all blocks, embedding, norm and head"
    return "by lot" if one.choice is None else format_blocks(one.choice)


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
    st.markdown(evidence_words(record))
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
