"""The truth on one's own model and task: a small sweep on the page Evidence, judged, and counted where asked."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from lsf.app.actions import follow, stop_buttons
from lsf.app.evidence import judged_table, not_decided, stop_counting, sweep_pictures
from lsf.app.findings import of_truth
from lsf.app.panels import empty, finding, progress, unmarked
from lsf.app.run_form import usual_steps
from lsf.app.runtime import AppRuntime, runtime
from lsf.app.state import Session, analysed, session
from lsf.app.work import Analysed, Source
from lsf.errors import LsfError
from lsf.evidence.own import keep_own, own_sweeps, record_here, truth_told
from lsf.evidence.regret import METRICS, Truth, can_judge, complete_seeds, truth_of
from lsf.evidence.study import judge_choices
from lsf.evidence.sweep import NOT_YET, Sweep, SweepSpec
from lsf.figures.criteria import measured_scores
from lsf.figures.sweeps import METRIC_WORDS
from lsf.jobs.job import JobState, JobView, Report
from lsf.progress import Forwarding, Stop

MOST_SEEDS = 3
"""Seeds measured at most, one after the other, as long as there is time."""


@dataclass(frozen=True)
class Swept:
    """A small sweep, finished or on its way, and what it is of."""

    source: Source
    """Model and data."""
    sweep: Sweep
    """What was measured."""


class _Timed(Forwarding):
    """A reporter that asks to pause when the time is over, and hands on sweeps with their source."""

    def __init__(self, report: Report, source: Source, seconds: float) -> None:
        super().__init__(report)
        self._source, self._end = source, time.monotonic() + seconds

    @property
    def stop(self) -> Stop | None:
        return self.report.stop or ("pause" if time.monotonic() > self._end else None)

    def partial(self, value: Any) -> None:
        self.report.partial(Swept(self._source, value))


def sweep_work(runtime: AppRuntime, source: Source, steps: int, seconds: float) -> Callable[[Report], Swept]:
    """Return the job that measures single blocks seed by seed until the time is over; what is measured stays.

    Args:
        runtime: has the model cache.
        source: model and data.
        steps: of every run.
        seconds: from the first run on; a run that is not done by then is left out.
    """

    def work(report: Report) -> Swept:
        from lsf.evidence.sweeping import (  # noqa: PLC0415
            carry_out_sweep,
            start_sweep,
        )

        report.progress(0, None, "reading the data")
        task = source.load_task()
        report.progress(0, None, f"loading {source.model}")
        loaded = runtime.model_cache().load(source.model, source.dtype, source.device)
        timed, sweep = _Timed(report, source, seconds), None
        for seeds in range(1, MOST_SEEDS + 1):
            spec = SweepSpec(
                source.model,
                source.data,
                prompt_template=source.prompt_template,
                completion_template=source.completion_template,
                **vars(source.options),
                seeds=seeds,
                steps=steps,
                dtype=source.dtype,
                device=source.device,
            )
            begun = start_sweep(loaded, task, spec, sweep)
            done = carry_out_sweep(loaded, task, begun, timed, lambda _sweep: None)
            if sweep is not None and all(cell.after is None for cell in done.cells if cell.seed == seeds - 1):
                break  # not one run of this seed was done in time
            sweep = done
            if timed.stop is not None:
                break
        assert sweep is not None
        return Swept(source, sweep)

    return work


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
        st.error(unmarked(view.error or "The sweep failed."), icon=":material/error:")
    swept = view.result if isinstance(view.result, Swept) else view.partial
    if isinstance(swept, Swept):
        _judge(found, swept)


def _latest(source: Source) -> JobView | None:
    """Return the newest sweep of this model and data that the worker remembers."""
    return next((view for view in reversed(runtime().jobs(KIND)) if view.about == source), None)


def swept_truth(here: Session) -> tuple[Truth, str] | None:
    """Return what the newest sweep of the analysed model and data measured, and its metric; None where there is none.

    Exact match, or the loss where that cannot judge (`can_judge`) or tells no block from another.
    """
    found = analysed(here)
    view = None if found is None else _latest(found.request.source)
    swept = None if view is None else view.result if isinstance(view.result, Swept) else view.partial
    if not isinstance(swept, Swept):
        return None
    seeds = complete_seeds(swept.sweep)
    for metric in METRICS if seeds else ():
        truth = truth_of(swept.sweep, metric, seeds)
        if can_judge(truth, metric) and truth.differ(truth.scores):
            return truth, metric
    return None


def _title(source: Source) -> str:
    return f"sweep of {source.title}"


def _start(here: Session, source: Source) -> None:
    st.caption(
        "Every block is tuned alone for the same steps and tested, then again under a second and third order of the "
        "data, as far as time allows. Each plan's learning rate is searched on validation examples, never on the test."
    )
    left, right = st.columns(2, gap="medium")
    minutes = left.slider("Maximum minutes", 0.2, 30.0, 3.0, step=0.2, key="truth-minutes", persist_state="session")
    usual, key = usual_steps(source.data, "truth")
    steps = right.number_input("Steps per run", 1, 10_000, usual, key=key, persist_state="session")
    if st.button("Measure the truth", type="primary", icon=":material/science:", key="measure-truth"):
        work = sweep_work(runtime(), source, int(steps), MINUTE * minutes)
        runtime().worker.submit(KIND, _title(source), work, here.owner, about=source)
        st.rerun()


def _watch(views: tuple[JobView, ...]) -> None:
    for view in views:
        progress(view)
        stop_buttons(session(), view)


def _judge(found: Analysed, swept: Swept) -> None:
    sweep = swept.sweep
    for cell in sweep.missing:
        if cell.reason != NOT_YET:
            st.warning(
                f"Missing, and not filled in: blocks {cell.plan}, seed {cell.seed}. {unmarked(str(cell.reason))}"
            )
    seeds = complete_seeds(sweep)
    if seeds < 1:
        n_done = len(sweep.cells) - len(sweep.missing)
        st.warning(
            f"Time ran out after {n_done} of {len(sweep.cells)} runs. While a block is unmeasured, the best is not "
            "known: allow more minutes or fewer steps.",
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
            persist_state="session",
        )
    )
    truth = truth_of(sweep, metric, seeds)
    not_decided(truth, 1)
    sweep_pictures(truth, metric, "truth")
    ways = judge_choices(truth, measured_scores(found.analysis), 1)
    judged_table(ways, metric, "truth-verdicts")
    _count_it(swept.source, sweep.of_first(seeds))
    finding(*of_truth(truth, ways, 1))


COUNTING = "evidence"


def count_work(runtime: AppRuntime, source: Source, sweep: Sweep) -> Callable[[Report], str]:
    """Return the job that scores the blocks as the study does and keeps the sweep on this machine; its result: a name.

    Args:
        runtime: has the model cache.
        source: model and data of the sweep.
        sweep: finished.
    """

    def work(report: Report) -> str:
        from lsf.evidence.scoring import scored_sweep  # noqa: PLC0415

        report.progress(0, None, "reading the data")
        task = source.load_task()
        report.progress(0, None, f"loading {source.model}")
        loaded = runtime.model_cache().load(source.model, source.dtype, source.device)
        one = scored_sweep(loaded, task, sweep, "this sweep", report)
        keep_own(one)
        return one.name

    return work


def _count_it(source: Source, sweep: Sweep) -> None:
    """Offer to let the recommendation rest on a sweep too, and say so while it does."""
    st.subheader("Use this sweep for the recommendation", anchor=False)
    view = next((view for view in reversed(runtime().jobs(COUNTING)) if view.about == source), None)
    if view is not None and view.active:
        follow(session(), (view.id,), _watch)
        return
    if view is not None and view.state is JobState.FAILED:
        st.error(unmarked(view.error or "It was not counted."), icon=":material/error:")
    if (one := next((one for one in own_sweeps() if one.sweep == sweep), None)) is not None:
        st.success(unmarked(f"Counted: the recommendation rests on {record_here().pairs}."), icon=":material/check:")
        stop_counting(one.name)
        return
    try:
        truth_told(sweep, "This sweep")
    except LsfError as error:
        st.info(unmarked(str(error)), icon=":material/block:")
        return
    st.caption(
        "The blocks are scored on as few training rows as the study reads, and the sweep is kept on this machine, in "
        "place of an earlier one of the same model, data and texts."
    )
    if st.button("Count it as evidence", icon=":material/add_chart:", key="count-truth"):
        work = count_work(runtime(), source, sweep)
        runtime().worker.submit(COUNTING, _title(source), work, session().owner, about=source)
        st.rerun()
