"""What *Choose* offers instead of a prediction: depths that are tuned briefly and the best taken, and even spacing."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from lsf.app.actions import follow, stop_buttons
from lsf.app.choose import Budget
from lsf.app.panels import guard, progress, table, unmarked
from lsf.app.run_form import usual_steps
from lsf.app.runtime import AppRuntime, runtime
from lsf.app.state import Session, analysed, session
from lsf.app.work import Source
from lsf.criteria.result import Analysis
from lsf.evidence.real import Spacing, tried_record
from lsf.jobs.job import JobState, JobView, Report
from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import spaced_plan
from lsf.plans.tries import DEPTHS, FACTORS, Tries, short_words, tried_steps
from lsf.runs.spec import RunSpec
from lsf.wording import counted

KIND = "tries"


@dataclass(frozen=True)
class Asked:
    """What was to be tried."""

    source: Source
    """Model and data."""
    blocks: int
    """How many neighbours."""
    steps: int
    """Of the run that is to be made."""


def tries_work(runtime: AppRuntime, asked: Asked) -> Callable[[Report], Tries]:
    """Return the job that tries five depths with all weights at their default rate, and two rates beside that.

    Args:
        runtime: has the model cache.
        asked: model, data, number of blocks, and steps of the run.
    """

    def work(report: Report) -> Tries:
        from lsf.training.depth_search import try_depths  # noqa: PLC0415 loads torch

        source = asked.source
        report.progress(0, None, "reading the data")
        task = source.load_task()
        report.progress(0, None, f"loading {source.model}")
        loaded = runtime.model_cache().load(source.model, source.dtype, source.device)
        spec = RunSpec(
            source.model,
            source.data,
            Plan(source.model, loaded.info.n_blocks, tuple(range(asked.blocks))),
            prompt_template=source.prompt_template,
            completion_template=source.completion_template,
            **vars(source.options),
            steps=asked.steps,
            dtype=source.dtype,
            device=source.device,
        )
        return try_depths(loaded, task, spec, report)

    return work


def tries_panel(here: Session, budget: Budget, opened: bool = False) -> None:
    """Offer to try five depths for the budget at hand; show what came out, and offer to take it.

    Args:
        here: this session; taking the best is a choice by hand.
        budget: its number of blocks is tried.
        opened: whether it can be read at once.
    """
    found = analysed(here)
    if found is None:
        return
    source = replace(found.request.source, general=None)
    with st.expander("Try instead of predicting", opened, icon=":material/experiment:", key="tries"):
        size = "one block" if budget.blocks == 1 else f"{budget.blocks} neighbouring blocks"
        st.markdown(
            f"Tune {size} at each of {len(DEPTHS)} depths for half of a run's steps, then the best of them at half and "
            "twice the rate, and take what has the least validation loss. Nothing is predicted, and the test examples "
            "are never looked at."
        )
        told = tried_record(budget.blocks)
        st.caption(unmarked(told or f"With {counted(budget.blocks, 'block')} this was measured on no real model."))
        view = _latest(source, budget.blocks)
        if view is not None and view.active:
            follow(here, (view.id,), _watch)
            return
        _start(here, source, budget.blocks)
        if view is not None and view.state is JobState.FAILED:
            st.error(unmarked(view.error or "Trying failed."), icon=":material/error:")
        if view is not None and isinstance(view.result, Tries):
            _show(here, view.result)


def spacing_panel(here: Session, found: Analysis, held: Spacing, blocks: int, opened: bool = False) -> None:
    """Offer blocks spread evenly over the depth, with what they lost where that was measured.

    Args:
        here: this session; taking them is a choice by hand.
        found: the analysis that is looked at.
        held: what they lost where it was measured.
        blocks: how many.
        opened: whether it can be read at once.
    """
    plan = spaced_plan(found, blocks)
    with st.expander("Spread the blocks evenly", opened, icon=":material/more_horiz:", key="spacing"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**Tune {plan.label}**, spread from the first to the last. It takes no measurement.")
            if st.button("Use these blocks", icon=":material/check:", key="take-spaced"):
                here.by_hand, here.taken = plan.blocks, plan
                st.rerun()
        st.caption(unmarked(held.words))
        st.caption(
            "Block 0 is among them, so that backward passes go through the whole model and no states can be kept: a "
            "step takes longer than one of the last blocks alone."
        )


def _latest(source: Source, blocks: int) -> JobView | None:
    """Return the newest tries of this model, data and number of blocks that the worker remembers."""

    def same(about: object) -> bool:
        return isinstance(about, Asked) and (about.source, about.blocks) == (source, blocks)

    return next((view for view in reversed(runtime().jobs(KIND)) if same(view.about)), None)


def _start(here: Session, source: Source, blocks: int) -> None:
    usual, key = usual_steps(source.data, "tries")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        steps = int(st.number_input("Steps of the run", 1, 100_000, usual, key=key, persist_state="session", width=180))
        told = f"Try {len(DEPTHS)} depths and {len(FACTORS)} rates, {counted(tried_steps(steps), 'step')} each"
        if st.button(told, icon=":material/play_arrow:", key="start-tries"):
            with guard():
                asked = Asked(source, blocks, steps)
                title = f"{len(DEPTHS)} depths of {source.title}"
                runtime().worker.submit(KIND, title, tries_work(runtime(), asked), here.owner, about=asked)
                st.rerun()


def _watch(views: tuple[JobView, ...]) -> None:
    for view in views:
        progress(view)
        stop_buttons(session(), view)


def _show(here: Session, tries: Tries) -> None:
    best = tries.best
    rows = [
        {"blocks": format_blocks(one.blocks), "validation loss": one.loss, "rate": one.learning_rate}
        for one in (*tries.tries, *tries.rates)
    ]
    told = "Nats per completion token; empty where it diverged."
    table(pd.DataFrame(rows), "tries-table", column_config={
        "validation loss": st.column_config.NumberColumn(format="%.3f", help=told),
        "rate": st.column_config.NumberColumn(format="%.2g"),
    })  # fmt: skip
    if best is None:
        st.warning("The loss diverged at every depth.", icon=":material/warning:")
        return
    where = f"block{'' if len(best.blocks) == 1 else 's'} {format_blocks(best.blocks)}"
    read = f"after {tries.steps} of {counted(tries.run_steps, 'step')}, on {counted(tries.examples, 'example')}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"**Tune {where}** at {best.learning_rate:.2g}: the least validation loss {read} (base model "
            f"{tries.base_loss:.3f})."
        )
        if st.button("Use this plan", icon=":material/check:", key="take-tries"):
            here.by_hand, here.taken = best.blocks, tries.plan
            st.rerun()
    if (told := short_words(tries.steps)) is not None:
        st.warning(told, icon=":material/warning:")
    if not tries.gained:
        st.warning(
            "No try ended below the base model's loss; more steps may tell them apart.", icon=":material/warning:"
        )
