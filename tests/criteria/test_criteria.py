"""Every criterion: a contract for all, and cases worked by hand."""

import numpy as np
import pytest

from lsf.criteria.registry import CRITERIA, score_blocks
from lsf.criteria.scores import BlockGradient, Measurements, Spectrum, power_law
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
    semantic_loss=np.array([4.0, 3.0, 2.0, 2.5]),
    mean_path=np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 1.0], [4.0, 0.0]]) @ np.eye(2, 5),
    ablation_rise=np.array([0.2, -0.1, 1.5]),
    sampled_states=np.random.default_rng(0).normal(size=(6, 4, 5)),
    fisher=np.array([0.1, 0.3, 0.2]),
    kernels=np.stack([np.eye(4), np.ones((4, 4)), np.diag([1.0, 0.0, 0.0, 0.0])]),
    first_order_drop=np.array([0.01, 0.02, 0.03]),
    spectra=tuple((Spectrum(np.array([9.0, 2.0, 1.9, 1.8, 1.0]) + shift, (5, 20)),) for shift in (0.0, 1.0, 5.0)),
    probe_drop=np.array([0.5, 0.1, 0.4]),
)
BY_HAND = {
    "deviation": [0.4, 0.3, 0.6],
    "deviation_growth": [0.4, 0.0, 0.3],
    "reduction": [0.1, -0.05, 0.45],
    "block_influence": [0.8, 0.1, 0.3],
    # (1, 3) is 3 from the chord of the ends; then (2, 1) is 3 / sqrt 18 from that of (1, 3) and (4, 0)
    "polyline": [3.0, 0.5**0.5, 3.0],
    "ablation": [0.2, -0.1, 1.5],
    "gradient_norm": [5.0, 1.0, 1.0],
    "relative_gradient": [2.5, 0.25, 0.1],
    "semantic_loss": [3.0, 2.0, 2.5],
    "fisher": [0.1, 0.3, 0.2],
    "first_order_drop": [0.01, 0.02, 0.03],
    "probe": [0.5, 0.1, 0.4],
    "condition": [-9.0, -5.0, -14 / 6],
    # all directions alike: everything is fitted; one shared direction: that of the ones; one example of four alone
    "ntk": [1.0, 1.0, 0.25],
    "stiffness": [0.0, 1.0, 0.0],
    "alignment": [0.0, 1.0, 0.0],
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


@pytest.mark.parametrize("name", CRITERIA)
def test_what_was_not_measured_has_no_score(name: str) -> None:
    empty = Measurements(n_blocks=3)
    assert (CRITERIA[name].score(empty) is None) == (CRITERIA[name].needs != "nothing")


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_by_hand(name: str) -> None:
    np.testing.assert_allclose(CRITERIA[name].score(MEASURED), BY_HAND[name], atol=1e-7)  # type: ignore[arg-type]


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


def test_no_exponent_fits_better_than_the_law_that_is_found() -> None:
    flat = np.array([1.0403, 1.0569, 1.0666, 1.0460, 1.0463, 1.0488, 1.0402, 1.0350])  # best near a = 0, a logarithm
    depth = np.arange(1, 9, dtype=np.float64)
    for values in (flat, flat[::-1], 1.0 - 0.1 * np.log(depth), np.where(depth > 1, 0.5, 1.0)):
        errors = []
        for exponent in np.geomspace(1e-5, 10, 200):
            line = np.stack([depth**-exponent, np.ones(8)], axis=1)
            errors.append(float(((values - line @ np.linalg.lstsq(line, values, rcond=None)[0]) ** 2).sum()))
        found = power_law(np.concatenate([[1.0], values]))
        assert ((values - found) ** 2).sum() <= min(errors) + 1e-6 * values.var()


def test_a_state_goes_with_the_one_it_was_split_at() -> None:
    path = np.array([[0.0, 0.0], [1.0, -2.9], [5.0, 3.0], [10.0, 0.0]])  # (1, -2.9) lies 3.07 from its own chord
    scores = CRITERIA["polyline"].score(Measurements(3, mean_path=path))
    np.testing.assert_allclose(scores, [3.0, 3.0, 3.0])  # type: ignore[arg-type]
    still = CRITERIA["polyline"].score(Measurements(2, mean_path=np.zeros((3, 2))))
    np.testing.assert_array_equal(still, [0.0, 0.0])  # type: ignore[arg-type]


def test_random_is_drawn_from_the_seed() -> None:
    draws = [CRITERIA["random"].score(Measurements(8, seed=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])  # type: ignore[arg-type]
    assert not np.array_equal(draws[0], draws[2])  # type: ignore[arg-type]


def test_an_unknown_criterion_is_answered_with_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Unknown criterion 'nope'; known are: deviation, "):
        score_blocks(("deviation", "nope"), MEASURED)


def test_likeness_does_not_change_under_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(1)
    state = rng.normal(size=(20, 6))
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    states = np.stack([state, 3.0 * state @ turn + 7.0, rng.normal(size=(20, 6))], axis=1)
    scores = CRITERIA["cka"].score(Measurements(2, sampled_states=states))
    assert scores is not None
    assert scores[0] == pytest.approx(0, abs=1e-9)
    assert 0.3 < scores[1] <= 1


def test_likeness_of_positions_that_are_all_alike_is_unknown() -> None:
    rng = np.random.default_rng(1)
    alike = np.tile(rng.normal(size=6), (20, 1)).astype(np.float32)
    states = np.stack([alike, *rng.normal(size=(3, 20, 6)).astype(np.float32)], axis=1)
    states[5, 0] *= np.float32(1 + 1e-7)  # the last bit differs
    scores = CRITERIA["cka"].score(Measurements(3, sampled_states=states))
    assert scores is not None
    assert np.isnan(scores).tolist() == [True, False, False]


def test_signal_to_noise_by_hand() -> None:
    values = np.array([10.0, 4.0, 3.0, 2.0, 1.0])  # IQR 2, sigma 1.4826, eps = sigma (1 + sqrt(5/20)) = 2.2239
    scores = CRITERIA["snr"].score(Measurements(1, spectra=((Spectrum(values, (5, 20)),),)))
    assert scores == pytest.approx([17.0 / 3.0 / 10.0])


def test_opposite_gradients_share_their_direction_and_few_directions_are_aligned() -> None:
    gradients = np.array([[[1.0, 0.0], [-3.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]]])
    measured = Measurements(2, kernels=gradients @ np.swapaxes(gradients, 1, 2))
    np.testing.assert_allclose(CRITERIA["stiffness"].score(measured), [-1.0, 0.5**0.5])  # type: ignore[arg-type]
    np.testing.assert_allclose(CRITERIA["alignment"].score(measured), [1.0, 0.5])  # type: ignore[arg-type]
    units = np.random.default_rng(3).normal(size=(1, 6, 4))
    units /= np.linalg.norm(units, axis=2, keepdims=True)
    kernel = units @ np.swapaxes(units, 1, 2)
    eigenvalues = np.linalg.eigvalsh(kernel[0])
    directions = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    scores = CRITERIA["alignment"].score(Measurements(1, kernels=kernel))
    assert scores == pytest.approx([(6 / directions - 1) / 5])
    assert CRITERIA["alignment"].score(Measurements(1, kernels=np.ones((1, 1, 1)))) is None


def test_kernel_flow_lies_between_none_and_all_of_the_signal() -> None:
    rng = np.random.default_rng(2)
    factors = rng.normal(size=(5, 8, 3))
    scores = CRITERIA["ntk"].score(Measurements(5, kernels=factors @ np.swapaxes(factors, 1, 2)))
    assert scores is not None
    assert ((scores > 0) & (scores < 1)).all()
    assert CRITERIA["ntk"].score(Measurements(1, kernels=np.zeros((1, 4, 4)))) == [0.0]
