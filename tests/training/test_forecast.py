"""What a run is expected to need, beside what real runs take."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lsf.cli.main import main
from lsf.criteria.result import Analysis, AnalysisSettings, BlockRow, DataInfo, Timing
from lsf.data.contents import Segments
from lsf.data.encode import encode
from lsf.data.sources import load_task
from lsf.data.task import Example
from lsf.errors import BadInputError
from lsf.lens.analyze import analyze
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.batches import collate, score_tokens
from lsf.models.loading import load_model, weights_hash
from lsf.models.sharing import share_model
from lsf.plans.cost import Load, Speed, forward_flops, predict
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Silent
from lsf.runs.memory_forecast import RUN_SHARE
from lsf.runs.result import PHASES, RunResult
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.runs.store import create_run
from lsf.training import forecaster
from lsf.training.caching import forget_records
from lsf.training.fitting import fit
from lsf.training.forecast import course_of_run, expected, forecast, seconds_beside, seconds_in_turn
from lsf.training.forecaster import AMPLE, Forecaster
from lsf.training.measured_pass import Held
from lsf.training.search_budget import SHARE
from lsf.training.splits import encode_splits, measure_base, watched
from lsf.training.time_forecast import COUNTED, ON_REQUEST, STRETCHES, course_of, run_seconds
from lsf.training.trainer import FitSettings
from lsf.training.workload import batch_load, workload_of
from tests.children import finished
from tests.tiny import save_tiny
from tests.toy import tuned

ROOMY = 10**12


@pytest.fixture(scope="module")
def gpt2(tiny):
    """A family with biases, so that every method can do something."""
    return load_model(str(tiny("gpt2")), "float32", "cpu")


def foresee(*arguments: Any) -> Any:
    """`forecast`, for tests that read parts they know to be there."""
    return forecast(*arguments)


def test_weights_gradients_and_optimizer_are_four_four_and_eight_bytes_per_tuned_parameter(loaded, task, spec):
    found = foresee(loaded, task, spec, ROOMY)
    count = sum(p.numel() for p in loaded.model.get_submodule(loaded.layout.block_names[2]).parameters())
    assert found.trainable_params == count
    assert (found.parts.own_weights, found.parts.gradients, found.parts.optimizer) == (4 * count, 4 * count, 8 * count)
    assert found.parts.activations
    assert found.parts.total == 16 * count + found.parts.activations + found.parts.cache
    assert found.predicted.memory_bytes == found.parts.total


def test_a_prefix_cache_counts_one_state_per_token_of_the_training_rows(loaded, task, spec):
    rows = encode_splits(loaded, task, spec).train
    cached = foresee(loaded, task, replace(spec, cache="memory"), ROOMY)
    assert cached.parts.cache == sum(len(row.ids) for row in rows) * loaded.info.width * 4
    assert foresee(loaded, task, replace(spec, cache="off"), ROOMY).parts.cache == 0


def test_a_batch_larger_than_the_data_is_tried_at_its_full_size(loaded, task, spec):
    few = replace(task, train=task.train[:3])
    found = foresee(loaded, few, replace(spec, batch_size=12, cache="off"), ROOMY)
    once = foresee(loaded, few, replace(spec, batch_size=3, cache="off"), ROOMY)
    assert found.parts.activations > 3 * once.parts.activations


def test_smaller_micro_batches_and_activation_checkpointing_are_expected_to_need_less(loaded, task, spec):
    whole = foresee(loaded, task, replace(spec, plan=full_plan("tiny", 4), batch_size=8), ROOMY)
    one = foresee(loaded, task, replace(whole.spec, micro_batch=1), ROOMY)
    again = foresee(loaded, task, replace(whole.spec, activation_checkpointing="non_reentrant"), ROOMY)
    assert one.parts.activations < whole.parts.activations / 2
    assert again.parts.activations < whole.parts.activations
    assert one.parts.gradients == whole.parts.gradients


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("plan", [Plan("tiny", 4, (2,)), full_plan("tiny", 4)], ids=["block", "full"])
def test_the_storages_of_a_real_loop_peak_within_a_quarter_of_the_forecast(loaded, task, spec, tmp_path, plan, micro):
    asked = replace(spec, plan=plan, batch_size=8, micro_batch=micro, cache="off")
    found = foresee(loaded, task, asked, ROOMY)
    settings = FitSettings(1e-3, 4, 8, 0, 0.0, 0, "float32", micro)
    with Held() as held:
        held.know(loaded.model)
        model = METHODS["full"].prepare(loaded, plan, MethodContext())
        fit(model, encode_splits(loaded, task, asked).train, settings, tmp_path, lambda row: None, lambda: None)
    assert 0.8 <= held.peak / found.parts.total <= 1.25


def tell_growth(folder: str, runs: str) -> None:
    """Print what two runs of a model were foreseen to need and took; for a process of its own.

    Memory that other tests left free would be taken first, and no growth seen.
    """
    model, task = load_model(folder, "float32", "cpu"), load_task("lesson:facts", None, None)
    fixed = {"steps": 6, "batch_size": 16, "learning_rate": 1e-2, "eval_limit": 8}
    whole, some = (RunSpec(model.info.name, "toy", plan, **fixed) for plan in (full_plan("b", 5), Plan("b", 5, (3, 4))))
    tuned(model, task, replace(whole, batch_size=4), create_run(Path(runs), whole))  # imports count as growth
    for asked in (whole, some):
        result = tuned(model, task, asked, create_run(Path(runs), asked))
        print(result.predicted.memory_bytes, result.peak_memory_bytes)  # noqa: T201


@pytest.mark.slow
def test_the_process_of_a_real_run_grows_by_at_most_two_and_a_half_times_the_forecast(shared, tmp_path):
    asked = "import sys; from tests.training.test_forecast import tell_growth; tell_growth(*sys.argv[1:])"
    done = finished("-c", asked, shared / "models" / "babyllama105", tmp_path)
    assert done.poll() == 0, done.err[-3000:]
    told = [tuple(map(int, line.split())) for line in done.out.splitlines()]
    assert len(told) == 2
    for foreseen, taken in told:
        assert foreseen <= taken <= 2.5 * foreseen


def test_a_forecast_changes_nothing_and_leaves_the_random_state_alone(loaded, task, spec):
    before, drawn = weights_hash(loaded.model), torch.random.get_rng_state()
    foresee(loaded, task, replace(spec, plan=full_plan("tiny", 4), method="lora", learning_rate=1e-3), ROOMY)
    assert weights_hash(loaded.model) == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(value.grad is None and not value.requires_grad for value in loaded.model.parameters())


@pytest.mark.parametrize("method", [name for name in METHODS if name != "full"])
def test_every_method_has_a_forecast_of_what_its_optimizer_holds(gpt2, task, spec, method):
    options = {"d": 50} if method in ("did", "said") else {}
    asked = replace(spec, method=method, options=options, learning_rate=METHODS_OWN)
    found = foresee(gpt2, task, asked, ROOMY)
    assert found.fits
    assert 0 < found.trainable_params < foresee(gpt2, task, spec, ROOMY).trainable_params
    dense = foresee(gpt2, task, spec, ROOMY).trainable_params
    held = {"fish": 4 * dense, "lt_sft": 8 * dense}.get(method, 8 * found.trainable_params)
    assert found.parts.optimizer == held  # a mask found in the data is looked for in whole blocks
    if method in ("fish", "lt_sft"):
        assert found.parts.gradients == 4 * dense <= found.parts.own_weights
    assert found.step_seconds > 0
    whole = foresee(gpt2, task, spec, ROOMY).flops_ratio
    assert 0 < found.flops_ratio <= whole
    if method in ("lora", "adapter", "bitfit"):  # nobody asks for the gradients of the matrices themselves
        assert found.flops_ratio < whole
    if method in ("hiwi", "said", "pafi"):  # these pass through them
        assert found.flops_ratio == whole


def test_the_flops_ratio_is_that_of_the_cost_model(loaded, task, spec):
    rows = encode_splits(loaded, task, spec).train
    tokens, targets = sum(len(row.ids) for row in rows), sum(row.n_targets for row in rows)
    counts = [sum(p.numel() for p in block.parameters()) for block in loaded.layout.blocks]
    analysis = Analysis(
        model=loaded.info,
        data=DataInfo(
            "toy",
            "all",
            1,
            1,
            0,
            "first",
            "lens",
            "even",
            attended_tokens=sum(len(row.ids) ** 2 for row in rows) / tokens,
            target_share=targets / tokens,
        ),
        states=(),
        blocks=tuple(BlockRow(index, count, {}) for index, count in enumerate(counts)),
        timing=Timing(1.0, 1.0, 1.0),
        environment={},
    )
    for blocks in ((2,), (0, 3)):
        found = foresee(loaded, task, replace(spec, plan=Plan("tiny", 4, blocks)), ROOMY)
        assert found.flops_ratio == pytest.approx(predict(analysis, blocks).flops_ratio)


def test_the_head_is_counted_where_it_reads(loaded, task):
    turns = ((False, "the cat"), (True, " sat on the mat"), (False, " one two three"), (True, " the dog"))
    rows = encode(loaded.tokenizer, (*task.train[:3], Example("", "", content=Segments(turns))), 64).rows
    assert batch_load(rows).head_tokens == len(collate(rows)["scored"])
    assert batch_load(rows, head=False).head_tokens == 0


def test_the_flops_ratio_is_that_of_the_operations_of_a_step_where_the_vocabulary_is_large(task, spec, tmp_path):
    wide = load_model(str(save_tiny("llama", tmp_path, vocab_size=1024)), "float32", "cpu")
    task = replace(task, train=tuple(replace(row, prompt=" ".join([row.prompt] * 6)) for row in task.train))
    batch = collate(encode_splits(wide, task, spec).train)
    analysis = analyze(wide, task, AnalysisSettings(split="train", criteria=("last",)), Silent())
    model: Any = share_model(wide.model)

    def operations(parameters) -> int:
        model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        with FlopCounterMode(display=False) as counter:
            score_tokens(model, batch).nll.sum().backward()
        return counter.get_total_flops()

    whole = operations(model.parameters())
    for block in (0, 3):
        counted = operations(model.model.layers[block].parameters()) / whole
        assert predict(analysis, (block,)).flops_ratio == pytest.approx(counted, rel=0.03)
        found = foresee(wide, task, replace(spec, plan=Plan("tiny", 4, (block,))), ROOMY)
        assert found.flops_ratio == pytest.approx(counted, rel=0.03)


def test_what_cannot_fit_by_counting_alone_is_not_tried(loaded, task, full):
    needed = foresee(loaded, task, full, ROOMY).parts
    found = foresee(loaded, task, full, needed.own_weights // 2)
    assert found.fits is False
    assert (found.parts.activations, found.step_seconds) == (None, None)
    assert "needs at least" in found.sentence
    assert "does not fit" in found.sentence


def test_a_run_that_just_does_not_fit_is_offered_smaller_and_the_offer_fits(loaded, task, full):
    asked = replace(full, batch_size=8)
    total = foresee(loaded, task, asked, ROOMY).parts.total
    found = foresee(loaded, task, asked, int(0.99 * total / RUN_SHARE))
    assert found.fits is False
    assert found.offer is not None
    assert found.offer.words == "one example at a time, activations computed again"
    assert found.offer.spec.plan == asked.plan
    assert found.offer.forecast.fits
    assert found.offer.forecast.parts.total < total
    assert foresee(loaded, task, found.offer.spec, found.free_bytes).fits
    roomier = foresee(loaded, task, asked, int(1.01 * total / RUN_SHARE))
    assert (roomier.fits, roomier.offer) == (True, None)


def test_where_less_activation_memory_does_not_help_fewer_blocks_are_offered(loaded, task, full):
    found = foresee(loaded, task, full, int(0.5 * foresee(loaded, task, full, ROOMY).parts.known))
    assert found.offer is not None
    assert 0 < len(found.offer.spec.plan.blocks) < 4
    assert found.offer.spec.plan.label in found.offer.words
    assert found.offer.forecast.parts.total <= RUN_SHARE * found.free_bytes


def test_nothing_is_offered_where_nothing_fits(loaded, task, spec):
    found = foresee(loaded, task, spec, 1000)
    assert (found.fits, found.offer) == (False, None)


def test_a_device_that_runs_out_in_the_trial_is_told_apart_from_one_that_has_room(loaded, task, spec, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lsf.training.forecaster.peak_of_pass", exhausted)
    monkeypatch.setattr("lsf.training.forecaster._KEPT", WeakKeyDictionary())
    found = foresee(loaded, task, spec, None)
    assert found.fits is False
    assert found.sentence == "cpu ran out of memory in a trial pass over the longest examples."
    splits = encode_splits(loaded, task, spec)
    course = course_of(loaded, splits, spec, lambda: None)
    counted = expected(loaded, splits, spec, course, lambda: None)
    assert counted.step_seconds is None
    assert counted.phases["steps"] > 0


def test_an_answer_nobody_waits_for_is_given_up(loaded, task, spec):
    def leave():
        raise BadInputError("nobody waits")

    with pytest.raises(BadInputError, match="nobody waits"):
        foresee(loaded, task, spec, ROOMY, leave)


def test_a_forecast_is_left_in_the_midst_of_a_pass_forward_or_backward(loaded, task, spec, monkeypatch):
    asked = list[int]()

    def leave_at(last):
        def check():
            asked.append(len(asked))
            if len(asked) == last:
                raise BadInputError("nobody waits")

        return check

    foresee(loaded, task, spec, ROOMY)  # from here on the machine's speed with the model is known
    monkeypatch.setattr("lsf.training.forecaster._KEPT", WeakKeyDictionary())
    foresee(loaded, task, spec, ROOMY, leave_at(0))
    whole = len(asked)
    assert whole > 3 * 6  # three passes, four blocks forward and two backward each
    for last in range(whole - 8, whole + 1):
        asked.clear()
        monkeypatch.setattr("lsf.training.forecaster._KEPT", WeakKeyDictionary())
        with pytest.raises(BadInputError, match="nobody waits"):
            foresee(loaded, task, spec, ROOMY, leave_at(last))
    assert all(value.grad is None for value in loaded.model.parameters())


def test_the_wall_time_of_a_run_is_foreseen_by_the_phases_it_then_has(loaded, task, spec, folder):
    asked = replace(spec, cache="memory", steps=20)
    found = foresee(loaded, task, asked, ROOMY)
    result = tuned(loaded, task, asked, folder(asked))
    assert set(found.phases) <= set(PHASES)
    assert {key for key, seconds in found.phases.items() if seconds} >= {"steps", "prefix", "validation", "test"}
    assert found.predicted.wall_seconds == pytest.approx(sum(found.phases.values()))
    assert result.predicted.wall_seconds > 0
    assert result.measured.wall_seconds == pytest.approx(result.total_seconds)
    shown = ("trainable_params", "flops_ratio", "memory_bytes", "step_seconds")
    assert [getattr(found.predicted, name) for name in shown] == [getattr(result.predicted, name) for name in shown]


def test_what_the_base_model_is_read_on_first_costs_the_tuned_one_only_what_lies_above_the_frozen_prefix(
    loaded, task, spec, tmp_path, monkeypatch
):
    monkeypatch.setenv("LSF_CACHE", str(tmp_path))
    forget_records()
    splits, flops = encode_splits(loaded, task, spec), Speed(0.0, 1.0, 0.0)
    work = workload_of(loaded, splits, spec)
    assert (work.states_left, work.held) == ({"test", "reading", "general"}, 2)
    base, fresh = (run_seconds(work, flops)[name] for name in ("base", "test"))
    assert base > 0 and fresh == forward_flops(work.sizes, work.test, work.held)
    measure_base(loaded, spec, splits.test, watched(splits.validation), lambda: None)
    known = workload_of(loaded, splits, spec)  # on record, and its states may be gone with the process
    assert known.states_left == set()
    assert run_seconds(known, flops)["test"] == forward_flops(known.sizes, known.test) > fresh
    forget_records()


def test_more_evaluation_a_search_and_what_is_left_of_a_resumed_run_change_the_wall_time(loaded, task, spec):
    splits = encode_splits(loaded, task, spec)

    def seconds(asked, begun=0):
        return course_of(loaded, splits, asked, lambda: None, begun).seconds

    for every, count in ((1, 6), (2, 3), (6, 1)):
        asked = replace(spec, eval_every=every)
        assert course_of(loaded, splits, asked, lambda: None).work.n_readings == count
    assert seconds(replace(spec, eval_every=1))["validation"] > seconds(replace(spec, eval_every=6))["validation"] > 0
    assert seconds(replace(spec, latency="on"))["latency"] > seconds(spec)["latency"] == 0.0
    assert seconds(spec)["search"] == 0.0
    searched = replace(spec, learning_rate=None)
    assert seconds(searched)["search"] == 0.0  # it is too short for a search, and none is made
    splits = replace(splits, steps=400)
    assert seconds(searched)["search"] == pytest.approx(SHARE * seconds(spec)["steps"], rel=0.1)
    assert seconds(searched, begun=3)["search"] == 0.0  # the checkpoint has its rate
    splits = replace(splits, steps=spec.steps)
    assert seconds(spec, begun=3)["steps"] == pytest.approx(seconds(spec)["steps"] / 2)


def test_a_run_that_follows_another_reads_no_base_model_and_full_tuning_takes_longer(loaded, task, spec):
    found = foresee(loaded, task, spec, ROOMY)
    again, full = seconds_beside(loaded, task, found, (spec, replace(spec, plan=full_plan("tiny", 4))))
    assert 0 < again <= sum(found.phases.values()) * (1 + 1e-9)
    assert full > again


@pytest.fixture
def passed(monkeypatch):
    """The rows of every pass that a trial makes: of those whose memory is counted, and of the others."""
    counted, plain = list[Any](), list[Any]()
    for name, made in (("peak_of_pass", counted), ("time_pass", plain)):
        own = getattr(forecaster, name)
        monkeypatch.setattr(
            forecaster, name, lambda *given, own=own, made=made: (made.append(batch_load(given[2])), own(*given))[1]
        )
    monkeypatch.setattr(forecaster, "_KEPT", WeakKeyDictionary())
    return counted, plain


@pytest.mark.parametrize("micro", [None, 1, 2])
@pytest.mark.parametrize("plan", [Plan("tiny", 4, (2,)), full_plan("tiny", 4)], ids=["block", "full"])
@pytest.mark.parametrize("room", ["ample", "ample, whole", "enough", "none"])
def test_the_passes_of_a_trial_are_foreseen(loaded, task, spec, passed, plan, micro, room):
    asked, whole = replace(spec, plan=plan, batch_size=4, micro_batch=micro), room == "ample, whole"
    splits = encode_splits(loaded, task, asked)
    needed: Any = Forecaster(loaded, splits, asked, None, lambda: None).forecast(True).parts.total
    for made in passed:
        made.clear()
    forecaster._KEPT.clear()
    free = {"enough": int(needed / AMPLE / 2), "none": needed // 4}.get(room, ROOMY)
    maker = Forecaster(loaded, splits, asked, free, lambda: None)
    trial = maker.foresee_trial(whole)
    maker.forecast(whole)
    counted, plain = passed
    assert (trial is None) == (room == "none") == (not counted)
    if trial is not None:
        assert (trial.counted, trial.plain) == (sum(counted, Load()), sum(plain, Load()))
        assert len(counted) + len(plain) == (1 if room == "ample" else 3 if micro != 1 else 2)
        own, gradients = maker._parts(forecaster._Passes()).own_weights, trial.made * 4
        assert gradients - own == (len(counted) + len(plain)) * own


def test_a_pass_whose_memory_is_counted_is_foreseen_to_launch_longer_than_another(loaded, task, spec, passed):
    splits = encode_splits(loaded, task, spec)
    course = course_of_run(loaded, splits, replace(spec, cache="off"), lambda: None)
    assert course.trial is not None
    launches = replace(course, speed=Speed(1.0, 0.0, 0.0)).seconds["forecast"]
    assert launches == 3 * (2 * COUNTED + 1)  # one example, all of them, and all of them to be timed
    writing = replace(course, speed=Speed(0.0, 0.0, 1.0)).seconds["forecast"]
    assert writing >= course.trial.made > 0


def test_a_trial_that_was_made_before_is_not_foreseen_again(loaded, task, spec, passed):
    splits = encode_splits(loaded, task, spec)
    course = course_of_run(loaded, splits, spec, lambda: None)
    again = replace(spec, seed=1, role="random")
    first, second = seconds_in_turn(loaded, task, (spec, again))
    tried = course.seconds["forecast"]
    assert tried > 0
    assert first >= second + 0.99 * tried
    foresee(loaded, task, spec, ROOMY)
    assert course_of_run(loaded, splits, spec, lambda: None).trial is None


def test_the_phases_of_a_run_come_one_after_another_and_end_with_its_test(loaded, task, spec, folder):
    told, counted = list[str](), set[str]()

    class Told(Silent):
        def phase(self, name):
            told.append(name)

        def plan(self, phases):
            assert [one.name for one in phases] == [PHASES[key] for key in STRETCHES if key not in ON_REQUEST]
            assert all(one.seconds is not None for one in phases)

        def progress(self, done, total, message=""):
            assert total is None or done <= total, told[-1]
            counted.add(told[-1])

    tuned(loaded, task, spec, folder(spec), Told())
    order = [PHASES[key] for key in STRETCHES]
    assert [order.index(name) for name in told] == sorted({order.index(name) for name in told})
    assert told[-3:] == [PHASES["test"], PHASES["forgetting"], PHASES["answers"]]
    assert {PHASES["base"], PHASES["steps"], PHASES["saving"]} <= set(told)
    assert {PHASES["steps"], PHASES["test"], PHASES["forgetting"]} <= counted and PHASES["answers"] not in counted


def test_a_run_tells_what_was_predicted_beside_what_was_measured(loaded, task, spec, folder):
    place = folder(spec)
    tuned(loaded, task, spec, place)
    result: Any = RunResult.load(place / "result.json")
    assert result.predicted.trainable_params == result.measured.trainable_params
    assert result.predicted.step_seconds > 0
    assert result.predicted.memory_bytes > 16 * result.trainable_params


def test_a_forecast_on_the_command_line_is_printed_and_tunes_nothing(tiny, tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": "the cat is", "completion": f" {c}"}) for c in ("red", "blue") * 9))
    asked = ["tune", "--model", str(tiny("llama")), "--data", str(data), "--blocks", "1", "--forecast"]
    assert main([*asked, "--runs", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "memory: activations" in told
    assert "it fits." in told
    assert not (tmp_path / "runs").exists()
    assert main(["tune", "--resume", str(tmp_path), "--forecast"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
