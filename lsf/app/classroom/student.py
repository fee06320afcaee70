"""The page of a student: the door, then lesson, prediction and result, as far as the teacher has gone."""

from html import escape

import streamlit as st

from lsf.app.classroom.shared import Classroom, classroom, this_address, this_browser
from lsf.app.classroom.votes import beside_it, outcome, votes_html
from lsf.app.lesson_notes import NOTES, show_lesson
from lsf.app.panels import guard, unmarked
from lsf.classroom.room import LONGEST_NAME, LONGEST_REASON, RoomState
from lsf.data.lessons import LESSONS

LOOK = 2.0
"""Seconds between two looks whether the teacher went on."""


def draw() -> None:
    """Draw the page."""
    here, me = classroom(), this_browser()
    state = here.room.state
    if me not in state.students:
        _door(here, me)
        return
    _follow(here, me)
    stage, lesson = state.stage, state.lesson
    st.title(LESSONS[lesson].title, anchor=False)
    st.html(f"<small>You are {escape(state.students[me])}</small>")
    show_lesson(lesson)
    own = stage.predictions.get(me)
    if stage.open:
        _predict(here, me, state)
    elif own is not None:
        st.info(f"Your prediction: block {own.block}. Predictions are closed.", icon=":material/lock:")
    elif not stage.revealed:
        st.info("Predictions are not open yet. This page updates by itself.", icon=":material/hourglass_empty:")
    if not stage.shown:
        return
    measured = here.lessons[lesson]
    counts = stage.counts(here.room.lessons[lesson])
    block = None if own is None else own.block
    st.header("What was measured" if stage.revealed else "What the class predicts", anchor=False)
    st.html(votes_html(counts, measured if stage.revealed else None, block))
    if stage.revealed:
        st.caption(beside_it(measured))
        st.markdown(f"**{unmarked(outcome(measured, counts, block))}**")
        st.markdown(f"*{NOTES[lesson].after}*")


def _door(here: Classroom, me: str) -> None:
    st.title("LSF class", anchor=False)
    st.caption("Which block of a language model would you tune? Predict, then see what was measured.")
    with st.form("door", width=420):
        password = st.text_input("Password of the room", type="password")
        name = st.text_input("Nickname", max_chars=LONGEST_NAME)
        st.caption("Your teacher sees it beside your predictions.")
        if not st.form_submit_button("Join", type="primary"):
            return
    with guard():
        here.door.knock(password, this_address())
        here.room.join(me, name)
        st.rerun()


def _seen(here: Classroom, me: str) -> tuple[object, ...]:
    """Return what decides what this student's page shows."""
    state = here.room.state
    stage = state.stage
    counts = stage.counts(here.room.lessons[state.lesson]) if stage.shown else None
    return state.lesson, stage.open, stage.shown, stage.revealed, counts, stage.predictions.get(me)


def _follow(here: Classroom, me: str) -> None:
    """Draw the page again once the teacher went on, or this student predicted in another tab."""
    drawn = _seen(here, me)

    @st.fragment(run_every=LOOK)
    def look() -> None:
        if _seen(here, me) != drawn:
            st.rerun()

    look()


def _predict(here: Classroom, me: str, state: RoomState) -> None:
    own, lesson = state.stage.predictions.get(me), state.lesson
    block, why = f"block-{lesson}", f"why-{lesson}"
    if own is not None:
        st.session_state.setdefault(block, own.block)
        st.session_state.setdefault(why, own.why)
    with st.form(f"prediction-{lesson}", enter_to_submit=False):
        picked = st.pills(
            "Which block would you tune?",
            range(here.room.lessons[lesson]),
            key=block,
        )
        st.caption("Block 0 is nearest to the input. Everything you do not pick stays frozen.")
        reason = st.text_input("Why? (optional)", key=why, max_chars=LONGEST_REASON)
        sent = st.form_submit_button("Predict" if own is None else "Change my prediction", type="primary")
    if sent and picked is None:
        st.warning("Pick a block first.")
    elif sent and picked is not None:
        with guard():
            here.room.predict(me, lesson, picked, reason)
            st.rerun()
    elif own is not None:
        st.success(
            f"Your prediction is saved: block {own.block}. You can change it until your teacher closes predictions.",
            icon=":material/check:",
        )
