"""Prompts and completions from any columns, as in `Question: {question} Answer:`."""

from collections.abc import Iterable, Mapping
from string import Formatter

import pandas as pd

from lsf.errors import DataError


def parse_template(template: str, columns: Iterable[str], option: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template into literal texts and column names.

    Only `{column}` is understood (a column's name may hold spaces; `{{` and `}}` are braces): no attribute, index,
    conversion or format is evaluated.

    Args:
        template: the text with columns in braces.
        columns: the columns there are.
        option: what the user calls it, for the error sentence.

    Returns:
        Pairs (literal text, column after it or None).

    Raises:
        DataError: an unknown column (the columns are listed), an unclosed brace, or an empty template.
    """
    known = list(columns)
    try:
        parts = tuple(
            (text, name if name is None else name + (f"!{conv}" if conv else "") + (f":{spec}" if spec else ""))
            for text, name, spec, conv in Formatter().parse(template)
        )
    except ValueError as error:
        raise DataError(f"{option} {template!r} cannot be read ({error}); write columns as {{column}}.") from None
    if not parts:
        raise DataError(f"{option} is empty; write a text with columns such as {{{known[0]}}}.")
    for _, name in parts:
        if name is not None and name not in known:
            raise DataError(f"{option} names the unknown column {name!r}; the columns are: {', '.join(known)}.")
    return parts


def fill_template(parts: tuple[tuple[str, str | None], ...], row: Mapping[str, object]) -> str:
    """Put one row's values into a parsed template; a missing value becomes an empty text.

    Raises:
        DataError: a value is no text and no number.
    """
    texts = []
    for text, name in parts:
        value = None if name is None else row[name]
        if not (value is None or isinstance(value, str) or pd.api.types.is_scalar(value)) or isinstance(value, bytes):
            raise DataError(f"the column {name!r} holds a {type(value).__name__}; text or a number was expected.")
        texts.append(text if value is None else f"{text}{value}")
    return "".join(texts)
