"""From an example to token ids: prompt and completion as one text, the way the model would read it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lsf.data.task import Example
from lsf.errors import DataError

DEFAULT_MAX_LENGTH = 1024
"""Tokens per example unless the user asks for more; never more than the model's context."""

TEXTS_AT_ONCE = 128
"""Texts handed to the tokenizer at a time."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as token ids."""

    ids: tuple[int, ...]
    """Prompt, completion, and end-of-text where it was asked for."""
    n_prompt: int
    """Ids before the first target; the first target is predicted at position n_prompt - 1."""
    n_completion: int
    """Targets: ids whose characters reach into the completion, an end-of-text not counted."""
    example: Example
    """Where it came from."""
    straddles: bool = False
    """True where the first target has characters of the prompt too."""


@dataclass(frozen=True)
class Encoding:
    """Encoded examples, and how many did not fit."""

    rows: tuple[EncodedExample, ...]
    """Those that fit, in order."""
    n_dropped: int
    """Examples whose completion does not fit."""

    @property
    def n_straddling(self) -> int:
        """Rows in which a token straddles the border of prompt and completion."""
        return sum(row.straddles for row in self.rows)


@dataclass(frozen=True)
class _Text:
    """A text as the tokenizer reads it, its own start tokens included and its own end tokens left out."""

    ids: list[int]
    """Token ids."""
    spans: list[tuple[int, int]] | None
    """Characters of each token, [start, end), (0, 0) of an added start token; None where the tokenizer knows none."""


def context_length(context: int, max_length: int | None) -> int:
    """Return the tokens an example may have: the user's limit or the default, never more than the context."""
    return min(context, max_length or DEFAULT_MAX_LENGTH)


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int, append_eos: bool = False) -> Encoding:
    """Tokenise examples as METHOD fixes it: prompt + completion once, as one text.

    A target is a token whose characters reach into the completion. One that straddles the border is a target too, and
    such rows are counted. Too long: the prompt is cut from the left, down to one token; an example whose completion
    does not fit beside it is dropped and counted.

    Args:
        tokenizer: a transformers tokenizer.
        examples: at least one.
        max_length: tokens per example, end-of-text included.
        append_eos: append end-of-text where the completion does not end in it, for training; it is never probed.

    Raises:
        DataError: an empty completion, or one without tokens (names the row); a prompt without tokens; or nothing fits.
    """
    end = tokenizer.eos_token_id
    rows: list[EncodedExample] = []
    for example, text in zip(examples, _read(tokenizer, [e.prompt + e.completion for e in examples]), strict=True):
        n_prompt, straddles = _border(tokenizer, example, text)
        for part, n_tokens in (("completion", len(text.ids) - n_prompt), ("prompt", n_prompt)):
            if not n_tokens:
                raise DataError(f"{_where(example)}: the {part} {getattr(example, part)!r} has no tokens.")
        ends = text.ids[-1] == end
        n_completion = max(1, len(text.ids) - n_prompt - ends)
        added = () if not append_eos or end is None or ends else (end,)
        room = max_length - (len(text.ids) - n_prompt) - len(added)
        if room >= 1:
            kept = tuple(text.ids[max(0, n_prompt - room) :])
            n_kept = min(n_prompt, room)
            rows.append(EncodedExample(kept + added, n_kept, n_completion, example, straddles))
    if not rows:
        raise DataError(f"No completion fits into {max_length} tokens; take shorter completions or a longer context.")
    return Encoding(tuple(rows), len(examples) - len(rows))


def straddling_words(n_straddling: int, of: str = "") -> str:
    """Return the sentence that tells of rows in which a token straddles the border; empty where there is none.

    Args:
        n_straddling: such rows.
        of: what is added to their number, such as ` of 200`.
    """
    if not n_straddling:
        return ""
    rows, have = ("row", "has") if n_straddling == 1 and not of else ("rows", "have")
    return (
        f"{n_straddling:,}{of} {rows} {have} a token that is part prompt, part completion; it counts as a target. "
        "Where the prompt ends in a blank, move it to the completion's beginning."
    )


def _border(tokenizer: Any, example: Example, text: _Text) -> tuple[int, bool]:
    """Return how many tokens come before the first target, and whether that one has characters of the prompt."""
    border = len(example.prompt)
    if text.spans is None:
        prompt = next(_read(tokenizer, [example.prompt])).ids
        pairs = zip(prompt, text.ids, strict=False)
        common = next(
            (place for place, (own, here) in enumerate(pairs) if own != here), min(len(prompt), len(text.ids))
        )
        return common, common < len(prompt)
    n_prompt = next((place for place, (_, end) in enumerate(text.spans) if end > border), len(text.ids))
    if n_prompt == len(text.ids):
        return n_prompt, False
    if text.spans[n_prompt][0] < border:
        return n_prompt, True
    # Byte-level tokenizers may leave a blank out of its token: that of " Paris" behind "is " then looks innocent.
    if not example.prompt[-1:].isspace() or (n_prompt and text.spans[n_prompt - 1][1] == border):
        return n_prompt, False
    return n_prompt, next(_read(tokenizer, [example.prompt])).ids != text.ids[:n_prompt]


def _read(tokenizer: Any, texts: Sequence[str]) -> Iterator[_Text]:
    """Yield each text as token ids with their characters; a part of them at a time: what a tokenizer returns is large.

    Equal ids are one object: a tokenizer makes a new one, four times the size of its place in a row, for every token.
    """
    one: dict[int, int] = {}
    fast = bool(tokenizer.is_fast)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found = tokenizer(
            list(texts[start : start + TEXTS_AT_ONCE]),
            return_special_tokens_mask=True,
            return_offsets_mapping=fast,
            verbose=False,
        )
        for place, (ids, added) in enumerate(zip(found["input_ids"], found["special_tokens_mask"], strict=True)):
            first, last = _inside(ids, added)
            spans = [(0, 0)] * first + found["offset_mapping"][place][first:last] if fast else None
            skipped = first if ids[:first] == ids[first : 2 * first] else 0  # the text begins with them already
            yield _Text([one.setdefault(token, token) for token in ids[skipped:last]], spans and spans[skipped:])


def _inside(ids: Sequence[int], added: Sequence[int]) -> tuple[int, int]:
    """Return where the tokens of the text itself begin and end, between those that the tokenizer adds."""
    first = next((place for place, mark in enumerate(added) if not mark), len(ids))
    last = len(ids)
    while last > first and added[last - 1]:
        last -= 1
    return first, last


def _where(example: Example) -> str:
    return "An example" if example.row is None else f"Row {example.row}"
