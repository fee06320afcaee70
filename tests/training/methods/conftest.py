"""Both kinds of tiny model, and a method's options that work on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsf.data.encode import EncodedExample, encode
from lsf.data.task import Task
from lsf.measure.loading import LoadedModel, load_model
from lsf.training.catalogue import options_of
from lsf.training.methods import Scene

Rows = tuple[EncodedExample, ...]


@pytest.fixture(scope="session")
def gpt2(tiny: Callable[[str], Path]) -> LoadedModel:
    """A model with biases everywhere, transposed linear maps and a tied head."""
    return load_model(str(tiny("gpt2")), "float32", "cpu")


@pytest.fixture(scope="session")
def rows(loaded: LoadedModel, task: Task) -> Rows:
    return encode(loaded.tokenizer, task.train, 64, append_eos=True).rows


def scene_for(method: str, rows: Rows = (), seed: int = 0, folder: Path | None = None, **options: Any) -> Scene:
    """A scene of small batches in which a method has the options given."""
    return Scene(options_of(method, options), rows, seed, batch_size=4, folder=folder)


def tuned_values(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
