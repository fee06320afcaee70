"""The one place where an `LsfError` becomes a sentence on the page; anything else crashes loudly."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import streamlit as st

from lsf.errors import LsfError

T = TypeVar("T")


@contextmanager
def guard() -> Iterator[None]:
    """Show an `LsfError` raised inside as one sentence, and go on after the block."""
    try:
        yield
    except LsfError as error:
        st.error(unmarked(str(error)), icon=":material/error:")


def unmarked(text: str) -> str:
    """Return a text that Streamlit shows as it stands: nothing of it is Markdown, maths or an icon."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$:])", r"\\\1", text)


def attempt(work: Callable[[], T]) -> T | None:
    """Return what `work` returns, or show its `LsfError` as one sentence and return None."""
    with guard():
        return work()
    return None
