"""Choosing data: a bundled lesson, a file, or a Hugging Face data set, with templates over any columns."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from lsf.data.tables import MAX_BYTES, READERS, read_table
from lsf.data.task import Task
from lsf.files import write_bytes
from lsf.jobs.runs import runs_folder
from lsf.ui.guard import attempt, guard
from lsf.ui.work import Source

LESSON, FILE, HUB = "Lesson", "File", "Hugging Face data set"
UPLOADS = "uploads"


@dataclass(frozen=True)
class DataChoice:
    """What the data's part of the first page holds."""

    name: str
    """As `load_task` takes it; empty while nothing is chosen."""
    prompt_template: str | None = None
    """Prompt from any columns."""
    completion_template: str | None = None
    """Completion from any columns."""


def data_input() -> DataChoice:
    """Draw the data's part of the first page."""
    kind = st.segmented_control(
        "Data",
        [LESSON, FILE, HUB],
        default=LESSON,
        required=True,
        key="data-kind",
        persist_state="session",
        label_visibility="collapsed",
    )
    if kind == LESSON:
        return DataChoice(_lesson_input())
    name = _file_input() if kind == FILE else _hub_input()
    if not name:
        return DataChoice("")
    return _templates(name)


def _lesson_input() -> str:
    from lsf.bundled.lessons import LESSONS  # noqa: PLC0415 - the table is built on first use

    name = st.selectbox(
        "Lesson",
        list(LESSONS),
        format_func=lambda key: LESSONS[key].title,
        key="data-lesson",
        persist_state="session",
    )
    st.caption(LESSONS[name].teaches)
    return f"lesson:{name}"


def _file_input() -> str:
    uploaded = st.file_uploader(
        "Upload a file",
        type=[ending.lstrip(".") for ending in READERS],
        help="CSV, TSV, JSON, JSONL or Parquet, UTF-8, with columns of your own.",
        key="data-upload",
    )
    if uploaded is not None:
        st.session_state["data-path"] = str(_keep(uploaded.name, uploaded.getvalue()))
    path = st.text_input(
        "or the path of a file on this machine",
        placeholder="data/questions.csv",
        help=f"Files up to {MAX_BYTES / 1e6:.0f} MB are read. A column `split` (train, validation, test) is obeyed.",
        key="data-path",
        persist_state="session",
    ).strip()
    return str(Path(path).expanduser()) if path else ""


def _keep(name: str, content: bytes) -> Path:
    """Keep an upload under the runs, named by its content, so that a run's spec points to something that lasts."""
    folder = runs_folder() / UPLOADS / hashlib.sha256(content).hexdigest()[:12]
    path = folder / Path(name).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    return path


def _hub_input() -> str:
    name = st.text_input(
        "Data set on the Hugging Face hub",
        placeholder="stanfordnlp/sst2 or NAME:CONFIG:SPLIT",
        help="Fetched once over the network, then taken from the cache.",
        key="data-hub",
        persist_state="session",
    ).strip()
    return f"hub:{name}" if name else ""


def _templates(name: str) -> DataChoice:
    columns = _columns(name)
    has_own = columns is not None and {"prompt", "completion"} <= set(columns)
    if columns is not None:
        st.caption("Columns: " + ", ".join(f"`{column}`" for column in columns))
        if not has_own and not st.session_state.get("data-prompt"):
            st.caption("It has no columns `prompt` and `completion`: write both from the columns it has.")
    example = columns[0] if columns else "question"
    prompt = st.text_input(
        "Prompt template",
        placeholder="the column prompt" if has_own else f"Question: {{{example}}}\\nAnswer:",
        help="Columns in braces; \\n is a new line. Empty: the column `prompt`.",
        key="data-prompt",
        persist_state="session",
    )
    completion = st.text_input(
        "Completion template",
        placeholder="the column completion" if has_own else " {answer}",
        help="What the model is to say next, with its leading space. Empty: the column `completion`.",
        key="data-completion",
        persist_state="session",
    )
    return DataChoice(name, _unescaped(prompt), _unescaped(completion))


def _unescaped(template: str) -> str | None:
    return template.replace("\\n", "\n") or None


def _columns(name: str) -> tuple[str, ...] | None:
    """Columns of a local file; None for hub data (not fetched yet) or a file that cannot be read."""
    if name.startswith("hub:"):
        return None
    return attempt(lambda: _read(name, _stamp(name)))


@st.cache_data(max_entries=8, show_spinner="Reading the file")
def _read(name: str, stamp: float) -> tuple[str, ...]:
    return read_table(Path(name)).columns


@st.cache_resource(max_entries=4, show_spinner="Reading the data")
def _task(data: str, prompt_template: str | None, completion_template: str | None, stamp: float) -> Task:
    return Source(data=data, prompt_template=prompt_template, completion_template=completion_template).load_task()


def read_task(choice: DataChoice) -> Task | None:
    """Return the chosen data, or show one sentence on why it cannot be used and return None."""
    if not choice.name or (choice.name.startswith("hub:") and not _wanted(choice.name)):
        return None
    with guard():
        return _task(choice.name, choice.prompt_template, choice.completion_template, _stamp(choice.name))
    return None


def _wanted(name: str) -> bool:
    """Hub data is fetched when asked for, not while its name is being typed."""
    if st.button("Fetch the data set", icon=":material/download:", key="data-fetch"):
        st.session_state["data-fetched"] = name
    return st.session_state.get("data-fetched") == name


def _stamp(name: str) -> float:
    """Time of a local file's last change, so that caches follow it; 0 for everything else."""
    path = Path(name)
    return path.stat().st_mtime if path.is_file() else 0.0
