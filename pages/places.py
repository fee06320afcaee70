"""Where x how: the same places tuned by several methods, one grid of what it brought and what it cost."""

import streamlit as st

from lsf.analysis.plan import Plan
from lsf.jobs.job import JobView
from lsf.jobs.runs import Run, list_runs
from lsf.ui.bench import bench, runs_folder
from lsf.ui.frame import page
from lsf.ui.panels import empty
from lsf.ui.places import draw_form, draw_grid
from lsf.ui.polling import follow
from lsf.ui.run_panels import draw_queue
from lsf.ui.state import Session, analysed
from lsf.ui.work import Source, source_of


def draw(here: Session) -> None:
    """Draw the page."""
    plan, source = _start(here, list_runs(runs_folder()))
    if plan is None or source is None:
        empty("No plan yet", "Choose the blocks first; then places and methods are crossed here.", "choose")
        return
    base = draw_form(here, plan, source)

    def watch(views: tuple[JobView, ...]) -> None:
        active = [view for view in views if view.active]
        if active:
            with st.expander(f"{len(active)} in the queue", icon=":material/playlist_play:", expanded=len(active) < 3):
                draw_queue(here, active)
        draw_grid(base)

    follow(here, [view.id for view in bench().jobs("tune")], watch)


def _start(here: Session, runs: list[Run]) -> tuple[Plan | None, Source | None]:
    """Return the chosen plan and what it was chosen on; else those of the newest run of a choice."""
    found = analysed(here)
    if here.plan is not None and found is not None:
        return here.plan, found.request.source
    chosen = (run.spec for run in runs if run.spec is not None and run.spec.role in ("choice", "manual"))
    own = next((run.spec for run in runs if run.spec is not None and run.id == here.run), None) or next(chosen, None)
    if own is None:
        return here.plan, None
    return here.plan or own.plan, source_of(own)


page(
    "Where x how",
    "The chosen blocks, the whole model and controls of the same size, each tuned by several methods from the same "
    "start. You may close this page: the grid fills as the runs end.",
    draw,
)
