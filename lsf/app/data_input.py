"""Choosing data, with templates over any columns."""

import hashlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from lsf.app.panels import attempt, guard, help_text, unmarked
from lsf.app.work import Source
from lsf.data.columns import fill_template, parse_template
from lsf.data.contents import DEFAULTS, DataOptions, read_chat_template
from lsf.data.converting import Row, joined_messages
from lsf.data.formats import FORMATS, kinds_of, recognise
from lsf.data.sources import read_splits
from lsf.data.tables import READERS
from lsf.data.task import Task
from lsf.errors import LsfError
from lsf.files import make_folder, typed_path, write_bytes
from lsf.runs.store import runs_folder
from lsf.wording import counted

LESSON, FILE, HUB = "Lesson", "File", "Hugging Face data set"
COUNTED = 2_000
"""Rows by which it is recognised what a file is."""
UPLOADS, TAKEN = "uploads", "data-taken"
"""Folder of uploads among the runs; where the session keeps which upload was taken last."""
LATER = "data-later"
"""Where the session keeps what is filled in once its file can be read."""


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
    waiting: str | None = None
    """What is still to be chosen before the rows can be read."""


def data_input() -> DataChoice:
    """Draw the data's part of the first page."""
    kind = st.segmented_control(
        "Data", [LESSON, FILE, HUB], default=LESSON, required=True, key="data-kind", persist_state="session",
        label_visibility="collapsed",
    )  # fmt: skip
    if kind == LESSON:
        return DataChoice(_lesson_input())
    name = _file_input() if kind == FILE else _hub_input()
    if not name:
        return DataChoice("")
    return _rows_input(name)


def fill_data(source: Source) -> None:
    """Let the form ask for an analysis' or a run's data, templates and options again."""
    kind, name = source.data.partition(":")[::2] if source.data.startswith(("lesson:", "hub:")) else ("", source.data)
    known = {
        "data-kind": {"lesson": LESSON, "hub": HUB}.get(kind, FILE),
        {"lesson": "data-lesson", "hub": "data-hub"}.get(kind, "data-path"): name,
        "data-pairs": source.options.pairs,
        "data-train_on": source.options.train_on,
        "data-max_rows": source.options.max_rows,
    }
    if source.options.chat_template is not None:
        known[TEMPLATE] = ("as before", source.options.chat_template, None)
    _fill(known)
    if kind == "hub":
        _fill_templates(source, source.data)
    elif not kind and (seen := _seen(name)) is not None:
        _fill_rows(source, seen)
    elif not kind:
        _fill({LATER: source})  # the file is away


def _fill_rows(source: Source, seen: "Seen") -> None:
    """Let the form take a file's rows as before."""
    _fill({f"data-format-{'-'.join(seen.possible)}": source.options.format})
    if source.prompt_template or source.completion_template:
        _fill({HOW: OWN})
    _fill_templates(source, "-".join(seen.columns))


def _fill_templates(source: Source, of: str) -> None:
    _fill({f"data-prompt-{of}": source.prompt_template, f"data-completion-{of}": source.completion_template})


def _fill(known: dict[str, Any]) -> None:
    st.session_state.update({key: value for key, value in known.items() if value is not None})


def _lesson_input() -> str:
    from lsf.data.lessons import LESSONS  # noqa: PLC0415 - the table is built on first use

    name = st.selectbox(
        "Lesson", list(LESSONS), format_func=lambda key: LESSONS[key].title, key="data-lesson", persist_state="session"
    )
    st.caption(LESSONS[name].teaches)
    return f"lesson:{name}"


def _file_input() -> str:
    uploaded = st.file_uploader(
        "Upload a file",
        type=[*(ending.lstrip(".") for ending in READERS), "gz"],
        help="CSV, TSV, JSON, JSONL, Parquet, Arrow or text, also as .gz: chats, pairs, texts, or columns of your own.",
        key="data-upload",
    )
    if uploaded is not None and uploaded.file_id != st.session_state.get(TAKEN):  # once: a path may be typed after it
        kept = attempt(lambda: _keep(uploaded.name, uploaded.getvalue()))
        if kept is None:  # the path below may still be that of the last upload
            return ""
        st.session_state["data-path"], st.session_state[TAKEN] = str(kept), uploaded.file_id
    path = st.text_input(
        "or the path of a file on this machine",
        placeholder="data/questions.csv",
        help="Any size. A column `split` (train, validation, test) decides the splits.",
        key="data-path",
        persist_state="session",
    ).strip()
    return str(attempt(lambda: typed_path(path)) or "") if path else ""


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


RECOGNISED, OWN = "recognised", "own"
HOW = "data-how"
CHATS = ("chat", "sharegpt", "chat-pairs", "preference", "oasst", "chatgpt", "gemini")
"""Formats whose rows have turns."""
PAIRED = ("pairs", "alpaca", "known", "unpaired", "preference")
"""Formats whose rows may be two texts, as those of templates are."""
WORDS = {
    "auto": "as a chat where the model has a template",
    "chat": "as a chat",
    "raw": "as they stand",
    "assistant": "every answer",
    "last": "the last answer",
    "all": "every token",
}
"""Choice of an option -> what a person reads."""


@dataclass(frozen=True)
class Seen:
    """What a file's first rows are, before anybody said anything."""

    columns: tuple[str, ...]
    """In the file's order."""
    found: str | None
    """Format that most of them are recognised as; None where none is."""
    possible: tuple[str, ...]
    """Every format that the first row could be."""
    first: Row
    """The first row."""


def _rows_input(name: str) -> DataChoice:
    """Draw what of the rows the model gets; nothing is wrong before anything was chosen."""
    if name.startswith("hub:"):
        with st.expander("Templates over its columns, and chats", icon=":material/tune:", key="data-more"):
            prompt, completion = _template_areas(name)
            return DataChoice(name, prompt, completion, _options(PAIRED[0], CHATS[0]))
    seen = _seen(name)
    if seen is None:
        return DataChoice(name)
    if (later := st.session_state.pop(LATER, None)) is not None and later.data == name:
        _fill_rows(later, seen)
    how, recognised = OWN, FORMATS[seen.found].label if seen.found is not None else ""
    if recognised:
        how = st.segmented_control(
            "The model reads",
            [RECOGNISED, OWN],
            format_func=lambda key: recognised if key == RECOGNISED else "columns of my choice",
            default=RECOGNISED,
            required=True,
            key=HOW,
            persist_state="session",
            help="What the file's columns were recognised as, or texts made of the columns you pick.",
        )
    if how == OWN:
        return _from_columns(name, seen)
    form = _format_input(seen, recognised)
    return DataChoice(name, options=_options(seen.found if form == "auto" else form, form=form))


def _format_input(seen: Seen, recognised: str) -> str:
    """Let the user say what the rows are, where they could be more than one thing."""
    if len(seen.possible) < 2:
        return "auto"
    return st.selectbox(
        "The rows are",
        ["auto", *seen.possible],
        format_func=lambda key: f"as recognised: {recognised}" if key == "auto" else FORMATS[key].label,
        help="Their columns fit more than one format.",
        key=f"data-format-{'-'.join(seen.possible)}",
        persist_state="session",
    )


def _from_columns(name: str, seen: Seen) -> DataChoice:
    """Let the user pick columns, and write the templates they make over several lines."""
    if seen.found is None:
        st.caption("Its columns match no known format; pick what the model reads and what it learns.")

    # Kept while other pages are shown, of files with these columns alone: what was picked of others cannot be here.
    columns = "-".join(seen.columns)
    prompt_key, answer_key = f"data-asked-{columns}", f"data-answer-{columns}"

    def write() -> None:
        asked, answer = st.session_state[prompt_key], st.session_state[answer_key]
        if asked:
            lines = [f"{_title(column)}: {{{column}}}" for column in asked]
            st.session_state[f"data-prompt-{columns}"] = "\n".join([*lines, f"{_title(answer or 'answer')}:"])
        if answer:
            st.session_state[f"data-completion-{columns}"] = f" {{{answer}}}"

    left, right = st.columns(2, gap="small")
    left.multiselect(
        "Prompt from", seen.columns, key=prompt_key, on_change=write, placeholder="Columns", persist_state="session"
    )
    right.selectbox(
        "Completion from", seen.columns, None, key=answer_key, on_change=write, placeholder="Column",
        persist_state="session",
    )  # fmt: skip
    prompt, completion = _template_areas(columns)
    parts = (("the prompt", prompt, "prompt"), ("the completion", completion, "completion"))
    lacking = [part for part, template, column in parts if template is None and column not in seen.columns]
    waiting = f"Pick the columns for {' and '.join(lacking)}." if lacking else None
    if waiting:
        st.info(waiting, icon=":material/info:")
    else:
        _first_row(seen, prompt or "{prompt}", completion or "{completion}")
    return DataChoice(name, prompt, completion, _options(PAIRED[0]), waiting)


def _title(column: str) -> str:
    return column[:1].upper() + column[1:].replace("_", " ")


def _template_areas(of: str) -> tuple[str | None, str | None]:
    """Draw the templates kept for a file's columns, or for a data set of the hub: those of others do not fit here."""
    prompt = st.text_area(
        "Prompt template",
        height=120,
        placeholder="Question: {question}\nAnswer:",
        help="Column names in braces; any number of lines.",
        key=f"data-prompt-{of}",
        persist_state="session",
    )
    completion = st.text_area(
        "Completion template", height=68, placeholder=" {answer}", key=f"data-completion-{of}", persist_state="session",
        help="What the model learns to write next, with its leading space.",
    )  # fmt: skip
    return prompt or None, completion or None


def _first_row(seen: Seen, prompt: str, completion: str) -> None:
    """Show what the templates make of the first row; what is wrong with them is said once, by `read_task`."""
    with suppress(LsfError):
        texts = [
            fill_template(parse_template(template, seen.columns, "The template"), seen.first)
            for template in (prompt, completion)
        ]
        st.caption("The first row; bold is what is trained.")
        st.html(f"<div class='lsf-tokens'>{escape(texts[0])}<b>{escape(texts[1])}</b></div>")


def _options(*formats: str | None, form: str = "auto") -> DataOptions:
    """Draw how rows of these formats are handed to the model, as far as it matters for them."""
    pairs, train_on = DEFAULTS.pairs, DEFAULTS.train_on
    chats = any(name in CHATS for name in formats)
    with st.container(horizontal=True, gap="small"):
        if any(name in PAIRED for name in formats):
            pairs = _choice("pairs", "Prompt and completion are read")
        if chats:
            train_on = _choice("train_on", "Train on")
        most = st.number_input(
            "Maximum rows per split", min_value=1, value=None, step=1000, placeholder="all", key="data-max_rows",
            help="Where there are more, that many are drawn at random.", persist_state="session",
        )  # fmt: skip
    template = _chat_template() if chats or pairs == "chat" else None
    return DataOptions(form, pairs, train_on, template, None if most is None else int(most))


def _choice(name: str, label: str) -> str:
    (item,) = (item for item in fields(DataOptions) if item.name == name)
    choices = item.metadata["choices"]
    return st.selectbox(
        label, choices, choices.index(item.default), format_func=WORDS.__getitem__, help=help_text(item),
        key=f"data-{name}", persist_state="session",
    )  # fmt: skip


TEMPLATE = "data-chat-template"
"""Where the session keeps name and text of a chat template's file, and which upload that was."""


def _chat_template() -> str | None:
    """Let the user give a file in place of the model's own chat template; return its text."""
    with st.expander("Another chat template", icon=":material/description:", key="data-template"):
        given = st.file_uploader(
            "A Jinja file", type=["jinja", "jinja2", "j2", "txt"], key="data-template-file",
            help="In place of the model's own template; the run keeps its text.",
        )  # fmt: skip
        name, text, taken = st.session_state.get(TEMPLATE, (None, None, None))
        if given is not None and given.file_id != taken:
            with guard():
                name, text = given.name, read_chat_template(given.name, given.getvalue())
                st.session_state[TEMPLATE] = (name, text, given.file_id)
        if name is not None:
            st.caption(f"Used: {unmarked(name)}, {counted(len(text), 'character')}.")
            if st.button("Back to the model's own", icon=":material/undo:", key="data-template-back"):
                st.session_state[TEMPLATE] = (None, None, taken)  # its file may still lie in the box above
                st.rerun()
    return text


def _seen(name: str) -> Seen | None:
    """What a local file is; None for what cannot be read. Why it cannot is said once, by `read_task`."""
    try:
        return _look(name, changed_at(name))
    except LsfError:
        return None


@st.cache_data(max_entries=8, show_spinner="Reading the file")
def _look(name: str, stamp: float) -> Seen:
    table = next(iter(read_splits(Path(name)).values()))
    kinds = [kinds_of(row) for row in joined_messages(table).rows[:COUNTED]]
    found = Counter(form for row in kinds if (form := recognise(tuple(row.items()))) is not None)
    first = kinds[0] if kinds else {}
    possible = tuple(entry.name for entry in FORMATS.values() if entry.matches(first) and entry.name != "bundle")
    commonest = found.most_common(1)[0][0] if found else None
    return Seen(table.columns, commonest, possible, table.rows[0] if table.rows else {})


@st.cache_resource(max_entries=4, show_spinner="Reading the data")
def _task(choice: DataChoice, stamp: float) -> Task:
    templates = choice.prompt_template, choice.completion_template
    return Source("", choice.name, *templates, options=choice.options).load_task()


def read_task(choice: DataChoice) -> Task | None:
    """Return the chosen data, or show one sentence on why it cannot be used and return None."""
    if not choice.name or choice.waiting or (choice.name.startswith("hub:") and not _wanted(choice.name)):
        return None
    with guard():
        return _task(choice, changed_at(choice.name))
    return None


def _wanted(name: str) -> bool:
    """Hub data is fetched when asked for, not while its name is being typed."""
    if st.button("Fetch the data set", icon=":material/download:", key="data-fetch"):
        st.session_state["data-fetched"] = name
    return st.session_state.get("data-fetched") == name


def changed_at(name: str) -> float:
    """Time of the last change of a local file, or in a folder, so that caches follow it; 0 for everything else."""
    path = Path(name).expanduser()
    try:
        return max(one.stat().st_mtime for one in (path, *path.glob("*"), *path.glob("*/*")))
    except OSError:  # nothing is there, or no longer
        return 0.0
