"""From an example to token ids: prompt with the tokenizer's own special tokens, then the bare completion."""

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
    """Ids of the prompt; the first completion token is predicted at position n_prompt - 1."""
    n_completion: int
    """Ids of the completion, end-of-text not counted."""
    example: Example
    """Where it came from."""


@dataclass(frozen=True)
class Encoding:
    """Encoded examples, and how many did not fit."""

    rows: tuple[EncodedExample, ...]
    """Those that fit, in order."""
    n_dropped: int
    """Examples whose completion does not fit."""


def context_length(context: int, max_length: int | None) -> int:
    """Return the tokens an example may have: the user's limit or the default, never more than the context."""
    return min(context, max_length or DEFAULT_MAX_LENGTH)


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int, append_eos: bool = False) -> Encoding:
    """Tokenise examples as METHOD fixes it.

    Too long: the prompt is cut from the left, down to one token; an example whose completion does not fit beside it is
    dropped and counted.

    Args:
        tokenizer: a transformers tokenizer.
        examples: at least one.
        max_length: tokens per example, end-of-text included.
        append_eos: append end-of-text, for training; it is never probed.

    Raises:
        DataError: an empty completion, or one without tokens (names the row); a prompt without tokens; or nothing fits.
    """
    end = (tokenizer.eos_token_id,) if append_eos and tokenizer.eos_token_id is not None else ()
    prompts = _token_ids(tokenizer, [example.prompt for example in examples], verbose=False)
    completions = _token_ids(tokenizer, [example.completion for example in examples], add_special_tokens=False)
    rows: list[EncodedExample] = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        for part, ids in (("completion", completion), ("prompt", prompt)):
            if not ids:
                raise DataError(f"{_where(example)}: the {part} {getattr(example, part)!r} has no tokens.")
        room = max_length - len(completion) - len(end)
        if room >= 1:
            kept = tuple(prompt[-room:])
            rows.append(EncodedExample(kept + tuple(completion) + end, len(kept), len(completion), example))
    if not rows:
        raise DataError(f"No completion fits into {max_length} tokens; take shorter completions or a longer context.")
    return Encoding(tuple(rows), len(examples) - len(rows))


def _token_ids(tokenizer: Any, texts: Sequence[str], **options: bool) -> Iterator[list[int]]:
    """Yield the ids of each text; a part of them at a time, since a tokenizer's answer is far larger than its ids.

    Equal ids are one object: a tokenizer makes a new one, four times the size of its place in a row, for every token.
    """
    one: dict[int, int] = {}
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        for ids in tokenizer(texts[start : start + TEXTS_AT_ONCE], **options)["input_ids"]:
            yield [one.setdefault(token, token) for token in ids]


def _where(example: Example) -> str:
    return "An example" if example.row is None else f"Row {example.row}"
