"""Every criterion: a contract for all, and cases worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from lsf.analysis.criteria import CRITERIA, power_law, score_blocks
from lsf.analysis.measurements import BlockGradient, Measurements
from lsf.errors import UnknownNameError

MEASURED = Measurements(
    n_blocks=3,
    seed=5,
    deviation=np.array([0.0, 0.4, 0.3, 0.6]),
    target_deviation=np.array([1.0, 0.9, 0.95, 0.5]),
    neighbour_cosine=np.array([0.2, 0.9, 0.7]),
    gradients=(
        BlockGradient((3.0, 4.0), (1.0, 2.0)),
        BlockGradient((0.0, 1.0), (0.0, 4.0)),
        BlockGradient((1.0,), (10.0,)),
    ),
)
BY_HAND = {
    "deviation": [0.4, 0.3, 0.6],
    "deviation_growth": [0.4, 0.0, 0.3],
    "reduction": [0.1, -0.05, 0.45],
    "block_influence": [0.8, 0.1, 0.3],
    "gradient_norm": [5.0, 1.0, 1.0],
    "relative_gradient": [2.5, 0.25, 0.1],
    "first": [3.0, 2.0, 1.0],
    "last": [1.0, 2.0, 3.0],
    "middle": [-1.0, 0.0, -1.0],
}


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_block_and_is_documented(name: str) -> None:
    entry = CRITERIA[name]
    scores = entry.score(MEASURED)
    assert scores is not None
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, entry.score(MEASURED))
    assert entry.meaning.endswith(".") and entry.label and entry.unit and entry.source
    assert name in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CRITERIA)
def test_what_was_not_measured_has_no_score(name: str) -> None:
    empty = Measurements(n_blocks=3)
    assert (CRITERIA[name].score(empty) is None) == (CRITERIA[name].needs != "nothing")


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_by_hand(name: str) -> None:
    np.testing.assert_allclose(CRITERIA[name].score(MEASURED), BY_HAND[name], atol=1e-12)  # type: ignore[arg-type]


def test_the_power_law_is_found_where_there_is_one() -> None:
    depth = np.arange(1, 13)
    law = 0.7 * depth**-1.3 + 0.2
    np.testing.assert_allclose(power_law(np.concatenate([[9.0], law])), law, atol=1e-6)


def test_a_block_that_falls_behind_the_law_has_headroom() -> None:
    law = 0.7 * np.arange(1, 13) ** -1.0 + 0.2
    law[6] += 0.2
    scores = CRITERIA["law_headroom"].score(Measurements(12, target_deviation=np.concatenate([[1.0], law])))
    assert scores is not None
    assert scores.argmax() == 6
    assert scores[6] == pytest.approx(0.2, abs=0.06)
    assert (scores >= 0).all()


def test_random_is_drawn_from_the_seed() -> None:
    draws = [CRITERIA["random"].score(Measurements(8, seed=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])  # type: ignore[arg-type]
    assert not np.array_equal(draws[0], draws[2])  # type: ignore[arg-type]


def test_an_unknown_criterion_is_answered_with_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Unknown criterion 'nope'; known are: deviation, "):
        score_blocks(("deviation", "nope"), MEASURED)
