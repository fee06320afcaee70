"""Data as people hold it in Python: a name or path, a data set of `datasets`, a DataFrame, a list of dicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsf.data.containers import dataset_table, named_splits
from lsf.data.contents import DEFAULTS, DataOptions
from lsf.data.formats import check_format
from lsf.data.rows import Table
from lsf.data.sources import load_task, table_splits, task_of_tables
from lsf.data.task import Task
from lsf.errors import BadInputError, DataError
from lsf.files import typed_path

IN_MEMORY = "in memory"
"""The name of data that has none."""
WANTED = "a path, `lesson:NAME`, `hub:NAME`, a data set of `datasets`, a DataFrame or a list of dicts"


def check_found(name: str) -> None:
    """Refuse data that a run or a sweep names and that is not found from here, with why that may be.

    Raises:
        DataError: it was in memory, or is a file named from another folder.
    """
    if name.partition(":")[0] in ("lesson", "hub") or (path := typed_path(name)).is_absolute() or path.exists():
        return
    if name == IN_MEMORY:
        raise DataError("Its data was in memory, in Python, and is not kept; only what came of it is here.")
    raise DataError(
        f"Its data {name} is not found from this folder; it was named in the folder where the command was started, so "
        "repeat the command there."
    )


def read_data(
    data: Any,
    prompt: str | None = None,
    completion: str | None = None,
    name: str = IN_MEMORY,
    seed: int = 0,
    options: DataOptions = DEFAULTS,
) -> Task:
    r"""Return examples as a task: training, validation and test rows.

    Args:
        data: a path, `lesson:NAME` or `hub:NAME[:CONFIG][:SPLIT]`; a `datasets.Dataset` or `DatasetDict`; a pandas
            `DataFrame`; a list of dicts; or a task, which is returned as it is, and takes no templates nor options
            but those that it was read by.
        prompt: template over the columns, such as `"Question: {question}\nAnswer:"`; None takes what is recognised.
        completion: template over the columns, such as `" {answer}"`; None takes what is recognised.
        name: of data that is in memory, for results.
        seed: by which rows without splits are split, 80 / 10 / 10.
        options: what the rows are, where that is not to be recognised, and how they are handed to the model.

    Raises:
        DataError: data of another kind, or that is streamed; no rows; a column that is missing; a row without a prompt
            or completion.
        BadInputError: an unknown format; templates or options beside a task, which would change nothing of it.

    Example:
        >>> task = read_data([{"q": "1+1", "a": "2"}, {"q": "2+2", "a": "4"}, {"q": "3+3", "a": "6"}], "{q} =", " {a}")
        >>> task.train[0].prompt, task.train[0].completion
        ('2+2 =', ' 4')
        >>> len(read_data("lesson:facts").test)
        96
    """
    if isinstance(data, Task):
        _check_read(data, prompt, completion, options)
        return data
    if isinstance(data, str | Path):
        return load_task(str(data), prompt, completion, seed, options)
    check_format(options.format)
    return task_of_tables(name, _tables(data, name), (prompt, completion), seed, options)


def _check_read(task: Task, prompt: str | None, completion: str | None, options: DataOptions) -> None:
    """Refuse templates and options that a task was not read by; the default ones ask for nothing.

    Raises:
        BadInputError: with their names.
    """
    asked = {"prompt": prompt, "completion": completion, **vars(options)}
    own = {**dict(zip(("prompt", "completion"), task.templates, strict=True)), **vars(task.options)}
    default = {"prompt": None, "completion": None, **vars(DEFAULTS)}
    if unlike := [name for name, value in asked.items() if value not in (default[name], own[name])]:
        raise BadInputError(
            f"The data {task.name} is a task, whose rows are read already, so that {' and '.join(unlike)} would change "
            "nothing of it; give that to lsf.read_data, which makes the task."
        )


def _tables(data: Any, name: str) -> dict[str, Table]:
    if isinstance(data, Mapping):  # a DatasetDict, or a dictionary of what else holds rows
        return named_splits("The data", data, lambda rows: _whole(rows, name))
    return table_splits(_whole(data, name))


def _whole(data: Any, name: str) -> Table:
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and a file needs none of it

    if isinstance(data, pd.DataFrame):
        if not data.columns.is_unique:
            raise DataError(f"The data {name} has repeated columns: {', '.join(map(str, data.columns))}.")
        data = data.astype(object).where(data.notna(), None).to_dict("records")
    elif hasattr(data, "column_names") and hasattr(data, "features"):  # a Dataset
        return dataset_table(name, data)
    if not isinstance(data, Sequence):
        raise DataError(f"The data is of the kind {type(data).__name__}; {WANTED} was expected.")
    return _table(data, name)


def _table(rows: Sequence[Any], name: str) -> Table:
    if not rows:
        raise DataError(f"The data {name} has no rows; at least one was expected.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"The data {name}, row {number}: {type(row).__name__} was found; a dict was expected.")
    named = [{str(column): value for column, value in row.items()} for row in rows]
    columns = tuple(dict.fromkeys(column for row in named for column in row))
    plain = tuple({column: row.get(column) for column in columns} for row in named)
    return Table(name, columns, plain, range(1, len(plain) + 1))
