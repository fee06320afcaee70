"""The page of a teacher: who is in, predictions as they come, and the steps of a lesson."""

import pandas as pd
import streamlit as st

from lsf.app.classroom.shared import Classroom, classroom, this_address, this_browser
from lsf.app.classroom.votes import beside_it, outcome, votes_html
from lsf.app.lesson_notes import FOR_TEACHERS, NOTES
from lsf.app.panels import download, guard, table_csv, unmarked
from lsf.classroom.room import RoomState, Stage, Step
from lsf.data.lessons import LESSONS

LOOK = 2.0
"""Seconds between two looks at what the class predicted."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would carry out."""


def draw() -> None:
    """Draw the page."""
    here, me = classroom(), this_browser()
    if me not in here.teachers:
        _door(here, me)
        return
    state = here.room.state
    st.title(LESSONS[state.lesson].title, anchor=False)
    _steps(here, state)
    _watch(here, state)
    with st.expander("Notes for teachers", icon=":material/school:"):
        st.markdown(FOR_TEACHERS)
    _choose(here, state)


def _door(here: Classroom, me: str) -> None:
    st.title("LSF class: the teacher", anchor=False)
    with st.form("teachers-door", width=420):
        password = st.text_input("Password of the teacher", type="password")
        if not st.form_submit_button("Enter", type="primary"):
            return
    with guard():
        here.teachers_door.knock(password, this_address())
        here.teachers.add(me)
        st.rerun()


def _steps(here: Classroom, state: RoomState) -> None:
    """Draw the buttons that lead the class; each is there while it can be pressed."""
    stage, order = state.stage, list(here.room.lessons)
    after = order[(order.index(state.lesson) + 1) % len(order)]
    steps: list[tuple[str, Step]] = [("Close predictions", "close") if stage.open else ("Open predictions", "open")]
    steps.append(("Hide the histogram", "hide") if stage.shown else ("Show the histogram", "show"))
    steps.append(("Reveal what was measured", "reveal"))
    forward: Step = "reveal" if stage.predictions and not stage.open else "close" if stage.open else "open"
    with st.container(horizontal=True, gap="small"), guard():
        for label, step in () if stage.revealed else steps:
            if st.button(label, key=f"step-{step}", type="primary" if step == forward else "secondary"):
                here.room.step(step)
                st.rerun()
        if stage.revealed and st.button(f"Next lesson: {LESSONS[after].title}", key="next", type="primary"):
            here.room.go_to(after)
            st.rerun()


def _watch(here: Classroom, state: RoomState) -> None:
    """Draw what changes by itself, every few seconds; and all of the page where a step was taken elsewhere."""

    def drawn(now: RoomState) -> tuple[object, ...]:
        stage = now.stage
        return now.lesson, stage.open, stage.shown, stage.revealed, bool(stage.predictions)

    @st.fragment(run_every=LOOK)
    def look() -> None:
        now = here.room.state
        if drawn(now) != drawn(state):
            st.rerun()
        stage, measured = now.stage, here.lessons[now.lesson]
        counts = stage.counts(measured.setting.truth.n_blocks)
        told = "revealed" if stage.revealed else "open" if stage.open else "closed"
        seen = "sees the histogram" if stage.shown else "does not see the histogram"
        columns = st.columns(3, gap="medium")
        columns[0].metric("In the room", len(now.students))
        columns[1].metric("Have predicted", f"{len(stage.predictions)} of {len(now.students)}")
        columns[2].metric("Predictions", told)
        st.caption(f"The class {seen}.")
        st.html(votes_html(counts, measured if stage.revealed else None))
        if stage.revealed:
            st.caption(beside_it(measured))
            st.markdown(f"**{unmarked(outcome(measured, counts))}**")
            st.markdown(f"*{NOTES[now.lesson].after}*")
        with st.expander("Who predicted what, and why", icon=":material/table_rows:", key="who"):
            shown = predictions_table(here, now, now.lesson)
            st.dataframe(shown, hide_index=True, placeholder="", column_order=["nickname", "block", "why"])

    look()
    download("All predictions as CSV", lambda: all_csv(here), "predictions.csv", "text/csv", "csv")


def _choose(here: Classroom, state: RoomState) -> None:
    with st.expander("Go to another lesson", icon=":material/list:", key="lessons"), guard():
        for name in here.room.lessons:
            stage = state.stages.get(name)
            done = "" if stage is None else f" ({len(stage.predictions)} predicted{', revealed' * stage.revealed})"
            if st.button(f"{LESSONS[name].title}{done}", key=f"go-{name}", disabled=name == state.lesson):
                here.room.go_to(name)
                st.rerun()


def predictions_table(here: Classroom, state: RoomState, lesson: str) -> pd.DataFrame:
    """Return one row per student who predicted, in the order of nicknames."""
    stage, truth = state.stages.get(lesson, Stage()), here.lessons[lesson].setting.truth
    rows = [
        {
            "nickname": state.students[student],
            "lesson": lesson,
            "block": one.block,
            "why": one.why,
            "time (UTC)": one.at,
            "measured": truth.mean((one.block,)) if stage.revealed else None,
        }
        for student, one in stage.predictions.items()
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: str(row["nickname"]).casefold()))


def all_csv(here: Classroom) -> str:
    """Return the predictions of all lessons as CSV; what a spreadsheet would carry out begins with an apostrophe."""
    state = here.room.state
    found = pd.concat([predictions_table(here, state, lesson) for lesson in here.room.lessons])
    for name in {"nickname", "why"} & set(found.columns):
        found[name] = [f"'{text}" if text.startswith(FORMULA) else text for text in found[name]]
    return table_csv(found)
