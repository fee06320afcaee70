"""Both kinds of tiny model, and a method's options that work on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsf.data.encode import EncodedExample, encode
from lsf.data.task import Task
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.models.loading import LoadedModel, load_model
from lsf.training.short_runs import first_tuning
from tests.toy import *  # noqa: F403

Rows = tuple[EncodedExample, ...]


@pytest.fixture(scope="session")
def gpt2(tiny: Callable[[str], Path]) -> LoadedModel:
    """A model with biases everywhere, transposed linear maps and a tied head."""
    return load_model(str(tiny("gpt2")), "float32", "cpu")


@pytest.fixture(scope="session")
def rows(loaded: LoadedModel, task: Task) -> Rows:
    return encode(loaded.tokenizer, task.train, 64, append_eos=True).rows


def context_for(
    method: str, rows: Rows = (), seed: int = 0, folder: Path | None = None, **options: Any
) -> MethodContext:
    """A context of small batches in which a method has the options given."""
    return MethodContext(
        options_of(method, options), rows, seed, batch_size=4, folder=folder, first_tuning=first_tuning
    )


def tuned_values(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
