"""Evidence: what was measured on other models and tasks, and a small sweep on one's own."""

import streamlit as st

from lsf.compare.evidence import Measured, packed_evidence
from lsf.compare.study import budgets_of
from lsf.compare.verdicts import verdicts
from lsf.ui.evidence_panels import not_decided, record_panel, sweep_pictures, verdict_table
from lsf.ui.evidence_truth import truth_panel
from lsf.ui.frame import page
from lsf.ui.state import Session


def draw(here: Session) -> None:
    """Draw the page."""
    elsewhere, own = st.tabs(["Measured elsewhere", "Measure it here"], key="evidence-tab", on_change="rerun")
    if own.open:
        with own:
            truth_panel(here)
    else:
        with elsewhere:
            _elsewhere()


def _elsewhere() -> None:
    sites = {one.site.name: one for one in packed_evidence()}
    record_panel(list(sites.values()))
    st.header("One model and task", anchor=False)
    left, right = st.columns([2, 1], gap="medium")
    name = left.selectbox(
        "Model and task", list(sites), format_func=lambda key: _label(sites[key]), key="site", persist_state="session"
    )
    one = sites[name]
    budgets = budgets_of(one.site)
    budget = int(
        right.segmented_control("Blocks tuned", budgets, default=budgets[0], required=True, key=f"site-budget-{name}")
    )
    truth = one.site.truth
    not_decided(truth, budget)
    verdict_table(verdicts(truth, one.site.scores, budget), one.metric, "verdicts")
    st.caption(
        "Regret: what the best measured plan of as many blocks has more. Relative: over what full fine-tuning gains on "
        f"the base model. Every run took {one.steps} steps; criteria read as many examples as cost about 8 % of a run."
    )
    sweep_pictures(truth, one.metric, "site")


def _label(one: Measured) -> str:
    return f"{one.site.model}, {one.site.task} ({one.site.truth.n_blocks} blocks, {len(one.site.truth.full)} seeds)"


page(
    "Evidence",
    "Is the recommended choice right? What was measured, what every way of choosing lost, and the same on your task.",
    draw,
)
