"""The graft on a page: which of a run's tuned blocks did it, on the tower, in numbers, and in an answer."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.app.actions import follow, stop_buttons
from lsf.app.panels import attempt, guard, progress, unmarked
from lsf.app.panels import table as show_table
from lsf.app.runs import label
from lsf.app.runtime import runtime
from lsf.app.state import Session
from lsf.app.tower import draw_graft, show_tower
from lsf.app.tuned_models import first_prompt, pick_run, show_answers, start_asking, with_weights
from lsf.app.work import Asked, graft_work, source_of
from lsf.errors import LsfError
from lsf.jobs.job import JobState, JobView
from lsf.plans.plan import Plan
from lsf.runs.answers import AnswerSettings, Voice
from lsf.runs.graft import GRAFT, WAYS, Difference, Graft, Part, Way, which_did_it
from lsf.runs.store import Run
from lsf.runs.verdict import percent

KIND, ANSWER_KIND = "graft", "ask-graft"
KEY, PART = "graft-tower", "graft-part"
WORDS: dict[Way, str] = {"alone": "gained by it alone, over the floor", "without": "lost without it"}
NOTE = (
    "Each tuned block alone is put into the base model, and each alone is taken out of the tuned model; both are "
    "tested on the run's test rows. Intervals are 95 % over test rows, paired; whether blocks can be told apart is "
    "judged by intervals that hold for all of them together. The floor is the better of the base model and the "
    "best answer that ignores the prompt."
)


def draw_graft_panel(here: Session, picked: Sequence[Run]) -> None:
    """Show the graft of one of the runs compared, or offer to measure it.

    Args:
        here: this session.
        picked: the runs compared.
    """
    runs = [run for run in with_weights(picked) if run.spec is not None and _n_parts(run.spec.plan) > 1]
    if not runs:  # of a single part there is nothing to ask
        return
    st.subheader("Which of the tuned blocks did it?", anchor=False)
    first = next((run for run in runs if run.spec is not None and run.spec.role in ("choice", "manual")), runs[0])
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        run = pick_run("Run", runs, f"graft-run-{first.id}", first)
        shown = st.segmented_control(
            "Each block",
            list(WAYS),
            format_func=WAYS.__getitem__,
            default="alone",
            required=True,
            key="graft-way",
            persist_state="session",
        )
    way: Way = "alone" if shown == "alone" else "without"
    found = attempt(lambda: Graft.load(run.folder / GRAFT)) if (run.folder / GRAFT).is_file() else None
    views = [view for view in runtime().jobs(KIND) if view.title == _title(run)]
    if views and (views[-1].active or (found is None and views[-1].state is JobState.FAILED)):
        follow(here, [views[-1].id], lambda seen: _measuring(here, run, way, seen))
    if found is not None and not (views and views[-1].active):
        _show(here, run, found, way)
    elif not views or not views[-1].active:
        st.caption(NOTE)
        if st.button("Measure the graft", icon=":material/call_split:", key="graft-measure"):
            with guard():
                assert run.spec is not None
                work = graft_work(runtime(), source_of(run.spec), run.folder)
                runtime().worker.submit(KIND, _title(run), work, here.owner)
                st.rerun()


def _n_parts(plan: Plan) -> int:
    """Return how many parts of a model are tuned: blocks, and all that lies outside of them as one."""
    return len(plan.blocks) + any((plan.embedding, plan.final_norm, plan.head, plan.modules))


def _title(run: Run) -> str:
    return f"graft of {label(run)} ({run.id[-4:]})"


def _measuring(here: Session, run: Run, way: Way, views: Sequence[JobView]) -> None:
    """Show how far a measurement is, with the tower as it fills."""
    for view in views:
        if view.active:
            progress(view)
            stop_buttons(here, view)
        if view.error is not None and view.state is JobState.FAILED:
            st.error(unmarked(view.error), icon=":material/error:")
        if isinstance(view.partial, Graft) and run.spec is not None and view.active:
            show_tower(draw_graft(run.spec.plan.n_blocks, view.partial, way), (), None, KEY)


def _show(here: Session, run: Run, found: Graft, way: Way) -> None:
    assert run.spec is not None
    names = {part.name: part for part in found.parts}
    most = found.most(way) or found.parts[0]
    if here.part not in names:
        here.part = None
    answer, together = which_did_it(found)
    st.markdown(f"**{unmarked(answer)}** {unmarked(together)}")
    left, right = st.columns([1, 2], gap="medium")
    with left:

        def pick(_: int, block: int) -> None:
            if (name := f"block {block}") in names:
                here.part = st.session_state[PART] = name

        shown = names[here.part or most.name]
        show_tower(draw_graft(run.spec.plan.n_blocks, found, way), (), pick, KEY, shown.block)
    with right:
        st.session_state[PART] = here.part or most.name

        def chosen() -> None:
            here.part = st.session_state[PART]

        st.selectbox("Tuned part", list(names), format_func=str.capitalize, key=PART, on_change=chosen, width=320)
        part = names[st.session_state[PART]]
        _numbers(found, part, way)
    _answers(here, run, part, way)
    with st.expander("Every part, number by number", icon=":material/table:"):
        show_table(graft_table(found), "graft")
        st.caption(NOTE)


def _numbers(found: Graft, part: Part, way: Way) -> None:
    effect, other = part.effect(way), part.effect("without" if way == "alone" else "alone")
    held, name = (found.base, "base") if way == "alone" else (found.tuned, "tuned")
    share = found.share(part, way)
    with st.container(horizontal=True, gap="small"):
        loss = "not finite" if effect.reading.loss is None else f"{effect.reading.loss:.3f}"
        beside = "" if held.loss is None else f"{name} model {held.loss:.3f}"
        st.metric("Test loss", loss, beside or None, delta_color="off", delta_arrow="off", border=True)
        matched = f"{name} model {percent(held.exact_match)}"
        st.metric(
            "Exact match", percent(effect.reading.exact_match), matched, delta_color="off", delta_arrow="off",
            border=True,
        )  # fmt: skip
        st.metric(
            f"Nats: {WORDS[way]}",
            "unknown" if effect.by_loss is None else f"{effect.by_loss.mean:.3g}",
            None if effect.by_loss is None else effect.by_loss.words,
            delta_color="off", delta_arrow="off", border=True,
        )  # fmt: skip
    turned: Way = "without" if way == "alone" else "alone"
    told = []
    if share is not None and found.gain is not None:
        gained = f"{percent(share)} of the {found.gain.mean:.3g} nats that tuning gained"
        told.append(gained if share > 0 else "not over the floor")
    if other.by_loss is not None:
        told.append(f"the other way round, {WORDS[turned]}: {other.by_loss.mean:.3g} nats ({other.by_loss.words})")
    if text := "; ".join(told):
        st.caption(unmarked(f"{text[:1].upper()}{text[1:]}."))


def _answers(here: Session, run: Run, part: Part, way: Way) -> None:
    """Let base, graft and tuned model answer the prompt at hand, once a part was picked."""
    assert run.spec is not None
    asked_here = here.prompts_of == source_of(run.spec)  # a prompt of other data says nothing of this run
    prompt = here.prompts[0] if here.prompts and asked_here else first_prompt(run)
    if not prompt:
        return
    voice = Voice(run.folder, way, (part.block,))
    key = (voice, prompt)
    view = _known(here.grafted.get(key))
    if view is None and here.part is not None:
        asked = Asked((Voice(), voice, Voice(run.folder)), (prompt,), AnswerSettings(tokens=24))
        with guard():
            here.grafted[key] = start_asking(here, run, asked, ANSWER_KIND, gives_way=True)
            view = _known(here.grafted[key])
    if view is None or view.state is JobState.CANCELLED:
        if st.button("Let it answer", icon=":material/forum:", key="graft-answer", help=unmarked(prompt)):
            here.part = part.name
            here.grafted.pop(key, None)
            st.rerun()
        return
    follow(here, [view.id], _draw_answers, quietly=True, every=lambda now: 0.5)


def _known(job: str | None) -> JobView | None:
    if job is None:
        return None
    try:
        return runtime().worker.view(job)
    except LsfError:
        return None


def _draw_answers(views: Sequence[JobView]) -> None:
    for view in views:
        asked = view.result or view.partial
        if view.error is not None:
            st.error(unmarked(view.error), icon=":material/error:")
        elif isinstance(asked, Asked):
            show_answers(asked, {})
        elif view.active:
            progress(view)


def graft_table(found: Graft) -> pd.DataFrame:
    """Return a row per part with both ways side by side; empty cells are unknown."""

    def cells(part: Part, way: Way) -> dict[str, object]:
        effect = part.effect(way)
        return {
            f"loss, {way}": effect.reading.loss,
            f"exact match, {way}": effect.reading.exact_match,
            f"nats {WORDS[way]}": None if effect.by_loss is None else effect.by_loss.mean,
            f"interval, {way}": _interval(effect.by_loss),
            f"behind the first, {way}": _interval(effect.behind),
        }

    return pd.DataFrame([{"part": part.name, **cells(part, "alone"), **cells(part, "without")} for part in found.parts])


def _interval(difference: Difference | None) -> str | None:
    return None if difference is None else difference.words
