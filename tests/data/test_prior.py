"""The best answer that ignores the prompt, worked by hand."""

from math import log

import pytest

from lsf.data.prior import Prior, floor_of, prior_of


def test_the_prior_of_labels_is_their_frequency_in_training_spread_over_their_tokens() -> None:
    # training: three times (5, 6), once (7,); held out: (5, 6) and (7,), three tokens
    found = prior_of([(5, 6), (5, 6), (5, 6), (7,)], [(5, 6), (7,)], vocabulary=10)
    assert found.kind == "label frequencies"
    assert found.loss == pytest.approx((-log(3 / 4) - log(1 / 4)) / 3)
    assert found.exact_match == 0.5


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
