"""Choosing blocks: criterion, policy and budget, or by hand; the plan they make. No drawing of results here."""

from collections.abc import Callable

import streamlit as st

from lsf.analysis.cost import predict_full, training_bytes
from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import Plan, Predicted
from lsf.analysis.policies import POLICIES, make_plan, plan_by_hand
from lsf.analysis.recommend import RECOMMENDED, RECOMMENDED_POLICY
from lsf.analysis.result import Analysis
from lsf.ui.panels import empty
from lsf.ui.state import Session, analysis_view

BLOCKS, COMPUTE, MEMORY = "Blocks", "Compute", "Memory"
HAND_KEY = "blocks-by-hand"
CRITERION_KEY = "criterion"
OURS = (
    "The criteria marked *ours* are our own reading of the paper's idea (arXiv 2406.11753): its exact gain formula is "
    "not available to us."
)

NEED_WORDS = {
    "nothing": "free",
    "forward": "forward pass",
    "states": "states kept",
    "vocabulary": "forward pass over the whole vocabulary",
    "backward": "one backward pass",
    "per_example": "a backward pass per example",
    "kernel": "backward passes for the tangent kernel",
    "trial_step": "a trial step",
    "weights": "weights alone",
    "runs": "a short run per block",
}
"""What a criterion needs -> what it costs, in words."""


def without_analysis(here: Session, title: str, waiting: str) -> None:
    """Say that there is no finished analysis to work on, and where it is made or watched."""
    view = analysis_view(here)
    if view is not None and view.active:
        empty("The analysis is still running", waiting, "trajectories")
    else:
        empty(title, "Run an analysis first: it scores the blocks of a model.", "model")


def take_criterion(here: Session, name: str) -> None:
    """Choose a criterion; blocks chosen by hand are given up."""
    here.criterion, here.by_hand = name, None


def choose_criterion(here: Session, analysis: Analysis) -> str:
    """Draw the criteria and say what the chosen one means; return its name."""
    names = [name for name in CRITERIA if name in analysis.criteria]
    wanted = [name for name in (here.criterion, *RECOMMENDED) if name in names]
    st.session_state[CRITERION_KEY] = [*wanted, *names][0]
    name = st.selectbox(
        "Criterion",
        names,
        format_func=lambda key: CRITERIA[key].label,
        key=CRITERION_KEY,
        on_change=lambda: take_criterion(here, st.session_state[CRITERION_KEY]),
        help="What makes a block worth tuning; every criterion gives one score per block, higher is tuned first.",
    )
    entry = CRITERIA[name]
    st.caption(f"{entry.meaning} Unit: {entry.unit}. Source: {entry.source}.")
    return name


def choose_policy(changed: Callable[[], None]) -> str:
    """Draw the policies; return the name of the chosen one."""
    name = st.selectbox(
        "Policy",
        list(POLICIES),
        index=list(POLICIES).index(RECOMMENDED_POLICY),
        format_func=lambda key: POLICIES[key].label,
        key="policy",
        persist_state="session",
        on_change=changed,
        help="How scores become a set of blocks.",
    )
    st.caption(POLICIES[name].meaning)
    return name


def choose_budget(analysis: Analysis, criterion: str, policy: str, changed: Callable[[], None]) -> int:
    """Draw the budget, in blocks or as a share of full fine-tuning's cost; return it in blocks."""
    n_blocks = analysis.model.n_blocks
    unit = st.segmented_control(
        "Budget",
        [BLOCKS, COMPUTE, MEMORY],
        default=BLOCKS,
        required=True,
        wrap=True,
        key="budget-unit",
        persist_state="session",
    )
    if unit == BLOCKS:
        if n_blocks == 1:
            st.caption("The model has a single block.")
            return 1
        return st.slider(
            "Blocks tuned at most",
            1,
            n_blocks,
            value=default_budget(n_blocks),
            key=f"budget-{n_blocks}",
            persist_state="session",
            on_change=changed,
        )
    percent = st.slider(
        f"{unit} at most, in percent of full fine-tuning",
        5,
        100,
        60,
        step=5,
        key=f"budget-{unit}",
        persist_state="session",
        on_change=changed,
        help="Predicted: floating-point operations per token, or bytes of weights, gradients and optimizer state.",
    )
    fitting = largest_within(analysis, criterion, policy, percent / 100, memory=unit == MEMORY)
    if fitting is None:
        st.warning("Not even one block fits into this share; one block is taken.")
        return 1
    st.caption(f"{fitting} block{'s' if fitting > 1 else ''} fit into it.")
    return fitting


def default_budget(n_blocks: int) -> int:
    """Return the budget offered at first: a quarter of the blocks."""
    return max(1, round(n_blocks / 4))


def largest_within(analysis: Analysis, criterion: str, policy: str, share: float, memory: bool) -> int | None:
    """Return the greatest number of blocks whose plan is predicted to cost at most a share of full fine-tuning."""
    full = predict_full(analysis)
    for blocks in range(analysis.model.n_blocks, 0, -1):
        predicted = make_plan(analysis, criterion, policy, blocks).predicted
        cost = cost_shares(predicted, full, training_bytes(analysis, 0))["memory" if memory else "compute"]
        if cost is not None and cost <= share:
            return blocks
    return None


def cost_shares(predicted: Predicted, full: Predicted, loaded_bytes: int) -> dict[str, float | None]:
    """Return a plan's predicted parameters, compute and memory as shares of full fine-tuning's; None where unknown.

    Args:
        predicted: of the plan.
        full: of full fine-tuning.
        loaded_bytes: of the loaded model, which both need besides.
    """

    def with_model(count: int | None) -> int | None:
        return None if count is None else count + loaded_bytes

    def over(one: float | None, other: float | None) -> float | None:
        return None if one is None or not other else one / other

    return {
        "parameters": over(predicted.trainable_params, full.trainable_params),
        "compute": over(predicted.flops_ratio, full.flops_ratio),
        "memory": over(with_model(predicted.memory_bytes), with_model(full.memory_bytes)),
    }


def predicted_of(here: Session, plan: Plan) -> tuple[Predicted, Predicted | None]:
    """Return what a plan is expected to cost, and full fine-tuning beside it: as the next page forecast it, if it did.

    Where this plan was not forecast, what was counted for it, and None.
    """
    foreseen = here.foreseen
    if foreseen is None or foreseen.choice is None:
        return plan.predicted, None
    own = foreseen.spec.plan
    if (own.model, own.n_blocks, own.label) != (plan.model, plan.n_blocks, plan.label):
        return plan.predicted, None
    return foreseen.choice.predicted, None if foreseen.full is None else foreseen.full.predicted


def chosen_plan(here: Session, analysis: Analysis, criterion: str, policy: str, budget: int) -> Plan:
    """Return the plan of the criterion, or of the blocks chosen by hand.

    Raises:
        PlanError: no block is chosen by hand.
    """
    if here.by_hand is not None:
        return plan_by_hand(analysis, here.by_hand)
    return make_plan(analysis, criterion, policy, budget)


def choose_by_hand(here: Session, n_blocks: int, current: tuple[int, ...]) -> None:
    """Draw the list of tuned blocks; a change of it overrules the criterion."""
    st.session_state[HAND_KEY] = list(current)
    st.multiselect(
        "Tuned blocks",
        range(n_blocks),
        key=HAND_KEY,
        on_change=lambda: take_by_hand(here, tuple(st.session_state[HAND_KEY])),
        help="Add or remove blocks here, or click bars above; this overrules the criterion.",
    )


def take_by_hand(here: Session, blocks: tuple[int, ...]) -> None:
    """Overrule the criterion."""
    here.by_hand = tuple(sorted(blocks))


def toggle(here: Session, current: tuple[int, ...], block: int) -> None:
    """Add a block to the choice, or take it out."""
    take_by_hand(here, tuple(set(current) ^ {int(block)}))
