"""Models and data on the pretend accelerator, which torch gets to know while tests are collected, before any runs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

import lsf.models.loading
from lsf.data.task import Example, Task
from lsf.lens.speed import speed_of
from lsf.models.devices import Device
from lsf.models.loading import LoadedModel, load_model
from tests.accelerator import NAME, Accelerator, register
from tests.tiny import save_tiny
from tests.toy import COLOURS, SUBJECTS, task  # noqa: F401 a fixture

REAL = torch.cuda.is_available() or torch.backends.mps.is_available()
if not REAL:  # beside a real one, torch would take the pretend one for the machine's accelerator
    register()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """The device; what accelerate notes of it is forgotten again."""
    if REAL:
        pytest.skip("this machine has a real accelerator, for which there is `pytest -m gpu`")
    yield register()
    AcceleratorState._reset_state(reset_partial_state=True)


SHALLOW = "shallow"
"""A Llama of two blocks, for work whose every block is alike."""


@pytest.fixture(scope="session")
def folder_of(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: family, or `SHALLOW` -> folder of a tiny model of it."""
    shallow = save_tiny("llama", tmp_path_factory.mktemp(SHALLOW), num_hidden_layers=2)
    return lambda family: shallow if family == SHALLOW else tiny(family)


@pytest.fixture
def on_device(
    folder_of: Callable[[str], Path], accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., LoadedModel]:
    """Return a function: family -> tiny model of it, loaded onto the device by LSF itself."""

    def load(family: str = "llama", dtype: str = "float32") -> LoadedModel:
        with monkeypatch.context() as patched:
            patched.setattr(lsf.models.loading, "choose_device", lambda _wish: Device(NAME, "pretend", None, None))
            loaded = load_model(str(folder_of(family)), dtype, NAME)
        speed_of(loaded, lambda: None)  # timed once, and a clock waits for the device
        return loaded

    return load


@pytest.fixture
def on_cpu(folder_of: Callable[[str], Path]) -> Callable[..., LoadedModel]:
    """The same on the CPU, for the numbers to be put beside."""
    return lambda family="llama", dtype="float32": load_model(str(folder_of(family)), dtype, "cpu")


@pytest.fixture(scope="session")
def many() -> Task:
    """More examples than are drawn in pictures."""
    words = "the cat dog sat ran on under mat tree red".split()
    rows = tuple(
        Example(" ".join(words[(i + j) % 10] for j in range(4 + i % 5)), f" {words[i % 10]} .", i) for i in range(48)
    )
    return Task("many", train=rows, validation=rows[:8], test=rows[:8])
