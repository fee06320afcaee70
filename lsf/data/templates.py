"""Templates over any columns: a prompt and a completion of a row's values, written by the user."""

from collections.abc import Iterable, Mapping
from string import Formatter

from lsf.data.columns import is_path, value_at
from lsf.data.converting import Convert, Row, Work, pair_example
from lsf.data.tables import Table
from lsf.data.task import Example
from lsf.errors import DataError, LeftOutError


def parse_template(template: str, columns: Iterable[str], option: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template into literal texts and column names.

    Only `{column}` is understood (a column's name may hold spaces; `{{` and `}}` are braces), and `{column.key.0}` of
    nested values: no attribute, conversion or format is evaluated.

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
        if name is not None and name not in known and not is_path(name, known):
            raise DataError(f"{option} names the unknown column {name!r}; the columns are: {', '.join(known)}.")
    return parts


def fill_template(parts: tuple[tuple[str, str | None], ...], row: Mapping[str, object]) -> str:
    """Put one row's values into a parsed template; a missing value becomes an empty text.

    Raises:
        DataError: a value is no text and no number.
    """
    texts = []
    for text, name in parts:
        value = None if name is None else value_at(row, name)
        if not (value is None or _is_text_or_number(value)):
            way = " Leave the template out where these are turns of a chat." if isinstance(value, list | tuple) else ""
            raise DataError(f"the column {name!r} holds a {type(value).__name__}; text or a number was expected.{way}")
        texts.append(text if value is None else f"{text}{value}")
    return "".join(texts)


def _is_text_or_number(value: object) -> bool:
    if isinstance(value, str | int | float | bytes):
        return not isinstance(value, bytes)
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and needed for dates and the like only

    return pd.api.types.is_scalar(value)


def by_templates(table: Table, prompt_template: str | None, completion_template: str | None) -> Convert:
    """Return what makes an example of a row by templates over the table's columns."""
    for option, template, column in (
        ("prompt template", prompt_template, "prompt"),
        ("completion template", completion_template, "completion"),
    ):
        if template is None and column not in table.columns:
            raise DataError(
                f"{table.name} has no column {column!r}; its columns are: {', '.join(table.columns)}. "
                f"Name the column {column!r}, or give a {option} over the columns there are."
            )
    asked = "{prompt}" if prompt_template is None else prompt_template
    given = "{completion}" if completion_template is None else completion_template
    prompt = parse_template(asked, table.columns, "The prompt template")
    completion = parse_template(given, table.columns, "The completion template")

    def convert(row: Row, place: int, work: Work) -> Example:
        texts = fill_template(prompt, row), fill_template(completion, row)
        templates = ("prompt", prompt_template), ("completion", completion_template)
        _check_filled("prompt", prompt, row)
        _check_filled("completion", completion, row)
        for text, (part, template) in zip(texts, templates, strict=True):
            # A column is taken as it stands, blanks included; a template needs what its columns hold.
            if not (text.strip() if template else text):
                raise LeftOutError(f"the {part} is empty")
        return pair_example(*texts, place, work)

    return convert


def _check_filled(part: str, parts: tuple[tuple[str, str | None], ...], row: Row) -> None:
    """Refuse a row in which a template stands without the text it is about.

    A completion needs every column it names, since the words around a missing one would be trained on; a prompt needs
    one of them, since an optional input is often empty. Blanks are a text, of a column that is taken as it stands.

    Raises:
        LeftOutError: naming the first column that holds an empty text.
        DataError: naming the first one that is null.
    """
    values = {name: value_at(row, name) for _, name in parts if name is not None}
    alone = len(parts) == 1 and not parts[0][0]
    empty = [
        name for name, value in values.items() if value is None or not (str(value) if alone else str(value).strip())
    ]
    if not empty or (part == "prompt" and len(empty) < len(values)):
        return
    null = next((name for name in empty if values[name] is None), None)
    if null is not None:
        raise DataError(f"the {part} needs {null!r}, which is null; text or a number was expected.")
    if not alone:
        raise LeftOutError(f"the {part} is empty where its template names {empty[0]!r}")
