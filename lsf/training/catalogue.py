"""The tuning methods as a person chooses among them: name, meaning, options, default rate; no torch.

`lsf.training.methods` has, under the same names, how each is carried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsf.registry import Registry
from lsf.training.options import (
    NoOptions,
    read_given,
)


@dataclass(frozen=True)
class Way:
    """A way to tune; it composes with every plan."""

    name: str
    """Key in CATALOGUE and METHODS."""
    label: str
    """What a person reads."""
    meaning: str
    """One sentence."""
    unit: str
    """What is counted as tuned."""
    source: str
    """Where it comes from."""
    learning_rate: float
    """AdamW's peak rate where the user gives none; see LOG.md for the search behind it."""
    options: type = NoOptions
    """Dataclass of its options."""
    merges: bool = True
    """Whether what it learned can be added into the base's own tensors, so that it costs nothing at inference."""


CATALOGUE: Registry[Way] = Registry(
    "method",
    [
        Way(
            "full",
            "Full fine-tuning",
            "Every tensor of the planned blocks is tuned; a plan of all blocks and modules is full fine-tuning.",
            "parameters",
            "plain gradient descent; AdamW of Loshchilov & Hutter (arXiv 1711.05101)",
            1e-3,
        ),
    ],
)


def options_of(method: str, given: Mapping[str, Any]) -> Any:
    """Return a method's options record: what was given over its defaults.

    Raises:
        UnknownNameError: no such method.
        BadInputError: an option it does not have, or a value it does not take.
    """
    return read_given(method, CATALOGUE[method].options, given)


def describe(method: str, given: Mapping[str, Any]) -> str:
    """Return a method with the options given, for tables: `adapter (kind=pfeiffer)`."""
    options = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"{method} ({options})" if options else method
