"""Step 3: every criterion that was measured, side by side; how alike they rank, and how many examples suffice."""

import streamlit as st

from lsf.app.choose import choose_criterion, default_budget, take_criterion, without_analysis
from lsf.app.findings import of_criteria, plan_to_come
from lsf.app.frame import page
from lsf.app.panels import finding, onward, show, unmarked
from lsf.app.state import Session, address, analysis
from lsf.app.truth import swept_truth
from lsf.criteria.agreement import KERNEL_EXAMPLES, METHODS, chance_level, stability
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.evidence.own import record_here
from lsf.figures.criteria import METHOD_WORDS, draw_agreement, draw_criteria, draw_growth, measured_scores
from lsf.figures.sweeps import draw_need, measured_gain
from lsf.wording import counted

AUTO = "*Stop when settled* stops where they agree."


def draw(here: Session) -> None:
    """Draw the page."""
    found = analysis(here)
    if found is None or not found.criteria:
        without_analysis(here, "Nothing to compare criteria on yet", "Criteria can be compared as soon as it is done.")
        return
    chosen = choose_criterion(here, found)
    scores = measured_scores(found)
    show(
        draw_criteria(scores, chosen),
        "criteria",
        "One panel per criterion, higher = tune it first; the first quarter of the blocks is orange. Every panel has "
        "its own axis, which need not begin at zero. Click a panel to choose its criterion.",
        on_click=lambda name: take_criterion(here, str(name)),
    )
    _left_out(found)
    _need(here, found, chosen)
    _agreement(here, found, chosen)
    _growth(found, chosen)
    plan = plan_to_come(here.plan, chosen, found, default_budget(found.model.n_blocks))
    finding(*of_criteria(found, plan, record_here()))
    onward("choose", f"Choose blocks by {CRITERIA[chosen].label}", address(here))


def _left_out(found: Analysis) -> None:
    missing = [entry.label for name, entry in CRITERIA.items() if name not in found.criteria]
    if not missing:
        return
    short = found.data.short
    then = f"{unmarked(short)} The next analysis can include the others." if short else ""
    then = then or "The next analysis can include them."
    st.caption(f"Not measured in this analysis: {', '.join(missing)}. {then}")


def _need(here: Session, found: Analysis, chosen: str) -> None:
    """Show need beside what a sweep measured, or beside the chosen criterion; nothing where need was not measured."""
    scores, measured = measured_scores(found), swept_truth(here)
    if "ablation" not in scores:
        return
    if measured is not None:
        picture = draw_need(scores["ablation"], *measured_gain(*measured))
        note = "Up: what tuning the block alone gained in the last sweep of this model and data."
    elif chosen != "ablation":
        picture = draw_need(
            scores["ablation"], scores[chosen], f"{CRITERIA[chosen].label} ({CRITERIA[chosen].unit})", chosen
        )
        note = "Up: the chosen criterion; with a sweep on the page Evidence, what tuning the block really gained."
    else:
        st.caption("Need is drawn beside another criterion: choose one, or measure a sweep on the page Evidence.")
        return
    show(
        picture,
        "need",
        f"Across: how much the loss rises without the block. {note} Tuning the blocks on the far right puts most of "
        "what the model can do at risk; numbers are blocks.",
    )


def _agreement(here: Session, found: Analysis, chosen: str) -> None:
    method = str(
        st.segmented_control(
            "Rank correlation",
            list(METHODS),
            format_func=lambda name: METHOD_WORDS[name],
            default="spearman",
            required=True,
            key="correlation",
            persist_state="session",
        )
    )
    level = chance_level(found.model.n_blocks, method)
    told = (
        "With so few blocks, no correlation is significant."
        if level is None
        else f"With {found.model.n_blocks} blocks, at most one in twenty unrelated rankings lies beyond ±{level:.2f}."
    )
    show(
        draw_agreement(measured_scores(found), method, chosen),
        "agreement",
        f"1: both rank the blocks alike; -1: in opposite order; ?: one of the two gives all blocks the same score. "
        f"{told} Click a cell to choose the criterion of its row.",
        on_click=lambda name: take_criterion(here, str(name)),
    )


def _growth(found: Analysis, chosen: str) -> None:
    if not stability(found, chosen):
        label = CRITERIA[chosen].label
        st.caption(
            f"How many examples suffice for {label} is unknown: growing samples are recorded for the criteria of the "
            "forward pass and of tangent kernels only."
        )
        return
    taken, most = found.data.kernel_examples, f"{KERNEL_EXAMPLES} examples at most"
    of = most if taken is None else f"the first {counted(taken, 'example')}"
    ends = f"Kernels are taken of {of}." if CRITERIA[chosen].needs == "kernel" else AUTO
    show(
        draw_growth(found, chosen),
        "growth",
        "Circles and triangles: the ranking by the first examples against that by all of them; they agree at the end "
        f"by construction. Diamonds: two halves of the sample, which share no example. {ends} Dotted: the level to "
        "exceed.",
    )


page(
    "Criteria",
    "What makes a block worth tuning: every criterion that was measured, side by side, and how far they agree.",
    draw,
)
