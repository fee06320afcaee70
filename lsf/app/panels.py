"""Parts that several pages share: a picture as a live chart with its note and data, progress, downloads, errors.

And widgets made of settings fields: name, meaning, range, choices and default are written once, in the record.
"""

import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import streamlit as st
import streamlit.components.v2 as components
from plotly.offline import get_plotlyjs

from lsf.criteria.result import Analysis
from lsf.data.lessons import data_words
from lsf.errors import LsfError
from lsf.figures.palette import DARK, LIGHT, Picture, bytes_words, template, without_hints
from lsf.files import finite
from lsf.jobs.job import JobState, JobView, QueueOutlook
from lsf.models.info import model_label
from lsf.plans.plan import Predicted
from lsf.progress import duration, left
from lsf.settings import kinds_of
from lsf.wording import counted

T = TypeVar("T")
_LOADER = """
// plotly.js and the templates, put into the page once
export default function (component) {
  window.lsfTemplates = component.data;
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = %s;
  document.head.appendChild(script);
}
"""
TITLE_SPACE = 4
"""Pixels a figure needs less when its title stands above it as text; the rest is for the buttons over the legend."""


@contextmanager
def guard() -> Iterator[None]:
    """Show an `LsfError` raised inside as one sentence, and go on after the block; anything else crashes loudly."""
    try:
        yield
    except LsfError as error:
        st.error(unmarked(str(error)), icon=":material/error:")


def unmarked(text: str) -> str:
    """Return a text that Streamlit shows as it stands: nothing of it is Markdown, maths or an icon."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$:&])", r"\\\1", text)


def attempt(work: Callable[[], T]) -> T | None:
    """Return what `work` returns, or show its `LsfError` as one sentence and return None."""
    with guard():
        return work()
    return None


def as_json(value: Any) -> str:
    """Return plain JSON text; unknown is null."""
    return json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def table_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV; unknown is an empty cell."""
    return table.to_csv(index=False)


def table_json(table: pd.DataFrame) -> str:
    """Return a table as a JSON list of rows; unknown is null."""
    return as_json(json.loads(str(table.to_json(orient="records", double_precision=15))))


def states_csv(analysis: Analysis) -> str:
    """Return one row per state, and beside it the scores of the block that ends in it."""
    rows: list[dict[str, Any]] = []
    for row in analysis.states:
        plain: dict[str, Any] = {name: value for name, value in vars(row).items() if name != "top_tokens"}
        plain["top_token"] = row.top_tokens[0][0] if row.top_tokens else None
        if row.state:
            block = analysis.blocks[row.state - 1]
            plain |= {"block": block.block, **{f"score_{name}": score for name, score in block.scores.items()}}
        rows.append(plain)
    return pd.DataFrame(rows).to_csv(index=False)


READABLE = """<style>
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.8; }
button[data-testid^="stBaseButton-primary"]:not(:disabled, :hover, :active),
[data-testid="stMultiSelect"] [data-tag] { background: #0072B2; }
</style>"""
"""For captions, and in the dark primary buttons and picked tags: Streamlit gives them less than 4.5 times contrast."""
SHOWN_ROWS = 12
"""Of a table; the rest by scrolling in it."""
NEXT = {
    "model": ("pages/model.py", "Model and data"),
    "trajectories": ("pages/trajectories.py", "Trajectories"),
    "criteria": ("pages/criteria.py", "Criteria"),
    "choose": ("pages/choose.py", "Choose"),
    "tune": ("pages/tune.py", "Fine-tune"),
    "compare": ("pages/compare.py", "Compare"),
}
"""Key of a page -> its file and its name."""


def show(
    picture: Picture,
    key: str,
    note: str = "",
    on_click: Callable[[Any], None] | None = None,
    title: str | None = None,
) -> None:
    """Show a picture under its title, with a note of one or two sentences and its data as a table.

    Args:
        picture: what is shown.
        key: names the chart from one script run to the next.
        note: what the numbers mean.
        on_click: called with what a clicked mark carries.
        title: shown in place of the picture's own, which stays that of a saved file.
    """
    with st.container(key=f"panel-{key}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            st.subheader(title or unmarked(picture.title), anchor=False, width="stretch")
            with st.popover("Data", type="tertiary", icon=":material/table:", help="The numbers behind this picture"):
                st.caption(unmarked(picture.alt))
                table(picture.table, key)
        if note:
            st.caption(note)
        _live_chart(picture, key, on_click)


@cache
def _loader() -> Any:
    return components.component("lsf_plotly", js=_LOADER % json.dumps(get_plotlyjs()))


@cache
def _chart() -> Any:
    return components.component(
        "lsf_chart",
        html="<div class='lsf-chart' role='figure'></div>",
        js=Path(__file__).with_name("live_chart.js").read_text(encoding="utf-8"),
        isolate_styles=False,
    )


def send_plotly() -> None:
    """Send plotly.js to this browser; once in a script run, before or after the charts."""
    _loader()(key="lsf_plotly", data=_templates(), height=1)


def _live_chart(picture: Picture, key: str, on_click: Callable[[Any], None] | None = None) -> None:
    """Draw a picture, or update the one drawn under the same key: a Components-v2 wrapper around `Plotly.react`.

    `st.plotly_chart` builds a chart anew whenever its figure changes and loses the reader's zoom; this one is updated
    in place. plotly.js travels once per browser session, afterwards only a figure's data does. Text and grid colours
    are put in by the browser, so that a chart follows a switch between light and dark at once.

    Args:
        picture: its title is left to the caller, who shows it as text; it comes back in a saved image.
        key: names the chart from one script run to the next.
        on_click: called before the script run that a click starts, with what the clicked mark carries in `customdata`.
    """
    figure = picture.figure.to_dict() if on_click is not None else without_hints(picture.figure.to_dict())
    layout = figure["layout"]
    top, height = layout["margin"]["t"], layout["height"]
    figure["layout"] = {
        **layout,
        "title": {"text": ""},
        "height": height - TITLE_SPACE,
        "margin": {**layout["margin"], "t": top - TITLE_SPACE},
    }
    _chart()(
        key=key,
        data={
            "figure": json.dumps(figure),
            "height": height - TITLE_SPACE,
            "title": picture.title,
            "alt": picture.alt,
            "clickable": on_click is not None,
        },
        height=height - TITLE_SPACE,  # reserved before the chart is drawn, so that nothing below it jumps
        on_clicked_change=lambda: _report_click(key, on_click),
    )


@cache
def _templates() -> dict[str, Any]:
    return {"light": template(LIGHT), "dark": template(DARK)}


def _report_click(key: str, on_click: Callable[[Any], None] | None) -> None:
    value = st.session_state[key].clicked
    if on_click is not None and value is not None:
        on_click(value)


def table(rows: pd.DataFrame, key: str, **options: Any) -> None:
    """Show a table that can be taken away as CSV and as JSON.

    Args:
        rows: what is shown.
        key: names the table from one script run to the next, and the files.
        **options: of `st.dataframe`.
    """
    options = {"hide_index": True, "placeholder": "", "height": 38 + 35 * min(SHOWN_ROWS, max(1, len(rows))), **options}
    st.dataframe(rows, **options)
    if len(rows) > SHOWN_ROWS:
        st.caption(f"{SHOWN_ROWS} of {len(rows)} rows; scroll in the table for the rest.")
    with st.container(horizontal=True, gap="small"):
        download("CSV", lambda: table_csv(rows), f"{key}.csv", "text/csv", f"{key}-csv")
        download("JSON", lambda: table_json(rows), f"{key}.json", "application/json", f"{key}-json")


def progress(view: JobView) -> None:
    """Show how far one job is, with what is left in words."""
    if view.state is JobState.QUEUED:
        ahead = f"{counted(view.position, 'job')} ahead" if view.position else "next"
        st.markdown(f":material/schedule: {unmarked(view.title)}: queued, {ahead}", width="stretch")
        return
    st.progress(view.fraction, text=unmarked(f"{view.title}: {', '.join(progress_words(view))}"))
    if len(view.phases) > 1:
        names = [f"**{name}**" if name == view.phase else name for name in view.phases]
        st.caption(" → ".join(names))


def progress_words(view: JobView) -> list[str]:
    """Return what a running job does and how long it will take, in a few phrases."""
    repeated = view.message.startswith(view.phase)
    parts = [view.message if repeated else f"{view.phase}, {view.message}" if view.message else view.phase]
    parts = [parts[0] or "starting"]
    if view.total and view.total > 1 and f"{view.total:g}" not in view.message:
        parts.append(f"{view.done:g} of {view.total:g}")
    if view.eta_seconds is not None:
        parts.append(left(view.eta_seconds))
    elif view.seconds is not None:
        parts.append(f"{duration(view.seconds)} so far")
    return [*parts, "stopping"] if view.stopping else parts


def progress_of_queue(found: QueueOutlook) -> None:
    """Show how far all jobs of a queue are together."""
    st.progress(found.fraction, text=queue_words(found))


def queue_words(found: QueueOutlook) -> str:
    """Return how many jobs of a queue are done and how long the others take, or when that will be known."""
    ahead = "" if found.eta_seconds is None else f", {left(found.eta_seconds)} in total"
    if found.awaits_run:
        ahead = "; the time left is known shortly after the first run begins"
    return f"The whole queue: {found.n_ended} of {found.n_jobs} done{ahead}"


def finding(found: str, onward: str) -> None:
    """Say at the end of a page what was found on it, and what to do next.

    Args:
        found: one sentence, computed from the records.
        onward: one sentence.
    """
    with st.container(border=True, key="finding"):
        st.markdown(f"**{unmarked(found)}** {unmarked(onward)}")


def empty(title: str, text: str, page: str) -> None:
    """Say what is missing here and offer the page where it is made."""
    with st.container(border=True):
        st.subheader(title, anchor=False)
        st.write(text)
        file, name = NEXT[page]
        if st.button(f"Go to {name}", type="primary", icon=":material/arrow_forward:", key=f"empty-{page}"):
            st.switch_page(file)


def onward(
    page: str, label: str, query: dict[str, str], disabled: bool = False, aside: Mapping[str, str] | None = None
) -> None:
    """Offer the next step of the journey: it stays in sight at the foot of the window, however long the page is.

    Args:
        page: a key of `NEXT`.
        label: of the button.
        query: parameters the address is to carry.
        disabled: whether it cannot be taken yet.
        aside: other pages that can be looked at first, and the labels of their buttons.
    """
    with st.container(horizontal=True, gap="small", key="onward"):
        for name, words in {page: label, **(aside or {})}.items():
            if st.button(
                words,
                type="primary" if name == page else "secondary",
                icon=":material/arrow_forward:",
                icon_position="right",
                key=f"to-{name}",
                disabled=disabled,
            ):
                st.switch_page(NEXT[name][0], query_params=query)


EMPTY_MEANS = "default"


def setting_input(record: type, name: str, value: Any, key: str, label: str | None = None) -> Any:
    """Draw the widget of one settings field and return what it holds.

    Args:
        record: a dataclass whose fields carry `meaning` and limits in their metadata.
        name: of the field.
        value: shown at first.
        key: of the widget.
        label: instead of the field's name in words.

    Returns:
        A value of the field's type; None where the field allows it and the input is empty.
    """
    item = {item.name: item for item in fields(record)}[name]
    label = label or name.replace("_", " ").capitalize()
    kinds = kinds_of(typing.get_type_hints(record)[name])
    meaning = help_text(item)
    if kinds == (bool,):
        return st.checkbox(label, value, help=meaning, key=key, persist_state="session")
    if "choices" in item.metadata:
        choices = list(item.metadata["choices"])
        return st.selectbox(label, choices, index=choices.index(value), help=meaning, key=key, persist_state="session")
    if int in kinds or float in kinds:
        return _number(item, kinds, value, label, key)
    if type(None) in kinds:
        return st.text_input(label, value or "", help=meaning, key=key, persist_state="session") or None
    return st.text_input(label, value, help=meaning, key=key, persist_state="session")


def help_text(item: Field[Any]) -> str:
    """Return a field's meaning with its range and default, as one line."""
    text = str(item.metadata["meaning"])
    text = text[:1].upper() + text[1:]
    if "low" in item.metadata:
        text += f" ({item.metadata['low']:g} to {item.metadata['high']:g})"
    if item.default is not MISSING and item.default is not None:
        text += f"; default {item.default}"
    return text + "."


def _number(item: Field[Any], kinds: tuple[Any, ...], value: Any, label: str, key: str) -> Any:
    whole = int in kinds and float not in kinds
    number = int if whole else float
    default: Any = item.default
    return st.number_input(
        label,
        min_value=number(item.metadata["low"]),
        max_value=number(item.metadata["high"]),
        value=value,
        step=1 if whole else float(value or default or 1.0) / 2,
        format="%d" if whole else "%g",
        placeholder=EMPTY_MEANS,
        help=help_text(item),
        key=key,
        persist_state="session",
    )


def download(label: str, data: Callable[[], str | bytes], file_name: str, mime: str, key: str) -> None:
    """Offer a file that is built when it is asked for."""
    st.download_button(
        label, data=data, file_name=file_name, mime=mime, key=key, on_click="ignore", icon=":material/download:"
    )


def task_words(model: str, data: str) -> str:
    """Write which model is tuned on which data, as Markdown, by the names that stand in the line above every page."""
    return f"**{unmarked(model_label(model))}** on **{unmarked(data_words(data))}**"


def size(count: float | None) -> str:
    """Write bytes for people: `unknown`, `0.0 MB`, `8.2 kB`, `3.2 MB`, `14.1 GB`."""
    return "unknown" if count is None else bytes_words(count)


def memory_words(cost: Predicted) -> str:
    """Write what a run is expected to take above the loaded model, the same on every page."""
    least = "at least " if cost.memory_bytes is not None and not cost.phases else ""
    return least + size(cost.memory_bytes)


ROUNDED = 0.0005
"""Share below a unit from which three digits are written as one of it."""


def amount(count: float | None) -> str:
    """Write a number of parameters for people: `812`, `394 k`, `2.9 M`, `1.5 B`; 999,600 is `1 M`."""
    if count is None:
        return "unknown"
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= limit * (1 - ROUNDED):
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"
