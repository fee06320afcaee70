"""Blocks x methods: the same places tuned by several methods, one grid of what it brought and what it cost."""

import streamlit as st

from lsf.app.actions import at_leisure, follow, without_plan
from lsf.app.blocks_by_methods import cells_of, draw_form, draw_grid, draw_grids, list_runs_of
from lsf.app.findings import of_grid
from lsf.app.frame import page
from lsf.app.panels import finding
from lsf.app.runs import draw_queue
from lsf.app.runtime import runtime
from lsf.app.state import Session, analysed
from lsf.app.work import Source, source_of
from lsf.jobs.job import JobView
from lsf.plans.plan import Plan
from lsf.runs.store import Run, list_runs, runs_folder


def draw(here: Session) -> None:
    """Draw the page."""
    runs = list_runs(runs_folder())
    plan, source = _start(here, runs)
    if plan is None or source is None:
        without_plan(here, "they are tuned here by several methods.")
        draw_grids(here, runs)
        return
    grid = st.container()  # the picture first; what it is made of is known after the form
    base = draw_form(here, plan, source, runs)

    def watch(views: tuple[JobView, ...]) -> None:
        draw_queue(here, [view for view in views if view.active])
        draw_grid(here, base)

    with grid:
        follow(here, [view.id for view in runtime().jobs("tune")], watch, every=at_leisure)
    cells = cells_of(list_runs_of(base), base)
    if (found := of_grid([(cell.place, cell.method, cell.row) for cell in cells])) is not None:
        finding(*found)


def _start(here: Session, runs: list[Run]) -> tuple[Plan | None, Source | None]:
    """Return the plan and what it was chosen on: of the grid that was opened, else of this session, nobody else's."""
    specs = {run.id: run.spec for run in runs if run.spec is not None}
    opened, looked_at = specs.get(here.grid or ""), specs.get(here.run or "")
    found = analysed(here)
    source = None if found is None else found.request.source
    if opened is not None and (here.plan is None or source_of(opened) != source):
        return opened.plan, source_of(opened)
    if source is not None and here.plan is not None:
        return here.plan, source
    if looked_at is not None and looked_at.role in ("choice", "manual") and source in (None, source_of(looked_at)):
        return here.plan or looked_at.plan, source_of(looked_at)
    return None, None


page(
    "Blocks x methods",
    "The chosen blocks, the whole model and controls of the same size, each tuned by several methods from the same "
    "start. You may close this page: the grid fills as the runs end.",
    draw,
)
