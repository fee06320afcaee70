"""Guided lessons: what is said around each, to learners and to teachers, and the steps of predicting.

The steps are to predict, to see the criteria's answers, and to see the truth. A class takes the same lessons.
"""

from dataclasses import dataclass
from functools import cache

import pandas as pd
import streamlit as st

from lsf.app.evidence import judged_table, not_decided, sweep_pictures
from lsf.app.panels import table
from lsf.criteria.registry import CRITERIA
from lsf.data.lessons import LESSONS, load_lesson
from lsf.evidence.packed import Measured, bundled_lessons, shown
from lsf.evidence.regret import Blocks, choose, regret
from lsf.evidence.study import JudgedChoice, budgets_of, judge_choice, judge_choices, within_chance
from lsf.plans.plan import format_blocks
from lsf.registry import Registry
from lsf.runs.verdict import percent

OWN = "Your prediction"
SHOWN_EXAMPLES = 3


@dataclass(frozen=True)
class Notes:
    """What is said around one lesson."""

    name: str
    """Of the lesson."""
    before: str
    """What to think about before the prediction; gives nothing away."""
    after: str
    """A question to talk about once the truth is shown."""


NOTES: Registry[Notes] = Registry(
    "lesson notes",
    (
        Notes(
            "facts",
            "The questions look as they always did; only the answers changed. Where in the depth would you look for "
            "the place that holds an answer?",
            "The wordings of the test were not trained. Why might a block learn the training wordings by heart, and "
            "not the fact?",
        ),
        Notes(
            "sums",
            "The model can add; now the answer is one more. Is that a change of the question, of the calculation, or "
            "of the answer?",
            "One block alone does better than the whole model at the same number of steps. Is that beyond chance? How "
            "could less be more?",
        ),
        Notes(
            "labels",
            "The judgement stays the same, the words for it change. Does the model have to understand anything new?",
            "Compare the seeds of blocks that lie beside each other. What does a wide whisker say about a single "
            "experiment?",
        ),
        Notes(
            "aliases",
            "Countries are called by other names; everything about them stays. Which end of the model reads names?",
            "The lesson was made for the input side. Does the truth agree? What else can be learned from few wordings?",
        ),
        Notes(
            "twohop",
            "Answering takes two steps of knowledge, one after the other. Where does the second step happen?",
            "It was meant for the middle, and there the best block lies. Its lead over most others is within chance: "
            "what would you measure to be sure?",
        ),
        Notes(
            "dialect",
            "All words are known; their order is reversed. What would have to happen before the rest of the model "
            "can do its work as ever?",
            "How much of what full fine-tuning gains does the last block get? What does that say about always tuning "
            "the last layers?",
        ),
    ),
)
FOR_TEACHERS = """
**What it is for.** Learners commit to a prediction before they see a measurement, and find out what their rule of thumb
costs. The measure is regret: how much more the best choice of the same size would have scored.

**How long.** Ten minutes a lesson: two to read and predict, three on the criteria, five to talk. No GPU and no network
are needed; nothing is computed while the class waits, since the truth was measured before and came with the package.

**A good order.** The lessons stand in it: the second is the opposite end of the model from the first, in the third the
seeds differ, in the fourth and fifth what was intended leads or is level with what leads.

**What to insist on.** A prediction comes with a reason. A difference smaller than its spread over seeds is not decided.
One small model is not all models: let learners say which of their conclusions they would test elsewhere, and how.

**Go on.** *Tune it yourself, step by step*, under what was measured, makes the journey of the lesson here and now;
*Present* in it makes the type large and lets the arrow keys lead. Then measure a small sweep on the page Evidence: do
the numbers come out the same within their spread?
"""


def lessons_measured() -> dict[str, Measured]:
    """Return the lessons whose truth came with the package, in the order they are taught."""
    found = bundled_lessons()
    return {name: found[name] for name in NOTES if name in found}


def show_lesson(name: str) -> None:
    """Show what a lesson teaches, some of its examples, and what to think about; gives nothing away."""
    st.write(LESSONS[name].teaches)
    st.dataframe(_examples(name), hide_index=True, height="content")
    st.markdown(f"*{NOTES[name].before}*")


@cache
def _examples(name: str) -> pd.DataFrame:
    rows = load_lesson(name).train[:SHOWN_EXAMPLES]
    return pd.DataFrame([{"the model reads": row.prompt, "and should say": row.completion} for row in rows])


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
