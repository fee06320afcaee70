"""Rank correlations between criteria, and the growing samples an analysis records."""

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import scipy

from lsf.criteria.agreement import (
    chance_level,
    correlation_matrix,
    first_quarter,
    kernel_samples,
    rank_correlation,
    settled,
    shared_top,
    stability,
)
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, Sample, Timing, is_mark
from lsf.criteria.scores import Measurements
from lsf.criteria.transitions import Readings
from lsf.data.task import Example
from lsf.lens.builder import AnalysisBuilder
from tests.criteria.factory import analysis_of


def test_a_case_worked_by_hand() -> None:
    one, other = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]  # one of six pairs is swapped
    assert rank_correlation(one, other, "kendall") == pytest.approx((5 - 1) / 6)
    assert rank_correlation(one, other, "spearman") == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_tied_scores_share_their_mean_rank() -> None:
    one, other = [1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]
    ranks = np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1]
    assert rank_correlation(one, other, "spearman") == pytest.approx(ranks)
    assert rank_correlation(one, other, "kendall") == pytest.approx(5 / np.sqrt(5 * 6))  # tau-b


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_scores_that_rank_nothing_are_unknown_and_not_uncorrelated(method: str) -> None:
    assert rank_correlation([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], method) is None
    assert rank_correlation([1.0, None, 2.0], [1.0, 2.0, 3.0], method) is None
    assert rank_correlation([1.0], [2.0], method) is None


def test_the_matrix_is_symmetric_with_ones_where_something_is_ranked() -> None:
    matrix = correlation_matrix({"a": (1.0, 2.0, 3.0), "b": (3.0, 2.0, 1.0), "flat": (1.0, 1.0, 1.0)})
    assert matrix == [[1.0, -1.0, None], [-1.0, 1.0, None], [None, None, None]]


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_one_unrelated_pair_in_twenty_lies_beyond_the_chance_level(method: str) -> None:
    draw = np.random.default_rng(0)
    level = chance_level(24, method)
    assert level is not None
    pairs = [draw.normal(size=(2, 24)) for _ in range(2000)]
    found = [rank_correlation(one.tolist(), other.tolist(), method) for one, other in pairs]
    beyond = np.mean([abs(value) > level for value in found if value is not None])
    assert 0.035 < beyond < 0.065
    assert chance_level(4, method) is None


@pytest.mark.parametrize("method", ["spearman", "kendall"])
@pytest.mark.parametrize("n_blocks", [5, 6])
def test_of_few_blocks_every_order_is_counted(n_blocks: int, method: str) -> None:
    level, ranked = chance_level(n_blocks, method), list(map(float, range(n_blocks)))
    assert level is not None
    found = [rank_correlation(ranked, order, method) or 0.0 for order in permutations(ranked)]
    assert np.mean([abs(value) > level + 1e-9 for value in found]) <= 0.05
    assert np.mean([abs(value) > level - 1e-9 for value in found]) > 0.05


def squares(n_blocks: int) -> np.ndarray:
    """Return how many orders of so many blocks have each sum of squared differences of ranks, by sets of places."""
    most = n_blocks * (n_blocks**2 - 1) // 3
    counts = np.zeros((1 << n_blocks, most + 1), dtype=np.int64)
    counts[0, 0] = 1
    for taken in range(1 << n_blocks):
        block = taken.bit_count()
        for place in (place for place in range(n_blocks) if not taken >> place & 1):
            apart = (block - place) ** 2
            counts[taken | 1 << place, apart:] += counts[taken, : most + 1 - apart]
    return counts[-1]


@pytest.mark.parametrize("n_blocks", [8, 9, 10, 11, 12])
def test_the_level_of_spearmans_rho_is_that_of_counting_every_order(n_blocks: int) -> None:
    orders = squares(n_blocks)
    assert orders.sum() == math.factorial(n_blocks)
    size = np.abs(1 - 6 * np.arange(len(orders)) / (n_blocks * (n_blocks**2 - 1)))
    level = chance_level(n_blocks)
    assert level is not None
    beyond, reached = (orders[size > level + shift].sum() / orders.sum() for shift in (1e-9, -1e-9))
    assert beyond <= 0.05 < reached


@pytest.mark.parametrize("n_blocks", [9, 12, 16, 24, 30, 36, 48])
def test_at_most_one_pair_in_twenty_lies_beyond_the_level_of_kendalls_tau(n_blocks: int) -> None:
    level = chance_level(n_blocks, "kendall")
    assert level is not None
    pairs = n_blocks * (n_blocks - 1) // 2
    beyond = math.floor(pairs * (1 - level) / 2 - 1e-9)  # so many pairs of blocks at most are the other way round
    tau = 1 - 2 * beyond / pairs
    assert scipy.stats.kendalltau(range(n_blocks), reordered(n_blocks, beyond), method="exact").pvalue <= 0.05
    assert tau > level


def reordered(n_blocks: int, n_inversions: int) -> list[int]:
    """Return an order of so many inversions."""
    left, order = list(range(n_blocks)), []
    for rest in range(n_blocks - 1, -1, -1):
        jump = min(rest, n_inversions)
        order.append(left.pop(jump))
        n_inversions -= jump
    return order


def test_levels_that_were_right_stay_what_they_were() -> None:
    assert chance_level(8) == pytest.approx(0.714286, abs=1e-6)
    assert chance_level(30, "kendall") == pytest.approx(0.252545, abs=1e-6)
    assert f"{chance_level(30):.2f}" == "0.36"


def test_what_two_rankings_share_at_the_top() -> None:
    assert [first_quarter(n) for n in (1, 3, 8, 33)] == [1, 1, 2, 8]
    assert shared_top([4.0, 3.0, 2.0, 1.0], [4.0, 1.0, 2.0, 3.0], 2) == 0.5


def test_samples_are_marked_twice_in_every_doubling() -> None:
    assert [count for count in range(50) if is_mark(count)] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]


def test_growing_samples_survive_the_file_and_their_absence_is_null(tmp_path: Path) -> None:
    plain = analysis_of([1.0, 2.0])
    plain.save(tmp_path / "plain.json")
    assert '"growth": null' in (tmp_path / "plain.json").read_text()
    assert Analysis.load(tmp_path / "plain.json").growth is None
    sample = Sample(16, {"deviation": (1.0, 2.0)}, {"deviation": None}, {"deviation": False})
    grown = type(plain)(**{**vars(plain), "growth": (sample,)})
    grown.save(tmp_path / "grown.json")
    assert Analysis.load(tmp_path / "grown.json").growth == (sample,)


def test_a_sample_in_which_a_score_overflowed_is_read_again_and_compared_with_nothing(tmp_path: Path) -> None:
    plain = analysis_of([1.0, 2.0])
    lost, kept = (
        Sample(n, {"deviation": (first, 2.0)}, {"deviation": None}, {"deviation": False})
        for n, first in ((8, float("nan")), (16, 1.0))
    )
    grown = type(plain)(**{**vars(plain), "growth": (lost, kept)})
    grown.save(tmp_path / "grown.json")
    again = Analysis.load(tmp_path / "grown.json")
    assert again.growth is not None and again.growth[0].scores["deviation"] == (None, 2.0)
    counts = [[row.n_examples for row in stability(one, "deviation")] for one in (grown, again)]
    assert counts[0] == counts[1] and 16 in counts[0] and 8 not in counts[0]


def _readings(draw: np.random.Generator, start: int, n: int = 16, n_blocks: int = 3, width: int = 6) -> Readings:
    return Readings(
        examples=np.arange(start, start + n),
        current_tokens=np.zeros(n, dtype=np.int64),
        target_tokens=np.ones(n, dtype=np.int64),
        to_start=draw.uniform(-0.5, 0.5, size=(n, n_blocks + 1)),
        to_heading=draw.uniform(-0.5, 0.5, size=(n, n_blocks + 1)),
        to_target=draw.uniform(-0.5, 0.5, size=(n, n_blocks + 1)),
        angle=draw.uniform(0.5, 2.0, size=n),
        pictured=np.arange(n),
        factual=draw.normal(size=(n, n_blocks + 1, width)).astype(np.float32),
        anchor=draw.normal(size=(n, width)).astype(np.float32),
        basis=draw.normal(size=(n, width)).astype(np.float32),
        neighbour_cosine=draw.uniform(size=(n, n_blocks)).astype(np.float32),
        target_probability=np.full((n, n_blocks + 1), 0.5, dtype=np.float32),
        target_rank=np.ones((n, n_blocks + 1), dtype=np.int64),
        top_tokens=np.ones((n, n_blocks + 1, 2), dtype=np.int64),
        top_probabilities=np.full((n, n_blocks + 1, 2), 0.5, dtype=np.float32),
    )


def test_a_stream_records_what_it_would_have_said_had_it_ended_earlier() -> None:
    info = analysis_of([0.0, 0.0, 0.0])
    criteria = ("deviation", "block_influence", "gradient_norm", "last")

    def builder() -> AnalysisBuilder:
        examples = [Example("a", " b") for _ in range(200)]
        return AnalysisBuilder(
            info.model, info.data, [1, 1, 1], examples, str, lambda example, nth: "", criteria, 0, {}
        )

    draw = np.random.default_rng(0)
    batches = [_readings(draw, 16 * index) for index in range(5)]
    whole, short = builder(), builder()
    for batch in batches:
        whole.add(batch)
    for batch in batches[:4]:
        short.add(batch)
    growth = whole.result(Timing(None, None, None)).growth
    assert growth is not None
    assert [sample.n_examples for sample in growth] == [16, 32, 48, 64]
    assert set(growth[-1].scores) == {"deviation", "block_influence"}
    assert growth[-1].scores["deviation"] == short.result(Timing(None, None, None)).scores("deviation")
    halves = short.halves("deviation")
    assert halves is not None
    assert growth[-1].settled["deviation"] is settled(*halves)
    assert growth[-1].halves["deviation"] == rank_correlation(*halves, "kendall")
    assert growth[1].settled["deviation"] is None  # 32 examples are too few to be judged
    assert growth[0].halves["deviation"] is None  # one batch has no halves


def test_kernels_grow_from_the_first_examples_to_all_of_them() -> None:
    factors = np.random.default_rng(5).normal(size=(4, 20, 3))
    kernels = factors @ np.swapaxes(factors, 1, 2)
    found = kernel_samples(kernels, ("stiffness", "alignment"))
    assert [sample.n_examples for sample in found] == [8, 12, 16, 20]
    whole = CRITERIA["alignment"].score(Measurements(4, kernels=kernels))
    first = CRITERIA["alignment"].score(Measurements(4, kernels=kernels[:, :8, :8]))
    assert found[-1].scores["alignment"] == pytest.approx(whole)
    assert found[0].scores["alignment"] == pytest.approx(first)
    even, odd = (CRITERIA["alignment"].score(Measurements(4, kernels=kernels[:, i:8:2, i:8:2])) for i in (0, 1))
    assert even is not None and odd is not None
    assert found[0].halves["alignment"] == rank_correlation(even.tolist(), odd.tolist(), "kendall")
    assert found[0].settled == {"stiffness": None, "alignment": None}
    assert kernel_samples(kernels[:, :7, :7], ("alignment",)) == []
    assert kernel_samples(kernels, ()) == []
