"""Which room may import what, checked in fresh interpreters; and that the check itself can fail."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITH_TORCH = (
    "lsf.measure", "lsf.training", "lsf.bundled.pretrain", "lsf.bundled.lesson_table", "lsf.bundled.editing",
    "lsf.bundled.reading", "lsf.bundled.tokenizer", "lsf.export.skeleton", "lsf.export.targets", "lsf.__main__",
)  # fmt: skip
"""Modules, with all below them, that may load torch at once; the last one runs the command."""
RECORDS = [
    "lsf.training.catalogue", "lsf.training.options", "lsf.training.edit_settings", "lsf.training.default_rates",
    "lsf.training.search_budget",
]  # fmt: skip
"""Of those rooms, what others read without torch."""
EVERY = [module.name for module in pkgutil.walk_packages([str(ROOT / "lsf")], "lsf.")]
TORCH_FREE = RECORDS + [name for name in EVERY if not any(f"{name}.".startswith(f"{far}.") for far in WITH_TORCH)]
TORCH_ROOMS = ["lsf.measure.analyze", "lsf.training.run"]


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("ui", [False, True])
def test_the_rooms_without_torch_do_not_load_it(ui: bool) -> None:
    heavy = {"torch", "transformers"} | (set() if ui else {"streamlit"})
    modules = [name for name in TORCH_FREE if name.startswith("lsf.ui") == ui]
    assert len(modules) > 30
    if loaded_by(f"import {', '.join(modules)}") & heavy:
        pytest.fail(f"{[module for module in modules if loaded_by(f'import {module}') & heavy]}")


def test_the_torch_rooms_do_not_load_streamlit_and_the_check_would_notice_torch() -> None:
    loaded = loaded_by(f"import {', '.join(TORCH_ROOMS)}")
    assert "torch" in loaded
    assert "streamlit" not in loaded


def imports_of(path: Path) -> set[str]:
    """Return every module a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "lsf":
                found |= {f"lsf.{alias.name}" for alias in node.names}
    return found


def tops(imported: set[str]) -> set[str]:
    """Return the top-level packages of modules."""
    return {name.partition(".")[0] for name in imported}


ALLOWED = {
    "analysis": {"analysis", "data"},
    "data": {"data", "bundled"},
    "bundled": {"bundled", "data", "training", "measure", "jobs", "analysis"},
    "measure": {"measure", "analysis", "data", "bundled"},
    "training": {"training", "measure", "analysis", "data", "jobs"},
    "jobs": {"jobs", "analysis", "data", "training"},
    "compare": {"compare", "jobs", "analysis"},
    "figures": {"figures", "analysis", "compare", "jobs"},
    "export": {"export", "analysis", "measure", "training"},
}
ROOMS = [*ALLOWED, "ui", "commands", "cli"]


def trespasses(room: str, imported: set[str]) -> set[str]:
    """Return the imports a room may not make."""
    rooms = {name.split(".")[1] for name in imported if name.startswith("lsf.") and name.split(".")[1] in ROOMS}
    return rooms - ALLOWED[room] | ({"streamlit"} & tops(imported))


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room: str) -> None:
    files = sorted((ROOT / "lsf" / room).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        assert not trespasses(room, imports_of(path)), path


def test_the_direction_check_would_notice_a_trespass() -> None:
    assert trespasses("analysis", {"numpy", "lsf.measure.probe", "streamlit"}) == {"measure", "streamlit"}


def test_nothing_stands_alone_in_a_page_which_streamlit_would_write_on_it() -> None:
    for path in [ROOT / "app.py", *(ROOT / "pages").glob("*.py")]:
        after_the_docstring = ast.parse(path.read_text(encoding="utf-8")).body[1:]
        alone = [node.value for node in after_the_docstring if isinstance(node, ast.Expr)]
        assert all(isinstance(value, ast.Call) for value in alone), path


def test_only_the_app_its_pages_and_ui_import_streamlit() -> None:
    files = [path for path in (ROOT / "lsf").rglob("*.py") if "ui" not in path.relative_to(ROOT).parts]
    assert files
    for path in files:
        assert "streamlit" not in tops(imports_of(path)), path


def test_only_a_sweep_on_a_cluster_imports_ray_which_nobody_else_needs_installed() -> None:
    found = {path.name for path in (ROOT / "lsf").rglob("*.py") if "ray" in tops(imports_of(path))}
    assert found == {"ray_cluster.py", "ray_sweeping.py"}
    assert "ray" not in loaded_by("import lsf.cli")
