"""From examples to token ids, as METHOD fixes it."""

import pytest

from lsf.data.encode import context_length, encode
from lsf.data.task import Example
from lsf.errors import DataError
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_special_tokens_go_to_the_prompt_and_the_completion_stands_bare() -> None:
    row = encode(TOKENIZER, [Example("the cat", " sat on")], 64).rows[0]
    assert row.ids == (1, *ids("the cat"), *ids("sat on"))
    assert (row.n_prompt, row.n_completion) == (3, 2)


def test_end_of_text_is_appended_for_training_only() -> None:
    row = encode(TOKENIZER, [Example("the cat", " sat")], 64, append_eos=True).rows[0]
    assert row.ids[-1] == TOKENIZER.eos_token_id
    assert row.n_completion == 1


def test_a_long_prompt_is_cut_from_the_left_and_a_long_completion_is_dropped_and_counted() -> None:
    examples = [Example("the cat sat on the mat", " one two"), Example("the", " one two three four")]
    found = encode(TOKENIZER, examples, 4)
    assert found.n_dropped == 1
    assert found.rows[0].ids == tuple(ids("the mat one two"))
    assert found.rows[0].n_prompt == 2


def test_nothing_fits() -> None:
    with pytest.raises(DataError, match="No completion fits into 3 tokens"):
        encode(TOKENIZER, [Example("the", " one two three")], 3)


def test_a_completion_without_tokens_names_its_row() -> None:
    with pytest.raises(DataError, match="Row 7: the completion ' ' has no tokens"):
        encode(TOKENIZER, [Example("the", " ", 7)], 8)


def test_the_length_is_bounded_by_the_context() -> None:
    assert context_length(64, None) == 64
    assert context_length(4096, None) == 1024
    assert context_length(4096, 2048) == 2048
    assert context_length(64, 2048) == 64
