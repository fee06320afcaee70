"""What is said around the lessons: to learners before and after their prediction, and to teachers."""

from dataclasses import dataclass
from functools import cache

import pandas as pd
import streamlit as st

from lsf.data.lessons import LESSONS, load_lesson
from lsf.evidence.packed import Measured, bundled_lessons
from lsf.registry import Registry


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

SHOWN_EXAMPLES = 3


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
