"""What every converter of rows works with: cells as texts and turns, examples of them, and what is told of rows."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lsf.data.contents import DataOptions, make_chat, needs_answer, read_tools, read_turns, shown_turns
from lsf.data.task import Example
from lsf.errors import DataError, LeftOutError
from lsf.wording import counted

Row = Mapping[str, Any]

NAMED = 3
"""Rows that are named where they are left out; the others are counted."""


@dataclass
class Tally:
    """What is counted while rows are converted, told in sentences at the end."""

    counts: Counter[str] = field(default_factory=Counter)
    """Sentence about rows -> how many of them."""
    read: set[str] = field(default_factory=set)
    """Columns that were read, in small letters."""
    left: dict[str, list[str]] = field(default_factory=dict)
    """Of those sentences, why rows are left out -> where the first of them are."""

    def note(self, sentence: str) -> None:
        """Count one more row of which a sentence is true."""
        self.counts[sentence] += 1

    def leave_out(self, why: str, where: str) -> None:
        """Count one more row that is left out, and keep where it is while there are few."""
        self.note(sentence := f"left out, since {why}")
        if len(places := self.left.setdefault(sentence, [])) < NAMED:
            places.append(where)

    def sentences(self) -> tuple[str, ...]:
        """Return each sentence with its rows, in the order they came up."""
        return tuple(self._counted(words) for words in self.counts)

    def reasons(self) -> str:
        """Return why rows are left out, with how many they are; empty where none is."""
        return " ".join(self._counted(words) for words in self.counts if words.startswith("left out"))

    def _counted(self, words: str) -> str:
        count, places = self.counts[words], self.left.get(words)
        more = f" and {count - NAMED:,} more" if count > NAMED else ""
        said = f"{words} ({', '.join(places)}{more})." if places else words
        return f"{counted(count, 'row')}: {said}"


@dataclass(frozen=True)
class Work:
    """What a converter has besides the row."""

    options: DataOptions
    """How rows are handed to the model."""
    tally: Tally
    """Where it tells what it did."""


Convert = Callable[[Row, int, Work], Example | None]
"""(row, its place, work) -> example; None where it is none that should be learned."""


def cell_text(row: Row, column: str, work: Work, needed: bool = True) -> str:
    """Return a cell as text; a number as it is written.

    Raises:
        LeftOutError: it is an empty text, and needed.
        DataError: it is neither text nor number; null where it is needed.
    """
    value = row.get(column)
    if value is None or value == "":
        if not needed:
            return ""
        if value is None:
            raise DataError(f"the {column} is null; text or a number was expected.")
        raise LeftOutError(f"the {column} is empty")
    if isinstance(value, list | dict | bytes):
        kind = type(value).__name__
        raise DataError(f"the column {column!r} holds a {kind}; text or a number was expected.")
    if isinstance(value, bool):
        work.tally.note(f"the column {column!r} holds true or false, which is written True or False.")
    elif not isinstance(value, str):
        work.tally.note(f"the column {column!r} holds a number, which is read as it is written.")
    return str(value)


def pair_example(
    prompt: str,
    completion: str,
    place: int,
    work: Work,
    turns: list[dict[str, Any]] | None = None,
    system: str = "",
) -> Example:
    """Return a text pair, which a model with a chat template reads as turns unless it is to be raw.

    Args:
        prompt: raw text before the target.
        completion: raw text of the target.
        place: row in the source.
        work: the options.
        turns: the same as a chat; None makes a user's turn and an assistant's of the two texts, without outer blanks.
        system: what is said before all of it, as a turn or as a line; "" for nothing.
    """
    before = prompt
    prompt = f"{system}\n{prompt}" if system else prompt
    if work.options.pairs == "raw":
        return Example(prompt, completion, place)
    if turns is None:
        texts = ("user", before.strip() or before), ("assistant", completion.strip() or completion)
        turns = [{"role": role, "content": text} for role, text in texts]
    turns = [turn_of("system", system), *turns] if system else turns
    pair = work.options.pairs == "auto" and work.options.chat_template is None
    return Example(prompt, completion, place, make_chat(turns, work.options, given=len(turns) - 1, pair=pair))


def chat_example(turns: list[dict[str, Any]], place: int, work: Work, tools: Any = None, given: int = 0) -> Example:
    """Return a chat as an example; the first `given` turns are never targets.

    Raises:
        DataError: there is no answer to learn, or `tools` are no list.
    """
    needs_answer(turns, given)
    return Example(*shown_turns(turns), place, make_chat(turns, work.options, read_tools(tools), given))


def cell_turns(row: Row, column: str, work: Work) -> list[dict[str, Any]]:
    """Return the messages of a cell.

    Raises:
        DataError: it holds no messages.
    """
    if row.get(column) is None:
        raise DataError(f"the column {column!r} is null; a list of messages was expected.")
    held = row[column]
    if (
        isinstance(held, list)
        and held
        and all(isinstance(one, Mapping) and {"input", "output"} <= set(one) for one in held)
    ):
        work.tally.note(f"the column {column!r} holds pairs of input and output, read as user and assistant.")
        held = [turn_of(*turn) for one in held for turn in (("user", one["input"]), ("assistant", one["output"]))]
    if isinstance(held, str) and held.lstrip().startswith("[{'"):
        raise DataError(f"the column {column!r} holds a list as Python writes it, which is no JSON; save it as JSONL.")
    turns, was_text = read_turns(held, column)
    if was_text:
        work.tally.note(f"the column {column!r} holds a JSON string, which was parsed.")
    return turns


def turn_of(role: str, content: str) -> dict[str, str]:
    """Return a message."""
    return {"role": role, "content": content}
