"""How an analysis is made: the settings behind `analyze`'s options and the app's form."""

import types
import typing
from dataclasses import dataclass, field, fields
from typing import Any

from lsf.axes import POSITIONS, READINGS, SPLITS, VIRTUALS
from lsf.errors import BadInputError

DEFAULT_CRITERIA = (
    "deviation",
    "deviation_growth",
    "law_headroom",
    "reduction",
    "block_influence",
    "gradient_norm",
    "relative_gradient",
    "alignment",
    "first",
    "last",
    "middle",
    "random",
)


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """Return a dataclass field that carries its one-sentence meaning and its limits.

    Args:
        default: of the field.
        meaning: for forms and `--help`.
        **limits: `low` and `high`, or `choices`; `auto`: what the command line's word auto means for it; `words`: what
        a
            number's place may hold instead.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


def check_settings(record: Any) -> None:
    """Check every field that has metadata against its kind and its limits; None means unset, where its type has it.

    Raises:
        BadInputError: one sentence with the field, the value and what would be accepted.
    """
    hints = typing.get_type_hints(type(record))
    for item in fields(record):
        value, limits = getattr(record, item.name), item.metadata
        if value in limits.get("words", ()):
            continue
        if limits:
            check_kind(item.name, value, hints[item.name])
        if value is None:
            continue
        choices = limits.get("choices")
        if choices and value not in choices:
            raise BadInputError(f"{item.name} is {value!r}; accepted are: {', '.join(choices)}.")
        if "low" in limits and not limits["low"] <= value <= limits["high"]:
            low, high = (f"{limit:.10g}" for limit in (limits["low"], limits["high"]))
            raise BadInputError(f"{item.name} is {value}; it must lie between {low} and {high}.")


KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
"""Kinds of a field's value, and what they are called."""


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of its field's kind.

    Raises:
        BadInputError: one sentence with the field, the value and what was expected.
    """
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in kinds:
        return
    for kind, words in KINDS.items():
        if kind in kinds and not _is_a(value, kind):
            raise BadInputError(f"{name} is {value!r}; {words} was expected.")


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


@dataclass(frozen=True)
class AnalysisSettings:
    """What is measured, on how many examples, and how it is read."""

    limit: int | None = setting(
        200, "examples measured at most; auto = until the ranking settles", low=1, high=10_000_000
    )
    settle: bool = setting(False, "stop as soon as the ranking of the first forward criterion has settled")
    split: str = setting("auto", "which examples: train where the data has splits, else all", choices=SPLITS)
    positions: str = setting("first", "the first completion token, or all of them", choices=POSITIONS)
    reading: str = setting("lens", "a state after the final norm, or raw", choices=READINGS)
    virtual: str = setting("even", "the virtual transition's pace", choices=VIRTUALS)
    criteria: tuple[str, ...] = setting(DEFAULT_CRITERIA, "criteria to score, by name")
    batch_size: int = setting(16, "examples per forward pass", low=1, high=65_536)
    max_length: int | None = setting(
        None, "tokens per example; default: the context, at most 1024", low=2, high=1_000_000
    )
    seed: int = setting(0, "of the random control", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        """Refuse a value out of its range, naming the field and the range."""
        check_settings(self)
