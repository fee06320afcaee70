"""Step 4: from scores to a plan: criterion, policy, budget, or blocks chosen by hand."""

from dataclasses import dataclass
from functools import partial

import streamlit as st

from lsf.app.choose import (
    OURS,
    Budget,
    brush,
    budget_panel,
    choose_budget,
    choose_criterion,
    choose_policy,
    chosen_plan,
    recommendation_panel,
    toggle,
    without_analysis,
)
from lsf.app.findings import of_plan
from lsf.app.frame import page
from lsf.app.panels import amount, as_json, attempt, download, onward, show, size, unmarked
from lsf.app.state import Session, address, analysis, by_method, predicted_of
from lsf.app.tries import spacing_panel, tries_panel
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.evidence.real import spacing, trying_helps
from lsf.evidence.standing import is_unproven
from lsf.figures.deviation import draw_scores, score_intervals
from lsf.plans.cost import cost_shares, predict_full
from lsf.plans.plan import Plan
from lsf.plans.policies import CHOSEN_BY_HAND, how_chosen
from lsf.runs.verdict import percent


@dataclass(frozen=True)
class Rule:
    """What chooses unless a person does."""

    criterion: str
    policy: str
    budget: Budget


def draw(here: Session) -> None:
    """Draw the page."""
    found = analysis(here)
    if found is None or not found.criteria:
        without_analysis(here, "Nothing to choose from yet", "Blocks can be chosen as soon as it is done.")
        return
    rule = _rule(here, found)
    unproven, blocks = is_unproven(found), rule.budget.blocks
    held = spacing(blocks) if unproven else None
    if held is not None and held.stands_first:
        spacing_panel(here, found, held, blocks, opened=True)
    if first := unproven and trying_helps(blocks):
        tries_panel(here, rule.budget, opened=True)
    if held is not None and held.stands and not held.stands_first:
        spacing_panel(here, found, held, blocks, opened=not first)
    recommendation_panel(here, found, rule.budget)
    if not first:
        tries_panel(here, rule.budget)
    plan = attempt(lambda: chosen_plan(here, found, rule.criterion, rule.policy, rule.budget.blocks))
    here.plan = plan
    blocks = plan.blocks if plan is not None else ()
    entry, intervals = CRITERIA[rule.criterion], score_intervals(found, rule.criterion)
    whiskers = "" if intervals is None else "Whiskers: 95 % interval over examples. "
    show(
        draw_scores(found.scores(rule.criterion), blocks, entry.label, entry.unit, intervals=intervals),
        "scores",
        f"Orange and hatched: the blocks to tune; blue: frozen. {whiskers}Click a bar to change its side. {OURS}",
        on_click=partial(toggle, here),
    )
    _by_hand(here)
    if plan is not None:
        _cost(here, found, plan)
        budget_panel(here, found, (rule.criterion, rule.policy), plan)
        _reasons(plan)
    onward("tune", "Fine-tune", address(here), disabled=plan is None)


def _rule(here: Session, found: Analysis) -> Rule:
    def changed() -> None:
        here.by_hand = None

    grid = st.grid(3, min_column_width=220, gap="medium", key="rule")
    with grid.cell():
        criterion = choose_criterion(here, found)
    with grid.cell():
        policy = choose_policy(here.plan, changed)
    with grid.cell():
        budget = choose_budget(here.plan, found, criterion, policy, changed)
    return Rule(criterion, policy, budget)


def _by_hand(here: Session) -> None:
    if here.by_hand is not None:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"The blocks are {CHOSEN_BY_HAND if here.plan is None else how_chosen(here.plan)}.")
            if st.button("Back to the criterion", icon=":material/undo:", key="back-to-criterion"):
                here.by_hand = None
                st.rerun()


def _cost(here: Session, found: Analysis, plan: Plan) -> None:
    (cost, full), by = predicted_of(here, plan), by_method(here, plan)
    shares = cost_shares(cost, full or predict_full(found))

    def of_full(name: str) -> str:
        share = shares[name]
        return "unknown" if share is None else f"{percent(share)} of full"

    st.subheader(f"What it is predicted to cost{by}", anchor=False)
    cells = [
        ("Tuned parameters", amount(cost.trainable_params), "parameters"),
        ("Compute per token", "unknown" if cost.flops_ratio is None else f"{cost.flops_ratio:.2f} x", "compute"),
        ("Memory" if cost.phases else "Memory, at least", size(cost.memory_bytes), "memory"),
    ]
    for column, (name, value, kind) in zip(st.columns(3, gap="medium"), cells, strict=True):
        column.metric(name, value, of_full(kind), delta_color="off", delta_arrow="off")
    st.caption(
        "Compute counts matrix products of forward and backward pass; frozen blocks below the lowest tuned one save "
        "most. Memory is what the run takes beyond the loaded model: at least its own weights, gradients and optimizer "
        "state; activations are added once the next page has tried them. Percentages are relative to full fine-tuning."
        f"{' The method is the one chosen on the page Fine-tune; the curves below are for all weights.' if by else ''}"
    )


def _reasons(plan: Plan) -> None:
    st.subheader(f"The plan: tune {plan.label}", anchor=False)
    st.markdown(unmarked(of_plan(plan)))
    st.markdown("\n".join(f"- **Block {block}**: {reason}" for block, reason in plan.reasons.items()))
    download("Plan (JSON)", lambda: as_json(plan.to_json()), "plan.json", "application/json", "plan-json")


page(
    "Choose",
    "Which blocks to tune: by a criterion and a budget, or by hand, in the tower on the left.",
    draw,
    on_brush=brush,
)
