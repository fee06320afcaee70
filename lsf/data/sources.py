"""Where tasks come from: `lesson:NAME`, a local file, `hub:NAME[:CONFIG][:SPLIT]`."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lsf.data.columns import Watched, by_templates, paths, says_truth, with_truth
from lsf.data.containers import GOES_ON, PLAIN_TEXT, ending, saved_tables, tables_of, without_nulls
from lsf.data.contents import DEFAULTS, DataOptions, suggested_pattern
from lsf.data.converting import Convert, Row, Tally, Work, joined_messages
from lsf.data.formats import FORMATS, check_format, kinds_of, recognise
from lsf.data.lessons import LESSONS, load_lesson
from lsf.data.rows import RowCollector, Table, selected
from lsf.data.tables import TOLD, read_table
from lsf.data.task import Example, Seen, Task, split_examples, split_indices, with_general
from lsf.errors import DataError, LeftOutError, first_line
from lsf.files import typed_path
from lsf.progress import Reporter
from lsf.wording import counted


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
    return tables_of(f"hub:{address}", loaded)


FEW = 10
"""Fewer rows make splits that mean little, or none."""
SPLIT = "split"
"""The column that names splits, in small letters."""
SPLIT_WORDS = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test",
}  # fmt: skip


def load_task(
    name: str,
    prompt_template: str | None = None,
    completion_template: str | None = None,
    seed: int = 0,
    options: DataOptions = DEFAULTS,
    general: str | None = None,
    report: Reporter | None = None,
) -> Task:
    """Load examples by name; `report` is told how far that is where the data is large.

    What the rows are is recognised by their columns (lsf.data.formats), unless templates over the columns are given, or
    a format. A column `split` with the words train, validation (or dev) and test is obeyed; otherwise rows are split by
    `seed`. The texts of a lesson are read raw. General data is named in the same way; it is recognised for itself, and
    handed to the model by the same options.

    Raises:
        DataError: one sentence naming the file, row or column and what would be accepted.
        BadInputError: an unknown format.
    """
    check_format(options.format)
    if general is not None:
        task = load_task(name, prompt_template, completion_template, seed, options, report=report)
        return with_general(task, load_task(general, options=replace(options, format="auto"), report=report))
    if not name.strip():
        raise DataError("No data is named; lesson:NAME, hub:NAME, or a file or folder was expected.")
    kind, _, rest = name.partition(":")
    if kind == "lesson":
        if prompt_template or completion_template:
            raise DataError(f"{name} brings its own prompts; templates are for files and hub data sets.")
        return load_lesson(rest)
    if name in LESSONS and not typed_path(name).exists():
        raise DataError(f"There is no file {name} here; the lesson of that name is lesson:{name}.")
    tables = read_hub(rest) if kind == "hub" else read_splits(typed_path(name), report)
    return task_of_tables(name, tables, (prompt_template, completion_template), seed, options, report)


def read_splits(path: Path, report: Reporter | None = None) -> dict[str, Table]:
    """Read a local file, with a `split` column into one table per split, else into one called `all`; or a folder.

    Raises:
        DataError: a word in the `split` column that is no split; what may not be read, or has too long a name.
    """
    try:
        if path.is_dir() and (saved := saved_tables(path, report)) is not None:
            return saved
        return table_splits(read_table(path, report))
    except BrokenPipeError:  # of the report
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from None


def task_of_tables(
    name: str,
    tables: Mapping[str, Table],
    templates: tuple[str | None, str | None],
    seed: int,
    options: DataOptions = DEFAULTS,
    report: Reporter | None = None,
) -> Task:
    """Make a task of tables by split, and note what was found in them.

    Raises:
        DataError: as `render_examples` and `assemble_task`.
    """
    tally, formats = Tally(), Counter[str]()
    if options.format in ("auto", "oasst") and not any(templates):
        tables = {word: joined_messages(table) for word, table in tables.items()}
    tables = {word: _drawn(table, options.max_rows, seed) for word, table in tables.items()}
    splits = {
        word: render_examples(table, *templates, options, tally, formats, report) for word, table in tables.items()
    }
    whole = [note for table in tables.values() for note in table.notes]
    n_left = sum(len(table.rows) for table in tables.values()) - sum(map(len, splits.values()))
    none_left = [word for word, rows in splits.items() if not rows]
    splits = {word: rows for word, rows in splits.items() if rows}
    if not splits or "train" in none_left:
        which = "row of its split train" if splits else "row"
        raise DataError(f"{name} has no {which} that can be learned from; {tally.reasons() or ' '.join(whole)}")
    task = assemble_task(name, splits, seed)
    names = dict.fromkeys(column.strip() for table in tables.values() for column in table.columns)
    unused = [name for name in names if not {name, name.lower()} & tally.read and name.lower() != SPLIT]
    said = [f"not used: {', '.join(unused)}."] if unused else []
    notes = (
        *dict.fromkeys(whole),
        *_mixed(formats),
        *tally.sentences(),
        *said,
        *_escaped(templates),
        *_taken(splits, none_left),
        *_few(task),
        *_marked(task),
    )
    used = [name for name in names if {name, name.lower()} & tally.read]
    common = formats.most_common()
    why = "the templates given" if any(templates) else _why(name, used, options)
    seen = Seen(tuple(common), why, notes, n_left)
    return replace(task, seen=seen, options=options, templates=templates)


def _drawn(table: Table, most: int | None, seed: int) -> Table:
    """Return a table of at most so many rows, drawn at random where there are more, which is noted."""
    count = len(table.rows)
    if most is None or count <= most:
        return table
    places = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    note = (
        f"Of {count:,} rows of {table.name}, {most:,} are read, as was asked: drawn at random by seed {seed}, in the "
        f"order of the source; {count - most:,} are left out."
    )
    return _some(replace(table, notes=(*table.notes, note)), places)


def _some(table: Table, places: NDArray[np.int64]) -> Table:
    kept = array("q", (table.places[index] for index in places))
    return replace(table, rows=selected(table.rows, places), places=kept)


def _why(name: str, used: Sequence[str], options: DataOptions) -> str:
    if options.format != "auto":
        return f"the format that was asked for, {options.format}"
    kind = ending(Path(name))
    return f"the file's name, which ends in {kind}" if kind in PLAIN_TEXT else f"its columns: {', '.join(used)}"


def _mixed(formats: Mapping[str, int]) -> list[str]:
    if len(formats) < 2:
        return []
    return ["The rows are of several formats: " + ", ".join(f"{n:,} {FORMATS[k].label}" for k, n in formats.items())]


def _escaped(templates: tuple[str | None, str | None]) -> list[str]:
    """Return a sentence per template in which a line end is written as a shell hands it over: not as one."""
    named = zip(("prompt", "completion"), templates, strict=True)
    return [
        rf"The {which} template holds \n as two characters, which are read as they stand; write a line end for one."
        for which, template in named
        if template and r"\n" in template
    ]


def _taken(splits: Mapping[str, Any], none_left: Sequence[str]) -> list[str]:
    missing = [word for word in ("validation", "test") if word not in (*splits, *none_left)]
    if "all" in splits:
        return []
    found = [f"No row of its split {word} can be used; rows of train are used instead." for word in none_left]
    if missing:
        found.append(f"It has no split called {' or '.join(missing)}; rows of train are used instead.")
    return found


def _few(task: Task) -> list[str]:
    count = len(task.rows)
    if task.own_splits or count >= FEW:
        return []
    if not task.test:
        return [f"It has {counted(count, 'row')}, too few to split: all are for training, none for a test."]
    return [f"It has {count} rows, so one is for validation and one for the test; their results mean little."]


def _marked(task: Task) -> list[str]:
    answers = (example.completion if example.prompt else "" for example in task.train)
    if (pattern := suggested_pattern(answers)) is None:
        return []
    said = "Every answer ends in a result behind '#### ', as GSM8K's do"
    return [f"{said}; the answer pattern {pattern!r} measures the share right by generation."]


def table_splits(table: Table) -> dict[str, Table]:
    """Return a table by splits where it has a column `split`, else whole, as `all`.

    Raises:
        DataError: a word in the `split` column that is no split.
    """
    named = [name for name in table.columns if name.strip().lower() == SPLIT]
    if not named:
        return {"all": table}
    column = SPLIT if SPLIT in named else named[0]
    places: dict[str, array[int]] = {}
    for index, row in enumerate(table.rows):
        word = SPLIT_WORDS.get(str(row.get(column)).strip().lower())
        if word is None:
            raise DataError(
                f"{table.name}, {table.unit} {table.places[index]}: split is {row.get(column)!r}; "
                f"accepted are: {', '.join(SPLIT_WORDS)}."
            )
        places.setdefault(word, array("q")).append(index)
    return {word: _some(table, np.asarray(indices, dtype=np.int64)) for word, indices in places.items()}


def render_examples(
    table: Table,
    prompt_template: str | None,
    completion_template: str | None,
    options: DataOptions = DEFAULTS,
    tally: Tally | None = None,
    formats: Counter[str] | None = None,
    report: Reporter | None = None,
) -> Sequence[Example]:
    """Make examples of a table's rows.

    Args:
        table: the rows.
        prompt_template: over the columns; None for the column `prompt`, or what is recognised where none is given.
        completion_template: the same for the completion.
        options: format, and how rows are handed to the model.
        tally: gets what is told of rows.
        formats: gets how many rows are of which format.
        report: is told how far that is where the rows are on disk.

    Raises:
        DataError: columns are missing, or a row cannot be used (named by number). One without its text is left out.
    """
    work, formats = Work(options, Tally() if tally is None else tally), Counter() if formats is None else formats
    if prompt_template is not None or completion_template is not None:
        convert = by_templates(table, prompt_template, completion_template)
        formats["pairs"] += len(table.rows)
        known: Iterable[tuple[Convert, Row]] = ((convert, row) for row in table.rows)
    else:
        known = _recognised(table, work, formats)
    on_disk = not isinstance(table.rows, tuple)
    examples = RowCollector[Example](on_disk)
    for number, (place, (convert, row)) in enumerate(zip(table.places, known, strict=True)):
        try:
            example = convert(Watched(clean(row, work.tally), work.tally.read), place, work)
        except LeftOutError as error:
            work.tally.leave_out(str(error), table.where(place))
            continue
        except DataError as error:
            raise DataError(f"{table.name}, {table.where(place)}: {error}") from None
        if example is not None:
            examples.add(replace(example, unit=table.unit))
        if on_disk and report is not None and number % TOLD == 0:
            report.progress(number, len(table.rows), f"converting rows of {table.name}")
    return examples.rows()


def _recognised(table: Table, work: Work, formats: Counter[str]) -> Iterator[tuple[Convert, Row]]:
    """Count the formats; return an iterator of each row, its columns in small letters, with what converts it."""
    lowered = {name: name.strip().lower() for name in table.columns}
    if len(set(lowered.values())) < len(lowered):
        lowered = {name: name for name in table.columns}
    options, label = work.options, next((name for name, low in lowered.items() if low == "label"), "")
    labelled = says_truth(lowered.values(), (row.get(label) for row in table.rows))
    if labelled:
        work.tally.counts["the label, 1 or 0, says whether the completion is good."] += len(table.rows)

    def rows() -> Iterator[Row]:
        for row in table.rows:
            whole = {low: row.get(name) for name, low in lowered.items()}
            whole |= {GOES_ON: True} if GOES_ON in row else {}
            yield with_truth(whole) if labelled else whole

    if options.format != "auto":
        formats[options.format] += len(table.rows)
        return ((FORMATS[options.format].convert, row) for row in rows())
    shapes: dict[tuple[tuple[str, str], ...], int] = {}  # columns there are, and kinds -> number
    numbers = array("I", (shapes.setdefault(tuple(kinds_of(row).items()), len(shapes)) for row in rows()))
    found, many, counts = [recognise(shape) for shape in shapes], Counter(numbers), Counter[str]()
    for number, count in many.items():
        if (name := found[number]) is not None:
            counts[name] += count
    if not counts and (name := recognise(tuple((lowered[column], "text") for column in table.columns))):
        counts[name] = len(table.rows)  # no row is whole; the first one says what it lacks
    if not counts:
        missing = next((name for name in ("prompt", "completion") if name not in table.columns), "completion")
        path = next((path for row in table.rows[:1] for path in paths(row)), None)
        nested = f" (a nested value is named by its path, such as {{{path}}})" if path else ""
        like = table.columns[1 if missing == "completion" else 0 :][:1] or table.columns[:1]
        example = "".join(f", such as {{{column}}}" for column in like if not nested)
        formats_known = ", ".join(entry.label for entry in FORMATS.values() if entry.name not in ("bundle", "pairs"))
        raise DataError(
            f"{table.name} has no column {missing!r}; its columns are: {', '.join(table.columns)}. Name the column "
            f"{missing!r}, or give a {missing} template over the columns there are{example}{nested}; the formats that "
            f"are recognised by their columns are: {formats_known}."
        )
    commonest = counts.most_common(1)[0][0]
    usual = next((dict(shape) for shape, name in zip(shapes, found, strict=True) if name == commonest), {})
    # A row that lacks a column the others have is one of them with an empty cell, and of no other format; nor is an
    # answer without a verdict a good one, where others have one, however few these are.
    verdicts = ("pairs", "chat-pairs") if "unpaired" in counts else ()
    names = [
        "unpaired" if name in verdicts else commonest if name is None or dict(shape).keys() < usual.keys() else name
        for shape, name in zip(shapes, found, strict=True)
    ]
    for number, count in many.items():
        formats[names[number]] += count
    return ((FORMATS[names[number]].convert, row) for number, row in zip(numbers, rows(), strict=True))


SURROGATES = "a character of which only half is there (a lone surrogate) is read as \ufffd."


def clean(value: Any, tally: Tally) -> Any:
    """Return a cell, or a row of them, as plain values: arrays as lists, no half characters, None for what is missing.

    Raises:
        DataError: a NUL byte in a text.
    """
    kind = type(value)
    if kind is str:
        if value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value):
            if "\0" in value:
                raise DataError("a text holds a NUL byte, which no model is trained on; take it out.")
            return value
        tally.note(SURROGATES)
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if kind is dict:
        return {str(key): clean(part, tally) for key, part in value.items()}
    if kind is list:
        return [clean(part, tally) for part in value]
    if value is None or kind is int or kind is bool:
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        return clean(str.__str__(value), tally)
    if isinstance(value, Mapping):
        return clean(dict(value), tally)
    if getattr(value, "ndim", 0):
        value = without_nulls(cast("Any", value).tolist())  # an array, as pandas has a list of a Parquet file
    if isinstance(value, list | tuple):
        return [clean(part, tally) for part in value]
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and few values come so far

    return None if value is pd.NA or value is pd.NaT else value


def assemble_task(name: str, splits: Mapping[str, Sequence[Example]], seed: int) -> Task:
    """Make a task of named splits; what is missing is drawn from the training rows by `seed`.

    Raises:
        DataError: no training rows.
    """
    if set(splits) == {"all"}:
        return split_examples(name, splits["all"], seed, grouped=True)
    if "train" not in splits:
        raise DataError(f"{name} has no training rows; its splits are: {', '.join(splits)}.")
    rows = splits["train"]
    train, *drawn = split_indices(rows, seed, grouped=True)
    held_out = dict(zip(("validation", "test"), drawn, strict=True))
    kept = np.sort(np.concatenate([train, *(places for word, places in held_out.items() if word in splits)]))
    validation, test = (splits.get(word) or selected(rows, places) for word, places in held_out.items())
    return Task(name=name, train=selected(rows, kept), validation=validation, test=test)
