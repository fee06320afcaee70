"""Files and disks that cannot be used: one sentence on the page, said once, in the app's words."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from lsf.runs.store import RUNS_VARIABLE
from tests.pages.conftest import ROOT, Driver

ROWS = "prompt,completion\n" + "".join(f"the {word} sat on, mat\n" for word in ("cat", "dog", "sun", "moon"))
OPTION = re.compile(r"(^|[\s('\"])--[a-z]")


@pytest.fixture
def app(app: Driver) -> Driver:
    """The page where model and data are chosen."""
    app.to_the_input()
    return app


def upload(app: Driver, content: str) -> None:
    app.at.session_state["data-kind"] = "File"
    app.at.run()
    uploader: Any = app.at.get("file_uploader")[0]
    uploader.set_value(("rows.csv", content.encode(), "text/csv"))
    app.at.run()


def test_an_upload_that_the_disk_does_not_take_is_one_sentence(
    app: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "file" / "runs"))
    upload(app, ROWS)
    assert not app.at.exception
    (error,) = app.errors()
    assert error.startswith(f"Cannot make the folder {tmp_path / 'file' / 'runs' / 'uploads'}")
    assert error.endswith(": Not a directory.")
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    app.at.run()
    assert not app.errors()
    assert "2 training, 1 validation and 1 test example" in app.shown()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prompt,completion\na, b\nc, d, e\n", "line 3: 3 values for 2 columns"),
        ("", "is empty"),
    ],
)
def test_a_bad_file_is_said_once_and_names_no_option_of_the_command_line(
    content: str, sentence: str, app: Driver, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    app.at.session_state["data-kind"] = "File"
    app.at.run()
    app.at.text_input(key="data-path").set_value(str(path)).run()
    (error,) = app.errors()
    assert sentence in error
    assert not OPTION.search(app.shown())


def test_a_template_of_an_unknown_column_is_said_in_words(app: Driver, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\na,b\nc,d\ne,f\n")
    app.at.session_state["data-kind"] = "File"
    app.at.run()
    app.at.text_input(key="data-path").set_value(str(path)).run()
    app.use_templates("{quetsion}", " {answer}")
    assert app.errors() == [
        "The prompt template names the unknown column 'quetsion'; the columns are: question, answer."
    ]


def spoken(source: str) -> list[str]:
    """Return the texts of the errors that a module raises."""
    raised = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    return [
        part.value
        for node in raised
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def test_no_error_that_the_app_may_show_names_an_option_of_the_command_line() -> None:
    rooms = ("data", "models", "lens", "criteria", "plans", "methods", "runs", "training", "dimension", "jobs", "app")
    options = {"smollm2 is not available", "pip install --no-deps", "accelerate shards models"}
    for path in (file for room in rooms for file in (ROOT / "lsf" / room).glob("*.py")):
        for text in spoken(path.read_text(encoding="utf-8")):
            if OPTION.search(text) and not any(known in text for known in options):
                pytest.fail(f"{path.name}: {text}")
    assert OPTION.search(spoken('raise ValueError(f"{x}; take --cache off.")')[0])
