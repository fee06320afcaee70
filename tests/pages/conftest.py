"""The real app under AppTest, with its own folder of runs and a fresh worker; jobs are waited for."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from streamlit.components.v2.component_manager import BidiComponentManager
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import TextArea

from lsf.app.choose import brush
from lsf.app.runtime import AppRuntime, runtime
from lsf.app.work import Analysed, Request, Source, analysis_work, load_work
from lsf.criteria.result import DEFAULT_CRITERIA, AnalysisSettings
from lsf.jobs.job import JobView, Report
from lsf.runs.store import RUNS_VARIABLE

ROOT = Path(__file__).parents[2]
SECONDS = 120.0


def as_read(text: object) -> str:
    """Return a text as a reader sees it: what Markdown would take as a mark stands behind a backslash."""
    return re.sub(r"\\([\\`*_{}\[\]()#+!|<>~$:&])", r"\1", str(text))


@cache
def components() -> BidiComponentManager:
    """What installed packages draw with, found once: AppTest would look through them all for every session."""
    manager = BidiComponentManager()
    manager.discover_and_register_components(start_file_watching=False)
    return manager


class Driver:
    """One browser session's worth of the app."""

    def __init__(self) -> None:
        """Open the first page."""
        self.at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=SECONDS)
        self.at._bidi_component_manager = components()
        self.at.run()
        self.wait("warm-up")

    def to_the_input(self) -> AppTest:
        """Go on to the page where model and data are chosen, as people do: after `go` no button leads on."""
        return self.click("Use my own model and data")

    def wait(self, *kinds: str) -> JobView:
        """Wait until every job of these kinds has ended; return the last."""
        return [runtime().worker.wait(view.id, SECONDS) for view in runtime().jobs(*kinds)][-1]

    def go(self, page: str) -> AppTest:
        return self.at.switch_page(f"pages/{page}.py").run()

    def click(self, label: str) -> AppTest:
        button = next(button for button in self.at.button if button.label == label)
        return button.click().run()

    def use(self, model: Path, data: Path, prompt: str = "", completion: str = "") -> AppTest:
        """Choose a model folder and a data file."""
        at = self.at if self.at.title[0].value == "Model and data" else self.to_the_input()
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
        self.template("Prompt").set_value(prompt)
        self.template("Completion").set_value(completion)
        return self.at.run()

    def template(self, part: str) -> TextArea:
        """Return the area of the template for `Prompt` or `Completion`."""
        return next(area for area in self.at.text_area if area.label == f"{part} template")

    def analyse(self, model: Path, data: Path) -> AppTest:
        """Run a whole analysis; ends on the trajectories page."""
        self.use(model, data)
        self.click("Analyse")
        self.wait("analyze")
        self.at.run()
        return self.click("Skip to the result")

    def look_at(self, found: Analysed, page: str = "trajectories") -> AppTest:
        """Look at an analysis that was made before, its model in memory, as another tab of its browser does."""

        def taken_up(report: Report) -> Analysed:
            load_work(runtime(), found.request.source)(report)
            return found

        job = runtime().worker.submit("analyze", found.request.title, taken_up)
        runtime().worker.wait(job, SECONDS)
        self.at.query_params["analysis"] = job
        return self.go(page)

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
    """The app on its first page."""
    runtime.clear()
    yield Driver()
    runtime().worker.close()
    runtime.clear()


@pytest.fixture(scope="session")
def known(tiny: Callable[[str], Path], cats: Path) -> Callable[..., Analysed]:
    """Return a function: more criteria -> what the app's own job measures of a tiny model, once for all tests."""

    @cache
    def measure(*more: str) -> Analysed:
        shared = AppRuntime()
        settings = AnalysisSettings(split="train", criteria=(*DEFAULT_CRITERIA, *more))
        request = Request(Source(str(tiny("llama")), str(cats)), settings)
        view = shared.worker.wait(
            shared.worker.submit("analyze", request.title, analysis_work(shared, request)), SECONDS
        )
        shared.worker.close()
        assert view.error is None, view.error
        return view.result

    return measure


@pytest.fixture
def analysed(app: Driver, known: Callable[..., Analysed]) -> Driver:
    """The page of trajectories with an analysis of a tiny model that was made before."""
    app.look_at(known())
    return app


@pytest.fixture
def table(tmp_path: Path) -> Callable[[Sequence[Sequence[str]]], Path]:
    """Return a function that writes a CSV file."""

    return lambda rows: written(tmp_path / "data.csv", rows)


def written(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="session")
def cats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty rows of prompt and completion over the tiny models' words."""
    subjects, places = ("cat", "dog", "sun", "moon", "sky"), ("mat", "tree", "red", "blue", "two", "three")
    rows = [(f"the {subject} sat on {place}", f" {place}") for subject in subjects for place in places]
    return written(tmp_path_factory.mktemp("rows") / "data.csv", [("prompt", "completion"), *rows])
