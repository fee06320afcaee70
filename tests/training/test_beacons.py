"""Training examples chosen by their distance."""

import numpy as np
import pytest

from lsf.errors import BadInputError
from lsf.training.reweighting import control, drawn, fell, filtered, weights

DISTANCE = np.array([0.5, 0.1, 0.12, 1.9, 0.11])


def test_the_filter_starts_at_the_nearest_and_trades_mean_for_variance() -> None:
    # After 0.1: adding 1.9 gives variance 0.81 - mean 1.0 = -0.19; adding 0.11 gives about 0 - 0.105 = -0.105.
    assert filtered(DISTANCE, 2).tolist() == [1, 4]
    assert sorted(filtered(DISTANCE, 5).tolist()) == [0, 1, 2, 3, 4]
    spread = np.array([0.0, 0.3, 2.0])  # 2.0 brings variance 1.0 and mean 1.0; 0.3 brings 0.0225 and 0.15
    assert filtered(spread, 2).tolist() == [0, 2]


def test_weights_have_mean_one_and_grow_with_the_distance() -> None:
    found = weights(DISTANCE, 0.5)
    assert found.mean() == pytest.approx(1.0)
    assert np.argsort(found).tolist() == np.argsort(DISTANCE).tolist()
    assert found[3] / found[0] == pytest.approx(np.exp((1.9 - 0.5) / 0.5))


def test_far_examples_are_drawn_more_often_and_the_control_knows_no_distance() -> None:
    counts = np.bincount(drawn(DISTANCE, 5000, 1.0, 0), minlength=5) / 5000
    np.testing.assert_allclose(counts, weights(DISTANCE, 1.0) / 5, atol=0.03)
    assert len(set(control(100, 30, 0).tolist())) == 30
    assert control(100, 30, 0).tolist() == control(100, 30, 0).tolist() != control(100, 30, 1).tolist()


def test_the_share_that_fell() -> None:
    assert fell(DISTANCE, np.array([0.4, 0.2, 0.12, 1.0, 0.11])) == pytest.approx(0.4)


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(BadInputError, match="6 examples are to be kept; the data has 5, so 1 to 5 can be"):
        filtered(DISTANCE, 6)
    for tau in (0.0, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match=f"tau is {tau}"):
            weights(DISTANCE, tau)
