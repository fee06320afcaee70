"""What the evidence recommends for an analysis, on a page: the choice, why, and what the rule did elsewhere."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import Plan, format_blocks
from lsf.analysis.recommend import ENDS_FROM, RECOMMENDED, lacking, recommended_plan
from lsf.analysis.result import Analysis
from lsf.compare.evidence import Measured, packed_evidence, words
from lsf.compare.recommended import Elsewhere, RecommendationRecord, elsewhere, packed_record, rule_words
from lsf.compare.regret import Blocks, random_regret, regret, relative
from lsf.compare.rules import Rule
from lsf.ui.guard import attempt
from lsf.ui.panels import table
from lsf.ui.state import Session

THIN = 10
"""Below so many models the evidence is called thin."""


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
            plan = recommended_plan(found, budget)
            _offer(here, plan)
            if truth := known_truth(sites, found, plan.blocks):
                st.info(truth, icon=":material/fact_check:")
        _why(sites, budget)
        if found.data.kernel_examples is not None:
            st.caption(_sample_words(sites, found.data.kernel_examples))


def known_truth(sites: Sequence[Measured], found: Analysis, choice: Blocks) -> str | None:
    """Say what the study measured of a choice on this very model and task; None where it did not.

    Args:
        sites: of the study.
        found: the analysis behind the choice.
        choice: blocks the recommendation names.
    """
    for one in sites:
        truth, size = one.site.truth, len(choice)
        named = found.data.name in (one.site.task, f"lesson:{one.site.task}") and found.model.name == one.site.model
        if not named or choice not in truth.scores or truth.range <= 0:
            continue
        lost, lot = regret(truth, choice), relative(truth, random_regret(truth, size))
        share = f"{100 * (lost.relative or 0.0):.1f} %"
        told = (
            f"The study measured this model and task: {words(choice)} lost {share} of what full fine-tuning gains "
            f"against the best, {words(lost.best)}"
        )
        told += "." if lot is None else f"; by lot {100 * lot:.1f} %."
        then = Rule(RECOMMENDED, ENDS_FROM is not None).choose(one.site.scores, size, truth.n_blocks)
        if then is not None and then != choice:
            told += (
                f" On the study's own sample the rule named {words(then)}: the choice hangs on which examples are read."
            )
        return told
    return None


def _sample_words(sites: Sequence[Measured], n_examples: int) -> str:
    read = [one.examples["kernel"] for one in sites if "kernel" in one.examples]
    return (
        f"In the study the rule read {min(read)} to {max(read)} examples, as many as about 8 % of a run's cost pays "
        f"for; this analysis read {n_examples}. Of other examples it can name other blocks: the page Criteria draws "
        "how far."
    )


def _offer(here: Session, plan: Plan) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**Tune {plan.label}.** {rule_words(RECOMMENDED, ENDS_FROM)}")
        if st.button("Take it", icon=":material/check:", key="take-recommendation"):
            here.by_hand = plan.blocks
            st.rerun()


def _why(sites: Sequence[Measured], budget: int) -> None:
    record = packed_record()
    st.markdown(evidence_words(record))
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


def evidence_words(record: RecommendationRecord) -> str:
    """Say what the rule lost where the truth is known, where it was tested, and held out."""
    return (
        f"Elsewhere, over {record.n_sites} measured pairs of a model and a task, this rule lost "
        f"**{100 * record.mean:.1f} %** of what full fine-tuning gains, on average against the best plan of the same "
        f"size (budgets of 1, 2 and a quarter of the blocks; worst case {100 * record.worst:.0f} %, "
        f"{record.worst_site}). Always the first blocks: {100 * record.first:.0f} %; always the last: "
        f"{100 * record.last:.0f} %; by lot: {100 * record.random:.0f} %. {_announced_words(record)}Held out, a "
        f"rule chosen without the task it is judged on lost **{100 * record.without_task:.1f} %**, without the model "
        f"**{100 * record.without_model:.1f} %**."
    )


def _announced_words(record: RecommendationRecord) -> str:
    if record.announced is None or record.announced_random is None:
        return ""
    return (
        f"{record.n_sites - record.n_announced} of the pairs were known when the rule was made; on the "
        f"{record.n_announced} that were announced before they were measured it lost "
        f"**{100 * record.announced:.1f} %** (by lot {100 * record.announced_random:.1f} %). "
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
