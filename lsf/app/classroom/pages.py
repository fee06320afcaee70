"""The two pages of a class, a student's and the teacher's, and what its process shares.

Shared are the room, its two doors, and who came in as the teacher; on both pages is the histogram of predictions beside
what was measured, and the sentence under both.
"""

import os
import secrets
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

import pandas as pd
import streamlit as st

from lsf.app.browser import browser_name
from lsf.app.lessons import FOR_TEACHERS, NOTES, lessons_measured, show_lesson
from lsf.app.panels import download, guard, table_csv, unmarked
from lsf.classroom.room import (
    LONGEST_NAME,
    LONGEST_REASON,
    STUDENTS,
    TEACHER,
    Door,
    Room,
    RoomState,
    Stage,
    Step,
    password_of,
)
from lsf.data.lessons import LESSONS
from lsf.errors import BadInputError
from lsf.evidence.packed import Measured, shown
from lsf.evidence.regret import regret
from lsf.evidence.study import decided, level_with_best, within_chance
from lsf.figures.palette import CHOSEN, UNCHOSEN
from lsf.figures.sweeps import METRIC_WORDS

ROOM = "LSF_CLASS_ROOM"
"""Names the room's folder in the environment of this process."""
LOOK = 2.0
"""Seconds between two looks whether the teacher went on, or at what the class predicted."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would carry out."""
WIDEST = 100.0
"""Per cent of its cell that the longest bar takes."""
STYLE = f"""<style>
.lsf-votes {{ width: 100%; max-width: 62rem; border-collapse: collapse; table-layout: fixed; margin: 0; }}
.lsf-votes.half {{ max-width: 33rem; }}
.lsf-votes th, .lsf-votes td {{ padding: 0.16rem 0.5rem; border: none; text-align: left; font-weight: 400; }}
.lsf-votes thead th {{ opacity: 0.75; font-size: 0.9rem; }}
.lsf-votes thead th:first-child {{ width: 6.5rem; }}
.lsf-votes .number {{ width: 4rem; padding-left: 0; }}
.lsf-votes i {{ display: block; height: 1.15rem; min-width: 1px; border-radius: 2px; background: {UNCHOSEN.color}; }}
.lsf-votes .best i {{ border: 1.5px solid {CHOSEN.color};
  background: repeating-linear-gradient(45deg, {CHOSEN.color} 0 3px, transparent 3px 6px); }}
.lsf-votes tr.own th {{ font-weight: 700; }}
</style>"""


class Classroom:
    """A room with its doors. Not in Streamlit's caches, which any browser may ask to clear."""

    def __init__(self) -> None:
        """Open what the environment names.

        Raises:
            BadInputError: there is no room, or no password at a door.
        """
        students, teacher = password_of(STUDENTS), password_of(TEACHER)
        if ROOM not in os.environ or students is None or teacher is None:
            raise BadInputError("A class is started by `python -m lsf class`.")
        self.lessons = lessons_measured()
        blocks = {name: one.setting.truth.n_blocks for name, one in self.lessons.items()}
        self.room = Room(Path(os.environ[ROOM]), blocks)
        self.door, self.teachers_door = Door(students), Door(teacher)
        self.teachers: set[str] = set()


@cache
def classroom() -> Classroom:
    """Return the class of this process, opened at the first call."""
    return Classroom()


def this_browser() -> str:
    """Return the name of this browser; without cookies one that lasts until the page is loaded again."""
    named = browser_name()
    if named is None:
        named = st.session_state.setdefault("browser", secrets.token_hex(32))
    return named


def this_address() -> str:
    """Return where this browser is, for the wait after wrong passwords."""
    return st.context.ip_address or "this machine"


def draw_student() -> None:
    """Draw the page of a student: the door, then lesson, prediction and result, as far as the teacher has gone."""
    here, me = classroom(), this_browser()
    state = here.room.state
    if me not in state.students:
        _student_door(here, me)
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


def _student_door(here: Classroom, me: str) -> None:
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


def draw_teacher() -> None:
    """Draw the page of a teacher: who is in, predictions as they come, and the steps of a lesson."""
    here, me = classroom(), this_browser()
    if me not in here.teachers:
        _teacher_door(here, me)
        return
    state = here.room.state
    st.title(LESSONS[state.lesson].title, anchor=False)
    _steps(here, state)
    _watch(here, state)
    with st.expander("Notes for teachers", icon=":material/school:"):
        st.markdown(FOR_TEACHERS)
    _choose(here, state)


def _teacher_door(here: Classroom, me: str) -> None:
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
            rows = predictions_table(here, now, now.lesson)
            st.dataframe(rows, hide_index=True, placeholder="", column_order=["nickname", "block", "why"])

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


def votes_html(counts: Sequence[int], measured: Measured | None, own: int | None = None) -> str:
    """Return a table of bars, the last block on top as in the tower: predictions, and beside them what was measured.

    Args:
        counts: predictions of each block, block 0 first.
        measured: exact match of a lesson; None where it is not revealed.
        own: the block that this student predicted; None for nobody's.
    """
    truth = None if measured is None else [measured.setting.truth.mean((block,)) for block in range(len(counts))]
    head, size = "<th>Block</th><th>Predictions</th><th class='number'></th>", " half"
    if measured is not None:
        head += f"<th>Measured, tuned alone: {METRIC_WORDS[measured.metric]}</th><th class='number'></th>"
        size = ""
    rows = []
    for block in reversed(range(len(counts))):
        mine = " class='own'" if block == own else ""
        row = f"<tr{mine}><th scope='row'>{block}{' (yours)' if mine else ''}</th>"
        row += _bar(counts[block], max(*counts, 1), str(counts[block]))
        if truth is not None and measured is not None:
            best = max(truth)
            row += _bar(truth[block], best, shown(truth[block], measured.metric), truth[block] == best)
        rows.append(f"{row}</tr>")
    return f"{STYLE}<table class='lsf-votes{size}'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _bar(length: float, longest: float, label: str, best: bool = False) -> str:
    share = WIDEST * length / longest if longest > 0 else 0.0
    kind = " best" if best else ""
    return f"<td class='bar{kind}'><i style='width:{share:.0f}%'></i></td><td class='number'>{label}</td>"


def beside_it(measured: Measured) -> str:
    """Return what the measured bars are to be seen beside: the base model and the whole model."""
    truth, metric = measured.setting.truth, measured.metric
    full = sum(truth.full) / len(truth.full)
    return (
        f"For comparison: the base model {shown(truth.base, metric)}, the whole model tuned {shown(full, metric)}. "
        f"Means of {len(truth.full)} runs, measured before this class."
    )


def outcome(measured: Measured, counts: Sequence[int], own: int | None = None) -> str:
    """Return what came out, in one sentence, and for whoever predicted a second one about that.

    Args:
        measured: of the lesson.
        counts: predictions of each block, block 0 first.
        own: the block that this student predicted; None for nobody's.
    """
    truth, metric = measured.setting.truth, measured.metric
    best = truth.best(truth.plans(1))
    level = sorted(block for (block,) in level_with_best(truth, 1))
    beside = ""
    if decided(truth, 1) is False:
        beside = ", but that is not decided: the blocks differ by no more than chance"
    elif level:
        beside = f", level within chance with {', '.join(map(str, level))}"
    votes = f"{counts[best[0]]} of {sum(counts)} predicted it"
    told = f"Block {best[0]} scored best ({shown(truth.mean(best), metric)}{beside}); {votes}."
    if own is None:
        return told
    if own == best[0]:
        return f"{told} So did you."
    lost = f"{regret(truth, (own,)).regret:.2f} less"
    if within_chance(truth, (own,)):
        return f"{told} Yours, block {own}, is level with it: {lost} is within chance."
    return f"{told} Yours, block {own}, scored {lost}."
