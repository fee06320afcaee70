"""Command-line options made of settings fields: name, meaning, range and default are written once, in the record."""

import argparse
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import Any

from lsf.errors import BadInputError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence, like every other of ours."""

    def error(self, message: str) -> typing.NoReturn:
        """Raise instead of printing the usage."""
        raise BadInputError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def add_settings(parser: argparse.ArgumentParser, record: type, names: Collection[str]) -> None:
    """Add an option for each named field of a settings record.

    Args:
        parser: the command's parser.
        record: a dataclass whose fields carry `meaning` and limits in their metadata.
        names: which fields, in any order.
    """
    hints = typing.get_type_hints(record)
    for item in fields(record):
        if item.name in names:
            parser.add_argument(
                "--" + item.name.replace("_", "-"),
                type=_reader(item, hints[item.name]),
                default=None,
                metavar=_metavar(item),
                help=_help(item),
            )


def given_settings(arguments: argparse.Namespace, record: type) -> dict[str, Any]:
    """Return the fields of `record` that were given on the command line."""
    given = {item.name: getattr(arguments, item.name, None) for item in fields(record)}
    return {name: (None if value == "auto-value" else value) for name, value in given.items() if value is not None}


def describe_setting(item: Field[Any]) -> str:
    """Return a field's name with its meaning, range and default, for the help of options that are given by name."""
    return f"{item.name} = {_help(item)}"


def _metavar(item: Field[Any]) -> str:
    choices = item.metadata.get("choices")
    return "|".join(choices) if choices else item.name.rpartition("_")[2].upper()


def _help(item: Field[Any]) -> str:
    text = item.metadata["meaning"]
    if "auto" in item.metadata:
        text += f"; auto = {item.metadata['auto']}"
    if "low" in item.metadata:
        text += f" ({item.metadata['low']:.10g} to {item.metadata['high']:.10g})"
    default = item.default
    if default is not MISSING and default is not None:
        text += f" [default: {','.join(default) if isinstance(default, tuple) else default}]"
    return text.replace("%", "%%")


def _reader(item: Field[Any], hint: Any) -> Callable[[str], Any]:
    """Return the function that reads one option's text; `auto` stands for None where the field allows it."""
    kinds = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}

    def read(text: str) -> Any:
        if type(None) in kinds and text == "auto" and "choices" not in item.metadata:
            return "auto-value"
        if text in item.metadata.get("words", ()):
            return text
        try:
            if int in kinds:
                return int(text)
            if float in kinds:
                return float(text)
        except ValueError:
            kind = "whole number" if int in kinds else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind}") from None
        if typing.get_origin(hint) is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return text

    return read
