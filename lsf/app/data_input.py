"""Choosing data, with templates over any columns, and three examples as the model will read them."""

import hashlib
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from lsf.app.panels import attempt, guard
from lsf.app.runtime import runtime
from lsf.app.work import Source
from lsf.data.contents import DEFAULTS, DataOptions
from lsf.data.encode import EncodedExample, context_length, encode, straddling_words
from lsf.data.formats import kinds_of, recognise
from lsf.data.report import count_tokens, format_lines, pieces_of, shared_prompts, token_lines
from lsf.data.sources import read_splits
from lsf.data.tables import MAX_BYTES, READERS
from lsf.data.task import Example, Task
from lsf.errors import LsfError
from lsf.files import make_folder, write_bytes
from lsf.runs.store import runs_folder

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
    options: DataOptions = DEFAULTS
    """What the rows are, and how they are handed to the model."""


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
    from lsf.data.lessons import LESSONS  # noqa: PLC0415 - the table is built on first use

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
        type=[*(ending.lstrip(".") for ending in READERS), "gz"],
        help="CSV, TSV, JSON, JSONL, Parquet or text, also as .gz: chats, pairs, plain text, or columns of your own.",
        key="data-upload",
    )
    if uploaded is not None:
        kept = attempt(lambda: _keep(uploaded.name, uploaded.getvalue()))
        if kept is None:  # the path below may still be that of the last upload
            return ""
        st.session_state["data-path"] = str(kept)
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
        make_folder(folder)
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
    columns, has_own = _columns(name) or (None, False)
    if columns is not None:
        st.caption("Columns: " + ", ".join(f"`{column.replace('`', '')}`" for column in columns))
        if not has_own and not st.session_state.get("data-prompt"):
            st.caption("Its columns are not recognised: write prompt and completion from the columns it has.")
    example = columns[0] if columns else "question"
    prompt = st.text_input(
        "Prompt template",
        placeholder="as recognised" if has_own else f"Question: {{{example}}}\\nAnswer:",
        help="Columns in braces; \\n is a new line. Empty: what is recognised.",
        key="data-prompt",
        persist_state="session",
    )
    completion = st.text_input(
        "Completion template",
        placeholder="as recognised" if has_own else " {answer}",
        help="What the model is to say next, with its leading space. Empty: what is recognised.",
        key="data-completion",
        persist_state="session",
    )
    return DataChoice(name, _unescaped(prompt), _unescaped(completion), _options())


def _options() -> DataOptions:
    """Draw how rows are handed to the model."""
    names, found = {"pairs": "Text pairs", "train_on": "Trained turns of a chat"}, {}
    columns = st.columns(len(names))
    for column, (name, label) in zip(columns, names.items(), strict=True):
        (item,) = (item for item in fields(DataOptions) if item.name == name)
        choices = item.metadata["choices"]
        with column:
            found[name] = st.selectbox(
                label, choices, choices.index(item.default), help=item.metadata["meaning"], key=f"data-{name}",
                persist_state="session",
            )  # fmt: skip
    return DataOptions(**found)


def _unescaped(template: str) -> str | None:
    return template.replace("\\n", "\n") or None


def _columns(name: str) -> tuple[tuple[str, ...], bool] | None:
    """Columns of a local file, and whether they are recognised; None for hub data or what cannot be read.

    Why it cannot is said once, by `read_task`.
    """
    if name.startswith("hub:"):
        return None
    try:
        return _read(name, _stamp(name))
    except LsfError:
        return None


@st.cache_data(max_entries=8, show_spinner="Reading the file")
def _read(name: str, stamp: float) -> tuple[tuple[str, ...], bool]:
    table = next(iter(read_splits(Path(name)).values()))
    return table.columns, any(recognise(tuple(kinds_of(row).items())) for row in table.rows[:COUNTED])


@st.cache_resource(max_entries=4, show_spinner="Reading the data")
def _task(choice: DataChoice, stamp: float) -> Task:
    templates = choice.prompt_template, choice.completion_template
    return Source("", choice.name, *templates, options=choice.options).load_task()


def read_task(choice: DataChoice) -> Task | None:
    """Return the chosen data, or show one sentence on why it cannot be used and return None."""
    if not choice.name or (choice.name.startswith("hub:") and not _wanted(choice.name)):
        return None
    with guard():
        return _task(choice, _stamp(choice.name))
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


ENDS_SHOWN = 120
"""Tokens shown at both ends of a long row, whose middle is folded."""
SHOWN = 3
COUNTED = 2_000
"""Examples that are tokenised to count what does not fit."""


def show_preview(task: Task, model: str, max_length: int | None) -> None:
    """Draw the first examples and the counts of a task.

    Args:
        task: the data.
        model: whose tokenizer is used, where it can be had without loading weights.
        max_length: tokens per example, as the settings have it.
    """
    counts = f"{len(task.train):,} training, {len(task.validation):,} validation and {len(task.test):,} test examples"
    drawn = "" if task.own_splits else " (the splits were drawn, since the data names none)"
    st.markdown(f"{counts}{drawn}.")
    seen = [*format_lines(task)[: len(task.seen.formats) + 1], *task.seen.notes, *shared_prompts(task)]
    if seen and task.seen.formats:
        st.text("\n".join(seen))
    reader = _reader(model)
    if reader is None:
        _plain(task.train[:SHOWN])
        st.caption("Tokens are marked once the tokenizer is at hand: when the model is loaded.")
        return
    tokenizer, context = reader
    with guard():
        _tokens(tokenizer, task, context_length(context, max_length))


def _plain(examples: tuple[Example, ...]) -> None:
    for example in examples:
        st.html(f"<div class='lsf-tokens'>{escape(example.prompt)}<b>{escape(example.completion)}</b></div>")


def _tokens(tokenizer: Any, task: Task, max_length: int) -> None:
    examples = task.train[:COUNTED]
    encoding = encode(tokenizer, examples, max_length, append_eos=True)
    for row in encoding.rows[:SHOWN]:
        st.html(_marked(tokenizer, row))
    st.caption(
        "Marked: the tokens that are trained on, underlined where they end a turn or text. The rest is only read."
    )
    facts = count_tokens([encoding], tokenizer.eos_token_id, len(tokenizer))
    st.text("\n".join(token_lines(facts, max_length)[:3] + [f"note: {fact}" for fact in facts.facts]))
    of = "" if len(examples) == len(task.train) else f" of the first {COUNTED:,}"
    if encoding.n_dropped:
        st.warning(
            f"{encoding.n_dropped:,}{of} training examples are left out: their completion does not fit into "
            f"{max_length:,} tokens."
        )
    else:
        st.caption(f"Every training example{of} fits into {max_length:,} tokens.")
    if told := straddling_words(encoding.n_straddling, of):
        st.warning(told)


def _marked(tokenizer: Any, row: EncodedExample) -> str:
    parts = []
    for piece in pieces_of(tokenizer, row):
        text = escape(piece.text.replace(" ", "␣").replace("\n", "⏎"))
        text = f"<u>{text}</u>" if piece.ends else text
        parts.append(f"<b>{text}</b>" if piece.trained else text)
    middle = parts[ENDS_SHOWN:-ENDS_SHOWN]
    if len(middle) > ENDS_SHOWN:
        folded = f"<details><summary>{len(middle):,} more tokens</summary>{' '.join(middle)}</details>"
        parts = [*parts[:ENDS_SHOWN], folded, *parts[-ENDS_SHOWN:]]
    return f"<div class='lsf-tokens'>{' '.join(parts)}</div>"


def _reader(model: str) -> tuple[Any, int] | None:
    """A model's tokenizer and context, if no weights and no network are needed for them."""
    loaded = runtime().loaded()
    if loaded is not None and loaded.info.name == model:
        return loaded.tokenizer, loaded.context
    if not runtime().ready:
        return None
    from lsf.models.supported import at_hand  # noqa: PLC0415 - imports torch, which is in memory by now

    return _local_reader(model) if at_hand(model) else None


@st.cache_resource(max_entries=2, show_spinner=False)
def _local_reader(model: str) -> tuple[Any, int] | None:
    from lsf.models.weights import tokenizer_of  # noqa: PLC0415 - imports torch, which is in memory by now

    try:
        return tokenizer_of(model)[:2]
    except LsfError:
        return None  # the model's own part of the page says what is wrong with it
