"""The notebook of an analysis: valid, whole by itself, and it draws when its cells are run."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lsf.cli.main import main
from lsf.criteria.result import Analysis
from lsf.errors import BadInputError
from lsf.export.notebook import analysis_notebook, pack, unpack
from tests.criteria.factory import analysis_of

ROOT = Path(__file__).parents[2]
RUNNER = """
import ast, json, sys
cells = [cell for cell in json.load(open(sys.argv[1]))["cells"] if cell["cell_type"] == "code"]
names, shown = {}, []
for cell in cells:
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if type(value).__name__ == "Figure":
            shown.append([value.layout.title.text, len(value.data)])
print(json.dumps(shown))
print("torch" in sys.modules or "streamlit" in sys.modules)
"""
"""Runs the code cells as Jupyter does, and tells which figures they end in."""


def run_cells(notebook: Path) -> list[tuple[str, int]]:
    """Run a notebook in a fresh interpreter; return the title and the number of traces of every figure shown."""
    command = [sys.executable, "-c", RUNNER, str(notebook)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, shown, heavy = done.stdout.splitlines()
    assert heavy == "False"
    return [(title, traces) for title, traces in json.loads(shown)]


def test_a_packed_analysis_comes_back_the_same() -> None:
    analysis = analysis_of([0.25, 0.75], mean_tokens=12.5)
    text = pack(analysis)
    assert unpack(text) == analysis
    assert unpack("\n".join(text[start : start + 40] for start in range(0, len(text), 40))) == analysis


def test_a_damaged_packing_is_refused_with_one_sentence() -> None:
    text = pack(analysis_of([0.25, 0.75]))
    for broken in (text[: len(text) // 2], "not packed", ""):
        with pytest.raises(BadInputError, match="damaged"):
            unpack(broken)


def test_a_bare_analysis_makes_a_valid_notebook_that_draws_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "bare.ipynb"
    path.write_text(json.dumps(analysis_notebook(_bare())), encoding="utf-8")
    nbformat.validate(nbformat.read(path, as_version=4))
    titles = [title for title, _ in run_cells(path)]
    assert titles[0].startswith("Deviation is greatest at state")
    assert not any("Examples that suffice" in title or "positions" in title for title in titles)


def _bare() -> Analysis:
    return analysis_of([0.25, 0.75, 0.5])


@pytest.mark.slow
def test_the_notebook_of_a_real_analysis_rebuilds_every_figure_in_a_fresh_interpreter(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.ipynb", tmp_path / "a.json"
    line = ["analyze", "--model", "bundled", "--data", "lesson:facts", "--limit", "48"]
    assert main([*line, "--json", str(plain), "--notebook", str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    plain.unlink()  # the notebook needs no other file
    shown = run_cells(path)
    beginnings = ("Mean of", "Mean of", "Deviation is", "Logit lens:", "Logit lens of", "deviation:")
    endings = (" first, as ", "Rank correlation", "Examples that suffice")
    assert len(shown) == len(beginnings) + len(endings)
    for (title, traces), words in zip(shown, (*beginnings, *endings), strict=True):
        assert words in title
        assert traces > 0


def test_a_notebook_in_a_folder_that_is_not_there_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["analyze", "--model", "bundled", "--data", "lesson:facts", "--json", str(tmp_path / "a.json")]
    assert main([*line, "--notebook", str(tmp_path / "none" / "a.ipynb")]) != 0
    assert "there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()
