"""Models that no device holds: really offloaded to disk by accelerate, with the same numbers as in memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lsf.criteria.result import AnalysisSettings
from lsf.errors import BadInputError, ModelError
from lsf.lens.analyze import analyze
from lsf.models.loading import LoadedModel, load_model
from lsf.models.sharing import share_model
from lsf.progress import Silent
from tests.lens.test_reference import PAIRS, deviations, task_of

FORWARD = ("deviation", "deviation_growth", "law_headroom", "reduction", "semantic_loss", "block_influence", "cka")
WEIGHTS = ("snr", "condition")


def spread(folder: Path) -> LoadedModel:
    """Load with so little main memory that most of the model stays on disk."""
    return load_model(str(folder), dtype="float32", device="map", max_memory={"cpu": 60_000})


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bloom"])
def test_an_offloaded_model_gives_the_same_numbers_as_in_memory(family: str, tiny: Callable[[str], Path]) -> None:
    offloaded, whole = spread(tiny(family)), load_model(str(tiny(family)), "float32", "cpu")
    assert offloaded.info.device == "cpu+disk"
    assert any(parameter.device.type == "meta" for parameter in offloaded.model.parameters())
    assert (offloaded.info.tied_head, offloaded.info.n_params) == (whole.info.tied_head, whole.info.n_params)
    settings = AnalysisSettings(criteria=FORWARD + WEIGHTS, batch_size=3)
    ours, expected = (analyze(loaded, task_of(PAIRS), settings, Silent()) for loaded in (offloaded, whole))
    for found, wanted in zip(deviations(ours), deviations(expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    for name in FORWARD + WEIGHTS:
        np.testing.assert_allclose(
            np.array(ours.scores(name), float), np.array(expected.scores(name), float), rtol=1e-4, atol=1e-6
        )


def test_what_an_offloaded_model_cannot_do_is_refused_before_it_begins(tiny: Callable[[str], Path]) -> None:
    offloaded = spread(tiny("llama"))
    with pytest.raises(BadInputError, match=r"spread over cpu, disk.*which gradient_norm, fisher would need; accepted"):
        analyze(
            offloaded, task_of(PAIRS), AnalysisSettings(criteria=("deviation", "gradient_norm", "fisher")), Silent()
        )
    with pytest.raises(ModelError, match="tuning or a backward pass needs it whole on one device"):
        share_model(offloaded.model)


def test_a_map_that_fits_one_device_is_an_ordinary_model(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "map", max_memory={"cpu": 10**9})
    assert loaded.info.device == "cpu"
    found = analyze(loaded, task_of(PAIRS), AnalysisSettings(criteria=("gradient_norm",)), Silent())
    assert None not in found.scores("gradient_norm")


def test_bfloat16_agrees_with_float32_to_its_precision(tiny: Callable[[str], Path]) -> None:
    settings = AnalysisSettings(criteria=("deviation", "block_influence", "gradient_norm"), batch_size=3)
    half, single = (
        analyze(load_model(str(tiny("llama")), dtype, "cpu"), task_of(PAIRS), settings, Silent())
        for dtype in ("bfloat16", "float32")
    )
    assert half.model.dtype == "bfloat16"
    # bfloat16 keeps 8 bits: 0.4 % per number, which 4 blocks of random weights let grow to 2 % of a cosine
    for found, wanted in zip(deviations(half), deviations(single), strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.02)
        assert not np.array_equal(found, wanted)
    rough, exact = (np.array(one.scores("gradient_norm"), float) for one in (half, single))
    np.testing.assert_allclose(rough, exact, rtol=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_gives_the_numbers_of_the_cpu(dtype: str, tiny: Callable[[str], Path]) -> None:
    settings = AnalysisSettings(criteria=("deviation", "semantic_loss", "cka", "gradient_norm", "snr"), batch_size=3)
    loaded = load_model(str(tiny("llama")), dtype, "cuda")
    ours = analyze(loaded, task_of(PAIRS), settings, Silent())
    expected = analyze(load_model(str(tiny("llama")), "float32", "cpu"), task_of(PAIRS), settings, Silent())
    assert ours.model.device.startswith("cuda")
    assert ours.environment["gpu"]
    for found, wanted in zip(deviations(ours), deviations(expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3 if dtype == "float32" else 0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_spread_over_gpu_memory_and_disk_gives_the_numbers_of_the_cpu(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), "float32", "map", max_memory={0: 60_000, "cpu": 60_000})
    settings = AnalysisSettings(criteria=FORWARD, batch_size=3)
    ours = analyze(loaded, task_of(PAIRS), settings, Silent())
    expected = analyze(load_model(str(tiny("llama")), "float32", "cpu"), task_of(PAIRS), settings, Silent())
    assert "+" in ours.model.device
    for found, wanted in zip(deviations(ours), deviations(expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)
