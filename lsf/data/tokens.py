"""Texts as token ids with the characters that each token stands for, a batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

TEXTS_AT_ONCE = 128
"""Texts handed to the tokenizer at a time."""


@dataclass(frozen=True)
class Text:
    """A text as the tokenizer reads it, its own start tokens included and its own end tokens left out."""

    ids: list[int]
    """Token ids."""
    spans: list[tuple[int, int]] | None
    """Characters of each token, [start, end), (0, 0) of an added start token; None where the tokenizer knows none."""


class Same(dict[int, int]):
    """Gives equal ids as one object."""

    def __missing__(self, key: int) -> int:
        """Keep the first of its kind."""
        self[key] = key
        return key


def tokenised(tokenizer: Any, texts: Sequence[str], special: bool = True, one: Same | None = None) -> Iterator[Text]:
    """Yield each text as token ids with their characters; a part of them at a time: what a tokenizer returns is large.

    Equal ids are one object: a tokenizer makes a new one, four times the size of its place in a row, for every token.
    """
    one = Same() if one is None else one
    fast = bool(tokenizer.is_fast)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found = tokenizer(
            list(texts[start : start + TEXTS_AT_ONCE]),
            return_special_tokens_mask=special or not fast,
            return_attention_mask=False,
            return_token_type_ids=False,
            add_special_tokens=special,
            return_offsets_mapping=fast,
            verbose=False,
        )
        for place, ids in enumerate(found["input_ids"]):
            added = found["special_tokens_mask"][place] if special or not fast else None
            first, last = (0, len(ids)) if added is None else _inside(ids, added)
            spans = found["offset_mapping"][place] if fast else None
            if spans is not None and (first or last < len(ids)):
                spans = [(0, 0)] * first + spans[first:last]
            skipped = first if ids[:first] == ids[first : 2 * first] else 0  # the text begins with them already
            kept = list(map(one.__getitem__, ids[skipped:last]))
            yield Text(kept, spans[skipped:] if spans and skipped else spans)


def _inside(ids: Sequence[int], added: Sequence[int]) -> tuple[int, int]:
    """Return where the tokens of the text itself begin and end, between those that the tokenizer adds."""
    first = next((place for place, mark in enumerate(added) if not mark), len(ids))
    last = len(ids)
    while last > first and added[last - 1]:
        last -= 1
    return first, last
