"""Step 2: watch the virtual and the factual transition through the states, while the analysis runs and after."""

import streamlit as st

from lsf.app.actions import follow, start_analysis, stop_buttons
from lsf.app.choose import default_budget
from lsf.app.findings import criterion_to_come, of_trajectories, plan_to_come
from lsf.app.frame import page
from lsf.app.panels import as_json, download, empty, finding, onward, progress, states_csv, unmarked
from lsf.app.paths import (
    analysis_facts,
    choose_run_after,
    choose_view,
    draw_criterion_panel,
    draw_deviation_panel,
    draw_lens_panels,
    draw_paths_panel,
)
from lsf.app.state import Session, address, analysis, analysis_view, request_here, request_of
from lsf.app.work import Analysed
from lsf.criteria.result import Analysis, moments, part_of
from lsf.evidence.own import record_here
from lsf.export.notebook import analysis_notebook
from lsf.figures.report import analysis_page
from lsf.jobs.job import JobState, JobView
from lsf.wording import counted


def draw(here: Session) -> None:
    """Draw the page."""
    view = analysis_view(here)
    if view is None:
        _nothing_yet(here)
        return
    follow(here, [view.id], lambda views: _watch(here, views), goes_on=lambda: here.replay is not None)
    finished = analysis(here)
    if finished is not None and not finished.criteria:
        st.info("No criterion was measured, so no block has a score to choose by.", icon=":material/info:")
    elif finished is not None:
        criterion = criterion_to_come(here.criterion, finished)
        plan = plan_to_come(here.plan, here.criterion, finished, default_budget(finished.model.n_blocks))
        draw_criterion_panel(finished, plan, criterion)
        _take_away(here, finished)
        finding(*of_trajectories(finished, plan, record_here()))
        onward("choose", "Choose blocks", address(here), aside={"criteria": "Compare the criteria"})


def _nothing_yet(here: Session) -> None:
    empty("No analysis yet", "Choose another model or other data first, or start with what is chosen now.", "model")
    request = request_here(here)
    if st.button(f"Analyse {unmarked(request.title)} now", icon=":material/play_arrow:", key="analyse-now"):
        start_analysis(here, request)


def _watch(here: Session, views: tuple[JobView, ...]) -> None:
    """Draw one analysis as far as it is; called again and again while it runs."""
    for view in views:
        with st.container(key="analysis-state"):
            _state(here, view)
        measured = view.result
        if measured is None and view.state is not JobState.CANCELLED:  # what was discarded is not shown
            measured = view.partial
        if isinstance(measured, Analysed) and measured.analysis.trajectories is not None:
            shown = _moment(here, measured.analysis, view.active)
            _pictures(here, shown, finished=not view.active and here.replay is None)
        elif view.active:
            st.caption("The paths are drawn here as soon as the first examples have been read.")
        else:
            here.replay = None


def _moment(here: Session, analysis: Analysis, active: bool) -> Analysis:
    """Return what is to be shown now, and say what it is: a moment on the way, told as the replay it is, or all of it.

    The first position goes through the model layer by layer; then come the examples read so far, as they are read.
    Where the analysis ended before that could be seen, they come from its record.
    """
    steps = moments(analysis)
    n_layers = sum(count == 1 for count, _ in steps)
    n_states = len(analysis.states)
    if here.replay is None or (not active and here.replay >= len(steps)):
        here.replay = here.moment = None
        return analysis
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="replay"):
        if here.replay < n_layers or not active:
            count, depth = steps[here.replay]
            here.replay += 1
            here.moment = part_of(analysis, (count, depth))
            told = f"example 1, states 0 to {depth - 1} of {n_states - 1}" if count == 1 else f"{count} positions"
            st.markdown(f":material/replay: Replay of what was recorded: {told}.")
        else:
            here.replay, here.moment = STREAMED, analysis
            st.markdown(f":material/stream: {counted(analysis.data.n_examples, 'example')} read so far.")
        if st.button("Skip to the result" if not active else "Show all that was read", key="replay-skip"):
            here.replay = here.moment = None
            st.rerun()
    return here.moment


STREAMED = 1_000_000  # moment of a replay that is over: examples were seen while they were read


def _state(here: Session, view: JobView) -> None:
    if view.active:
        progress(view)
        stop_buttons(here, view)
        return
    if view.error:
        st.error(unmarked(view.error), icon=":material/error:")
        _again(here, view)
    elif view.state is JobState.CANCELLED:
        kept = "what was read so far is shown" if view.result is not None else "nothing was kept"
        st.warning(f"The analysis was stopped; {kept}.", icon=":material/stop_circle:")
        _again(here, view)


def _again(here: Session, view: JobView) -> None:
    """Offer the same once more."""
    request = request_of(view) or here.request
    if st.button(f"Analyse {unmarked(request.title)} again", icon=":material/replay:", key="analyse-again"):
        start_analysis(here, request)


def _pictures(here: Session, analysis: Analysis, finished: bool) -> None:
    st.markdown(analysis_facts(analysis))
    if analysis.data.told:
        st.text("\n".join(f"note: {told}" for told in analysis.data.told))
    for told in filter(None, (analysis.data.unknown, analysis.data.unlike)):
        st.warning(unmarked(told), icon=":material/warning:")
    dimensions = choose_view(here, analysis)
    after = choose_run_after(here) if finished else None
    grid = st.grid(2, min_column_width=360, gap="medium", key="pictures")
    with grid.cell():
        draw_paths_panel(here, analysis, dimensions, finished, after)
    with grid.cell():
        draw_deviation_panel(analysis)
    if finished:
        draw_lens_panels(here, analysis)


def _take_away(here: Session, finished: Analysis) -> None:
    with st.container(horizontal=True, gap="small"):
        if here.replay is None and st.button("Replay", icon=":material/replay:", key="replay-again"):
            here.replay = 0
            st.rerun()
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
    "The gap between the two is the deviation.",
    draw,
)
