"""Where tasks come from, by name: `lesson:NAME`, a local file, `hub:NAME[:CONFIG][:SPLIT]`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsf.bundled.lessons import load_lesson
from lsf.data.hub import read_hub
from lsf.data.tables import Table, read_table
from lsf.data.task import Example, Task, split_examples
from lsf.data.template import fill_template, parse_template
from lsf.errors import DataError

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
    table = read_table(path)
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
        ("--prompt-template", prompt_template, "prompt"),
        ("--completion-template", completion_template, "completion"),
    ):
        if template is None and column not in table.columns:
            raise DataError(
                f"{table.name} has no column {column!r}; its columns are: {', '.join(table.columns)}. "
                f"Name the column {column!r}, or give {option} over the columns there are."
            )
    prompt = parse_template(
        "{prompt}" if prompt_template is None else prompt_template, table.columns, "--prompt-template"
    )
    given = "{completion}" if completion_template is None else completion_template
    completion = parse_template(given, table.columns, "--completion-template")
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
