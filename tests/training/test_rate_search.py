"""Where a run's rate comes from: given, its default, its search, or that of its group."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lsf.cli.main import main
from lsf.data.task import Task
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Phase
from lsf.runs.comparison import compare
from lsf.runs.lock import ResultBuilder
from lsf.runs.result import PHASES
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.runs.store import create_run, list_runs, load_run, spec_to_repeat
from lsf.training import attempts, rate_search, run, trainer
from lsf.training import caching as checkpointing
from lsf.training.caching import forget_states
from lsf.training.rate_search import SEARCHES, TOO_SHORT, group_key
from lsf.training.search_budget import LEAST_STEPS, SHARE, planned_search
from lsf.training.short_runs import spec_rate
from lsf.training.splits import encode_splits
from lsf.training.time_forecast import course_of
from tests.toy import Stopper, tuned

LONG = 120
"""Steps of a run a fifth of which pays for a search."""


def begun(*arguments: Any) -> Any:
    """Return what a run came to that was stopped after its second step: the search and its rate are known."""
    return tuned(*arguments, Stopper(2, "keep"))


@pytest.fixture(scope="module")
def searching(loaded: LoadedModel) -> RunSpec:
    return RunSpec(loaded.info.name, "toy", Plan("tiny", 4, (2,)), steps=LONG, batch_size=8, learning_rate=None)


@pytest.fixture(scope="module")
def searched(loaded: LoadedModel, task: Task, searching: RunSpec, tmp_path_factory: Any) -> tuple[Path, Any]:
    """The folder and the result of a run that searched its rate, the first in its folder of runs."""
    place = create_run(tmp_path_factory.mktemp("searched"), searching)
    return place, tuned(loaded, task, searching, place)


def test_a_search_takes_the_best_of_the_rates_around_the_default_for_a_fifth_of_the_cost_at_most(
    loaded, searching, searched
):
    _, result = searched
    own = spec_rate(loaded, searching)
    rates = [trial.learning_rate for trial in result.search]
    assert rates == sorted(rates) and own in rates and min(rates) < own < max(rates)
    assert len(rates) >= 3 and result.learning_rate in rates
    assert result.rate_from == "search" and result.default_rate == own
    assert 0 < result.search_share <= SHARE
    assert result.search_steps == sum(trial.steps for trial in result.search) >= 3 * LEAST_STEPS
    assert result.search_seconds > 0 and result.steps == LONG
    assert all(trial.general_loss > 0 for trial in result.search)


def test_a_search_never_reads_the_test_split(loaded, task, searching, searched):
    place, one = searched
    other = Task("toy", task.train, task.validation, task.test[:1])
    two = begun(loaded, other, searching, create_run(place.parent, searching))
    assert two.rate_from == "search"  # other data is another group
    assert (two.search, two.learning_rate) == (one.search, one.learning_rate)
    assert two.before != one.before


def test_runs_of_one_group_share_a_search_which_is_counted_once_and_told(loaded, task, searching, searched):
    place, first = searched
    other = replace(searching, plan=Plan("tiny", 4, (0,)), seed=3, role="first")
    shared = begun(loaded, task, other, create_run(place.parent, other))
    assert (shared.learning_rate, shared.search) == (first.learning_rate, first.search)
    assert shared.rate_from == f"search of {place.name}"
    assert first.searched_on == shared.searched_on == searching.plan.label != other.plan.label
    assert (shared.search_steps, shared.search_seconds, shared.search_share) == (0, None, None)
    alone = replace(searching, role="full", plan=full_plan("tiny", 4))
    assert begun(loaded, task, alone, create_run(place.parent, alone)).rate_from == "search"  # a plan of another size


def test_a_search_finds_the_same_whichever_seed_of_its_group_comes_first(loaded, task, tmp_path):
    rows = tuple(task.train) * 80  # far more than a run visits: a part is drawn
    found = []
    for seed in (0, 3):
        asked = RunSpec(
            loaded.info.name, "toy", Plan("tiny", 4, (2,)), method="lora", steps=LONG, batch_size=4, learning_rate=None,
            seed=seed,
        )  # fmt: skip
        result = begun(loaded, replace(task, train=rows), asked, create_run(tmp_path / str(seed), asked))
        assert result.rate_from == "search"
        found.append((result.search, result.learning_rate))
    assert found[0] == found[1]


def test_the_blocks_that_were_searched_on_are_told_whichever_run_of_the_group_comes_first(loaded, task, tmp_path):
    task = replace(task, train=tuple(task.train) * 80)  # what is kept of them pays less: a fifth suffices for a search
    specs = [
        RunSpec(
            loaded.info.name, "toy", Plan("tiny", 4, (block,)), method="lora", steps=LONG, batch_size=4,
            learning_rate=None,
        )
        for block in (1, 2)
    ]  # fmt: skip
    for order in (specs, specs[::-1]):
        runs = tmp_path / order[0].plan.label
        first, second = (begun(loaded, task, spec, create_run(runs, spec)) for spec in order)
        assert first.searched_on == second.searched_on == order[0].plan.label
        assert (second.search, second.learning_rate) == (first.search, first.learning_rate)


def test_a_search_whose_result_has_no_place_beside_the_runs_is_taken_all_the_same(loaded, task, searching, tmp_path):
    place = create_run(tmp_path, searching)
    (tmp_path / SEARCHES).write_text("a file where the folder would be")
    assert begun(loaded, task, searching, place).rate_from == "search"
    assert (tmp_path / SEARCHES).is_file()


def test_the_same_weights_under_another_configuration_are_another_group(turned, task, searching, searched):
    assert begun(turned, task, searching, create_run(searched[0].parent, searching)).rate_from == "search"


def test_other_texts_of_the_same_rows_are_another_group(loaded, task, searching):
    def key(made: str | None) -> str:
        builder = ResultBuilder()
        builder.add(data_fingerprint=task.fingerprint, rendering=made)
        return group_key(loaded, searching, builder)

    assert key("chat, by the model's template") != key("raw") == key(None)


def test_a_run_too_short_for_a_search_takes_the_default_and_says_so(loaded, task, spec, folder):
    short = replace(spec, learning_rate=None)
    result = tuned(loaded, task, short, folder(short))
    assert (result.learning_rate, result.rate_from) == (spec_rate(loaded, short), TOO_SHORT)
    assert (result.search, result.search_steps) == ((), 0)


def test_a_search_is_foreseen_where_it_is_made_and_only_there(loaded, task, searching, searched, tmp_path):
    splits = encode_splits(loaded, task, searching)
    paid = [steps for steps in range(60, LONG) if planned_search(loaded, replace(splits, steps=steps), searching)]
    assert paid == list(range(paid[0], LONG)) and paid[0] > 3 * LEAST_STEPS / SHARE  # by its steps alone it could pay
    for steps in (paid[0] - 1, paid[0]):
        asked = replace(searching, steps=steps)
        foreseen = course_of(loaded, replace(splits, steps=steps), asked, lambda: None).seconds["search"]
        result = begun(loaded, task, asked, create_run(tmp_path / str(steps), asked))
        assert (foreseen > 0) == bool(result.search) == (steps == paid[0])


class Hearing(Stopper):
    """Stops after its second step, and keeps what was planned first."""

    planned: tuple[str, ...] = ()

    def plan(self, phases: Sequence[Phase]) -> None:
        self.planned = self.planned or tuple(phase.name for phase in phases)
        super().plan(phases)


def test_a_search_that_another_run_of_the_group_made_is_not_foreseen(loaded, task, searching, searched):
    place, _ = searched
    for plan, made in ((Plan("tiny", 4, (0,)), False), (Plan("tiny", 4, (0, 1)), True)):
        asked, heard = replace(searching, plan=plan, seed=5), Hearing(2, "keep")
        result = tuned(loaded, task, asked, create_run(place.parent, asked), heard)
        assert (result.rate_from == "search") == made == (PHASES["search"] in heard.planned)
        assert PHASES["steps"] in heard.planned


def test_a_default_stays_a_word_in_the_spec_and_is_a_number_in_the_result_by_which_the_run_is_repeated(
    loaded, task, spec, folder
):
    asked = replace(spec, learning_rate=METHODS_OWN)
    place = folder(asked)
    result = tuned(loaded, task, asked, place)
    assert RunSpec.load(place / "spec.json").learning_rate == METHODS_OWN
    assert (result.learning_rate, result.rate_from) == (spec_rate(loaded, asked), "default")
    again = spec_to_repeat(place / "spec.json")
    assert again == replace(asked, learning_rate=result.learning_rate)
    assert tuned(loaded, task, again, folder(again)).after == result.after


def test_a_search_that_finds_only_divergence_is_one_sentence_and_bad_input_and_keeps_what_it_tried(
    breaking, asked, tmp_path, capsys
):
    data = asked[asked.index("--data") + 1]
    words = [
        "tune",
        "--model",
        breaking.info.name,
        "--data",
        data,
        "--blocks",
        "1",
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]
    runs = tmp_path / "diverged"
    assert main([*words, "--steps", str(LONG), "--learning-rate", "auto", "--runs", str(runs)]) == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("lsf: The search found only divergence, at every rate from") and said.endswith(".")
    (run,) = list_runs(runs)
    assert run.state == "failed" and run.result is not None and run.result.before is not None
    assert len(run.result.search) >= 3 and all(trial.validation_loss is None for trial in run.result.search)
    assert all(1 <= trial.steps < LEAST_STEPS for trial in run.result.search)  # those it took, not those it could have
    assert run.result.search_steps == sum(trial.steps for trial in run.result.search)
    assert run.result.search_share == pytest.approx(run.result.search_steps / LONG, rel=0.5)  # none was read
    (row,) = compare([load_run(run.folder)]).rows
    least = min(trial.learning_rate for trial in run.result.search)
    assert row.fault == "diverged" and row.rate_to_try == pytest.approx(least / 10, rel=0.05)
    assert f"such as {row.rate_to_try:g}," in said


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a training step pass no more than so many examples at once, as a device with little memory does."""
    score = trainer.score_tokens

    def limit(most: int) -> None:
        def refuse(model: Any, batch: Any, *rest: Any) -> Any:
            if len(batch["numbers"]) > most:
                raise torch.OutOfMemoryError("out of memory")
            return score(model, batch, *rest)

        monkeypatch.setattr(trainer, "score_tokens", refuse)

    return limit


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (None, 2)])
def test_a_search_takes_the_micro_batch_of_its_run_and_halves_it_where_memory_is_short(
    loaded, task, searching, folder, narrow, asked, taken
):
    narrow(taken)
    small = replace(searching, micro_batch=asked, batch_size=4)
    result = begun(loaded, task, small, folder(small))
    assert (result.steps, result.micro_batch, len(result.search) >= 3) == (2, taken, True)


def test_a_search_computes_activations_again_where_its_run_does(loaded, task, searching, folder, monkeypatch):
    kept = checkpointing.checkpoint
    passed = []

    def counted(*given, **named):
        passed.append(torch.is_grad_enabled())
        return kept(*given, **named)

    monkeypatch.setattr(checkpointing, "checkpoint", counted)
    asked = replace(searching, activation_checkpointing="non_reentrant")
    result = begun(loaded, task, asked, folder(asked))
    assert sum(passed) >= 2 * (result.steps + result.search_steps)  # blocks 2 and 3 of every step


def test_a_search_starts_from_kept_states_and_leaves_them_to_its_run(loaded, task, searching, folder):
    forget_states(loaded)
    result = begun(loaded, task, searching, folder(searching))
    assert result.cache["kind"] == "memory"
    assert (result.cache["found"], result.cache["computed"]) == (len(task.train), 0)


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_a_search_costs_what_is_told_of_it_by_the_flops_that_torch_counts(
    loaded, task, searching, folder, monkeypatch, cache
):
    counts = []

    def counting(work):
        def counted(*given):
            with FlopCounterMode(display=False) as counter:
                done = work(*given)
            counts.append(counter.get_total_flops())
            return done

        return counted

    asked = replace(searching, plan=Plan("tiny", 4, (3,)), cache=cache, eval_every=LONG)
    few, more = (replace(asked, learning_rate=1e-3, steps=steps) for steps in (6, 12))
    tuned(loaded, task, few, folder(few))  # from here on no state has to be computed where states are kept
    with monkeypatch.context() as patch:
        patch.setattr(attempts, "fit", counting(attempts.fit))
        for short in (few, more):
            tuned(loaded, task, short, folder(short))
    with monkeypatch.context() as patch:
        patch.setattr(run, "find_rate", counting(run.find_rate))
        told = begun(loaded, task, asked, folder(asked)).search_share
    six, twelve, search = counts
    share = search / (six + (LONG - 6) * (twelve - six) / 6)
    assert share <= 1.05 * SHARE
    assert share == pytest.approx(told, rel=0.3)


def test_the_first_tuning_of_the_lottery_ticket_takes_the_micro_batch_and_recomputes_as_its_run_does(
    loaded, task, spec, folder, narrow, monkeypatch
):
    kept, passed = checkpointing.checkpoint, []
    monkeypatch.setattr(checkpointing, "checkpoint", lambda *given, **named: passed.append(1) or kept(*given, **named))
    narrow(2)
    options = {"fraction": 0.1, "first_steps": 5}
    asked = replace(spec, method="lt_sft", options=options, activation_checkpointing="non_reentrant")
    result = tuned(loaded, task, asked, folder(asked))
    assert (result.state, result.micro_batch) == ("succeeded", 2)
    assert len(passed) >= 2 * 2 * (asked.steps + 5)  # two blocks of two micro-batches of every step


def test_a_trial_of_a_long_run_that_is_logged_now_and_then_has_the_steps_that_were_planned(
    loaded, task, searching, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "LOGGED_STEPS", 4)
    made = []

    def short_run(*arguments):
        made.append(own(*arguments).steps)

    own = rate_search.short_run
    monkeypatch.setattr(rate_search, "short_run", short_run)
    result = begun(loaded, task, searching, create_run(tmp_path, searching))
    assert made and sorted(made) == sorted(trial.steps for trial in result.search)


def test_no_rate_is_tried_twice_where_the_default_is_the_highest_there_is(
    loaded, task, searching, tmp_path, monkeypatch
):
    made, carry_out = [], rate_search._Trials.carry_out
    monkeypatch.setattr(rate_search, "spec_rate", lambda *_: 1.0)
    monkeypatch.setattr(
        rate_search._Trials, "carry_out", lambda self, rate, *rest: made.append(rate) or carry_out(self, rate, *rest)
    )
    result = begun(loaded, task, searching, create_run(tmp_path, searching))
    assert made[:2] == [1.0, 0.33] and len(made) == len(set(made)) == len(result.search)
    assert result.search_steps == sum(trial.steps for trial in result.search)
