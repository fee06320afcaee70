"""Short runs: on every block alone, on a real task; and facts edited into windows of blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import QUESTIONS, EditSettings, edit_questions
from lsf.data.sources import load_task
from lsf.data.task import Example, Task
from lsf.data.world import make_world
from lsf.errors import BadInputError, DataError
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent, Stop, Unheard
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, read_metrics
from lsf.training.run import tune
from lsf.training.short_runs import PROBE_BATCH, PROBE_STEPS, edit_windows, probe_blocks


@pytest.mark.slow
def test_every_criterion_scores_every_block_of_the_bundled_model(tmp_path: Path) -> None:
    loaded, task = load_model("bundled"), load_task("lesson:facts")
    settings = AnalysisSettings(limit=24, criteria=tuple(CRITERIA))
    analysis = analyze(loaded, task, settings, Silent(), probe_blocks)
    assert analysis.criteria == tuple(CRITERIA)
    drops = np.array(analysis.scores("probe"), dtype=float)
    assert drops.max() > 0.1
    # the same short run, asked for as a run: the probe's drop is what a real run measures
    block = int(drops.argmax())
    plan = Plan("bundled", 8, (block,))
    spec = RunSpec("bundled", "lesson:facts", plan, steps=PROBE_STEPS, batch_size=PROBE_BATCH)
    folder = create_run(tmp_path, spec)
    tune(loaded, task, spec, folder, Silent())
    rows = [row for row in read_metrics(folder) if row.get("validation_loss") is not None]
    assert rows[0]["validation_loss"] - rows[-1]["validation_loss"] == pytest.approx(drops[block], abs=0.05)


class Stopping(Unheard):
    """A reporter that asks to keep what there is once a short run is under way: the loop asks after every step."""

    def __init__(self, asked_after: int) -> None:
        self.left = asked_after

    @property
    def stop(self) -> Stop | None:
        self.left -= 1
        return "keep" if self.left < 0 else None


def test_a_probe_that_was_stopped_half_way_scores_no_block(loaded, task) -> None:
    short = AnalysisSettings(limit=4, criteria=("deviation", "probe"))
    assert probe_blocks(loaded, task, short, Stopping(PROBE_STEPS + 3)) is None
    found = analyze(loaded, task, short, Silent(), lambda *_: probe_blocks(loaded, task, short, Stopping(3)))
    assert found.criteria == ("deviation",)


def test_without_validation_examples_the_probe_says_so() -> None:
    task = Task("few", (Example("the capital of", " x"),), (), ())
    with pytest.raises(DataError, match="probe needs validation examples"):
        probe_blocks(load_model("bundled"), task, AnalysisSettings(), Silent())


def test_the_questions_tell_the_edit_from_what_must_stay_and_from_what_follows() -> None:
    world, asked = make_world(0), edit_questions()
    assert list(asked) == list(QUESTIONS)
    capitals = {country.capital for country in world.countries}
    new = {example.completion.strip() for example in asked["reliability"]}
    assert len(new) == 24 and not new & capitals
    assert {example.completion.strip() for example in asked["paraphrase"]} == new
    assert not {e.prompt for e in asked["paraphrase"]} & {e.prompt for e in asked["reliability"]}
    kept = asked["locality"]
    assert not new & {example.completion.strip() for example in kept}
    assert len(kept) == 6 * len(world.countries) - 24
    countries = {country.name for country in world.countries}
    edits = {(name, e.completion) for e in asked["reliability"] for name in countries & _words(e.prompt)}
    assert len(edits) == 24
    moved = dict(edits)
    people = {person.name: person.country.name for person in world.people}
    assert asked["two_hop"]
    for example in asked["two_hop"]:
        (country,) = [people[word] for word in _words(example.prompt) if word in people]
        assert example.completion == moved[country]


def _words(prompt: str) -> set[str]:
    return {word.strip(",.?:") for word in prompt.split()}


@pytest.mark.parametrize(
    ("settings", "windows"),
    [
        (EditSettings(), ((0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7))),
        (EditSettings(width=3, stride=4), ((0, 1, 2), (4, 5, 6), (5, 6, 7))),
        (EditSettings(width=8), (tuple(range(8)),)),
    ],
)
def test_windows_step_by_the_stride_and_end_at_the_last_block(
    settings: EditSettings, windows: tuple[tuple[int, ...], ...]
) -> None:
    assert settings.windows(8) == windows


def test_a_window_wider_than_the_model_is_refused() -> None:
    with pytest.raises(BadInputError, match="width is 9; the model has 8 blocks"):
        EditSettings(width=9).windows(8)


def test_every_window_tunes_as_many_values_and_its_edit_shows(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    loaded = load_model("bundled", "float32", "cpu")
    before, low, high = edit_windows(loaded, EditSettings(width=4, stride=4, steps=40, learning_rate=1e-2), Silent())
    assert before.right["reliability"] == 0.0 and before.right["locality"] > 0.95
    assert low.values == high.values == 4 * 8 * 3 * (128 + 256)  # rank times inputs plus outputs of the MLP's maps
    assert (low.blocks, high.blocks) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert max(low.right["reliability"], high.right["reliability"]) > 0.1
    assert before.right["paraphrase"] == before.right["two_hop"] == 0.0
    assert low.right != high.right
    assert max(low.right["paraphrase"], high.right["paraphrase"]) > 0.05
    assert max(low.right["locality"], high.right["locality"]) < before.right["locality"]


def test_a_window_that_was_stopped_half_way_is_left_out() -> None:
    loaded = load_model("bundled", "float32", "cpu")
    (base,) = edit_windows(loaded, EditSettings(width=8, steps=20), Stopping(3))
    assert base.blocks == ()
