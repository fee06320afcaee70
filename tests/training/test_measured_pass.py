"""Time over time: what is done in which order, and how far the median of few noisy ratios can be trusted."""

import numpy as np
import pytest

from lsf.training.measured_pass import LEAST_PAIRS, median_interval, time_in_turn


def test_the_interval_of_six_ratios_is_their_range_and_of_nine_leaves_one_out_at_either_end():
    six = median_interval([1.3, 1.0, 1.1, 0.9, 1.2, 5.0])
    assert (six.low, six.ratio, six.high) == (0.9, pytest.approx(1.15), 5.0)
    nine = median_interval([0.1, 0.9, 1.0, 1.0, 1.1, 1.2, 1.2, 1.3, 70.0])
    assert (nine.low, nine.ratio, nine.high) == (0.9, 1.1, 1.3)


@pytest.mark.parametrize("pairs", [LEAST_PAIRS, 15, 61])
def test_the_interval_holds_the_median_of_skewed_noise_in_at_least_95_of_100_draws(pairs):
    rng = np.random.default_rng(0)
    found = [median_interval(list(1.05 * np.exp(rng.exponential(1.0, pairs)) / 2)) for _ in range(4000)]
    held = np.mean([one.low <= 1.05 <= one.high for one in found])  # the median of exp(Exp(1)) is 2
    assert 0.945 <= held <= 0.985


def test_both_run_once_before_they_count_and_then_take_turns_at_going_first():
    calls: list[str] = []
    found = time_in_turn(lambda: calls.append("one"), lambda: calls.append("base"), seconds=1e9, most=8, close=0.0)
    assert calls[:2] == ["one", "base"] and len(calls) == 2 + 2 * 8
    assert calls[2:10] == ["base", "one", "one", "base", "base", "one", "one", "base"]
    assert 0 < found.low <= found.ratio <= found.high


def test_timing_ends_once_the_interval_is_narrow_enough():
    calls: list[str] = []
    time_in_turn(lambda: calls.append("one"), lambda: calls.append("base"), seconds=1e9, most=1000, close=1e9)
    assert len(calls) == 2 + 2 * LEAST_PAIRS
