"""What the model will read: the first examples, token by token, and what is counted of all."""

from collections.abc import Sequence
from html import escape
from typing import Any

import streamlit as st

from lsf.app.data_input import changed_at
from lsf.app.panels import guard
from lsf.app.runtime import runtime
from lsf.data.encode import EncodedExample, context_length, encode, straddling_words
from lsf.data.report import count_tokens, format_lines, pieces_of, shared_prompts, token_lines, unknown_words
from lsf.data.task import Example, Task
from lsf.errors import LsfError
from lsf.wording import counted

ENDS_SHOWN = 120
"""Tokens shown at both ends of a long row, whose middle is folded."""
SHOWN, COUNTED = 3, 2_000
"""Examples that are tokenised to count what does not fit."""


def show_preview(task: Task, model: str, max_length: int | None) -> None:
    """Draw the first examples and the counts of a task.

    Args:
        task: the data.
        model: whose tokenizer is used, where it can be had without loading weights.
        max_length: tokens per example, as the settings have it.
    """
    held_out = f"{len(task.validation):,} validation and {counted(len(task.test), 'test example')}"
    counts = f"{len(task.train):,} training, {held_out}"
    drawn = "" if task.own_splits else " (split at random, since the data names no splits)"
    st.markdown(f"{counts}{drawn}.")
    seen = [*format_lines(task)[: len(task.seen.formats) + 1], *task.seen.notes, *shared_prompts(task)]
    if seen and task.seen.formats:
        st.text("\n".join(seen))
    reader = _reader(model)
    if reader is None:
        _plain(task.train[:SHOWN])
        st.caption("Tokens are marked once the model is loaded, which brings the tokenizer.")
        return
    tokenizer, context = reader
    with guard():
        _tokens(tokenizer, task, context_length(context, max_length))


def _plain(examples: Sequence[Example]) -> None:
    for example in examples:
        st.html(f"<div class='lsf-tokens'>{escape(example.prompt)}<b>{escape(example.completion)}</b></div>")


def _tokens(tokenizer: Any, task: Task, max_length: int) -> None:
    examples = task.train[:COUNTED]
    encoding = encode(tokenizer, examples, max_length, append_eos=True)
    for row in encoding.rows[:SHOWN]:
        st.html(_marked(tokenizer, row))
    st.caption(
        "Marked: the tokens that are trained on, underlined where they end a turn or text. The rest is only read."
    )
    facts = count_tokens([[encoding]], tokenizer, len(tokenizer))
    st.text("\n".join(token_lines(facts, max_length)[:3] + [f"note: {fact}" for fact in facts.facts]))
    of = "" if len(examples) == len(task.train) else f" of the first {COUNTED:,}"
    if encoding.n_dropped:
        st.warning(
            f"{encoding.n_dropped:,}{of} training examples are left out: their completion does not fit into "
            f"{counted(max_length, 'token')}."
        )
    else:
        st.caption(f"Every training example{of} fits into {counted(max_length, 'token')}.")
    for told in filter(None, (unknown_words(facts), straddling_words(encoding.n_straddling, of))):
        st.warning(told)


def _marked(tokenizer: Any, row: EncodedExample) -> str:
    parts = []
    for piece in pieces_of(tokenizer, row):
        text = escape(piece.text.replace(" ", "␣").replace("\n", "⏎"))
        text = f"<u>{text}</u>" if piece.ends else text
        parts.append(f"<b>{text}</b>" if piece.trained else text)
    middle = parts[ENDS_SHOWN:-ENDS_SHOWN]
    if len(middle) > ENDS_SHOWN:
        folded = f"<details><summary>{counted(len(middle), 'more token')}</summary>{' '.join(middle)}</details>"
        parts = [*parts[:ENDS_SHOWN], folded, *parts[-ENDS_SHOWN:]]
    return f"<div class='lsf-tokens'>{' '.join(parts)}</div>"


def _reader(model: str) -> tuple[Any, int] | None:
    """A model's tokenizer and context, if no weights and no network are needed for them."""
    loaded = runtime().loaded()
    if loaded is not None and loaded.info.name == model:
        return loaded.tokenizer, loaded.context
    if not runtime().ready:
        return None
    from lsf.models.supported import at_hand  # noqa: PLC0415 - imports torch, which is in memory by now

    return _local_reader(model, changed_at(model)) if at_hand(model) else None


@st.cache_resource(max_entries=2, show_spinner=False)
def _local_reader(model: str, stamp: float) -> tuple[Any, int] | None:
    from lsf.models.weights import tokenizer_of  # noqa: PLC0415 - imports torch, which is in memory by now

    try:
        return tokenizer_of(model)[:2]
    except LsfError:
        return None  # the model's own part of the page says what is wrong with it
