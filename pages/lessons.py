"""Lessons: six guided ones, each with a prediction first, then the criteria, then the measured truth."""

import streamlit as st

from lsf.app.actions import on_your_own_task
from lsf.app.evidence import real_panel
from lsf.app.findings import of_truth
from lsf.app.frame import page
from lsf.app.lessons import FOR_TEACHERS, criteria_step, lessons_measured, predict_step, truth_step
from lsf.app.panels import finding
from lsf.app.state import Session
from lsf.app.tour import N_BLOCKS, start_tour
from lsf.data.lessons import LESSONS
from lsf.evidence.study import judge_choices


def draw(here: Session) -> None:
    """Draw the page."""
    with st.expander("Notes for teachers", icon=":material/school:", key="teachers"):
        st.markdown(FOR_TEACHERS)
    lessons = lessons_measured()
    name = st.segmented_control(
        "Lesson",
        list(lessons),
        format_func=lambda key: LESSONS[key].title,
        default=next(iter(lessons)),
        required=True,
        wrap=True,
        key="guided-lesson",
        persist_state="session",
    )
    one = lessons[str(name)]
    own = predict_step(one)
    if own is not None:
        criteria_step(one, own)
        truth_step(one, own)
        real_panel("4 The same question on a real language model")
        if st.button("Tune it yourself, step by step", icon=":material/play_arrow:", key="lesson-tour"):
            start_tour(here, str(name))
        truth = one.setting.truth
        finding(*of_truth(truth, judge_choices(truth, one.setting.scores, len(own)), len(own)))
        on_your_own_task(here)


page(
    "Lessons",
    f"Which of the bundled model's {N_BLOCKS} blocks would you tune? Lock in a prediction; then see what the criteria "
    "say, what was measured, and what your choice lost.",
    draw,
    predicts=N_BLOCKS,
)
