"""Translators against differences of real passes and scikit-learn, kept on disk, and the readings made with them."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import Ridge

from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.lessons import load_lesson
from lsf.errors import StoppedError
from lsf.lens import translators
from lsf.lens.analyze import analyze
from lsf.lens.translators import RIDGE, TOKENS, are_kept, fit_translators, translators_file, translators_of
from lsf.models.layout import captured_states
from lsf.models.loading import LoadedModel, load_model, weights_hash
from lsf.models.writing import GeneralText, sample_general_text
from lsf.progress import Silent, Stop

TEXTS = 6


@pytest.fixture
def loaded(tiny: Callable[[str], Path]) -> LoadedModel:
    return load_model(str(tiny("llama")), "float32", "cpu")


def text_of(loaded: LoadedModel, kind: str) -> GeneralText:
    return sample_general_text(loaded.model, loaded.tokenizer, loaded.context, n_texts=TEXTS, n_tokens=TOKENS[kind])


def summed_last(loaded: LoadedModel, text: GeneralText, block: int, step: torch.Tensor) -> torch.Tensor:
    """Return the sum of the last state over all places, with a step added to what enters a block at each of them."""
    counted = torch.arange(text.ids.shape[1]) < text.lengths[:, None]

    def moved(_module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return args[0] + step * counted[..., None], *args[1:]

    handle = loaded.layout.blocks[block].register_forward_pre_hook(moved)
    try:
        with torch.no_grad(), captured_states(loaded.layout, lambda state: state) as states:
            loaded.model.base_model(input_ids=text.ids, use_cache=False)
    finally:
        handle.remove()
    return states[-1][counted].sum(dim=0)


@pytest.mark.parametrize("block", [0, 2])
def test_a_jacobian_is_the_mean_derivative_of_the_last_state_here_and_later(loaded: LoadedModel, block: int) -> None:
    found, text = fit_translators(loaded, "jacobian", Silent(), TEXTS), text_of(loaded, "jacobian")
    assert found.n_sources == int(text.lengths.sum())
    assert not found.offsets.any()
    loaded.model.double()
    direction = torch.randn(loaded.info.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-4 * direction  # norms are computed in float32 whatever the model's type: a finer one drowns in that
    forth, back = (summed_last(loaded, text, block, sign * step) for sign in (1, -1))
    measured = (forth - back) / (2e-4 * found.n_sources)
    mapped = found.matrices[block].double() @ direction
    assert float((mapped - measured).norm()) < 0.005 * float(measured.norm())
    assert float((direction - measured).norm()) > 0.1 * float(measured.norm())  # the identity would be told apart


def test_affine_is_the_ridge_regression_of_the_last_state(loaded: LoadedModel) -> None:
    found, text = fit_translators(loaded, "affine", Silent(), TEXTS), text_of(loaded, "affine")
    counted = torch.arange(text.ids.shape[1]) < text.lengths[:, None]
    counted[:, 0] = False
    with torch.no_grad(), captured_states(loaded.layout, lambda state: state[counted].double()) as states:
        loaded.model.base_model(input_ids=text.ids, use_cache=False)
    last = states[-1].numpy()
    for block, state in enumerate(states[:-1]):
        own, spread = state.numpy(), state.numpy().std(axis=0)
        ridge = Ridge(alpha=RIDGE * len(own)).fit(own / spread, last - own)  # penalised: all but the identity
        expected = own + ridge.predict(own / spread)
        given = found.of(state.float(), block).numpy()
        assert np.allclose(given, expected, atol=2e-4)
        assert np.square(given - last).sum() < np.square(own - last).sum()
    assert torch.equal(found.of(states[-1].float(), len(states) - 1), states[-1].float())


@pytest.mark.parametrize("kind", ["jacobian", "affine"])
def test_they_are_fitted_once_per_model_and_kept_in_a_file_that_others_can_use(
    loaded: LoadedModel, tiny: Callable[[str], Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    monkeypatch.setattr(translators, "TEXTS", TEXTS)
    assert not are_kept(loaded, kind)
    first = translators_of(loaded, kind, Silent())
    assert are_kept(loaded, kind)
    place = translators_file(loaded, kind)
    with monkeypatch.context() as patch:
        patch.setattr(translators, "fit_translators", None)  # would fail if it were called
        again = translators_of(loaded, kind, Silent())
    assert torch.equal(first.matrices, again.matrices)
    assert torch.equal(first.offsets, again.offsets)
    assert (first.n_texts, first.n_sources) == (again.n_texts, again.n_sources)

    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])  # damaged
    assert torch.equal(translators_of(loaded, kind, Silent()).matrices, first.matrices)
    assert torch.equal(load_file(place)["matrices"], first.matrices)  # written anew
    save_file({**load_file(place), "matrices": torch.zeros_like(first.matrices)}, place, {"kind": kind})  # not of it
    assert torch.equal(translators_of(loaded, kind, Silent()).matrices, first.matrices)

    other = load_model(str(tiny("qwen2")), "float32", "cpu")
    assert not are_kept(other, kind)


def test_equal_weights_with_another_config_or_other_ends_of_text_have_a_map_of_their_own(loaded: LoadedModel) -> None:
    turned, ended = copy.deepcopy(loaded.model), copy.deepcopy(loaded.tokenizer)
    turned.config.rope_parameters["rope_theta"] = 2.0
    ended.eos_token = ended.bos_token
    others = [replace(loaded, model=turned), replace(loaded, tokenizer=ended)]
    assert [weights_hash(other.model) for other in others] == [weights_hash(loaded.model)] * 2
    assert len({translators_file(one, "affine") for one in (loaded, *others)}) == 3


class Stopping(Silent):
    stop: Stop | None = "discard"


def test_a_stop_ends_the_fit_and_leaves_no_file(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    with pytest.raises(StoppedError):
        translators_of(loaded, "jacobian", Stopping())
    assert not are_kept(loaded, "jacobian")


@pytest.mark.parametrize("kind", ["jacobian", "affine"])
def test_an_analysis_reads_states_where_they_are_heading(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    monkeypatch.setattr(translators, "TEXTS", 2)
    bundled, task = load_model("bundled", "float32", "cpu"), load_lesson("facts")

    def read(reading: str) -> Analysis:
        settings = AnalysisSettings(limit=16, reading=reading, criteria=("deviation", "reduction", "semantic_loss"))
        return analyze(bundled, task, settings, Silent())

    lens, found, again = read("lens"), read(kind), read(kind)
    assert found.data.reading == kind
    assert found.scores("deviation") == again.scores("deviation")
    assert found.scores("deviation") != lens.scores("deviation")
    last, last_of_lens = found.states[-1], lens.states[-1]
    assert last.target_probability == pytest.approx(last_of_lens.target_probability, rel=1e-4)
    assert found.states[0].deviation == pytest.approx(0.0, abs=1e-5)  # the anchor is read as state 0 is
