"""What is told of rows while examples are made of them: counts of what is true of which, and of those left out."""

from collections import Counter
from dataclasses import dataclass, field

from lsf.data.contents import DataOptions

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
        return f"{count:,} row{'s' if count != 1 else ''}: {said}"


@dataclass(frozen=True)
class Work:
    """What a converter has besides the row."""

    options: DataOptions
    """How rows are handed to the model."""
    tally: Tally
    """Where it tells what it did."""
