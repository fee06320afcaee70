"""Which room may import what, checked in fresh interpreters; and that the check itself can fail."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "data", "bundled", "models", "criteria", "plans", "lens", "methods", "runs", "training", "evidence", "dimension",
    "jobs", "figures", "export", "classroom", "app", "cli",
)  # fmt: skip
"""Every room, in the order of imports: a room imports from those before it only; `app` and `cli` are nobody's."""
TORCH_FREE_ROOMS = {"data", "criteria", "plans", "runs", "jobs", "figures", "classroom", "app", "cli"}
TORCH_FREE = {
    "lsf.models.info", "lsf.methods.catalogue", "lsf.methods.optimization",
    "lsf.evidence.sweep",
    "lsf.evidence.regret", "lsf.evidence.study", "lsf.evidence.packed", "lsf.evidence.own", "lsf.evidence.real",
    "lsf.evidence.standing",
    "lsf.dimension.study", "lsf.export.notebook", "lsf.lens.builder", "lsf.lens.trajectories",
}  # fmt: skip
"""Of the other rooms, the half that loads no torch either: records, rules and what decides."""
MOST_LINES, MOST_OF_A_FUNCTION = 450, 60
"""Of a module, and of a function with its signature and docstring."""
EVERY = [module.name for module in pkgutil.walk_packages([str(ROOT / "lsf")], "lsf.")]


def room_of(module: str) -> str:
    """Return the room of a module, and for what lies beside the rooms `core`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules a fresh interpreter holds after a statement."""
    shown = "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    code = f"import gc, sys; gc.disable(); {statement}\n{shown}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("app", [False, True])
def test_the_rooms_without_torch_do_not_load_it(app: bool) -> None:
    heavy = {"torch", "transformers"} | (set() if app else {"streamlit"})
    free = [name for name in EVERY if name in TORCH_FREE or room_of(name) in {*TORCH_FREE_ROOMS, "core"}]
    modules = [name for name in free if (room_of(name) == "app") == app and name != "lsf.__main__"]
    assert len(modules) > 20
    loaded = loaded_by(f"import {', '.join(modules)}")
    assert "ray" not in loaded
    if loaded & heavy:
        pytest.fail(f"{[module for module in modules if loaded_by(f'import {module}') & heavy]}")


def test_a_command_starts_without_what_only_tables_and_statistics_need() -> None:
    loaded = loaded_by("import lsf.cli.main; lsf.cli.main.build_parser()")
    assert "numpy" in loaded  # so the check would notice torch
    assert not loaded & {"torch", "pandas", "pyarrow", "sklearn", "plotly", "datasets"}


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


def trespasses(room: str, imported: set[str]) -> set[str]:
    """Return the rooms a room may not import from, but does; and streamlit, outside the app."""
    before = {"core", *ROOMS[: ROOMS.index(room) + 1]} if room in ROOMS else {"core"}
    rooms = {room_of(name) for name in imported if name.startswith("lsf.")}
    if room == "cli":
        before.discard("app")
    return rooms - before | (set() if room == "app" else {"streamlit"} & tops(imported))


def test_every_folder_of_the_package_is_a_room() -> None:
    assert {path.name for path in (ROOT / "lsf").iterdir() if (path / "__init__.py").is_file()} == set(ROOMS)


@pytest.mark.parametrize("room", [*ROOMS, "core"])
def test_imports_go_one_way(room: str) -> None:
    files = sorted((ROOT / "lsf" / room).rglob("*.py")) if room != "core" else sorted((ROOT / "lsf").glob("*.py"))
    assert files
    for path in files:
        if path.name not in (
            "__main__.py",
            "__init__.py",
            "api.py",
            "display.py",
        ):  # the command, and what notebooks use of all rooms
            assert not trespasses(room, imports_of(path)), path


def test_no_module_imports_itself_through_others() -> None:
    names = {name: ROOT / f"{name.replace('.', '/')}.py" for name in EVERY}
    graph = {name: at_the_top(path) & set(names) for name, path in names.items() if path.is_file()}
    while leaves := [name for name, far in graph.items() if not far & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"a circle of imports among {sorted(graph)}"


def at_the_top(path: Path) -> set[str]:
    """Return the modules that importing a file imports."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module}
    return found | {
        f"{node.module}.{alias.name}" for node in body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_the_direction_check_would_notice_a_trespass() -> None:
    assert trespasses("criteria", {"numpy", "lsf.lens.forward", "streamlit"}) == {"lens", "streamlit"}
    assert trespasses("core", {"lsf.data.task"}) == {"data"}


def lengths_of(source: str) -> dict[str, int]:
    """Return the lines of every function of a module, those inside others too, by name and first line."""
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return {f"{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1 for node in found}


def test_no_module_and_no_function_is_too_long_to_be_read_at_once() -> None:
    files = [ROOT / "app.py", *(ROOT / "pages").glob("*.py"), *(ROOT / "lsf").rglob("*.py")]
    sources = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in files}
    assert not [path for path, text in sources.items() if len(text.splitlines()) > MOST_LINES]
    lengths = {(path, name): count for path, text in sources.items() for name, count in lengths_of(text).items()}
    assert len(lengths) > 1000
    assert not [place for place, count in lengths.items() if count > MOST_OF_A_FUNCTION]


def test_the_lines_of_a_function_are_counted_with_its_signature_and_docstring() -> None:
    lines = (
        "class A:",
        "  @property",
        "  def f(",
        "    self,",
        "  ):",
        "    'What.'",
        "    def g(): ...",
        "    return g",
    )
    assert lengths_of("\n".join(lines)) == {"f:3": 6, "g:7": 1}


def test_nothing_stands_alone_in_a_page_which_streamlit_would_write_on_it() -> None:
    for path in [ROOT / "app.py", *(ROOT / "pages").glob("*.py")]:
        after_the_docstring = ast.parse(path.read_text(encoding="utf-8")).body[1:]
        alone = [node.value for node in after_the_docstring if isinstance(node, ast.Expr)]
        assert all(isinstance(value, ast.Call) for value in alone), path


def test_only_the_app_and_its_pages_import_streamlit() -> None:
    files = [path for path in (ROOT / "lsf").rglob("*.py") if "app" not in path.relative_to(ROOT).parts]
    assert files
    for path in files:
        assert "streamlit" not in tops(imports_of(path)), path


def test_only_a_sweep_on_a_cluster_imports_ray_which_nobody_else_needs_installed() -> None:
    found = {path.name for path in (ROOT / "lsf").rglob("*.py") if "ray" in tops(imports_of(path))}
    assert found == {"ray_engine.py"}
