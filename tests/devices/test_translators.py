"""Translators fitted on the pretend accelerator: the numbers of the CPU, a wait for the text and one for the maps."""

import numpy as np
import pytest

from lsf.criteria.result import AnalysisSettings
from lsf.lens import translators
from lsf.lens.analyze import analyze
from lsf.lens.translators import fit_translators
from lsf.progress import Silent
from tests.devices.conftest import SHALLOW
from tests.devices.test_analysis import WIDTH

BLOCKS, TEXTS = 2, 4


@pytest.mark.parametrize("kind", ["jacobian", "affine"])
def test_translators_fitted_on_the_device_are_the_cpus(kind, on_device, on_cpu, accelerator):
    vectors = BLOCKS * WIDTH if kind == "jacobian" else BLOCKS * (2 * WIDTH + 2)
    loaded = on_device(SHALLOW)
    with accelerator.watched(width=WIDTH, states=vectors, waits=2):
        found = fit_translators(loaded, kind, Silent(), TEXTS)
    expected = fit_translators(on_cpu(SHALLOW), kind, Silent(), TEXTS)
    assert found.n_sources == expected.n_sources
    np.testing.assert_allclose(found.matrices, expected.matrices, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(found.offsets, expected.offsets, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["jacobian", "affine"])
def test_an_analysis_with_them_has_the_cpus_scores(kind, on_device, on_cpu, many, accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(translators, "TEXTS", TEXTS)
    settings = AnalysisSettings(limit=16, split="train", reading=kind, criteria=("deviation",), batch_size=8)
    found = []
    for name, load in (("device", on_device), ("cpu", on_cpu)):
        monkeypatch.setenv("LSF_CACHE", str(tmp_path / name))
        with accelerator.watched():
            found.append(analyze(load(SHALLOW), many, settings, Silent()).scores("deviation"))
    np.testing.assert_allclose(*found, atol=1e-3)
