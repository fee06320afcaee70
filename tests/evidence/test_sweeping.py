"""Sweeps with real tiny runs: what is measured, what goes on after a stop or a kill, and what fails."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lsf
from lsf.cli.main import main
from lsf.criteria.result import AnalysisSettings
from lsf.data.reading import read_data
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, DataError
from lsf.evidence.scoring import scored_sweep
from lsf.evidence.sweep import Score, Sweep, SweepSpec
from lsf.evidence.sweeping import carry_out_sweep, start_sweep
from lsf.files import held_for_writing
from lsf.lens.analyze import analyze
from lsf.models.loading import LoadedModel, weights_hash
from lsf.progress import Phase, Silent, Stop, Unheard
from lsf.runs.result import Metrics
from lsf.runs.spec import RunSpec
from lsf.training.splits import encode_splits, floor_on
from tests.children import Child
from tests.toy import tuned

SPEC = SweepSpec("tiny", "toy", "single", seeds=2, steps=6, learning_rate=1e-2, batch_size=4, device="cpu")


def swept(loaded: LoadedModel, task: Task, spec: SweepSpec = SPEC, report: Any = None) -> Sweep:
    return carry_out_sweep(loaded, task, start_sweep(loaded, task, spec), report or Silent(), lambda _sweep: None)


def values(sweep: Sweep) -> dict[tuple[str, int], Any]:
    return {cell.key: (cell.learning_rate, cell.after) for cell in sweep.cells}


@pytest.fixture(scope="module")
def done(loaded: LoadedModel, task: Task) -> Sweep:
    return swept(loaded, task)


def test_a_cell_of_a_sweep_has_the_bits_of_the_same_run_by_itself(
    loaded: LoadedModel, task: Task, done: Sweep, folder: Callable[[RunSpec], Path]
) -> None:
    spec = replace(SPEC.run_spec(4, (2,), 1), model=loaded.info.name)
    result = tuned(loaded, task, spec, folder(spec))
    cell = next(cell for cell in done.cells if cell.key == ("2", 1))
    assert cell.before is not None
    assert cell.after is not None
    assert (cell.before.loss, cell.after.loss) == (result.before.loss, result.after.loss)
    assert (cell.before.exact_match, cell.after.exact_match) == (result.before.exact_match, result.after.exact_match)


def test_the_prior_of_a_sweep_of_a_large_source_is_that_of_its_runs_whichever_rows_are_drawn(
    loaded: LoadedModel,
) -> None:
    rows = [Example("the cat is", colour) for colour in [" red", " blue"] * 190 + [" red"] * 18 + [" green"] * 2]
    task = Task("toy", train=tuple(rows), validation=(), test=(rows[0], rows[1], rows[1], rows[-1]))
    spec = replace(SPEC, steps=2)
    splits = encode_splits(loaded, task, spec.run_spec(4, (2,), 0))
    assert len(splits.own) == 16 and all(row.example.completion != " green" for row in splits.own)
    floor = floor_on(splits, Metrics(99.0, None, 0.0, 0.0), loaded.info.vocab_size, task.train)
    assert floor is not None
    assert start_sweep(loaded, task, spec).prior == Score(floor.prior.exact_match, floor.prior.loss)


def test_a_sweep_measures_every_plan_under_every_seed_and_leaves_the_model_alone(
    loaded: LoadedModel, task: Task, done: Sweep
) -> None:
    assert [cell.key for cell in done.cells[:3]] == [("base", 0), ("full", 0), ("full", 1)]
    assert done.missing == ()
    scores = [cell.after for cell in done.cells]
    assert len({score and score.loss for score in scores}) == len(scores)  # no number is filled in twice
    assert weights_hash(loaded.model) == done.weights
    assert values(swept(loaded, task)) == values(done)


def test_a_sweep_keeps_the_answer_that_ignores_the_prompt_also_where_an_earlier_part_did_not(
    loaded: LoadedModel, task: Task, done: Sweep
) -> None:
    told, asked = Counter(row.completion for row in task.train), [row.completion for row in task.test]
    commonest = told.most_common(1)[0][0]
    assert done.prior is not None
    assert done.prior.exact_match == sum(text == commonest for text in asked) / len(asked)
    assert done.prior.loss is not None
    assert done.prior.loss > 0
    assert done.rendering == "raw"
    for lacking in ({"prior": None}, {"rendering": None}, {"texts": None}, {"first_texts": None}):
        assert start_sweep(loaded, task, SPEC, replace(done, **lacking)) == done


def test_a_sweep_does_not_go_on_where_its_rows_became_other_texts(
    loaded: LoadedModel, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_data([{"prompt": row.prompt, "completion": row.completion} for row in task.train])
    begun = start_sweep(loaded, rows, SPEC)
    assert start_sweep(loaded, rows, replace(SPEC, seeds=3), begun).texts == begun.texts
    monkeypatch.setattr(
        loaded.tokenizer, "chat_template", "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
    )
    with pytest.raises(BadInputError, match="the model has another tokenizer or chat template by now"):
        start_sweep(loaded, rows, SPEC, begun)


def test_scores_of_other_texts_than_a_sweep_tuned_on_are_refused_or_told_apart(
    loaded: LoadedModel, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_data([{"prompt": row.prompt, "completion": row.completion} for row in task.train])
    settings = AnalysisSettings(criteria=("deviation",), split="train", limit=2)

    def analysed() -> str | None:
        return analyze(loaded, rows, settings, Silent()).data.first_texts

    begun = start_sweep(loaded, rows, SPEC)
    assert analysed() == begun.first_texts is not None
    monkeypatch.setattr(
        loaded.tokenizer, "chat_template", "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
    )
    assert analysed() not in (None, begun.first_texts)
    with pytest.raises(BadInputError, match="changed since it was measured, though the rows did not"):
        scored_sweep(loaded, rows, begun, "it", Silent())


def test_criteria_are_read_on_texts_as_long_as_those_that_a_sweep_tuned(
    loaded: LoadedModel, task: Task, done: Sweep
) -> None:
    longest = max(len(row.ids) for row in encode_splits(loaded, task, SPEC.run_spec(4, None, 0)).train)
    cut = replace(done, spec=replace(SPEC, max_length=longest - 3), texts=None)
    one, other = (scored_sweep(loaded, task, sweep, "it", Silent()).scores["deviation"] for sweep in (done, cut))
    settings = AnalysisSettings(criteria=("deviation",), split="train", limit=8, max_length=longest - 3)
    assert other == analyze(loaded, task, settings, Silent()).scores("deviation")
    assert other != one


class StopAfter(Unheard):
    """Asks to pause once so many cells were handed over."""

    def __init__(self, cells: int) -> None:
        self.cells, self.seen, self.told = cells, 0, list[str]()
        self.planned = list[tuple[str, float | None]]()

    @property
    def stop(self) -> Stop | None:
        return "pause" if self.seen >= self.cells else None

    def plan(self, phases: Sequence[Phase]) -> None:
        self.planned = [(phase.name, phase.seconds) for phase in phases]

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        self.told.append(message)

    def partial(self, value: Any) -> None:
        self.seen += 1


def test_a_stopped_sweep_goes_on_and_ends_as_if_nothing_had_happened(
    loaded: LoadedModel, task: Task, done: Sweep
) -> None:
    report = StopAfter(4)
    half = swept(loaded, task, report=report)
    assert len(half.missing) == len(half.cells) - 4
    assert {cell.reason for cell in half.missing} == {"not measured yet"}
    assert report.told[0] == "run: full, seed 0"
    assert [name for name, _ in report.planned[:2]] == ["the base model", "run: full, seed 0"]
    lengths = dict(report.planned)
    whole_model, block = lengths["run: full, seed 0"], lengths["run: block 3, seed 0"]
    assert whole_model is not None
    assert block is not None
    assert whole_model > block > 0
    again = StopAfter(99)
    whole = carry_out_sweep(loaded, task, start_sweep(loaded, task, SPEC, half), again, lambda _sweep: None)
    assert again.seen == len(half.missing)
    assert values(whole) == values(done)
    assert whole.seconds > half.seconds


def test_more_plans_and_seeds_are_added_to_a_sweep_and_nothing_is_measured_twice(
    loaded: LoadedModel, task: Task, done: Sweep
) -> None:
    wider = start_sweep(loaded, task, replace(SPEC, over="window:3", seeds=1), done)
    assert wider.spec.over == "single,window:3"
    assert wider.spec.seeds == 2
    assert [cell.key for cell in wider.missing] == [("0-2", 0), ("0-2", 1), ("1-3", 0), ("1-3", 1)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 7}, "made with steps 6, not 7; take another file"),
        ({"learning_rate": 1e-3}, "made with learning_rate 0.01, not 0.001; take another file"),
    ],
)
def test_a_sweep_with_other_settings_is_not_mixed_in(
    change: dict[str, Any], sentence: str, loaded: LoadedModel, task: Task, done: Sweep
) -> None:
    with pytest.raises(BadInputError) as error:
        start_sweep(loaded, task, replace(SPEC, **change), done)
    assert sentence in str(error.value)


def test_changed_data_or_weights_are_not_mixed_in(loaded: LoadedModel, task: Task, done: Sweep) -> None:
    fewer = Task("toy", task.train[:-1], task.validation, task.test)
    with pytest.raises(BadInputError, match="The data changed since the sweep in the file was begun"):
        start_sweep(loaded, fewer, SPEC, done)
    with pytest.raises(BadInputError, match="The model's weights changed"):
        start_sweep(loaded, task, SPEC, replace(done, weights="other"))


def test_what_a_sweep_needs_and_the_data_lack_is_said(loaded: LoadedModel, task: Task) -> None:
    with pytest.raises(DataError, match="test examples and toy has none"):
        start_sweep(loaded, Task("toy", task.train, task.validation, ()), SPEC)
    with pytest.raises(DataError, match="rates on validation examples and toy has none; give a rate"):
        start_sweep(loaded, Task("toy", task.train, (), task.test), replace(SPEC, learning_rate=None))


def test_each_plan_takes_its_best_rate_on_validation_and_the_search_is_its_cell_of_seed_0(
    loaded: LoadedModel, task: Task
) -> None:
    spec = replace(SPEC, learning_rate=None, over="window:4", steps=2, seeds=1)
    found = swept(loaded, task, spec)
    for plan, rate in found.rates.items():
        known = {tried: loss for tried, loss in rate.tried if loss is not None}
        assert rate.learning_rate == min(known, key=lambda tried: known[tried])
        assert {cell.learning_rate for cell in found.cells if cell.plan == plan} == {rate.learning_rate}
    given = swept(loaded, task, replace(spec, learning_rate=found.rates["0-3"].learning_rate))
    assert values(given)["0-3", 0] == values(found)["0-3", 0]
    fewer = swept(loaded, Task("toy", task.train, task.validation, task.test[:2]), spec)
    assert fewer.rates == found.rates


def test_a_failing_run_is_a_missing_cell_with_its_reason_and_the_others_are_measured(
    breaking: LoadedModel, task: Task
) -> None:
    found = swept(breaking, task, replace(SPEC, seeds=1))
    lost = {cell.plan: cell.reason for cell in found.missing}
    assert "1" in lost
    assert "finite" in str(lost["1"])
    assert {"base", "2", "3"} <= {cell.plan for cell in found.cells if cell.after is not None}
    assert next(cell for cell in found.cells if cell.plan == "1").after is None


def test_a_second_sweep_on_the_same_file_is_refused_while_the_first_one_goes_on(
    loaded: LoadedModel, task: Task, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, refused = tmp_path / "sweep.json", "sweep.json is being written by another process; wait until that ends"
    command = ["sweep", "--model", "bundled", "--data", "lesson:facts", "--steps", "1", "--json", str(out)]
    with held_for_writing(out):
        begun = start_sweep(loaded, task, replace(SPEC, over="window:4", seeds=1, steps=1))
        found = carry_out_sweep(loaded, task, begun, Silent(), lambda sweep: sweep.save(out))
        assert main(command) == 2 and refused in capfd.readouterr().err
        with pytest.raises(BadInputError, match=refused):
            lsf.sweep(loaded, task, json=out, steps=1)
    assert Sweep.load(out) == found and not found.missing
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def n_measured(path: Path) -> int:
    """Cells in a file that may be replaced at any moment."""
    return sum(cell.after is not None for cell in Sweep.load(path).cells) if path.exists() else 0


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was_and_ends_with_the_same_numbers(
    asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    killed, whole = tmp_path / "killed.json", tmp_path / "whole.json"
    process = Child("-m", "lsf", *asked, killed)
    end = time.monotonic() + 60
    while n_measured(killed) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "nothing was measured in time"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = Sweep.load(killed)
    assert before.missing
    assert main([*asked, str(killed)]) == 0
    assert main([*asked, str(whole)]) == 0
    done = Sweep.load(whole)
    replace(done, prior=None).save(whole)  # as files were before
    assert main([*asked, str(whole)]) == 0
    assert Sweep.load(whole) == done
    after = Sweep.load(killed)
    kept = {cell.key: cell for cell in before.cells if cell.after is not None}
    assert {cell.key: cell for cell in after.cells if cell.key in kept} == kept
    assert values(after) == values(Sweep.load(whole))
    said = capfd.readouterr().out
    assert "11 of 11 cells" in said
    assert said.count("exact match per seed; loss per seed") == 3


@pytest.mark.slow
def test_the_command_names_the_failed_run_and_tries_it_again_the_next_time(
    asked: list[str], breaking: LoadedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep.json"
    command = [*asked, str(out)]
    command[command.index("--model") + 1] = str(breaking.info.name)
    command[command.index("--steps") + 1] = "2"
    assert main(command) == 1
    said = capfd.readouterr()
    assert "lsf: 1, seed 0 is missing: " in said.err
    assert "  -" in said.out or " - -" in said.out
    assert main(command) == 1
    assert "lsf: 1, seed 1 is missing: " in capfd.readouterr().err
    assert main([*command[:-1], str(tmp_path / "other.json"), "--over", "window:9"]) == 2
    assert "a window takes 1 to 4 blocks of this model" in capfd.readouterr().err
