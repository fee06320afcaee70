"""Guided lessons: predict, see the criteria's answers, see the truth."""

import pandas as pd
import streamlit as st

from lsf.app.evidence import judged_table, not_decided, sweep_pictures
from lsf.app.lesson_notes import NOTES, show_lesson
from lsf.app.panels import table
from lsf.criteria.registry import CRITERIA
from lsf.data.lessons import LESSONS
from lsf.evidence.packed import Measured, shown
from lsf.evidence.regret import Blocks, choose, regret
from lsf.evidence.study import JudgedChoice, budgets_of, judge_choice, judge_choices, within_chance
from lsf.plans.plan import format_blocks
from lsf.runs.verdict import percent

OWN = "Your prediction"


def predict_step(one: Measured) -> Blocks | None:
    """Show the lesson and take the prediction; return it once it is locked in."""
    name = one.setting.task
    st.header(f"1 Predict: {LESSONS[name].title}", anchor=False)
    show_lesson(name)
    budget = _budget(one)
    key = f"prediction-{name}-{budget}"
    locked = st.session_state.get(f"{key}-locked")
    plans = list(one.setting.truth.plans(budget))
    picked = st.pills(
        "Which blocks would you tune?" if budget > 1 else "Which block would you tune?",
        plans,
        format_func=format_blocks,
        key=key,
        persist_state="session",
        disabled=locked is not None,
        help="Block 0 is nearest to the input; everything you do not pick stays frozen.",
    )
    if locked is None:
        if st.button("Lock in my prediction", type="primary", icon=":material/lock:", disabled=picked is None):
            st.session_state[f"{key}-locked"] = picked
            st.rerun()
        st.caption("What the criteria say and what was measured are shown once you have locked in a prediction.")
    elif st.button("Predict again", icon=":material/replay:"):
        del st.session_state[f"{key}-locked"]
        st.rerun()
    return locked


def _budget(one: Measured) -> int:
    budgets = budgets_of(one.setting)
    return int(
        st.segmented_control(
            "How many blocks may be tuned?",
            budgets,
            default=budgets[0],
            required=True,
            key=f"lesson-budget-{one.setting.task}",
            persist_state="session",
        )
    )


def criteria_step(one: Measured, own: Blocks) -> None:
    """Show which blocks every criterion would tune, without what that came to."""
    st.header("2 What the criteria would tune", anchor=False)
    rows = [{"way of choosing": OWN, "tunes": format_blocks(own), "it looks at": "what you know"}]
    for name, entry in CRITERIA.items():
        if entry.needs != "nothing" and name in one.setting.scores:
            choice = choose(one.setting.scores[name], len(own))
            rows.append({"way of choosing": entry.label, "tunes": format_blocks(choice), "it looks at": entry.meaning})
    agreeing = sum(row["tunes"] == format_blocks(own) for row in rows[1:])
    st.caption(f"{agreeing} of {len(rows) - 1} criteria tune what you would tune.")
    table(pd.DataFrame(rows), f"answers-{one.setting.task}")


def truth_step(one: Measured, own: Blocks) -> None:
    """Show the measured truth, and what every way of choosing lost, the person's own among them."""
    truth = one.setting.truth
    st.header("3 What was measured", anchor=False)
    lost = regret(truth, own)
    columns = st.columns(3, gap="medium")
    columns[0].metric(
        "You chose", format_blocks(own), shown(truth.mean(own), one.metric), delta_color="off", delta_arrow="off"
    )
    columns[1].metric(
        "Best of that size",
        format_blocks(lost.best),
        shown(truth.mean(lost.best), one.metric),
        delta_color="off",
        delta_arrow="off",
    )
    columns[2].metric(
        "Your regret",
        f"{lost.regret:.2f}",
        _share_words(lost.relative, within_chance(truth, own)),
        delta_color="off",
        delta_arrow="off",
        help="How far what you chose stays below the best blocks of that size: 0 is a perfect prediction.",
    )
    not_decided(truth, len(own))
    found = [judge_choice(truth, OWN, "you", own), *judge_choices(truth, one.setting.scores, len(own))]
    judged_table(sorted(found, key=_by_regret), one.metric, f"truth-{one.setting.task}")
    st.markdown(f"*{NOTES[one.setting.task].after}*")
    sweep_pictures(truth, one.metric, f"lesson-{one.setting.task}")


def _by_regret(one: JudgedChoice) -> tuple[bool, float, bool]:
    return one.regret is None, one.regret or 0.0, one.label != OWN


def _share_words(share: float | None, within: bool | None) -> str:
    if share is None:
        return "relative regret unknown"
    return f"{percent(share)} of the best plan's gain" + (", within chance" if within and share > 0 else "")
