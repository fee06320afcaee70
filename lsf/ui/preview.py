"""Three examples as the model will read them, with the tokens that are trained on marked, and what does not fit."""

from html import escape
from typing import Any

import streamlit as st

from lsf.data.encode import EncodedExample, context_length, encode, straddling_words
from lsf.data.task import Example, Task
from lsf.errors import LsfError
from lsf.ui.bench import bench
from lsf.ui.guard import guard

SHOWN = 3
COUNTED = 2_000
"""Examples that are tokenised to count what does not fit."""


def show_preview(task: Task, model: str, max_length: int | None) -> None:
    """Draw the first examples and the counts of a task.

    Args:
        task: the data.
        model: whose tokenizer is used, where it can be had without loading weights.
        max_length: tokens per example, as the settings have it.
    """
    counts = f"{len(task.train):,} training, {len(task.validation):,} validation and {len(task.test):,} test examples"
    drawn = "" if task.own_splits else " (the splits were drawn, since the data names none)"
    st.markdown(f"{counts}{drawn}.")
    reader = _reader(model)
    if reader is None:
        _plain(task.train[:SHOWN])
        st.caption("Tokens are marked once the tokenizer is at hand: when the model is loaded.")
        return
    tokenizer, context = reader
    with guard():
        _tokens(tokenizer, task, context_length(context, max_length))


def _plain(examples: tuple[Example, ...]) -> None:
    for example in examples:
        st.html(f"<div class='lsf-tokens'>{escape(example.prompt)}<b>{escape(example.completion)}</b></div>")


def _tokens(tokenizer: Any, task: Task, max_length: int) -> None:
    examples = task.train[:COUNTED]
    encoding = encode(tokenizer, examples, max_length, append_eos=True)
    for row in encoding.rows[:SHOWN]:
        st.html(_marked(tokenizer, row))
    st.caption("Marked: the tokens that are trained on (the completion and end-of-text). The rest is only read.")
    of = "" if len(examples) == len(task.train) else f" of the first {COUNTED:,}"
    if encoding.n_dropped:
        st.warning(
            f"{encoding.n_dropped:,}{of} training examples are left out: their completion does not fit into "
            f"{max_length:,} tokens."
        )
    else:
        st.caption(f"Every training example{of} fits into {max_length:,} tokens.")
    if told := straddling_words(encoding.n_straddling, of):
        st.warning(told)


def _marked(tokenizer: Any, row: EncodedExample) -> str:
    pieces = tokenizer.convert_ids_to_tokens(list(row.ids))
    parts = []
    for place, piece in enumerate(pieces):
        text = escape(str(piece).replace("Ġ", "␣").replace("▁", "␣").replace("Ċ", "⏎"))
        parts.append(f"<b>{text}</b>" if place >= row.n_prompt else text)
    return f"<div class='lsf-tokens'>{' '.join(parts)}</div>"


def _reader(model: str) -> tuple[Any, int] | None:
    """A model's tokenizer and context, if no weights and no network are needed for them."""
    loaded = bench().loaded()
    if loaded is not None and loaded.info.name == model:
        return loaded.tokenizer, loaded.context
    if not bench().ready:
        return None
    from lsf.measure.source import at_hand  # noqa: PLC0415 - imports torch, which is in memory by now

    return _local_reader(model) if at_hand(model) else None


@st.cache_resource(max_entries=2, show_spinner=False)
def _local_reader(model: str) -> tuple[Any, int] | None:
    from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415 - in memory by now

    from lsf.measure.source import find_model  # noqa: PLC0415

    try:
        folder = find_model(model).folder
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (LsfError, OSError, ValueError, KeyError):
        return None  # the model's own part of the page says what is wrong with it
    return tokenizer, getattr(config, "max_position_embeddings", 1024)
