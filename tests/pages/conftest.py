"""The real app under AppTest, with its own folder of runs and a fresh worker; jobs are waited for."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lsf.app.choose import brush
from lsf.app.runtime import runtime
from lsf.jobs.job import JobView
from lsf.runs.store import RUNS_VARIABLE

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
FORM = {"steps": 4, "batch_size": 4}


def as_read(text: object) -> str:
    """Return a text as a reader sees it: what Markdown would take as a mark stands behind a backslash."""
    return re.sub(r"\\([\\`*_{}\[\]()#+!|<>~$:])", r"\1", str(text))


class Driver:
    """One browser session's worth of the app."""

    def __init__(self, own: bool = True) -> None:
        """Open the first page, and go from it to the one where model and data are chosen, or stay there."""
        self.at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=SECONDS).run()
        self.wait("warm-up")
        if own:
            self.click("Use my own model and data")  # AppTest.switch_page would stay there, whatever the app does

    def wait(self, *kinds: str) -> JobView:
        """Wait until every job of these kinds has ended; return the last."""
        return [runtime().worker.wait(view.id, SECONDS) for view in runtime().jobs(*kinds)][-1]

    def go(self, page: str) -> AppTest:
        return self.at.switch_page(f"pages/{page}.py").run()

    def click(self, label: str) -> AppTest:
        button = next(button for button in self.at.button if button.label == label)
        return button.click().run()

    def use(self, model: Path, data: Path, prompt: str = "", completion: str = "") -> AppTest:
        """Choose a model folder and a data file on the first page."""
        at = self.at
        at.session_state["model-kind"] = "Your own"
        at.session_state["data-kind"] = "File"
        at.run()
        at.text_input(key="model-name").set_value(str(model))
        at.text_input(key="data-path").set_value(str(data))
        at.run()
        if prompt or completion:
            self.use_templates(prompt, completion)
        return at.run()

    def use_templates(self, prompt: str, completion: str) -> AppTest:
        """Write templates over the columns of the file that was chosen."""
        self.at.session_state["data-how"] = "own"
        self.at.run()
        self.at.text_area(key="data-prompt").set_value(prompt)
        self.at.text_area(key="data-completion").set_value(completion)
        return self.at.run()

    def analyse(self, model: Path, data: Path) -> AppTest:
        """Run a whole analysis; ends on the trajectories page."""
        self.use(model, data)
        self.click("Analyse")
        self.wait("analyze")
        self.at.run()
        return self.click("Skip to the result")

    def tower(self, picks: bool = False) -> dict[str, Any]:
        """What the tower beside the page is drawn of, or that of the graft, on which one block is picked."""
        drawn = [one.proto for one in self.at.get("bidi_component") if one.proto.component_name.endswith("lsf_tower")]
        return [found for one in drawn if (found := json.loads(one.json))["picks"] == picks][-1]

    def html(self) -> str:
        """Everything the page says in HTML of our own."""
        return "\n".join(element.proto.body for element in self.at.get("html"))

    def brush(self, first: int, last: int) -> AppTest:
        """Do what a drag over the tower does; AppTest has no JavaScript."""
        brush(self.at.session_state["lsf"], first, last)
        return self.at.run()

    def shown(self) -> str:
        """Everything the page says, in one text."""
        at = self.at
        parts = [at.title, at.subheader, at.markdown, at.caption, at.error, at.warning, at.info, at.success]
        return "\n".join(as_read(element.value) for elements in parts for element in elements)

    def errors(self) -> list[str]:
        return [as_read(error.value) for error in self.at.error]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runs"
    monkeypatch.setenv(RUNS_VARIABLE, str(folder))
    return folder


@pytest.fixture
def app(runs: Path) -> Iterator[Driver]:
    runtime.clear()
    yield Driver()
    runtime().worker.close()
    runtime.clear()


@pytest.fixture
def table(tmp_path: Path) -> Callable[[Sequence[Sequence[str]]], Path]:
    """Return a function that writes a CSV file."""

    def write(rows: Sequence[Sequence[str]]) -> Path:
        path = tmp_path / "data.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture
def cats(table: Callable[[Sequence[Sequence[str]]], Path]) -> Path:
    """Thirty rows of prompt and completion over the tiny models' words."""
    subjects, places = ("cat", "dog", "sun", "moon", "sky"), ("mat", "tree", "red", "blue", "two", "three")
    rows = [(f"the {subject} sat on {place}", f" {place}") for subject in subjects for place in places]
    return table([("prompt", "completion"), *rows])
