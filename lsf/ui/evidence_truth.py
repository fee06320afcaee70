"""The truth panel: a small sweep on the analysed model and task, and the regret of each criterion there."""

import streamlit as st

from lsf.compare.regret import METRICS, complete_seeds, truth_of
from lsf.compare.verdicts import verdicts
from lsf.figures.criteria import measured_scores
from lsf.figures.sweeps import METRIC_WORDS
from lsf.jobs.job import JobState, JobView
from lsf.jobs.sweep import NOT_YET
from lsf.ui.actions import stop_buttons
from lsf.ui.bench import bench
from lsf.ui.evidence_panels import not_decided, sweep_pictures, verdict_table
from lsf.ui.panels import empty, progress
from lsf.ui.polling import follow
from lsf.ui.run_settings import usual_steps
from lsf.ui.state import Session, analysed, session
from lsf.ui.sweep_work import Swept, sweep_work
from lsf.ui.work import Analysed, Source

KIND = "sweep"
MINUTE = 60.0
"""Seconds of one on the slider."""


def truth_panel(here: Session) -> None:
    """Draw the panel: what it would measure, the job while it runs, and what came out."""
    st.header("The truth on your model and task", anchor=False)
    found = analysed(here)
    if found is None:
        empty("Nothing to measure on yet", "Run an analysis first: it loads a model and scores its blocks.", "model")
        return
    source = found.request.source
    view = _latest(source)
    if view is not None and view.active:
        follow(here, (view.id,), _watch)
        return
    _start(here, source)
    if view is None:
        return
    if view.state is JobState.FAILED:
        st.error(view.error or "The sweep failed.", icon=":material/error:")
    swept = view.result if isinstance(view.result, Swept) else view.partial
    if isinstance(swept, Swept) and swept.source == source:
        _judge(found, swept)
    elif isinstance(swept, Swept):
        st.info("The last sweep was of the same names with other templates or settings; its truth is not shown here.")


def _latest(source: Source) -> JobView | None:
    """Return the newest sweep of this model and data that the worker remembers."""
    title = _title(source)
    return next((view for view in reversed(bench().jobs(KIND)) if view.title == title), None)


def _title(source: Source) -> str:
    return f"sweep of {source.model} on {source.data}"


def _start(here: Session, source: Source) -> None:
    st.caption(
        "Every block is tuned alone for the same steps and tested, then again under a second and third order of the "
        "data, as far as the time goes. Each plan searches its rate on validation examples; the test chooses nothing."
    )
    left, right = st.columns(2, gap="medium")
    minutes = left.slider("Minutes at most", 0.2, 30.0, 3.0, step=0.2, key="truth-minutes", persist_state="session")
    usual, key = usual_steps(source.data, "truth")
    steps = right.number_input("Steps of each run", 1, 10_000, usual, key=key)
    if st.button("Measure the truth", type="primary", icon=":material/science:", key="measure-truth"):
        work = sweep_work(bench(), source, int(steps), MINUTE * minutes)
        bench().worker.submit(KIND, _title(source), work, here.owner)
        st.rerun()


def _watch(views: tuple[JobView, ...]) -> None:
    for view in views:
        progress(view)
        stop_buttons(session(), view)


def _judge(found: Analysed, swept: Swept) -> None:
    sweep = swept.sweep
    for cell in sweep.missing:
        if cell.reason != NOT_YET:
            st.warning(f"Missing, and not filled in: blocks {cell.plan}, seed {cell.seed}. {cell.reason}")
    seeds = complete_seeds(sweep)
    if seeds < 1:
        n_done = len(sweep.cells) - len(sweep.missing)
        st.warning(
            f"The time was over after {n_done} of {len(sweep.cells)} runs. With one block unmeasured the best is not "
            "known: give it more minutes or fewer steps.",
            icon=":material/hourglass_disabled:",
        )
        return
    metric = str(
        st.segmented_control(
            "Judged by",
            METRICS,
            default=METRICS[0],
            format_func=lambda name: METRIC_WORDS[name],
            required=True,
            key="truth-metric",
        )
    )
    truth = truth_of(sweep, metric, seeds)
    if truth.range <= 0:
        st.info("Full fine-tuning gains nothing here by this measure, so that there is no relative regret.")
    not_decided(truth, 1)
    verdict_table(verdicts(truth, measured_scores(found.analysis), 1), metric, "truth-verdicts")
    sweep_pictures(truth, metric, "truth")
