"""The paths of the pretend accelerator on real ones, CUDA's and Apple's, beside the CPU: `pytest -m gpu`."""

import numpy as np
import pytest
import torch

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.errors import RunPausedError
from lsf.lens.analyze import analyze
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.models.writing import sample_general_text
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, reopen_run
from lsf.training.artefacts import load_tuned, merge, save_weights
from lsf.training.evaluation import answer, evaluate, general_loss
from lsf.training.run import tune
from lsf.training.short_runs import probe_blocks
from tests.devices.test_tuning import PLAN, options_for, tuned
from tests.toy import Stopper

pytestmark = pytest.mark.gpu
HERE = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}


@pytest.fixture(params=HERE)
def place(request):
    """The device's name; skipped where there is none."""
    if not HERE[request.param]():
        pytest.skip(f"no {request.param} device here")
    return request.param


def test_every_criterion_has_the_cpus_scores(place, tiny, on_cpu, many):
    settings = AnalysisSettings(limit=32, split="train", criteria=tuple(CRITERIA), batch_size=8)
    found = analyze(load_model(str(tiny("llama")), "float32", place), many, settings, Silent(), probe_blocks)
    expected = analyze(on_cpu(), many, settings, Silent(), probe_blocks)
    for name in settings.criteria:
        mine, theirs = (
            np.array([np.nan if (score := block.scores[name]) is None else score for block in one.blocks])
            for one in (found, expected)
        )
        np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=1e-3, err_msg=name)  # TF32 and other orders of sums


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tunes_saves_loads_and_merges(place, name, tiny, on_cpu, task, tmp_path):
    family = "gpt2" if name == "bitfit" else "llama"
    loaded = load_model(str(tiny(family)), "float32", place)
    model, _, logged = tuned(loaded, name, task, tmp_path)
    _, _, expected = tuned(on_cpu(family), name, task, tmp_path)
    assert logged == pytest.approx(expected, rel=2e-2)
    held_out = encode(loaded.tokenizer, task.test, 64).rows
    after = evaluate(model, held_out, 4)
    spec = RunSpec(model="tiny", data="toy", plan=PLAN, method=name, options=options_for(name))
    (tmp_path / "run").mkdir()
    save_weights(model, loaded, spec, tmp_path / "run")
    again = load_tuned(tmp_path / "run", loaded)
    assert evaluate(again, held_out, 4).loss == pytest.approx(after.loss, abs=1e-3)
    if METHODS[name].info.merges:
        assert evaluate(merge(again, loaded), held_out, 4).loss == pytest.approx(after.loss, abs=1e-3)


def test_general_text_and_answers_are_the_cpus(place, tiny, on_cpu, task):
    loaded, base = load_model(str(tiny("llama")), "float32", place), on_cpu()
    text = sample_general_text(base.model, base.tokenizer, 12)
    assert general_loss(loaded.model, text) == pytest.approx(general_loss(base.model, text), rel=1e-3)
    assert sample_general_text(loaded.model, loaded.tokenizer, 12).ids.device.type == "cpu"
    row = encode(loaded.tokenizer, task.test, 64).rows[0]
    given = [answer(one.model, one.tokenizer, row, one.context) for one in (loaded, base)]
    assert given[0] == given[1]


def test_a_whole_run_pauses_and_resumes(place, tiny, task, tmp_path):
    loaded = load_model(str(tiny("llama")), "float32", place)
    spec = RunSpec(
        model="tiny",
        data="toy",
        plan=Plan("tiny", 4, (2,)),
        steps=6,
        batch_size=4,
        learning_rate=1e-2,
        checkpoint_steps=1,
    )
    folder = create_run(tmp_path / "runs", spec)
    with pytest.raises(RunPausedError, match="Paused after 3 of 6 steps"):
        tune(loaded, task, spec, folder, Stopper(3, "pause"))
    result = tune(loaded, task, reopen_run(folder), folder)
    assert (result.state, result.resumed_at) == (RunState.SUCCEEDED, 3)
    assert result.proof is not None
    assert result.proof.frozen_identical
