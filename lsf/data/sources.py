"""Where tasks come from: `lesson:NAME`, a local file, `hub:NAME[:CONFIG][:SPLIT]`; templates over any columns."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import pandas as pd

from lsf.data.lessons import load_lesson
from lsf.data.tables import Table, read_table
from lsf.data.task import Example, Task, split_examples
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


MAX_ROWS = 200_000
"""Rows read of each split."""


def read_hub(address: str) -> dict[str, Table]:
    """Load a hub data set into one table per split (`train`, `validation`, `test`), or `all` where one was named.

    Args:
        address: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`, where SPLIT is one of train, validation, test.

    Raises:
        DataError: unknown data set, configuration or split, or no network.
    """
    import datasets  # noqa: PLC0415 - seconds to import, and needed for hub data only
    from datasets.exceptions import DatasetNotFoundError  # noqa: PLC0415
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError  # noqa: PLC0415

    name, *rest = address.split(":")
    split = rest.pop() if rest and rest[-1] in ("train", "validation", "test") else None
    if not name or len(rest) > 1:
        raise DataError(f"Cannot read hub:{address}; write hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT.")
    try:
        # One cheap request tells whether the hub answers; `datasets` would retry for half a minute.
        snapshot_download(name, repo_type="dataset", allow_patterns=["README.md"])
        offline = False
    except LocalEntryNotFoundError:
        offline = True
    except (HFValidationError, RepositoryNotFoundError):
        raise DataError(f"There is no data set {name!r} on the hub that this machine may read.") from None
    try:
        loaded: Any = datasets.load_dataset(
            name,
            rest[0] if rest else None,
            split=split,
            download_config=datasets.DownloadConfig(local_files_only=offline, max_retries=1),
        )
    except DatasetNotFoundError:
        raise DataError(f"There is no data set {name!r} on the hub that this machine may read.") from None
    except (ConnectionError, FileNotFoundError):
        raise DataError(
            f"The data set {name!r} is not cached here and the hub does not answer (no network?)."
        ) from None
    except ValueError as error:
        raise DataError(f"hub:{address} cannot be loaded: {error}") from None
    if split:
        return {"all": _table(address, loaded)}
    return {word: _table(address, loaded[word]) for word in ("train", "validation", "test") if word in loaded}


def _table(name: str, rows: Any) -> Table:
    kept = rows.select(range(min(len(rows), MAX_ROWS)))
    return Table(f"hub:{name}", tuple(kept.column_names), tuple(kept), tuple(range(1, len(kept) + 1)))


MIN_ROWS = 3
"""Fewer rows cannot be split into training, validation and test."""

SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}


def load_task(
    name: str, prompt_template: str | None = None, completion_template: str | None = None, seed: int = 0
) -> Task:
    """Load examples by name.

    A table needs the columns `prompt` and `completion`, or templates over its own columns. A column `split` with the
    words train, validation (or dev) and test is obeyed; otherwise rows are split by `seed`.

    Raises:
        DataError: one sentence naming the file, row or column and what would be accepted.
    """
    kind, _, rest = name.partition(":")
    if kind == "lesson":
        if prompt_template or completion_template:
            raise DataError(f"{name} brings its own prompts; templates are for files and hub data sets.")
        return load_lesson(rest)
    templates = (prompt_template, completion_template)
    tables = read_hub(rest) if kind == "hub" else read_splits(Path(name))
    splits = {word: render_examples(table, *templates) for word, table in tables.items()}
    return assemble_task(name, splits, seed)


def read_splits(path: Path) -> dict[str, Table]:
    """Read a local file; with a `split` column into one table per split, else into one called `all`.

    Raises:
        DataError: a word in the `split` column that is no split.
    """
    return table_splits(read_table(path))


def table_splits(table: Table) -> dict[str, Table]:
    """Return a table by splits where it has a column `split`, else whole, as `all`.

    Raises:
        DataError: a word in the `split` column that is no split.
    """
    if "split" not in table.columns:
        return {"all": table}
    places: dict[str, list[int]] = {}
    for index, row in enumerate(table.rows):
        word = SPLIT_WORDS.get(str(row["split"]).strip().lower())
        if word is None:
            raise DataError(
                f"{table.name}, line {table.places[index]}: split is {row['split']!r}; "
                f"accepted are: {', '.join(SPLIT_WORDS)}."
            )
        places.setdefault(word, []).append(index)
    return {
        word: Table(
            table.name,
            table.columns,
            tuple(table.rows[index] for index in indices),
            tuple(table.places[index] for index in indices),
        )
        for word, indices in places.items()
    }


def render_examples(table: Table, prompt_template: str | None, completion_template: str | None) -> tuple[Example, ...]:
    """Make examples of a table's rows.

    Raises:
        DataError: columns are missing, or a row renders an empty prompt or completion (named by number).
    """
    for option, template, column in (
        ("prompt template", prompt_template, "prompt"),
        ("completion template", completion_template, "completion"),
    ):
        if template is None and column not in table.columns:
            raise DataError(
                f"{table.name} has no column {column!r}; its columns are: {', '.join(table.columns)}. "
                f"Name the column {column!r}, or give a {option} over the columns there are."
            )
    prompt = parse_template(
        "{prompt}" if prompt_template is None else prompt_template, table.columns, "The prompt template"
    )
    given = "{completion}" if completion_template is None else completion_template
    completion = parse_template(given, table.columns, "The completion template")
    examples = []
    for place, row in zip(table.places, table.rows, strict=True):
        try:
            example = Example(fill_template(prompt, row), fill_template(completion, row), place)
            f"{example.prompt}{example.completion}".encode()
        except DataError as error:
            raise DataError(f"{table.name}, row {place}: {error}") from None
        except UnicodeEncodeError as error:
            lone = ascii(error.object[error.start])
            raise DataError(
                f"{table.name}, row {place}: the text holds {lone}, half a character; save the file again as UTF-8."
            ) from None
        for part, template in (("prompt", prompt_template), ("completion", completion_template)):
            text = getattr(example, part)
            # A column is taken as it stands, blanks included; a template that only adds blanks has an empty column.
            if not (text.strip() if template else text):
                raise DataError(f"{table.name}, row {place}: the {part} is empty; every row needs a text there.")
        examples.append(example)
    return tuple(examples)


def assemble_task(name: str, splits: Mapping[str, Sequence[Example]], seed: int) -> Task:
    """Make a task of named splits; what is missing is drawn from the training rows by `seed`.

    Raises:
        DataError: too few rows, or no training rows.
    """
    if set(splits) == {"all"}:
        rows = tuple(splits["all"])
        if len(rows) < MIN_ROWS:
            raise DataError(
                f"{name} has {len(rows)} row{'s' if len(rows) != 1 else ''}; at least {MIN_ROWS} are needed, so that "
                "training, validation and test rows differ."
            )
        return split_examples(name, rows, seed)
    if "train" not in splits:
        raise DataError(f"{name} has no training rows; its splits are: {', '.join(splits)}.")
    drawn = split_examples(name, splits["train"], seed)
    missing = {"validation", "test"} - splits.keys()
    train: list[Any] = list(drawn.train)
    for word in {"validation", "test"} - missing:
        train += getattr(drawn, word)
    order = {id(example): index for index, example in enumerate(splits["train"])}
    return Task(
        name=name,
        train=tuple(sorted(train, key=lambda example: order[id(example)])),
        validation=tuple(splits.get("validation", drawn.validation)),
        test=tuple(splits.get("test", drawn.test)),
    )
