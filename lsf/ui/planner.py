"""What the asked run will need, shown before it starts: parts of its memory, time of a step, and what would fit."""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from lsf.errors import LsfError
from lsf.figures.memory import Need, draw_memory
from lsf.jobs.job import JobState, JobView
from lsf.jobs.phases import WORK
from lsf.jobs.spec import RunSpec
from lsf.training.footprint import PART_WORDS, RUN_SHARE, Forecast
from lsf.ui.bench import WARM_UP, bench
from lsf.ui.panels import amount, duration, show
from lsf.ui.polling import follow
from lsf.ui.state import Session
from lsf.ui.work import Foreseen, Source, forecast_work, without_effect

WHOLE = "full fine-tuning"
FORECAST = "forecast"
AT_ONCE = (WARM_UP, FORECAST, "unload")
"""Kinds of jobs that end within seconds; a forecast does not wait behind others unannounced."""


def draw_forecast(here: Session, source: Source, spec: RunSpec, roles: Sequence[str]) -> str | None:
    """Find out what the run needs, show it, and offer what would fit.

    With the model in memory and nobody waiting it is found out by itself, about a second for a small model; else when
    the user asks for it.

    Args:
        here: this session.
        source: model and data.
        spec: of the choice.
        roles: controls that are to run beside it.

    Returns:
        Why it cannot start, in one sentence; None where it can, or where that is not known.
    """
    asked = without_effect(spec)
    _take_answer(here)
    known = here.foreseen if here.foreseen is not None and here.foreseen.spec == asked else None
    if known is None:
        _find_out(here, source, asked)
    shown = known if known is not None else here.foreseen
    if shown is not None and shown.choice is not None and shown.spec.model == asked.model:
        _draw(shown.choice, shown.full, stale=known is None)
    return None if known is None else _obstacle(here, known, roles)


def _take_answer(here: Session) -> None:
    """Take the answer of a job that has ended, and let the worker forget the job."""
    if here.forecast_job is None or here.forecast_of is None:
        return
    try:
        view = bench().worker.view(here.forecast_job)
        if view.active:
            return
        bench().worker.forget(view.id)
    except LsfError:
        here.forecast_job = here.forecast_of = None
        return
    here.forecast_job = None
    if isinstance(view.result, Foreseen):
        here.foreseen = view.result
    elif view.state is JobState.FAILED:
        here.foreseen = Foreseen(here.forecast_of, failure=view.error)
    else:
        here.forecast_of = None


def _find_out(here: Session, source: Source, asked: RunSpec) -> None:
    """Ask the worker, or offer to where that would take long; while it works, look on."""
    if here.forecast_job is None or here.forecast_of != asked:
        if any(view.active and view.kind not in AT_ONCE for view in bench().worker.views()):
            st.caption(":material/schedule: What it needs is worked out when the queue is empty.")
            return
        at_hand = is_loaded(source)
        if not at_hand and not st.button(
            "Work out what it needs", icon=":material/memory:", key="tune-forecast", help="Loads the model first."
        ):
            return
        _drop(here)
        here.forecast_of = asked
        here.forecast_job = bench().worker.submit(
            FORECAST, "what a run needs", forecast_work(bench(), source, asked), here.owner, gives_way=True
        )
    follow(here, [here.forecast_job], _draw_waiting, quietly=True)


def _drop(here: Session) -> None:
    """Let go of a question whose answer is not wanted any more."""
    if here.forecast_job is not None:
        try:
            bench().worker.stop(here.forecast_job, here.owner, keep=False)
        except LsfError:
            return  # long forgotten


def is_loaded(source: Source) -> bool:
    """Say whether the model in memory is the one asked for."""
    loaded = bench().loaded()
    return loaded is not None and loaded.info.name == source.model and source.dtype in ("auto", loaded.info.dtype)


def _draw_waiting(views: Sequence[JobView]) -> None:
    for view in views:
        if view.active:
            st.caption(f":material/hourglass_top: Working out what it needs: {view.message or 'waiting'}.")


def _draw(choice: Forecast, full: Forecast | None, stale: bool) -> None:
    """Draw the parts of both, and say what a step takes."""
    needs = [Need(_name(choice), {PART_WORDS[name]: count for name, count in vars(choice.parts).items()})]
    if full is not None:
        needs.append(Need(WHOLE, {PART_WORDS[name]: count for name, count in vars(full.parts).items()}))
    allowed = None if choice.free_bytes is None else RUN_SHARE * choice.free_bytes
    words = [_words(choice)] + ([f"Full fine-tuning: {_words(full)}"] if full is not None else [])
    note = " ".join(words) + (" Being worked out again." if stale else "")
    show(draw_memory(needs, allowed), "forecast", note)


def _name(choice: Forecast) -> str:
    method = "" if choice.spec.method == "full" else f", {choice.spec.method}"
    return f"{choice.spec.plan.label}{method}"


def _words(found: Forecast) -> str:
    told = f"{amount(found.trainable_params)} parameters, {found.flops_ratio:.2f} x compute"
    wall = found.predicted.wall_seconds
    whole = "" if wall is None else f", about {duration(wall)} from start to end"
    if found.step_seconds is None:
        return f"{told}{whole}."
    step = f"{found.step_seconds * 1e3:.0f} ms" if found.step_seconds < 1 else duration(found.step_seconds)
    tuning = sum(found.phases[name] for name in WORK)
    return f"{told}{whole}: {duration(tuning)} of steps of {step} each, the rest reading and saving."


def _obstacle(here: Session, known: Foreseen, roles: Sequence[str]) -> str | None:
    """Say whether everything that is to start fits; where not, offer what does."""
    if known.refusal is not None:
        st.error(known.refusal, icon=":material/error:")
        _look_again(here)
        return known.refusal
    if known.failure is not None:
        st.warning(f"What it needs could not be worked out: {known.failure}", icon=":material/warning:")
        return None
    choice, full = known.choice, known.full
    assert choice is not None
    if choice.fits is False:
        st.error(choice.sentence, icon=":material/memory:")
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            _offer(here, choice)
            _look_again(here)
        return choice.sentence
    st.caption(f":material/memory: {choice.sentence}")
    if full is not None and full.fits is False and "full" in roles:
        reason = f"Full fine-tuning beside it: {full.sentence[:1].lower()}{full.sentence[1:]}"
        st.error(reason, icon=":material/memory:")
        left = [role for role in roles if role != "full"]
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Leave out full fine-tuning",
                icon=":material/compress:",
                key="tune-leave-full",
                on_click=lambda: st.session_state.update({"tune-roles": left}),
            )
            _look_again(here)
        return reason
    return None


def _look_again(here: Session) -> None:
    """Offer to ask anew: memory may have come free, a file may be there by now."""

    def forget() -> None:
        here.foreseen = here.forecast_of = None

    st.button("Look again", icon=":material/refresh:", type="tertiary", key="tune-look-again", on_click=forget)


def _offer(here: Session, choice: Forecast) -> None:
    """Offer the nearest version that fits; one click takes it into the form."""
    offer = choice.offer
    if offer is None:
        st.caption("Nothing smaller is left that would fit; take a smaller model, or free memory.")
        return
    st.button(
        f"Take what fits: {offer.words}",
        type="primary",
        icon=":material/compress:",
        key="tune-take-offer",
        help=offer.forecast.sentence,
        on_click=lambda: take(here, offer.spec, offer.forecast),
    )


def take(here: Session, spec: RunSpec, found: Forecast) -> None:
    """Put what fits into the form; runs before the script does."""
    for name in ("micro_batch", "activation_checkpointing", "max_length"):
        st.session_state[f"tune-{name}"] = getattr(spec, name)
    if here.plan is None or spec.plan.blocks != here.plan.blocks:
        here.plan = replace(spec.plan, predicted=found.predicted)
        here.by_hand = spec.plan.blocks
