"""An example, and a task: examples in three splits under one name."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lsf.data.contents import DEFAULTS, Chat, Content, DataOptions, shown_turns
from lsf.data.rows import RowsOnDisk, joined, selected
from lsf.errors import BadInputError, DataError


@dataclass(frozen=True)
class Example:
    """A prompt and the completion that should follow it."""

    prompt: str
    """What the model is given."""
    completion: str
    """What it should say next, leading space included."""
    row: int | None = None
    """Its row in the source, or the line of the file it begins in, from 1; None where there is no source."""
    content: Content | None = None
    """What it is instead of two texts, which then only tell of it; None where the two texts are all."""
    unit: str = "row"
    """What `row` counts: `row`, or `line` in files that are read by lines."""

    @property
    def where(self) -> str | None:
        """`row 3` or `line 3`; None where there is no source."""
        return None if self.row is None else f"{self.unit} {self.row}"

    @property
    def identity(self) -> tuple[object, ...]:
        """What of it a model may get to read, to tell equal examples and equal data by."""
        pair = self.content is None or (isinstance(self.content, Chat) and self.content.pair)
        return (self.prompt, self.completion) if pair else (self.prompt, self.completion, self.content)

    @property
    def asked(self) -> object:
        """What two examples must not share across splits, and of a document its text.

        It is all that is said before the last answer. Two texts are read as a question and its answer, so that a pair
        and a chat that ask the same are known to.
        """
        if isinstance(self.content, Chat):
            said, _ = shown_turns(self.content.messages)
        else:
            said = self.prompt and f"user: {self.prompt.strip() or self.prompt}"
        return said or self.identity


@dataclass(frozen=True)
class Seen:
    """What was found in a source, for those who want to know before anything is trained."""

    formats: tuple[tuple[str, int], ...] = ()
    """Name of a format -> rows read as such, the commonest first."""
    why: str = ""
    """By what the commonest was recognised."""
    notes: tuple[str, ...] = ()
    """Sentences on what was read otherwise than it stands, or left out."""
    n_left_out: int = 0
    """Rows that are no examples: answers marked as bad, or without a text."""


@dataclass(frozen=True)
class Task:
    """Examples in three disjoint splits; a lesson, a file or a hub data set looks the same from here on.

    Splits are tuples, or views of rows on disk where the source is large (lsf.data.rows).
    """

    name: str
    """How the user names it: `lesson:facts`, a path, `hub:...`."""
    train: Sequence[Example]
    """Examples to tune on and to analyse."""
    validation: Sequence[Example]
    """Examples for choices during training (learning-rate search, live curve)."""
    test: Sequence[Example]
    """Examples looked at before and after a run only."""
    own_splits: bool = True
    """True where the source names its splits; False where `split_examples` made them."""
    rows: Sequence[Example] = ()
    """Every example in the source's order, where `own_splits` is False."""
    seen: Seen = Seen()
    """What was found; nothing for lessons and what was made in Python."""
    general: Sequence[Example] = ()
    """Examples of general data that may be mixed into training, none of them with a prompt of a held-out example."""
    options: DataOptions = DEFAULTS
    """By which its rows were read; the default ones for lessons and what was made in Python."""
    templates: tuple[str | None, str | None] = None, None
    """Of prompt and completion, by which its rows were read; None where there were none."""

    def __post_init__(self) -> None:
        """Refuse a task that could not be tuned on."""
        if not self.train:
            raise DataError(f"{self.name} has no training examples; at least one is needed.")

    def __repr__(self) -> str:
        """Return how many examples each split has, in a line."""
        splits = ((name, len(getattr(self, name))) for name in ("train", "validation", "test"))
        return f"Task({self.name}: {', '.join(f'{count:,} {name}' for name, count in splits)})"

    def split(self, name: str) -> Sequence[Example]:
        """Return one split by name; `auto` means `train` where the source has splits, else every row.

        Raises:
            BadInputError: an unknown split.
            DataError: the split is empty.
        """
        if name == "auto":
            name = "train" if self.own_splits else "all"
        if name == "all":
            return self.rows or joined(self.train, self.validation, self.test)
        if name not in ("train", "validation", "test"):
            raise BadInputError(f"Unknown split {name!r}; known are: auto, train, validation, test, all.")
        examples: Sequence[Example] = getattr(self, name)
        if not examples:
            raise DataError(f"{self.name} has no {name} examples; it has too few rows to split ({len(self.rows)}).")
        return examples

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every split's texts, so that two runs can be known to have seen the same data."""
        return self._hash("train", "validation", "test")

    @property
    def general_fingerprint(self) -> str | None:
        """The same over the general data; None where there is none."""
        return self._hash("general") if self.general else None

    def _hash(self, *names: str) -> str:
        digest = hashlib.sha256()
        for name in names:
            digest.update(name.encode())
            for example in getattr(self, name):
                digest.update(repr(example.identity).encode())
        return digest.hexdigest()


def with_general(task: Task, general: Task) -> Task:
    """Return a task with the rows of another one as general data: its training rows where it names splits, else all.

    Rows with the prompt of a validation or test example are left out, which a note tells.

    Raises:
        DataError: no row is left.
    """
    held_out = {example.asked for part in (task.validation, task.test) for example in part}
    rows = general.split("auto")
    kept = selected(rows, (index for index, example in enumerate(rows) if example.asked not in held_out))
    if not kept:
        raise DataError(f"Every row of the general data {general.name} has the prompt of a validation or test example.")
    left = f"{len(rows) - len(kept):,} with the prompt of a validation or test example are left out."
    notes = (*general.seen.notes, *([left] if len(kept) < len(rows) else []))
    seen = replace(task.seen, notes=(*task.seen.notes, *(f"General data: {note}" for note in notes)))
    return replace(task, general=kept, seen=seen)


def split_examples(name: str, examples: Iterable[Example], seed: int = 0, grouped: bool = False) -> Task:
    """Split rows that come without splits: 80 % train, 10 % validation, 10 % test, drawn by `seed`.

    Each split keeps the source's order. Validation and test get at least one example each from 3 rows on, and at most
    500: more would only slow the evaluation of a short run. Fewer than 3 rows all go to training; what needs a held-out
    split then says so. Where rows are `grouped`, equal prompts stay on one side, whenever that leaves enough to train.
    """
    rows = examples if isinstance(examples, RowsOnDisk) else tuple(examples)
    train, validation, test = (selected(rows, indices) for indices in split_indices(rows, seed, grouped))
    return Task(name=name, train=train, validation=validation, test=test, own_splits=False, rows=rows)


def split_indices(
    rows: Sequence[Example], seed: int, grouped: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of training, validation and test rows, ascending; see `split_examples`."""
    held_out = min(500, max(1, len(rows) // 10)) if len(rows) >= 3 else 0
    order = np.random.default_rng(seed).permutation(len(rows))
    taken = _grouped(rows, order, held_out) if grouped else None
    test, validation = taken or (set(order[:held_out].tolist()), set(order[held_out : 2 * held_out].tolist()))
    kept = np.ones(len(rows), dtype=bool)
    kept[[*test, *validation]] = False
    return (
        np.flatnonzero(kept),
        np.array(sorted(validation), dtype=np.int64),
        np.array(sorted(test), dtype=np.int64),
    )


def marks_of(values: Iterable[object], count: int) -> NDArray[np.uint64]:
    """Return 64 bits of the hash of each value: equal for equal values, and for others with a chance of 1 in 10^19."""
    hashes = (hashlib.blake2b(repr(value).encode(), digest_size=8).digest() for value in values)
    return np.frombuffer(b"".join(hashes), dtype=np.uint64, count=count)


def _grouped(rows: Sequence[Example], order: NDArray[np.int64], held_out: int) -> tuple[set[int], set[int]] | None:
    """Return test and validation rows that share no prompt with each other or the rest; None where few would be left.

    Without equal prompts they are the first ones of the order, as they would be without grouping. Where whole prompts
    would be more than half of the rows, those with more rows than a part has room for stay in training.
    """
    _, group_of, sizes = np.unique(
        marks_of((row.asked for row in rows), len(rows)), return_inverse=True, return_counts=True
    )
    if len(sizes) < 3:
        return None
    test, validation = _by_groups(order, group_of, sizes, held_out, len(rows))
    if len(test) + len(validation) <= len(rows) // 2 or len(sizes) == len(rows):
        return test, validation
    test, validation = _by_groups(order, group_of, sizes, held_out, held_out)
    return (test, validation) if test and validation else None


def _by_groups(
    order: NDArray[np.int64], group_of: NDArray[np.int64], sizes: NDArray[np.int64], held_out: int, most: int
) -> tuple[set[int], set[int]]:
    """Return the rows of whole groups, in the order drawn, until each part has its number; no part gets over `most`."""
    parts, seen = (set[int](), set[int]()), set[int]()
    for index in order.tolist():
        group = int(group_of[index])
        if group in seen:
            continue
        seen.add(group)
        if all(len(part) >= held_out for part in parts):
            break
        part = next((part for part in parts if len(part) < held_out and len(part) + sizes[group] <= most), None)
        if part is not None:
            part.update([index] if sizes[group] == 1 else np.flatnonzero(group_of == group).tolist())
    return parts
