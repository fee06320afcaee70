"""The frame of every page: one line on model, data, device and what the worker does; the tower; the heading.

Two mends of Streamlit 1.67 are here: a page that is opened by itself starts over by way of app.py, and what looks again
by itself is not drawn into another page.
"""

from collections.abc import Callable
from functools import partial
from html import escape

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData

from lsf.app.actions import ABOVE, stop_buttons
from lsf.app.panels import NEXT, READABLE, guard, send_plotly, size, unmarked
from lsf.app.runtime import WARM_UP, AppRuntime, runtime
from lsf.app.state import Session, analysis, analysis_view, attach, is_new, source_here
from lsf.app.tour import draw_tour
from lsf.app.tower import current_tower, draw_tower, show_tower
from lsf.app.work import unload_work
from lsf.data.lessons import data_words
from lsf.jobs.job import JobState, JobView
from lsf.models.info import model_label

STYLE = """
<style>
[data-testid="stMainBlockContainer"] { max-width: 1240px; }
[data-testid="stCaptionContainer"] p { max-width: 56rem; }
[data-testid="stLayoutWrapper"]:has(> .st-key-onward) { position: sticky; bottom: 0; z-index: 5; }
.st-key-onward { padding-block: 0.6rem; backdrop-filter: blur(8px); }
@media (min-width: 1600px) {
  [data-testid="stMainBlockContainer"] { max-width: 1440px; }
}
[data-testid="stSidebarHeader"] { height: 2.6rem; min-height: 0; margin: 0; }
[data-testid="stSidebarNavItems"] { gap: 0; }
[data-testid="stSidebarNavLink"] { padding-block: 0; min-height: 0; line-height: 1.5; margin: 0; }
[data-testid="stSidebarContent"] { padding-inline: 0.6rem; }
[data-testid="stSidebarNav"], [data-testid="stSidebarUserContent"] { padding-inline: 0; }
[data-testid="stSidebarUserContent"] { padding-bottom: 1rem; }
[data-testid="stMainBlockContainer"] { padding-top: 3rem; }
.lsf-bar { display: flex; gap: 0 1rem; white-space: nowrap; overflow: hidden; font-size: 0.9rem; }
.lsf-bar span { overflow: hidden; text-overflow: ellipsis; flex: 0 1 auto; }
.lsf-bar small { opacity: 0.75; }
.lsf-bar .idle { flex: none; }
.lsf-bar .working { font-weight: 600; flex: 1 0 6rem; }
@media (max-width: 900px) { .lsf-bar small { display: none; } }
.lsf-chart { width: 100%; }
.lsf-chart .modebar { opacity: 0.75; }
.lsf-tokens { line-height: 2; overflow-wrap: anywhere; white-space: pre-wrap; }
.lsf-tokens b { font-weight: 600; padding: 0.1rem 0.2rem; border-radius: 0.2rem;
  background: color-mix(in srgb, #D55E00 22%, transparent); border-bottom: 2px solid #D55E00; }
</style>
"""
UNLOAD_SECONDS = 20.0
STATUS_SECONDS = 2.0
_run_script = ScriptRunner._run_script


def page(
    title: str,
    lead: str,
    body: Callable[[Session], None],
    charts: bool = True,
    on_brush: Callable[[Session, int, int], None] | None = None,
    predicts: int = 0,
) -> None:
    """Draw one page: one line on model and data, tower, heading, body; an `LsfError` of the body becomes a sentence.

    Args:
        title: of the page.
        lead: one or two sentences on what is done here.
        body: draws the rest.
        charts: whether the page draws pictures; plotly.js is sent before them, else after everything.
        on_brush: where blocks are chosen on the tower, what a run of them from a first to a last one does.
        predicts: how many blocks the model has of which people are to predict here which are worth tuning: the tower
            is that model's, and gives nothing away; 0 elsewhere.
    """
    _through_the_app()
    st.html(STYLE + READABLE)
    here = attach()
    if title != NEXT["trajectories"][1]:  # elsewhere all of an analysis is shown
        here.replay = here.moment = None
    _status(here)
    if on_brush is None:
        _tower(here, None, predicts)
    with guard():
        draw_tour(here, title)
    st.title(title, anchor=False)
    if lead:
        st.caption(lead)
    if charts:
        send_plotly()
    with guard():
        body(here)
    if on_brush is not None:  # what it shows is decided in the body
        _tower(here, partial(on_brush, here))
    runtime().warm_up()


def _through_the_app() -> None:
    """Start over by way of app.py where Streamlit runs a page by itself.

    It takes a folder `pages` for its older kind of app until `st.navigation` was called once in the process: a page
    opened by its own address right after the server started would have neither our navigation nor our settings.
    """
    if PagesManager.uses_pages_directory and is_new():
        PagesManager.uses_pages_directory = False
        st.rerun()


def keep_fragments_on_their_page() -> None:
    """Leave out fragments that were asked for on another page than the one drawn last; for the whole process.

    While `st.switch_page` is under way the browser still asks for fragments of the page that it shows. Streamlit runs
    them behind the new page, names the old one, and the browser empties the page; the next fragment finds no place, and
    all goes white. Remove this where `a_page_left_while_it_looks_again_by_itself_is_left`, in
    tests/browser/test_in_chromium.py, holds without.
    """
    ScriptRunner._run_script = _run_unless_left


def _run_unless_left(self: ScriptRunner, rerun_data: RerunData) -> None:
    drawn = get_script_run_ctx(suppress_warning=True)
    page = rerun_data.page_script_hash
    if rerun_data.fragment_id_queue and drawn is not None and drawn.page_script_hash not in ("", page):
        return
    _run_script(self, rerun_data)


def _tower(here: Session, on_brush: Callable[[int, int], None] | None, predicts: int = 0) -> None:
    """Draw the tower in the side bar, always at the same place; while an analysis runs it is looked at again."""
    view = analysis_view(here)
    active = here.replay is not None or (view is not None and view.active)

    def look() -> None:
        found = (draw_tower(predicts, ()), ()) if predicts else current_tower(here)
        if found is not None:
            tower, notes = found
            show_tower(tower, notes, on_brush if analysis(here) is not None else None)

    with st.sidebar:
        if active:
            st.fragment(run_every=STATUS_SECONDS / 2)(look)()
        else:
            look()


def _status(here: Session) -> None:
    """Draw the status line; while it will change by itself it looks again every few seconds."""
    changing_at_first = _changing()

    @st.fragment(run_every=STATUS_SECONDS if changing_at_first else None)
    def look() -> None:
        _status_line(here, _busy())
        if changing_at_first and not _changing():
            st.rerun()

    look()


def _changing() -> bool:
    """Say whether the line will change by itself: a job is in the queue, or the process is getting ready."""
    shared = runtime()
    return bool(_busy()) or (not shared.ready and shared.warming_failed is None)


def _busy() -> list[JobView]:
    return [view for view in runtime().worker.views() if view.active and view.kind != WARM_UP]


def _status_line(here: Session, busy: list[JobView]) -> None:
    """Draw model, data and device, and what the worker does: one line, however narrow the page."""
    shared = runtime()
    source = source_here(here)
    loaded = shared.loaded()
    device = f"{source.device}, not loaded"
    if loaded is not None and loaded.info.name == source.model:
        device = f"{loaded.info.device}, {loaded.info.dtype}"
    cells = [("Model", model_label(source.model)), ("Data", data_words(source.data)), ("Device", device)]
    told = "".join(f"<span><small>{name}</small> {escape(value)}</span>" for name, value in cells)
    state = "working" if busy else "idle"
    with st.container(horizontal=True, vertical_alignment="center", wrap=False, gap="small", key="status"):
        st.html(f'<div class="lsf-bar">{told}<span class="{state}">{escape(_queue_words(busy))}</span></div>')
        with st.popover("Machine", type="tertiary", icon=":material/memory:"):
            for view in busy:
                if view.owner == here.owner:  # also of what no page shows now
                    st.caption(unmarked(view.title))
                    stop_buttons(here, view, ABOVE)
            _memory(shared, here, bool(busy))


def _queue_words(busy: list[JobView]) -> str:
    if not busy:
        return "idle"
    waiting = len(busy) - 1
    return f"working: {busy[0].title}" + (f", {waiting} more in the queue" if waiting else "")


def _memory(shared: AppRuntime, here: Session, busy: bool) -> None:
    devices = shared.devices()
    if not devices:
        failed = shared.warming_failed
        st.write(unmarked(failed) if failed else "Looking for devices; this takes a few seconds after the start.")
        return
    for device in devices:
        st.markdown(f"**{device.name}** {unmarked(device.label)}: {device.memory}")
    loaded = shared.loaded()
    if loaded is None:
        st.caption("No model is loaded; the next analysis or run loads it.")
        return
    name = unmarked(model_label(loaded.info.name))
    st.caption(f"{name} is loaded. Unloading it frees its memory; the next job loads it again.")
    if st.button("Unload the model", icon=":material/eject:", disabled=busy, key="unload"):
        _unload(shared, here, loaded.info.device)
    if busy:
        st.caption("It is in use; it can be unloaded once the queue is empty.")


def _unload(shared: AppRuntime, here: Session, name: str) -> None:
    """Unload at once (the worker is idle) and tell what came back, by the device's own count."""

    def free() -> int | None:
        return next((device.free_bytes for device in shared.devices() if device.name == name), None)

    before = free()
    job = shared.worker.submit("unload", "unloading the model", unload_work(shared), here.owner)
    view = shared.worker.wait(job, UNLOAD_SECONDS)
    after = free()
    if view.state is not JobState.SUCCEEDED:
        st.error(
            unmarked(view.error or "The worker is busy; the model is unloaded once it is done."),
            icon=":material/error:",
        )
        return
    told = f"{size(view.result)} of weights freed"
    if before is not None and after is not None:
        told += f"; free on {name}: {size(before)} before, {size(after)} now"
    st.toast(told + ".", icon=":material/eject:", duration="long")
    st.success(told + ".")
