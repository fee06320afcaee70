"""The best answer that ignores the prompt, worked by hand."""

from math import log
from typing import Any

import pytest
from transformers import AutoTokenizer

from lsf.data.contents import Segments
from lsf.data.encode import encode
from lsf.data.report import Prior, completion_ids, floor_of, prior_of
from lsf.data.task import Example


def test_the_prior_of_labels_is_their_frequency_in_training_spread_over_their_tokens() -> None:
    # training: three times (5, 6), once (7,); held out: (5, 6) and (7,), three tokens
    found = prior_of([(5, 6), (5, 6), (5, 6), (7,)], [(5, 6), (7,)], vocabulary=10)
    assert found.kind == "label frequencies"
    assert found.loss == pytest.approx((-log(3 / 4) - log(1 / 4)) / 3)
    assert found.exact_match == 0.5
    assert str(prior_of([(5,)], [(5,)], vocabulary=10).loss) == "0.0"  # not -0.0


def test_the_prior_of_text_is_the_frequency_of_each_token_with_one_imaginary_token_spread_over_the_vocabulary() -> None:
    # training tokens: 1 1 2 (and 1 imaginary); held out: 1 3, of which 3 was never seen
    found = prior_of([(1, 1), (2,)], [(1, 3)], vocabulary=10)
    assert found.kind == "token frequencies"
    assert found.loss == pytest.approx((-log(2.1 / 4) - log(0.1 / 4)) / 2)
    assert found.exact_match == 0.0


def test_the_floor_is_the_better_of_prior_and_base_in_loss_and_in_exact_match_each() -> None:
    prior = Prior("label frequencies", 1.6, 0.2)
    assert (floor_of(prior, 9.2, 0.3).loss, floor_of(prior, 9.2, 0.3).exact_match) == (1.6, 0.3)
    assert (floor_of(prior, 1.0, 0.1).loss, floor_of(prior, 1.0, 0.1).exact_match) == (1.0, 0.2)


def test_a_label_behind_segments_is_the_same_label_in_training_where_end_of_text_follows_it(tiny: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("llama"))
    parts = Segments(((False, "the cat is"), (True, " red")))
    pair, segments = Example("the cat is", " red"), Example("the cat is", " red", content=parts)
    for example in (pair, segments):
        train, held_out = (completion_ids(encode(tokenizer, [example], 64, eos).rows) for eos in (True, False))
        assert train == held_out
        assert prior_of(train, held_out, len(tokenizer)) == Prior("label frequencies", 0.0, 1.0)


def test_an_end_that_the_completions_have_themselves_is_a_token_of_the_prior_as_it_is_of_the_loss(tiny: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("llama"))
    for parts in (False, True):
        examples = [
            Example("the cat is", end, content=Segments(((False, "the cat is"), (True, end))) if parts else None)
            for end in (" red </s>", " blue </s>")
        ]
        train, held_out = (encode(tokenizer, examples, 64, eos).rows for eos in (True, False))
        prior = prior_of(completion_ids(train), completion_ids(held_out), len(tokenizer))
        # one of two labels, over the two tokens that are scored of each
        assert [row.n_targets for row in held_out] == [2, 2]
        assert (prior.kind, prior.loss, prior.exact_match) == ("label frequencies", pytest.approx(log(2) / 2), 0.5)
