"""The paths of an analysis as a tuned model takes them, laid over those of the base model."""

from pathlib import Path

import numpy as np
import pytest

from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import load_lesson
from lsf.errors import StoppedError
from lsf.lens.analyze import analyze, paths_after
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.artefacts import load_tuned
from lsf.training.run import tune

SETTINGS = AnalysisSettings(criteria=("deviation",), limit=48)


@pytest.mark.parametrize("positions", ["first", "all"])
def test_an_untuned_model_takes_the_paths_of_the_analysis_itself(positions: str) -> None:
    loaded, task = load_model("bundled"), load_lesson("facts")
    settings = AnalysisSettings(criteria=("deviation",), limit=48, positions=positions)
    before = analyze(loaded, task, settings, Silent()).trajectories
    after = paths_after(loaded, loaded.model, task, settings, 48, Silent())
    assert before is not None
    assert [one.row for one in after.examples] == [one.row for one in before.examples]
    for one, other in zip(after.examples, before.examples, strict=True):
        assert np.allclose(one.factual, other.factual, atol=1e-5)
    assert np.allclose(after.factual, before.factual, atol=1e-5)
    assert after.explained_variance == pytest.approx(before.explained_variance)


def test_a_path_leaves_the_one_before_tuning_at_the_tuned_block_and_ends_nearer_to_its_target(tmp_path: Path) -> None:
    loaded, task = load_model("bundled"), load_lesson("facts")
    spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (6,)), steps=30, learning_rate=4e-3, eval_limit=8)
    folder = create_run(tmp_path, spec)
    tune(loaded, task, spec, folder, Silent())
    before = analyze(loaded, task, SETTINGS, Silent()).trajectories
    after = paths_after(loaded, load_tuned(folder, loaded), task, SETTINGS, 48, Silent())
    assert before is not None
    apart = np.linalg.norm(np.subtract(after.factual, before.factual), axis=1)
    assert np.allclose(apart[:7], 0.0, atol=1e-5)  # state 6 is the input of block 6
    assert apart[7] > 0.01
    ranks = [np.median([one.target_rank[-1] for one in paths.examples]) for paths in (before, after)]
    assert ranks[1] < ranks[0]


class _KeptAfterThreeBatches(Silent):
    def progress(self, done: float, total: float | None, message: str = "") -> None:
        if done >= 3:
            self.stop = "keep"


@pytest.mark.parametrize(
    ("settings", "report"),
    [
        (AnalysisSettings(criteria=("block_influence",), settle=True, batch_size=4), Silent()),
        (AnalysisSettings(criteria=("deviation",), batch_size=8, positions="all"), _KeptAfterThreeBatches()),
    ],
)
def test_paths_after_are_those_of_the_examples_that_the_analysis_read(
    settings: AnalysisSettings, report: Silent
) -> None:
    loaded, task = load_model("bundled"), load_lesson("facts")
    analysis = analyze(loaded, task, settings, report)
    before = analysis.trajectories
    assert before is not None
    assert analysis.data.n_examples < len(task.split(settings.split))
    after = paths_after(loaded, loaded.model, task, settings, analysis.data.n_examples, Silent())
    named = [[(one.row, one.read) for one in paths.examples] for paths in (before, after)]
    assert named[0] == named[1]
    assert np.allclose(after.factual, before.factual, atol=1e-5)


def test_a_stop_ends_the_reading() -> None:
    loaded, report = load_model("bundled"), Silent()
    report.stop = "discard"
    with pytest.raises(StoppedError, match="reading of the tuned model was stopped"):
        paths_after(loaded, loaded.model, load_lesson("facts"), SETTINGS, 48, report)
