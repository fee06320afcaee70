"""Names of files, prompts and tokens are a user's: pages show them as they stand, as Markdown and HTML of nobody."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import streamlit as st

from lsf.app.runtime import runtime
from lsf.app.work import Analysed, Request, Source
from lsf.figures.lens import draw_lens, draw_targets
from tests.pages.conftest import SECONDS, Driver, as_read

HOSTILE = "[x](http-e) **b** $y$ :material-home: <s>.csv"
TOKEN = ' <s>*:red["b"]'


@pytest.fixture
def marked(known: Callable[..., Analysed], cats: Path, tmp_path: Path) -> Analysed:
    """An analysis of a file with such a name, and with such tokens."""
    data, found = shutil.copy(cats, tmp_path / HOSTILE), known()
    trajectories = found.analysis.trajectories
    assert trajectories is not None
    examples = tuple(replace(one, target_token=TOKEN) for one in trajectories.examples)
    told = replace(found.analysis, trajectories=replace(trajectories, examples=examples))
    return Analysed(Request(Source(found.request.source.model, str(data)), found.request.settings), told)


def all_marks(app: Driver) -> list[str]:
    """Everything on the page that Streamlit reads as Markdown."""
    at = app.at
    parts: list[Any] = [at.title, at.subheader, at.markdown, at.caption, at.error, at.warning, at.info]
    said = [str(element.value) for elements in parts for element in elements]
    return [*said, *(button.label for button in at.button), *(bar.proto.text for bar in at.get("progress"))]


def test_the_name_of_a_file_is_text_while_its_jobs_wait_and_run(app: Driver, marked: Analysed) -> None:
    app.look_at(marked)
    gate, here = threading.Event(), app.at.session_state["lsf"]
    here.request = marked.request
    for _ in range(2):
        runtime().worker.submit("tune", f"block 3 on {HOSTILE}", lambda report: gate.wait(SECONDS), here.owner)
    app.go("tune")
    told = [text for text in all_marks(app) if HOSTILE in as_read(text)]
    gate.set()
    assert len(told) >= 2  # one runs, one waits
    assert not [text for text in told if HOSTILE in text]


def test_a_button_that_names_a_file_shows_it_as_text(app: Driver, marked: Analysed) -> None:
    app.at.session_state["lsf"].request = marked.request
    app.go("trajectories")
    (label,) = [button.label for button in app.at.button if str(button.key) == "analyse-now"]
    assert HOSTILE in as_read(label)
    assert HOSTILE not in label


def test_tokens_are_text_in_titles_captions_and_tables_of_a_state(app: Driver, marked: Analysed) -> None:
    app.look_at(marked)
    shown = TOKEN.replace(" ", "␣")
    told = [text for text in all_marks(app) if shown in as_read(text)]
    assert len(told) >= 3
    assert not [text for text in told if shown in text]


def test_tokens_are_no_tags_in_the_pictures_of_the_lens(marked: Analysed) -> None:
    assert marked.analysis.trajectories is not None
    example = marked.analysis.trajectories.examples[0]
    tokens = tuple(((TOKEN, 0.5), *best[1:]) for best in example.top_tokens)
    hostile = replace(example, top_tokens=tokens)
    lens, shown = (cast(Any, drawn.figure) for drawn in (draw_lens(hostile), draw_targets([hostile])))
    texts = [*lens.data[0].text[0], *shown.data[0].hovertext[0], *shown.layout.xaxis.ticktext]
    assert sum("&lt;s&gt;" in text for text in texts) == 3
    assert not [text for text in texts if "<s>" in text or "&quot;" in text]  # Plotly would show the latter as it is


def test_a_page_that_waits_for_an_analysis_looks_again_while_other_jobs_go_on(
    app: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled: list[str] = []
    fragment = st.fragment

    def spy(run_every: float | None = None) -> Callable[..., Any]:
        def note(work: Callable[..., Any]) -> Callable[..., Any]:
            if run_every is not None:
                polled.append(work.__qualname__)
            return fragment(run_every=run_every)(work)

        return note

    monkeypatch.setattr(st, "fragment", spy)
    gate = threading.Event()
    job = runtime().worker.submit("analyze", "an analysis", lambda report: gate.wait(SECONDS))
    app.at.query_params["analysis"] = job
    app.go("choose")
    gate.set()
    assert "The analysis is still running" in app.shown()
    assert any(name.startswith("follow.") for name in polled)
