"""The frame of every page: its heading, and a line that tells what is loaded, where, and what the worker does."""

from collections.abc import Callable

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from lsf.app.live import send_plotly
from lsf.app.panels import guard, size, unmarked
from lsf.app.runtime import WARM_UP, AppRuntime, runtime
from lsf.app.state import Session, attach, is_new
from lsf.app.work import unload_work
from lsf.jobs.job import JobState, JobView

STYLE = """
<style>
[data-testid="stMainBlockContainer"] { max-width: 1240px; }
[data-testid="stCaptionContainer"] p { max-width: 56rem; }
.lsf-chart { width: 100%; }
.lsf-chart .modebar { opacity: 0.75; }
.lsf-tokens { line-height: 2; overflow-wrap: anywhere; white-space: pre-wrap; }
.lsf-tokens b { font-weight: 600; padding: 0.1rem 0.2rem; border-radius: 0.2rem;
  background: color-mix(in srgb, #D55E00 22%, transparent); border-bottom: 2px solid #D55E00; }
</style>
"""
UNLOAD_SECONDS = 20.0
STATUS_SECONDS = 2.0


def page(title: str, lead: str, body: Callable[[Session], None], charts: bool = True) -> None:
    """Draw one page: heading, status line, body; an `LsfError` of the body becomes a sentence.

    Args:
        title: of the page.
        lead: one or two sentences on what is done here.
        body: draws the rest.
        charts: whether the page draws pictures; plotly.js is sent before them, else after everything.
    """
    _through_the_app()
    st.html(STYLE)
    here = attach()
    st.title(title, anchor=False)
    st.caption(lead)
    _status(here)
    if charts:
        send_plotly()
    with guard():
        body(here)
    runtime().warm_up()


def _through_the_app() -> None:
    """Start over by way of app.py where Streamlit runs a page by itself.

    It takes a folder `pages` for its older kind of app until `st.navigation` was called once in the process: a page
    opened by its own address right after the server started would have neither our navigation nor our settings.
    """
    if PagesManager.uses_pages_directory and is_new():
        PagesManager.uses_pages_directory = False
        st.rerun()


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
    shared = runtime()
    loaded = shared.loaded()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="status"):
        if loaded is None:
            st.badge("no model in memory", icon=":material/deployed_code:", color="gray")
        else:
            st.badge(f"{loaded.info.name} in memory", icon=":material/deployed_code:", color="blue")
            st.badge(f"{loaded.info.device}, {loaded.info.dtype}", icon=":material/memory:", color="gray")
        st.badge(_queue_words(busy), icon=":material/playlist_play:", color="orange" if busy else "gray")
        with st.popover("Device and memory", type="tertiary", icon=":material/tune:"):
            _memory(shared, here, bool(busy))


def _queue_words(busy: list[JobView]) -> str:
    if not busy:
        return "idle"
    waiting = len(busy) - 1
    return f"working: {busy[0].title}" + (f", {waiting} more in the queue" if waiting else "")


def _memory(shared: AppRuntime, here: Session, busy: bool) -> None:
    devices = shared.devices()
    if not devices:
        st.write(shared.warming_failed or "Looking for devices; this takes a few seconds after the start.")
        return
    for device in devices:
        st.markdown(f"**{device.name}** {device.label}: {device.memory}")
    loaded = shared.loaded()
    if loaded is None:
        st.caption("No model is loaded; the next analysis or run loads it.")
        return
    st.caption(f"{loaded.info.name} is loaded. Unloading gives its memory back; the next job loads it again.")
    if st.button("Unload the model", icon=":material/eject:", disabled=busy, key="unload"):
        _unload(shared, here, loaded.info.device)
    if busy:
        st.caption("It is in use; unloading is possible when the queue is empty.")


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
    told = f"{size(view.result)} of weights returned"
    if before is not None and after is not None:
        told += f"; free on {name}: {size(before)} before, {size(after)} now"
    st.toast(told + ".", icon=":material/eject:", duration="long")
    st.success(told + ".")
