"""Step 1: choose a model and data, see what the model will read, and start the analysis."""

from dataclasses import fields
from typing import Any

import streamlit as st

from lsf.app.actions import start_analysis
from lsf.app.choose import NEED_WORDS
from lsf.app.data_input import DataChoice, data_input, fill_data, read_task
from lsf.app.data_preview import show_preview
from lsf.app.frame import page
from lsf.app.model_input import fill_model, model_input
from lsf.app.panels import attempt, setting_input
from lsf.app.state import Session, request_here
from lsf.app.work import Request, Source
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings

LABELS = {"settle": "Stop when settled", "limit": "Maximum examples", "max_length": "Maximum tokens"}
SPLIT = "train"  # unless a person says otherwise: here blocks are chosen to be tuned, and test rows choose nothing
IN_FORM = ("limit", "split", "positions", "reading", "virtual", "batch_size", "max_length", "seed", "settle")


def draw(here: Session) -> None:
    """Draw the page."""
    if not here.asked:  # the first time, and after a reload: what is looked at is asked for again
        here.asked, shown = True, request_here(here)
        if shown != here.request:
            fill_model(shown.source)
            fill_data(shown.source)
            _fill_settings(shown.settings)
    grid = st.grid(2, min_column_width=360, gap="medium", key="inputs")
    with grid, st.container(border=True, height="stretch"):
        st.subheader("Model", anchor=False)
        model, dtype, device = model_input(here)
    with grid, st.container(border=True, height="stretch"):
        st.subheader("Data", anchor=False)
        choice = data_input()
    with st.expander("What is measured", icon=":material/settings:"):
        settings = _settings()
    task, before = read_task(choice), here.request.source
    if model and choice.name:
        source = Source(
            model, choice.name, choice.prompt_template, choice.completion_template, dtype, device, choice.options
        )
        here.request = Request(source, settings or here.request.settings)
    waiting = _missing(model, choice)
    if waiting:
        st.info(waiting, icon=":material/info:")
    if st.button(
        "Analyse",
        type="primary",
        icon=":material/play_arrow:",
        key="analyse",
        disabled=bool(waiting) or task is None or settings is None,
    ):
        start_analysis(here, here.request)
    if here.request.source != before:
        st.rerun()  # the line above, drawn by now, names model and data
    if task is not None:
        st.subheader("What the model will read", anchor=False)
        show_preview(task, model, here.request.settings.max_length)


def _missing(model: str, choice: DataChoice) -> str | None:
    if not model:
        return "Type a Hugging Face id, a local folder or a GGUF file, or take the bundled model."
    if not choice.name:
        return "Upload a file, name one, or take a lesson."
    return None


def _fill_settings(settings: AnalysisSettings) -> None:
    """Let the form ask for an analysis' settings again."""
    st.session_state.update({f"settings-{name}": getattr(settings, name) for name in IN_FORM})
    st.session_state["settings-criteria"] = list(settings.criteria)


def _settings() -> AnalysisSettings | None:
    """Draw the settings; None, and why, where they cannot be."""
    values: dict[str, Any] = {}
    defaults: dict[str, Any] = {item.name: item.default for item in fields(AnalysisSettings)} | {"split": SPLIT}
    with st.container(horizontal=True, gap="small"):
        for name in IN_FORM:
            with st.container(width=190):
                values[name] = setting_input(
                    AnalysisSettings, name, defaults[name], f"settings-{name}", LABELS.get(name)
                )
    chosen = st.multiselect(
        "Criteria",
        list(CRITERIA),
        default=list(defaults["criteria"]),
        format_func=lambda name: f"{CRITERIA[name].label} ({NEED_WORDS[CRITERIA[name].needs]})",
        key="settings-criteria",
        persist_state="session",
        help="What each block is scored by; in brackets, what it takes to measure.",
    )
    values["criteria"] = tuple(name for name in CRITERIA if name in chosen)
    if not chosen:
        st.error("No criterion is chosen, so blocks would have no score; choose one at least.", icon=":material/error:")
        return None
    return attempt(lambda: AnalysisSettings(**values))


page(
    "Model and data",
    "Choose a model and the data it should learn. The bundled model and a lesson are ready: you can start at once.",
    draw,
    charts=False,
)
