"""Fields of settings: meaning, range and default are written once, and checked in one place.

The words that several settings take come first; what they mean is in ARCHITECTURE.md, under Words.
"""

import re
import types
import typing
from dataclasses import field, fields
from typing import Any, Literal

from lsf.errors import BadInputError

POSITIONS = ("first", "all")
READINGS = ("lens", "raw", "jacobian", "affine")
TRANSLATED = ("jacobian", "affine")
"""Readings of a state that is first mapped to where it is heading; see `lsf.lens.translators`."""
VIRTUALS = ("even", "calibrated")
QUANTISED = ("nf4", "int8")
DTYPES = ("auto", "float32", "bfloat16", *QUANTISED)
DEVICES = ("auto", "cuda", "mps", "cpu", "map")
SPLITS = ("auto", "train", "validation", "test", "all")


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """Return a dataclass field that carries its one-sentence meaning and its limits.

    Args:
        default: of the field.
        meaning: for forms and `--help`.
        **limits: `low` and `high`, or `choices`; `auto`: what the command line's word auto means for it; `also`: beside
            choices, how another value is written, and its pattern.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


def same_setting(record: type, name: str) -> Any:
    """Return a field like that of another record, so that its meaning, range and default are written once."""
    (item,) = (item for item in fields(record) if item.name == name)
    return field(default=item.default, metadata=dict(item.metadata))


def check_settings(record: Any) -> None:
    """Check every field that has metadata against its kind and its limits; None means unset, where its type has it.

    Raises:
        BadInputError: one sentence with the field, the value and what would be accepted.
    """
    hints = typing.get_type_hints(type(record))
    for item in fields(record):
        value, limits = getattr(record, item.name), item.metadata
        if value in words_of(hints[item.name]):
            continue
        if limits:
            check_kind(item.name, value, hints[item.name])
        if value is None:
            continue
        choices = limits.get("choices")
        also, pattern = limits.get("also", ("", ""))
        if choices and value not in choices and not (also and re.fullmatch(pattern, value)):
            accepted = ", ".join((*choices, also) if also else choices)
            raise BadInputError(f"{item.name} is {value!r}; accepted are: {accepted}.")
        if "low" in limits and not limits["low"] <= value <= limits["high"]:
            low, high = (f"{limit:.10g}" for limit in (limits["low"], limits["high"]))
            raise BadInputError(f"{item.name} is {value}; it must lie between {low} and {high}.")


KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
"""Kinds of a field's value, and what they are called."""


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """Return the kinds a field's annotation allows: those of a union, else itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def words_of(hint: Any) -> tuple[Any, ...]:
    """Return the words a field may hold in the place of another kind, such as `default` in that of a number."""
    words = [kind for kind in kinds_of(hint) if typing.get_origin(kind) is Literal]
    return tuple(word for kind in words for word in typing.get_args(kind))


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of its field's kind.

    Raises:
        BadInputError: one sentence with the field, the value and what was expected.
    """
    kinds = kinds_of(hint)
    if value is None and types.NoneType in kinds:
        return
    for kind, words in KINDS.items():
        if kind in kinds and not _is_a(value, kind):
            raise BadInputError(f"{name} is {value!r}; {words} was expected.")


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)
