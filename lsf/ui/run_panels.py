"""Runs on the page: the queue with positions, live curves, what came of them, and every run on disk."""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from lsf.compare.table import to_row
from lsf.figures.curves import draw_curves
from lsf.jobs.job import JobState, JobView
from lsf.jobs.result import RunState
from lsf.jobs.runs import Run, can_resume, delete_run, runs_folder
from lsf.ui.actions import go_on_buttons, stop_buttons
from lsf.ui.bench import bench
from lsf.ui.guard import guard
from lsf.ui.panels import duration, progress, progress_of_queue, show
from lsf.ui.proof_panels import show_proof
from lsf.ui.runs import AXES, METRICS, curves, label, runs_table
from lsf.ui.state import Session, session


def draw_queue(here: Session, active: Sequence[JobView]) -> None:
    """Draw how far all of them are, the running job and those that wait, each with what its owner may do."""
    outlook = bench().worker.outlook()
    if outlook is not None and outlook.n_jobs > 1:
        progress_of_queue(outlook)
    waiting = [view for view in active if view.state is JobState.QUEUED]
    for view in active:
        if view not in waiting:
            _draw_job(here, view, waits=False)
    if not waiting:
        return
    with st.expander("Those that wait", icon=":material/playlist_play:", expanded=len(waiting) < 3, key="waiting"):
        own = [view for view in waiting if view.owner in ("", here.owner)]
        if len(own) > 1 and st.button("Take all of mine out of the queue", icon=":material/clear_all:", key="stop-all"):
            with guard():
                for view in reversed(own):
                    bench().worker.stop(view.id, here.owner)
                st.rerun(scope="fragment")
        for view in waiting:
            _draw_job(here, view, waits=True)


def _draw_job(here: Session, view: JobView, waits: bool) -> None:
    with st.container(
        key=f"job-{view.id}", gap="xsmall", horizontal=waits, vertical_alignment="center", border=not waits
    ):
        progress(view)
        stop_buttons(here, view)


def draw_curves_panel(group: Sequence[Run]) -> None:
    """Draw one metric of runs that belong together."""
    with st.container(horizontal=True, gap="medium"):
        metric = st.segmented_control(
            "Metric",
            list(METRICS),
            default="validation exact match",
            required=True,
            key="curve-metric",
            persist_state="session",
        )
        axis = st.segmented_control(
            "Against", list(AXES), default="steps", required=True, key="curve-axis", persist_state="session"
        )
    picture = draw_curves(curves(group, metric, axis), metric, axis, *METRICS[metric][1:])
    notes = {
        "training loss": "Loss of each step's own batch, in nats per completion token.",
        "validation loss": "Loss on held-out validation examples, in nats per completion token.",
        "validation exact match": "Share of held-out validation examples whose whole completion is right.",
    }
    show(picture, "curves", notes[metric] + " Seconds count training steps only, not the readings in between.")


def draw_results(group: Sequence[Run], views: Mapping[str, JobView]) -> None:
    """Draw where each run of a group stands, and why one failed."""
    st.dataframe(
        pd.DataFrame([_result_row(run, views.get(run.id)) for run in group]),
        hide_index=True,
        placeholder="",
        column_config={
            "test before": st.column_config.NumberColumn(format="percent"),
            "test after": st.column_config.NumberColumn(format="percent"),
            "rate": st.column_config.NumberColumn(format="%.2g"),
        },
    )
    for run in group:
        if run.state is RunState.FAILED and run.problem:
            st.error(f"{label(run)}: {run.problem}", icon=":material/error:")
        elif run.state is RunState.INTERRUPTED:
            st.warning(f"{label(run)}: {run.problem}", icon=":material/power_off:")
        elif run.state is RunState.CANCELLED and can_resume(run):
            st.info(f"{label(run)}: {run.problem}", icon=":material/stop_circle:")
        for words in () if run.result is None else run.result.warnings:
            st.warning(f"{label(run)}: {words}", icon=":material/warning:")
        go_on_buttons(session(), run)
    if any(run.result is not None for run in group) and not any(view.active for view in views.values()):
        with st.expander("Proof, and how the runs were carried out", icon=":material/verified:"):
            show_proof(group, "tune")


def _result_row(run: Run, view: JobView | None) -> dict[str, object]:
    result = run.result
    before = result.before if result is not None else None
    after = result.after if result is not None else None
    row = to_row(run)
    whole = row.total_seconds if result is not None else view.seconds if view is not None else None
    return {
        "run": label(run),
        "state": str(run.state),
        "steps": result.steps if result is not None else _steps_so_far(view),
        "rate": result.learning_rate if result is not None else run.spec.given_rate if run.spec else None,
        "training": None if row.tuning_seconds is None else duration(row.tuning_seconds),
        "in all": None if whole is None else duration(whole),
        "test before": before.exact_match if before is not None else None,
        "test after": after.exact_match if after is not None else None,
    }


def _steps_so_far(view: JobView | None) -> int | None:
    """Return the step of the last row a running job told."""
    return view.partial["step"] if view is not None and isinstance(view.partial, dict) else None


def draw_store(here: Session, runs: Sequence[Run]) -> None:
    """Draw every run on disk; a selected one can be looked at or deleted."""
    if not runs:
        return
    with st.expander(f"All {len(runs)} runs in {runs_folder()}", icon=":material/folder_open:"):
        table = runs_table(runs)
        event = st.dataframe(
            table, hide_index=True, placeholder="", on_select="rerun", selection_mode="multi-row", key="run-store"
        )
        picked = [runs[row] for row in event["selection"]["rows"] if row < len(runs)]
        with st.container(horizontal=True, gap="small"):
            if st.button("Look at it", icon=":material/visibility:", key="store-look", disabled=len(picked) != 1):
                _look_at(here, picked[0])
            if st.button("Delete", icon=":material/delete:", key="store-delete", disabled=not picked):
                _delete(here, picked)
        if not picked:
            st.caption("Select rows to look at a run's curves, or to delete runs from the disk.")


def _look_at(here: Session, run: Run) -> None:
    here.run = run.id
    st.query_params["run"] = run.id
    if run.spec is not None and run.spec.role in ("choice", "manual"):
        here.plan = run.spec.plan
    st.rerun()


def _delete(here: Session, picked: Sequence[Run]) -> None:
    deleted = 0
    for run in picked:
        with guard():
            delete_run(run.folder)
            deleted += 1
            if here.run == run.id:
                here.run = None
                st.query_params.pop("run", None)
    if deleted == len(picked):  # what could not be deleted stays on the screen with its reason
        st.rerun()
