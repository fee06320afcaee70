"""What buttons do: start an analysis, start runs, stop a job."""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from lsf.jobs.controls import with_controls
from lsf.jobs.job import JobView
from lsf.jobs.queue import queue_runs
from lsf.jobs.spec import RunSpec
from lsf.ui.bench import bench, runs_folder
from lsf.ui.guard import guard
from lsf.ui.panels import NEXT
from lsf.ui.state import Session, address, look_at
from lsf.ui.work import Request, Source, analysis_work


def start_analysis(here: Session, request: Request) -> None:
    """Put an analysis into the queue and go where it can be watched."""
    shared = bench()
    job = shared.worker.submit("analyze", request.title, analysis_work(shared, request), here.owner)
    look_at(here, job)
    st.switch_page(NEXT["trajectories"][0], query_params=address(here))


def start_runs(here: Session, source: Source, spec: RunSpec, roles: Sequence[str], n_seeds: int = 1) -> None:
    """Queue the choice and its controls, for one or more seeds, and look at the first of them.

    Args:
        here: this session, the owner.
        source: the model and data they all start from.
        spec: of the choice; its seed is the first.
        roles: controls to run beside it.
        n_seeds: seeds, counted up from the spec's.

    Raises:
        RunError: a run folder cannot be made.
    """
    shared = bench()
    seeds = range(spec.seed, spec.seed + n_seeds)
    specs = [run for seed in seeds for run in with_controls(replace(spec, seed=seed), roles)]
    queued = queue_runs(
        shared.worker,
        runs_folder(),
        specs,
        loaded=lambda: shared.shelf().load(source.model, source.dtype, source.device),
        task=source.load_task,
        owner=here.owner,
    )
    here.run = queued[0].folder.name


def stop_buttons(here: Session, view: JobView) -> None:
    """Offer the owner of a job to stop it; others read whose it is."""
    if view.owner and view.owner != here.owner:
        st.caption("Started in another browser; only there can it be stopped.")
        return
    waiting = view.seconds is None
    with st.container(horizontal=True, gap="small", width="content"):
        labels = (
            [("Take out of the queue", True)] if waiting else [("Stop and keep", True), ("Stop and discard", False)]
        )
        for label, kept in labels:
            icon = ":material/stop_circle:" if kept else ":material/delete:"
            kind = "tertiary" if waiting else "secondary"
            if st.button(label, icon=icon, type=kind, key=f"stop-{view.id}-{kept}", disabled=view.stopping):
                with guard():
                    bench().worker.stop(view.id, here.owner, keep=kept)
                st.rerun(scope="fragment")
