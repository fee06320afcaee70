"""Step 2: watch the virtual and the factual transition through the states, while the analysis runs and after."""

import streamlit as st

from lsf.app.actions import start_analysis, stop_buttons
from lsf.app.choose import default_budget
from lsf.app.findings import criterion_to_come, of_trajectories, plan_to_come
from lsf.app.frame import page
from lsf.app.panels import as_json, download, empty, finding, onward, progress, states_csv, unmarked
from lsf.app.paths import (
    analysis_facts,
    choose_view,
    draw_criterion_panel,
    draw_deviation_panel,
    draw_lens_panels,
    draw_paths_panel,
)
from lsf.app.polling import follow
from lsf.app.state import Session, address, analysis, analysis_view
from lsf.app.work import Analysed
from lsf.criteria.result import Analysis
from lsf.evidence.packed import packed_record
from lsf.export.notebook import analysis_notebook
from lsf.figures.report import analysis_page
from lsf.jobs.job import JobState, JobView


def draw(here: Session) -> None:
    """Draw the page."""
    view = analysis_view(here)
    if view is None:
        _nothing_yet(here)
        return
    follow(here, [view.id], lambda views: _watch(here, views))
    finished = analysis(here)
    if finished is not None:
        criterion = criterion_to_come(here.criterion, finished)
        plan = plan_to_come(here.plan, here.criterion, finished, default_budget(finished.model.n_blocks))
        draw_criterion_panel(finished, plan, criterion)
        _take_away(here, finished)
        finding(*of_trajectories(finished, plan, packed_record()))
        onward("choose", "Choose blocks", address(here), aside={"criteria": "Compare the criteria"})


def _nothing_yet(here: Session) -> None:
    empty("No analysis yet", "Choose another model or other data first, or start with what is chosen now.", "model")
    if st.button(f"Analyse {here.request.title} now", icon=":material/play_arrow:", key="analyse-now"):
        start_analysis(here, here.request)


def _watch(here: Session, views: tuple[JobView, ...]) -> None:
    """Draw one analysis as far as it is; called again and again while it runs."""
    for view in views:
        with st.container(key="analysis-state"):
            _state(here, view)
        measured = view.result if isinstance(view.result, Analysed) else view.partial
        if isinstance(measured, Analysed) and measured.analysis.trajectories is not None:
            _pictures(here, measured.analysis, finished=not view.active)


def _state(here: Session, view: JobView) -> None:
    if view.active:
        progress(view)
        stop_buttons(here, view)
        return
    if view.error:
        st.error(unmarked(view.error), icon=":material/error:")
        _again(here)
    elif view.state is JobState.CANCELLED:
        kept = "what was read until then is shown" if view.result is not None else "nothing was kept"
        st.warning(f"The analysis was stopped; {kept}.", icon=":material/stop_circle:")
        _again(here)


def _again(here: Session) -> None:
    if st.button(f"Analyse {here.request.title} again", icon=":material/replay:", key="analyse-again"):
        start_analysis(here, here.request)


def _pictures(here: Session, analysis: Analysis, finished: bool) -> None:
    st.markdown(analysis_facts(analysis))
    dimensions = choose_view(here, analysis)
    grid = st.grid(2, min_column_width=500, gap="medium", key="pictures")
    with grid.cell():
        draw_paths_panel(here, analysis, dimensions, finished)
    with grid.cell():
        draw_deviation_panel(analysis)
    if finished:
        draw_lens_panels(here, analysis)


def _take_away(here: Session, finished: Analysis) -> None:
    with st.container(horizontal=True, gap="small"):
        download(
            "Analysis (JSON)", lambda: as_json(finished.to_json()), "analysis.json", "application/json", "analysis-json"
        )
        download("States (CSV)", lambda: states_csv(finished), "states.csv", "text/csv", "analysis-csv")
        download(
            "Report (HTML)", lambda: analysis_page(finished, here.plan), "analysis.html", "text/html", "analysis-html"
        )
        download(
            "Notebook (Jupyter)",
            lambda: as_json(analysis_notebook(finished)),
            "analysis.ipynb",
            "application/x-ipynb+json",
            "analysis-ipynb",
        )


page(
    "Trajectories",
    "Where the model's states are, beside a straight path from the current token's meaning to the target's. "
    "The gap between both is the deviation.",
    draw,
)
