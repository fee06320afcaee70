"""Take a tuned model along: its weights as they were stored, or the whole model merged in the base's dtype."""

from collections.abc import Sequence

import streamlit as st

from lsf.app.actions import follow, stop_buttons
from lsf.app.own_words import pick_run, with_weights
from lsf.app.panels import download, guard, progress, size, unmarked
from lsf.app.runs import label
from lsf.app.runtime import runtime
from lsf.app.state import Session
from lsf.app.work import merge_work, source_of
from lsf.jobs.job import JobState, JobView
from lsf.methods.catalogue import CATALOGUE
from lsf.runs.formats import zip_folder
from lsf.runs.lock import MERGED, WEIGHTS
from lsf.runs.store import Run, bytes_of

KIND = "merge"
MOST = 2 << 30
"""Bytes that are handed to a browser, which come through the server's memory; what is larger stays on the disk."""


def draw_take_along(here: Session, picked: Sequence[Run]) -> None:
    """Offer what one of the runs compared has tuned, as files.

    Args:
        here: this session.
        picked: the runs compared.
    """
    runs = with_weights(picked)
    if not runs:
        return
    st.subheader("Take it along", anchor=False)
    run = pick_run("Model to take", runs, "take-run")
    assert run.spec is not None
    views = [view for view in runtime().jobs(KIND) if view.title == _title(run)]

    def merge() -> None:
        assert run.spec is not None
        with guard():
            work = merge_work(runtime(), source_of(run.spec), run.folder)
            runtime().worker.submit(KIND, _title(run), work, here.owner)

    with st.container(horizontal=True, gap="small"):
        by_peft = run.spec.method == "lora"
        _offer(run, WEIGHTS, "Adapter (ZIP)" if by_peft else "Tuned weights (ZIP)")
        if (run.folder / MERGED).is_dir():
            _offer(run, MERGED, "Whole model, merged (ZIP)")
        elif CATALOGUE[run.spec.method].merges and not (views and views[-1].active):
            st.button("Merge the whole model", icon=":material/merge:", key="take-merge", on_click=merge)
    if views:
        follow(here, [views[-1].id], lambda seen: _merging(here, seen), quietly=True)
    st.caption(_how(run, by_peft))


def _title(run: Run) -> str:
    return f"whole model of {label(run)} ({run.id[-4:]})"


def _offer(run: Run, part: str, words: str) -> None:
    """Offer a part of the run's folder, or say where it lies if it is too large for a browser."""
    folder = run.folder / part
    if (held := bytes_of(folder)) > MOST:
        st.markdown(unmarked(f"{words.removesuffix(' (ZIP)')}, {size(held)}: {folder}"))
    else:
        download(words, lambda: zip_folder(folder), f"{run.id}-{part}.zip", "application/zip", f"take-{part}")


def _merging(here: Session, views: Sequence[JobView]) -> None:
    """Show how far merging is, and what it changed."""
    for view in views:
        if view.active:
            progress(view)
            stop_buttons(here, view)
        elif view.error is not None:
            st.error(unmarked(view.error), icon=":material/error:")
        elif view.state is JobState.SUCCEEDED and view.result:
            st.markdown(unmarked(view.result))


def _how(run: Run, by_peft: bool) -> str:
    """Say what reads the files, and where they lie on this machine."""
    assert run.spec is not None
    if by_peft:
        reads = "The adapter is peft's own format: PeftModel.from_pretrained(base, folder)."
    else:
        reads = "The tuned weights are those that changed, for LSF and its base model."
    if CATALOGUE[run.spec.method].merges:
        reads += " The whole model is for AutoModelForCausalLM.from_pretrained(folder), without LSF."
    else:
        reads += " Its steps between the base's layers cannot be merged into the base."
    return unmarked(f"{reads} On this machine: {run.folder}.")
