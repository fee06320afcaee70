"""What there is to know of data before anything is trained: formats, tokens, targets, cuts, and rows as pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lsf.data.encode import EncodedExample, Encoding, encode, straddling_words
from lsf.data.formats import FORMATS
from lsf.data.task import Task

SPLITS = ("train", "validation", "test")
BEHIND = 8
"""Tokens before one that decide how it is written."""


@dataclass(frozen=True)
class Piece:
    """One token of a row as people see it."""

    text: str
    """What it writes."""
    trained: bool
    """Whether it is a target."""
    ends: bool
    """Whether it is a target that ends a turn or a text."""


@dataclass(frozen=True)
class TokenFacts:
    """Counts over the rows of a data set, every split, as one model reads them."""

    n_rows: int
    """Rows; of documents, windows."""
    n_tokens: int
    """Tokens of all rows."""
    n_targets: int
    """Tokens that are trained."""
    mean_tokens: float
    """Tokens per row."""
    longest: int
    """Tokens of the longest row."""
    n_cut: int
    """Rows that lost tokens at their beginning."""
    n_dropped: int
    """Rows left out, because their target does not fit."""
    n_straddling: int
    """Rows in which a token is part prompt, part completion."""
    end_share: float
    """Share of the targets that end a turn or a text, in [0, 1]."""
    n_outside: int
    """Rows with a token id that the model has no embedding for."""
    rendering: str
    """How the texts were made."""
    facts: tuple[str, ...]
    """What the chat template did to rows."""


def count_tokens(encoded: Sequence[Encoding], end: int | None, vocabulary: int) -> TokenFacts:
    """Return the counts over encoded splits, at least one row in all.

    Args:
        encoded: of each split that has rows, with end-of-text as in training.
        end: id of end-of-text.
        vocabulary: rows of the model's embedding.
    """
    rows = [row for encoding in encoded for row in encoding.rows]
    n_targets = sum(row.n_targets for row in rows)
    n_tokens = sum(len(row.ids) for row in rows)
    ends = sum(place in row.ends or row.ids[place] == end for row in rows for place in row.targets)
    return TokenFacts(
        n_rows=len(rows),
        n_tokens=n_tokens,
        n_targets=n_targets,
        mean_tokens=n_tokens / len(rows),
        longest=max(len(row.ids) for row in rows),
        n_cut=sum(encoding.n_cut for encoding in encoded),
        n_dropped=sum(encoding.n_dropped for encoding in encoded),
        n_straddling=sum(encoding.n_straddling for encoding in encoded),
        end_share=ends / n_targets,
        n_outside=sum(max(row.ids) >= vocabulary for row in rows),
        rendering=encoded[0].rendering,
        facts=tuple(dict.fromkeys(fact for encoding in encoded for fact in encoding.facts)),
    )


def encode_splits_of(tokenizer: Any, task: Task, max_length: int) -> list[Encoding]:
    """Encode every split that has rows, as it would be trained.

    Raises:
        DataError: as `encode`.
    """
    parts = [part for name in SPLITS if (part := getattr(task, name))]
    return [encode(tokenizer, part, max_length, append_eos=True) for part in parts]


def format_lines(task: Task) -> list[str]:
    """Return what was recognised and by what, how many rows each split has, and what could not be used."""
    seen = task.seen
    lines = [
        f"{count:,} row{'s' if count != 1 else ''}: {FORMATS[name].label} -> {FORMATS[name].becomes}"
        for name, count in seen.formats
    ]
    lines += [f"recognised by {seen.why}"] if seen.why else []
    counts = ", ".join(f"{len(getattr(task, name)):,} {name}" for name in SPLITS)
    lines.append(counts + ("" if task.own_splits else " (drawn, since the data names no splits)"))
    lines += [f"left out: {seen.n_left_out:,}"] if seen.n_left_out else []
    return lines + [f"note: {note}" for note in (*seen.notes, *shared_prompts(task))]


def shared_prompts(task: Task) -> list[str]:
    """Return a sentence on rows of validation or test that stand in training too; none where there are none."""
    asked = {example.asked for example in task.train}
    whole = {example.identity for example in task.train}
    found = []
    for name in SPLITS[1:]:
        same = sum(example.identity in whole for example in getattr(task, name))
        alike = sum(example.asked in asked for example in getattr(task, name))
        if alike:
            rows = f"{alike:,} {name} row{'s' if alike != 1 else ''}"
            have = "has" if alike == 1 else "have"
            found.append(f"{rows} {have} a prompt that training has too; {same:,} with the same answer.")
    return found


def token_lines(facts: TokenFacts, max_length: int) -> list[str]:
    """Return counts as lines of text."""
    lines = [
        f"texts: {facts.rendering}",
        f"{facts.n_tokens:,} tokens in {_rows(facts.n_rows)}: {facts.mean_tokens:.1f} each, {facts.longest:,} at most",
        f"{facts.n_targets:,} targets, {facts.end_share:.1%} of them the end of a turn or text",
    ]
    if facts.n_cut:
        lines.append(f"note: {_rows(facts.n_cut)} cut at the beginning, to fit into {max_length:,} tokens")
    if facts.n_dropped:
        lines.append(f"note: {_rows(facts.n_dropped)} left out, whose target does not fit into {max_length:,} tokens")
    if facts.n_outside:
        lines.append(f"note: {_rows(facts.n_outside)} with a token id outside the model's vocabulary")
    lines += [f"note: {fact}" for fact in facts.facts]
    return lines + ([f"note: {words}"] if (words := straddling_words(facts.n_straddling)) else [])


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def pieces_of(tokenizer: Any, row: EncodedExample) -> list[Piece]:
    """Return a row token by token; the texts of all pieces are the string that the model gets."""
    targets, found = set(row.targets), []
    for place, token in enumerate(row.ids):
        before = list(row.ids[max(0, place - BEHIND) : place])
        shorter = tokenizer.decode(before, skip_special_tokens=False)
        longer = tokenizer.decode([*before, token], skip_special_tokens=False)
        text = longer[len(shorter) :] if longer.startswith(shorter) else tokenizer.decode([token])
        trained = place in targets
        ends = trained and (place in row.ends or token == tokenizer.eos_token_id)
        found.append(Piece(text, trained, ends))
    return found
