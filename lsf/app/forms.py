"""Widgets made of settings fields: name, meaning, range, choices and default are written once, in the record."""

import typing
from dataclasses import MISSING, Field, fields
from typing import Any

import streamlit as st

from lsf.settings import kinds_of

EMPTY_MEANS = "default"


def setting_input(record: type, name: str, value: Any, key: str, label: str | None = None) -> Any:
    """Draw the widget of one settings field and return what it holds.

    Args:
        record: a dataclass whose fields carry `meaning` and limits in their metadata.
        name: of the field.
        value: shown at first.
        key: of the widget.
        label: instead of the field's name in words.

    Returns:
        A value of the field's type; None where the field allows it and the input is empty.
    """
    item = {item.name: item for item in fields(record)}[name]
    label = label or name.replace("_", " ").capitalize()
    kinds = kinds_of(typing.get_type_hints(record)[name])
    meaning = help_text(item)
    if kinds == (bool,):
        return st.checkbox(label, value, help=meaning, key=key, persist_state="session")
    if "choices" in item.metadata:
        choices = list(item.metadata["choices"])
        return st.selectbox(label, choices, index=choices.index(value), help=meaning, key=key, persist_state="session")
    if int in kinds or float in kinds:
        return _number(item, kinds, value, label, key)
    if type(None) in kinds:
        return st.text_input(label, value or "", help=meaning, key=key, persist_state="session") or None
    return st.text_input(label, value, help=meaning, key=key, persist_state="session")


def help_text(item: Field[Any]) -> str:
    """Return a field's meaning with its range and default, as one line."""
    text = str(item.metadata["meaning"])
    text = text[:1].upper() + text[1:]
    if "low" in item.metadata:
        text += f" ({item.metadata['low']:g} to {item.metadata['high']:g})"
    if item.default is not MISSING and item.default is not None:
        text += f"; default {item.default}"
    return text + "."


def _number(item: Field[Any], kinds: tuple[Any, ...], value: Any, label: str, key: str) -> Any:
    whole = int in kinds and float not in kinds
    number = int if whole else float
    default: Any = item.default
    return st.number_input(
        label,
        min_value=number(item.metadata["low"]),
        max_value=number(item.metadata["high"]),
        value=value,
        step=1 if whole else float(value or default or 1.0) / 2,
        format="%d" if whole else "%g",
        placeholder=EMPTY_MEANS,
        help=help_text(item),
        key=key,
        persist_state="session",
    )
