"""Frozen records as JSON: the annotations of their fields are the schema, and what does not fit is a sentence."""

import re
import reprlib
import typing
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import EnumType
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from lsf.errors import BadInputError, LsfError
from lsf.files import read_json, write_json
from lsf.settings import KINDS, kinds_of

RecordT = TypeVar("RecordT")
WORDS = {"array": "a list", "object": "an object", **{kind.__name__: words for kind, words in KINDS.items()}}
"""msgspec's names of kinds, and what they are called; null is called so."""
_WRONG = re.compile(r"Expected `(?P<kinds>[^`]+)`(?P<length>[^,]*), got `?(?P<got>[^`]+)`?")


class JsonRecord:
    """A frozen dataclass that is a JSON file of its own; one without `schema_version` in the file is of version 1."""

    noun: ClassVar[str]
    """What it is called in sentences: "plan"."""
    refusal: ClassVar[type[LsfError]] = BadInputError
    """What is raised where a file is none."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, schema_version first."""
        return asdict(typing.cast(Any, self), dict_factory=_version_first)

    def save(self, path: str | Path) -> None:
        """Write it as a JSON file, whole or not at all."""
        write_json(Path(path).expanduser(), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a JSON file that `save` wrote.

        Raises:
            BadInputError: there is none, or it is not JSON.
            LsfError: `refusal`, where it is none of these.
        """
        return cls.from_json(read_json(Path(path).expanduser(), f"{_article(cls.noun)} {cls.noun}"), str(path))

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Build the record from JSON values; `where` names them in errors."""
        if isinstance(value, dict):
            if (found := value.get("schema_version", 1)) != 1:
                wanted = f"{_article(cls.noun)} {cls.noun} of schema_version 1"
                raise cls.refusal(f"{where} has schema_version {found!r}; {wanted} was expected.")
            value = cls.arranged(value)
        return decode(value, cls, where, cls.noun, cls.refusal)

    @classmethod
    def arranged(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Return JSON values arranged as the record is, where `to_json` arranges them otherwise."""
        return value


def _version_first(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(sorted(items, key=lambda item: item[0] != "schema_version"))


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def decode(value: Any, kind: type[RecordT], where: str, noun: str, refusal: type[LsfError] = BadInputError) -> RecordT:
    """Build a record from JSON values: every field of its kind, none unknown, none missing that has no default.

    Args:
        value: as it was read.
        kind: the record's type.
        where: names the value in errors.
        noun: what it should be: "plan".
        refusal: what is raised where it is not.

    Raises:
        LsfError: `refusal`; or what the record itself refuses.
    """
    try:
        record = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, LsfError):
            raise error.__cause__ from None
        raise refusal(_sentence(str(error), value, kind, where, noun)) from None
    if unknown := _unknown(value, msgspec.to_builtins(record)):
        raise refusal(f"{where} is not a whole {noun}: {unknown}.")
    return record


def _sentence(said: str, value: Any, kind: type, where: str, noun: str) -> str:
    """Return what msgspec says of a value, as a sentence of ours."""
    said, _, path = said.partition(" - at `$")
    path, wrong = path.strip(".`"), _WRONG.fullmatch(said)
    if not path and wrong:
        return f"{where} is not a whole {noun}: a JSON object was expected."
    if missing := re.fullmatch("Object missing required field `(.+)`", said):
        return f"{where} is not a whole {noun}: {path or 'it'} has no {missing[1]!r}."
    if lacking := _lacking(value, kind):  # it is something else: that says more than what is wrong with one field
        return f"{where} is not a whole {noun}: it has no {lacking!r}."
    if not wrong:
        return f"{where}: {path} is {_at(value, path)}; accepted are: {', '.join(_accepted(kind, path))}."
    found = _at(value, path) if "[...]" not in path else WORDS.get(wrong["got"], wrong["got"])
    kinds = " or ".join(WORDS.get(name, name) for name in wrong["kinds"].split(" | "))
    return f"{where}: {path} is {found}; {kinds}{wrong['length']} was expected."


def _lacking(value: Any, kind: Any) -> str | None:
    """Return the first field that a record needs and a JSON object has not."""
    if not isinstance(value, dict) or not is_dataclass(kind):
        return None
    needed = (item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING)
    return next((name for name in needed if name not in value), None)


def _at(value: Any, path: str) -> str:
    for name, place in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        value = value[int(place)] if place else value[name]
    return reprlib.repr(value)


def _accepted(kind: Any, path: str) -> list[str]:
    for name in path.split("."):
        kind = typing.get_type_hints(kind)[name]
    of_kind = [one if isinstance(one, EnumType) else typing.get_args(one) for one in kinds_of(kind)]
    plain = [KINDS[one] for one in kinds_of(kind) if one in KINDS]
    return [*plain, *(str(word) for words in of_kind for word in words)]


def _unknown(value: Any, known: Any, path: str = "") -> str | None:
    """Say which field was read and is in no record; None where there is none."""
    if isinstance(value, dict):
        if lost := [name for name in value if name not in known]:
            return f"{path or 'it'} has the field {lost[0]!r}; known are: {', '.join(known)}"
        parts = [(item, known[name], f"{path}.{name}".lstrip(".")) for name, item in value.items()]
    else:
        parts = [(*both, path) for both in zip(value, known, strict=False)] if isinstance(value, list) else []
    return next((found for part in parts if (found := _unknown(*part))), None)
