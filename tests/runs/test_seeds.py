"""Means over seeds, and one mean over another, against the definition of their intervals."""

import numpy as np
import pytest
import scipy

from lsf.runs.comparison import compare
from lsf.runs.seeds import ONE_SEED, Estimate, ratio_of_means, summarise
from tests.runs.test_comparison import make


def two(value: float) -> str:
    return f"{value:.2f}"


@pytest.mark.parametrize("seed", range(4))
def test_fiellers_interval_holds_the_ratios_at_which_the_difference_cannot_be_told_from_zero(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lower = draw.normal(1.0, 0.2, 5)
    upper = 0.6 * lower + draw.normal(0.0, 0.1, 5)
    found = ratio_of_means(list(zip(upper.tolist(), lower.tolist(), strict=True)))
    assert found is not None and found.low is not None and found.high is not None
    assert found.mean == pytest.approx(upper.mean() / lower.mean())
    for ratio, inside in (
        (found.low + 1e-6, True),
        (found.low - 1e-6, False),
        (found.high - 1e-6, True),
        (found.high + 1e-6, False),
    ):
        assert (scipy.stats.ttest_1samp(upper - ratio * lower, 0.0).pvalue > 0.05) == inside


def test_where_the_lower_mean_may_be_zero_there_is_a_ratio_and_no_interval() -> None:
    found = ratio_of_means([(0.2, 0.4), (0.2, 0.4), (0.2, 0.02)])
    assert found == Estimate(pytest.approx(0.6 / 0.82), None, None, 3)  # type: ignore[arg-type]
    assert found is not None and found.words(two) == "no interval, 3 seeds"
    assert ratio_of_means([(0.2, -0.1), (0.2, 0.1)]) is None
    assert ratio_of_means([]) is None


def test_a_mean_over_itself_is_one_and_one_seed_has_no_interval() -> None:
    found = ratio_of_means([(0.7, 0.7), (0.9, 0.9), (0.8, 0.8)])
    assert found is not None and (found.mean, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    single = ratio_of_means([(0.5, 1.0)])
    assert single is not None and single.words(two) == ONE_SEED


def test_numbers_that_have_steps_of_their_own_leave_a_ratio_as_wide_as_one_of_them() -> None:
    found = ratio_of_means([(0.4, 0.8), (0.4, 0.8)], least=0.1)
    assert found is not None and (found.mean, found.low, found.high) == pytest.approx((0.5, 0.375, 0.625))
    wide = [(0.2, 0.8), (0.6, 0.8)]
    assert ratio_of_means(wide, least=0.1) == ratio_of_means(wide)


def test_words_say_how_many_seeds_are_lacking() -> None:
    assert Estimate(0.5, 0.4, 0.6, 2, lacking=1).words(two) == "0.40 to 0.60, 2 of 3 seeds"
    assert Estimate(0.5, None, None, 1, lacking=2).words(two) == "1 of 3 seeds"


def test_what_is_over_the_full_run_is_mean_over_mean_and_seeds_without_one_are_counted() -> None:
    runs = []
    for seed, whole in enumerate((0.9, 0.9, 0.1)):
        runs.append(make(f"f{seed}", "full", exact=whole, loss=0.5, role="full", seed=seed))
        runs.append(make(f"c{seed}", exact=0.6, loss=1.75, seed=seed))
    runs.append(make("c3", exact=0.2, loss=1.0, seed=3))
    rows = compare(runs).rows
    (found,) = [one for one in summarise(rows) if one.role == "choice"]
    assert found.mean["x_quality"] == pytest.approx(1.8 / 1.9)  # the mean of ratios is 2.44
    assert found.mean["x_gain"] == pytest.approx(1.25 / 2.5)
    assert found.spread["x_quality"] is None
    quality = found.over_full["x_quality"]
    assert quality is not None and (quality.n, quality.lacking) == (3, 1)
    assert (found.known["x_time"], found.known["exact_match_after"]) == (3, 4)
    (alone,) = summarise([row for row in rows if row.role == "choice"])
    assert alone.mean["x_quality"] is None
