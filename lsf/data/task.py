"""An example, and a task: examples in three splits under one name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lsf.data.contents import Chat, Content
from lsf.errors import BadInputError, DataError


@dataclass(frozen=True)
class Example:
    """A prompt and the completion that should follow it."""

    prompt: str
    """What the model is given."""
    completion: str
    """What it should say next, leading space included."""
    row: int | None = None
    """Row in the file it came from, counted from 1 without the header; None where there is no file."""
    content: Content | None = None
    """What it is instead of two texts, which then only tell of it; None where the two texts are all."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What of it a model may get to read, to tell equal examples and equal data by."""
        pair = self.content is None or (isinstance(self.content, Chat) and self.content.pair)
        return (self.prompt, self.completion) if pair else (self.prompt, self.completion, self.content)

    @property
    def asked(self) -> object:
        """What two examples must not share across splits: the prompt, and of a document its text."""
        return self.prompt or self.identity


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
    """Rows that are no examples: answers marked as bad."""


@dataclass(frozen=True)
class Task:
    """Examples in three disjoint splits; a lesson, a file or a hub data set looks the same from here on."""

    name: str
    """How the user names it: `lesson:facts`, a path, `hub:...`."""
    train: tuple[Example, ...]
    """Examples to tune on and to analyse."""
    validation: tuple[Example, ...]
    """Examples for choices during training (learning-rate search, live curve)."""
    test: tuple[Example, ...]
    """Examples looked at before and after a run only."""
    own_splits: bool = True
    """True where the source names its splits; False where `split_examples` made them."""
    rows: tuple[Example, ...] = ()
    """Every example in the source's order, where `own_splits` is False."""
    seen: Seen = Seen()
    """What was found; nothing for lessons and what was made in Python."""
    general: tuple[Example, ...] = ()
    """Examples of general data that may be mixed into training, none of them with a prompt of a held-out example."""

    def __post_init__(self) -> None:
        """Refuse a task that could not be tuned on."""
        if not self.train:
            raise DataError(f"{self.name} has no training examples; at least one is needed.")

    def split(self, name: str) -> tuple[Example, ...]:
        """Return one split by name; `auto` means `train` where the source has splits, else every row.

        Raises:
            BadInputError: an unknown split.
            DataError: the split is empty.
        """
        if name == "auto":
            name = "train" if self.own_splits else "all"
        if name == "all":
            return self.rows or self.train + self.validation + self.test
        if name not in ("train", "validation", "test"):
            raise BadInputError(f"Unknown split {name!r}; known are: auto, train, validation, test, all.")
        examples: tuple[Example, ...] = getattr(self, name)
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
    held_out = {example.asked for example in (*task.validation, *task.test)}
    rows = general.split("auto")
    kept = tuple(example for example in rows if example.asked not in held_out)
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
    rows = tuple(examples)
    held_out = min(500, max(1, len(rows) // 10)) if len(rows) >= 3 else 0
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    taken = _grouped(rows, order, held_out) if grouped else None
    test, validation = taken or (set(order[:held_out]), set(order[held_out : 2 * held_out]))
    train = [row for index, row in enumerate(rows) if index not in test and index not in validation]
    return Task(
        name=name,
        train=tuple(train),
        validation=tuple(rows[index] for index in sorted(validation)),
        test=tuple(rows[index] for index in sorted(test)),
        own_splits=False,
        rows=rows,
    )


def _grouped(rows: tuple[Example, ...], order: list[int], held_out: int) -> tuple[set[int], set[int]] | None:
    """Return test and validation rows that share no prompt with each other or the rest; None where few would be left.

    Without equal prompts they are the first ones of the order, as they would be without grouping.
    """
    groups: dict[object, list[int]] = {}
    for index in order:
        groups.setdefault(rows[index].asked, []).append(index)
    if len(groups) < 3:
        return None
    parts: list[set[int]] = [set(), set()]
    for group in groups.values():
        part = next((part for part in parts if len(part) < held_out), None)
        if part is None:
            break
        part.update(group)
    return (parts[0], parts[1]) if sum(map(len, parts)) <= len(rows) // 2 or len(groups) == len(rows) else None
