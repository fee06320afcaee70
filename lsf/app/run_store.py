"""Every run on disk: looked at, or deleted once that was confirmed."""

import hashlib
import re
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.app.panels import guard, size, unmarked
from lsf.app.runs import TWO_LINES
from lsf.app.state import Session, leave_run, look_at_run
from lsf.data.lessons import data_words
from lsf.models.info import model_label
from lsf.runs.result import RunState
from lsf.runs.store import Run, bytes_of, delete_run, runs_folder
from lsf.wording import counted

MADE = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)\d\d-")
"""Of a folder's name: year, month, day, hour, minute."""

FAILED_SHOWN = 3
"""Failed runs, and folders that cannot be read, whose reasons stand below the list where none is selected, at most."""
WIDTHS = {"made": 88, "tuned": 148, "model and data": 140, "state": 85}
"""Column of the list of runs -> pixels: all of it is seen in a window of 800 pixels, and grows with a wider one."""


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run for a list of runs; what takes more room is said of those selected."""
    return pd.DataFrame(
        [
            {
                "made": _made(run),
                "tuned": run.spec.name if run.spec else None,
                "model and data": f"{model_label(run.spec.model)} on {data_words(run.spec.data)}" if run.spec else None,
                "state": ", ".join(filter(None, (str(run.state), _length(run)))),
            }
            for run in runs
        ]
    )


def _length(run: Run) -> str | None:
    """Return the steps that a run made, or what was asked for where it has not ended."""
    if run.result is not None:
        return counted(run.result.steps, "step")
    if run.spec is None:
        return None
    asked = counted(run.spec.steps, "step") if run.spec.epochs is None else counted(run.spec.epochs, "epoch")
    return f"{asked} asked for"


def _made(run: Run) -> str:
    """Return day and time of a run by its folder's name; the name itself where somebody gave it another."""
    found = MADE.match(run.id)
    return run.id if found is None else "{}-{}-{} {}:{}".format(*found.groups())


def draw_store(here: Session, runs: Sequence[Run]) -> None:
    """Draw every run on disk; a selected one can be looked at or deleted."""
    if not runs:
        return
    title = unmarked(f"{how_many(len(runs))} in {runs_folder()}")
    with st.expander(title, icon=":material/folder_open:", key="run-store"):  # stays open where some were deleted
        name = hashlib.sha256(" ".join(run.id for run in runs).encode()).hexdigest()[:12]
        event = st.dataframe(  # a selection is of row numbers: it does not outlive the list
            runs_table(runs),
            hide_index=True,
            placeholder="",
            row_height=TWO_LINES,
            column_config={name: st.column_config.TextColumn(width=pixels) for name, pixels in WIDTHS.items()},
            on_select="rerun",
            selection_mode="multi-row",
            key=f"run-store-{name}",
        )
        picked = [runs[row] for row in event["selection"]["rows"] if row < len(runs)]
        with st.container(horizontal=True, gap="small"):
            looks = st.button("Show curves", icon=":material/visibility:", key="store-look", disabled=len(picked) != 1)
            if looks and picked:
                look_at_run(here, picked[0])
                st.rerun()
            _offer_deletion(here, picked, name)
        if not picked:
            st.caption(
                "Select one run to show its curves, its folder and why it has not ended, or any number to delete them "
                "from the disk."
            )
        failed = [run for run in runs if run.state is RunState.FAILED or run.spec is None]
        for run in picked or failed[:FAILED_SHOWN]:
            st.caption(unmarked(f"{run.id}: {run.problem or run.state}"))


def how_many(count: int) -> str:
    """Return how many runs there are, for the heading of their list."""
    return "The one run" if count == 1 else f"All {counted(count, 'run')}"


def _offer_deletion(here: Session, picked: Sequence[Run], name: str) -> None:
    """Offer to delete the picked runs, and say once what would be lost; closed again where the list is another."""
    with st.popover("Delete", icon=":material/delete:", disabled=not picked, key=f"store-ask-{name}"):
        if not picked:
            return
        taken = sum(bytes_of(run.folder) for run in picked)
        what = f"this run ({picked[0].id})" if len(picked) == 1 else f"these {len(picked)} runs"
        st.markdown(
            f"Delete {unmarked(what)}, {size(taken)}? Curves, results, checkpoints and tuned weights are removed from "
            "the disk and cannot be brought back."
        )
        label = f"Delete {counted(len(picked), 'run')}, {size(taken)}"
        if st.button(label, type="primary", icon=":material/delete_forever:", key="store-delete"):
            _delete(here, picked)


def _delete(here: Session, picked: Sequence[Run]) -> None:
    deleted = 0
    for run in picked:
        with guard():
            delete_run(run.folder)
            deleted += 1
            if here.run == run.id:
                leave_run(here)
    if deleted == len(picked):  # what could not be deleted stays on the screen with its reason
        st.rerun()
