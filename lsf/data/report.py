"""What there is to know of data before anything is trained: formats, tokens, targets, cuts, and rows as pieces.

And the floor of a run: the better of the base model and of the best answer that ignores the prompt.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsf.data.contents import Document
from lsf.data.encode import EncodedExample, Encoding, encode, encode_parts, straddling_words
from lsf.data.formats import FORMATS
from lsf.data.rendering import joined_facts
from lsf.data.spans import TEXTS_AT_ONCE
from lsf.data.task import Example, Task, marks_of
from lsf.errors import DataError
from lsf.progress import Reporter
from lsf.wording import counted

SPLITS = ("train", "validation", "test")
MANY = 20_000
"""Rows from which on their counting is a work whose progress is told."""
BEHIND = 8
"""Tokens before one that decide how it is written."""
AS_THEY_STAND = "prompt and answer as they stand"
"""How people read `raw`, the rendering of a pair of texts by no chat template."""
FEW_ANSWERS, LOOKED_AT = 50, 2000
"""Different answers that still are labels, and rows that are looked at for how often each is given."""
FIRST = 32
"""Training rows that tell apart how texts are made."""
UNLIKE = 0.3
"""Share of answers that first rows give in place of others, from which on they do not stand for all."""


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
    n_unknown: int
    """Tokens that stand for words the tokenizer does not know."""
    n_unknown_targets: int
    """Those of them that are trained."""
    rendering: str
    """How the texts were made."""
    facts: tuple[str, ...]
    """What the chat template did to rows."""


def _unknown_token(tokenizer: Any) -> int | None:
    """Return the id that stands for every word a tokenizer does not know; None where it writes any text by its parts.

    Such tokenizers often call their end-of-text the unknown token too, which they then never use as one.
    """
    word = tokenizer.unk_token
    return tokenizer.unk_token_id if word is not None and "unk" in str(word).lower() else None


def count_tokens(encoded: Iterable[Iterable[Encoding]], tokenizer: Any, vocabulary: int) -> TokenFacts:
    """Return the counts over encoded splits, at least one row in all; no row is kept.

    Args:
        encoded: of each split that has rows its parts, each with all that is told so far (`encode_parts`), with
            end-of-text as in training.
        tokenizer: which encoded them.
        vocabulary: rows of the model's embedding.
    """
    end, unknown = tokenizer.eos_token_id, _unknown_token(tokenizer)
    count, lasts = Counter[str](), list[Encoding]()
    for parts in encoded:
        last = None
        for last in parts:
            count["straddling"] += last.n_straddling
            for row in last.rows:
                count["rows"] += 1
                count["tokens"] += len(row.ids)
                count["targets"] += row.n_targets
                count["longest"] = max(count["longest"], len(row.ids))
                count["ends"] += sum(place in row.ends or row.ids[place] == end for place in row.targets)
                count["outside"] += max(row.ids) >= vocabulary
                if unknown is not None and unknown in row.ids:
                    count["unknown"] += row.ids.count(unknown)
                    count["unknown targets"] += sum(row.ids[place] == unknown for place in row.targets)
        lasts += [] if last is None else [last]
    return TokenFacts(
        n_rows=count["rows"],
        n_tokens=count["tokens"],
        n_targets=count["targets"],
        mean_tokens=count["tokens"] / count["rows"],
        longest=count["longest"],
        n_cut=sum(encoding.n_cut for encoding in lasts),
        n_dropped=sum(encoding.n_dropped for encoding in lasts),
        n_straddling=count["straddling"],
        end_share=count["ends"] / count["targets"],
        n_outside=count["outside"],
        n_unknown=count["unknown"],
        n_unknown_targets=count["unknown targets"],
        rendering=lasts[0].rendering,
        facts=tuple(map(str, joined_facts(fact for encoding in lasts for fact in encoding.told))),
    )


@dataclass
class SplitReader:
    """Encodes every split of a task as it would be trained, part by part, and keeps the first rows to be shown."""

    tokenizer: Any
    """A transformers tokenizer."""
    task: Task
    """The data."""
    max_length: int
    """Tokens per example."""
    show: int
    """Rows that are kept."""
    report: Reporter
    """Is told how far it is, where that takes long."""
    shown: list[EncodedExample] = field(default_factory=list)
    """Rows of the first split, as many as are to be shown."""

    def splits(self) -> Iterator[Iterator[Encoding]]:
        """Yield each split that has rows, as its parts.

        Raises:
            DataError: as `encode`.
        """
        done, parts = 0, [part for name in SPLITS if (part := getattr(self.task, name))]
        total = sum(map(len, parts))
        for number, part in enumerate(parts):
            yield self._parts(part, done, total, number == 0)
            done += len(part)

    def _parts(self, part: Sequence[Example], done: int, total: int, first: bool) -> Iterator[Encoding]:
        for encoding in encode_parts(self.tokenizer, part, self.max_length, append_eos=True):
            if first:
                self.shown += encoding.rows[: self.show - len(self.shown)]
            yield encoding
            done += TEXTS_AT_ONCE
            if total > MANY:
                self.report.progress(min(done, total), total, "counting tokens")


def format_lines(task: Task) -> list[str]:
    """Return what was recognised and by what, how many rows each split has, and what could not be used."""
    seen = task.seen
    lines = [
        f"{counted(count, 'row')}: {FORMATS[name].label} -> {FORMATS[name].becomes}" for name, count in seen.formats
    ]
    lines += [f"recognised by {seen.why}"] if seen.why else []
    counts = ", ".join(f"{len(getattr(task, name)):,} {name}" for name in SPLITS)
    lines.append(counts + ("" if task.own_splits else " (split at random, since the data names no splits)"))
    lines += [f"left out: {seen.n_left_out:,}"] if seen.n_left_out else []
    return lines + [f"note: {note}" for note in (*seen.notes, *shared_prompts(task))]


def shared_prompts(task: Task) -> list[str]:
    """Return a sentence on rows of validation or test that stand in training too; none where there are none."""
    found, training = [], np.unique(marks_of((row.asked for row in task.train), len(task.train)))
    whole: NDArray[np.uint64] | None = None
    for name in SPLITS[1:]:
        rows = getattr(task, name)
        alike = int(np.isin(marks_of((row.asked for row in rows), len(rows)), training).sum())
        if alike:
            if whole is None:
                whole = marks_of(map(_answered, task.train), len(task.train))
            same = int(np.isin(marks_of(map(_answered, rows), len(rows)), whole).sum())
            rows = counted(alike, f"{name} row")
            have = "has" if alike == 1 else "have"
            texts = {kind for kind, _ in task.seen.formats} == {"text"}  # which ask nothing
            what, more = ("a text", "") if texts else ("a prompt", f"; {same:,} with the same answer")
            found.append(f"{rows} {have} {what} that training has too{more}.")
    return found


def _answered(row: Example) -> tuple[object, str]:
    return row.asked, row.completion.strip()


def unknown_targets(tokenizer: Any, rows: Sequence[EncodedExample]) -> str | None:
    """Return the sentence on targets that stand for words the tokenizer does not know; None where none does."""
    unknown = _unknown_token(tokenizer)
    if unknown is None:
        return None
    n_unknown = sum(row.ids[place] == unknown for row in rows if unknown in row.ids for place in row.targets)
    if not n_unknown:
        return None
    n_targets = sum(row.n_targets for row in rows)
    share = f"{n_unknown:,} of {counted(n_targets, 'target')} {'stands' if n_unknown == 1 else 'stand'}"
    return f"{share} for words that the model does not know; it can neither tell them apart nor write them."


def first_texts(tokenizer: Any, rows: Sequence[Example], max_length: int) -> str | None:
    """Return SHA-256 over the token ids and targets of the first rows: equal means that texts are made alike.

    Analyses and sweeps read different numbers of rows, so these 32 are compared. None where none of them fits, and of
    plain text, in which no template and no turn is.

    Args:
        tokenizer: of the model.
        rows: of the training split.
        max_length: tokens per example.
    """
    answered = [row for row in rows[:FIRST] if not isinstance(row.content, Document)]
    if not answered:
        return None
    try:
        encoded = encode(tokenizer, answered, max_length).rows
    except DataError:
        return None
    return hashlib.sha256(repr([(row.ids, tuple(row.targets)) for row in encoded]).encode()).hexdigest()


def unlike_the_rest(rows: Sequence[Example], n_first: int) -> str | None:
    """Return a sentence where the first rows give other labels than all do, as in a file that is sorted by them.

    The total variation distance of the two is held against 0.3, and against twice what as many rows drawn at random
    would have of it.

    Args:
        rows: of one split.
        n_first: how many of them are read.
    """
    drawn = np.random.default_rng(0).permutation(len(rows))[:LOOKED_AT].tolist()
    everywhere = Counter(rows[number].completion for number in drawn)
    if not 0 < n_first < len(rows) or not 1 < len(everywhere) <= FEW_ANSWERS:
        return None
    here = Counter(rows[number].completion for number in range(min(n_first, LOOKED_AT)))
    labels = everywhere.keys() | here.keys()
    distance = sum(abs(here[one] / here.total() - everywhere[one] / everywhere.total()) for one in labels) / 2
    if distance <= max(UNLIKE, 2 * math.sqrt(len(labels) / (2 * math.pi * here.total()))):
        return None
    return (
        f"The first {n_first:,} of {len(rows):,} rows have other answers than all of them "
        f"({len(here)} of {len(labels)} different ones): the data seems to be sorted. Shuffle its rows, or read all."
    )


def texts_in_words(rendering: str) -> str:
    """Return how texts are made as people read it: of a pair of texts no `raw`, which is an option's name."""
    return re.sub(r"\braw\b", AS_THEY_STAND, rendering)


def token_lines(facts: TokenFacts, max_length: int) -> list[str]:
    """Return counts as lines of text."""
    lines = [
        f"texts: {texts_in_words(facts.rendering)}",
        f"{counted(facts.n_tokens, 'token')} in {_rows(facts.n_rows)}: {facts.mean_tokens:.1f} each, "
        f"{facts.longest:,} at most",
        f"{counted(facts.n_targets, 'target')}, {100 * facts.end_share:.1f} % of them the end of a turn or text",
    ]
    if facts.n_cut:
        lines.append(f"note: {_rows(facts.n_cut)} cut at the beginning, to fit into {counted(max_length, 'token')}")
    if facts.n_dropped:
        lines.append(
            f"note: {_rows(facts.n_dropped)} left out, whose target does not fit into {counted(max_length, 'token')}"
        )
    if facts.n_outside:
        lines.append(f"note: {_rows(facts.n_outside)} with a token id outside the model's vocabulary")
    lines += [f"note: {words}"] if (words := unknown_words(facts)) else []
    lines += [f"note: {fact}" for fact in facts.facts]
    return lines + ([f"note: {words}"] if (words := straddling_words(facts.n_straddling)) else [])


def unknown_words(facts: TokenFacts) -> str:
    """Return the sentence on words that the model does not know; empty where there are none."""
    if not facts.n_unknown:
        return ""
    share = f"{facts.n_unknown:,} of {counted(facts.n_tokens, 'token')}"
    stand = "stands" if facts.n_unknown == 1 else "stand"
    return (
        f"{share} ({100 * facts.n_unknown / facts.n_tokens:.0f} %) {stand} for words that the model does not know, "
        f"{facts.n_unknown_targets:,} of them targets; it can neither tell them apart nor write them."
    )


def _rows(count: int) -> str:
    return counted(count, "row")


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


Ids = tuple[int, ...]
LABELS, TOKENS = "label frequencies", "token frequencies"
"""What a prior knows of the training completions."""


@dataclass(frozen=True)
class Prior:
    """How well held-out completions are told without a look at their prompts."""

    kind: str
    """`label frequencies` where every held-out completion occurs in training, else `token frequencies`."""
    loss: float
    """Nats per completion token; an end-of-text that is appended in training is not counted, a typed one is."""
    exact_match: float
    """Share of held-out completions that are the commonest one of training, in [0, 1]."""


@dataclass(frozen=True)
class Floor:
    """What a run has to beat before anything can be called its gain: the better of base model and prior."""

    loss: float
    """Nats per completion token."""
    exact_match: float
    """Share of examples wholly right, in [0, 1]."""
    prior: Prior
    """The best answer that ignores the prompt."""


def completion_ids(rows: Sequence[EncodedExample]) -> tuple[Ids, ...]:
    """Return the ids of each completion, all its targets as they are scored; of a chat those of all its answers.

    The end-of-text that is appended to training rows is left out: held-out rows have none. One that the completion
    itself ends in stays, since it is scored there too.
    """
    return tuple(tuple(row.ids[place] for place in row.targets)[: -1 if row.appended else None] for row in rows)


LABELS_READ = 20_000
"""Training rows whose completions are counted as labels, at most; drawn once and for all."""


def labels_of(
    examples: Sequence[Example], held_out: Sequence[EncodedExample]
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Return completions as texts, of a training split and held out; None where a training row is no pair of texts.

    Of a large split a run encodes a part that its seed draws, in which a rare label may be missing, and of two labels
    that are nearly as common either may lead; these are the same for every run on it.
    """
    numbers = np.sort(np.random.default_rng(0).permutation(len(examples))[:LABELS_READ])
    found = []
    for number in numbers.tolist():
        example = examples[number]
        if len(example.identity) > 2:
            return None
        found.append(example.completion)
    return found, [row.example.completion for row in held_out]


def prior_of(
    train: Sequence[Ids],
    held_out: Sequence[Ids],
    vocabulary: int,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Prior:
    """Return the prior of held-out completions, fitted on training completions alone.

    Label-like completions, those of which every held-out one occurs in training: p(completion) = its frequency there,
    whose surprise is spread over its tokens. Else each token by its frequency among the training tokens, with one
    imaginary token spread evenly over the vocabulary: p(t) = (n_t + 1 / V) / (n + 1). Of labels that are equally common
    the first in training counts as the commonest.

    Args:
        train: ids of each training completion, at least one.
        held_out: ids of each held-out completion, at least one.
        vocabulary: V.
        texts: from `labels_of`, where `train` is a part that a seed drew: labels are counted among these instead.
    """
    known, asked = texts or (train, held_out)
    labels, tokens = Counter(known), sum(len(ids) for ids in held_out)
    commonest = labels.most_common(1)[0][0]
    exact = sum(one == commonest for one in asked) / len(held_out)
    if all(one in labels for one in asked):
        surprise = 0.0 - sum(math.log(labels[one] / len(known)) for one in asked)
        return Prior(LABELS, surprise / tokens, exact)
    counts = Counter(token for ids in train for token in ids)
    total = counts.total() + 1.0
    surprise = -sum(math.log((counts[token] + 1.0 / vocabulary) / total) for ids in held_out for token in ids)
    return Prior(TOKENS, surprise / tokens, exact)


def floor_of(prior: Prior, base_loss: float, base_exact_match: float) -> Floor:
    """Return the floor: the better of the base model and the prior, loss and exact match each for itself.

    Args:
        prior: on the held-out examples.
        base_loss: the base model's there, in nats per completion token.
        base_exact_match: its share wholly right there, in [0, 1].
    """
    return Floor(min(prior.loss, base_loss), max(prior.exact_match, base_exact_match), prior)
