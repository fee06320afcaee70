"""The sweep on a real model: what it asks for, its rules of rates and of stopping, its report; and one small sweep."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks.real_sweep as sweep
from benchmarks.real_plans import (
    FACTORS,
    JUDGES,
    Cell,
    Scored,
    blocks_of,
    depth_plans,
    hopeless,
    may_stop,
    near,
    plans_of,
    rules,
    seeds_of,
    shared_rate,
    size_of,
    spread_out,
    widened,
)
from benchmarks.real_sweep_report import OTHERS, SMALL, fixed_depths, report
from benchmarks.real_tasks import shuffled
from benchmarks.real_truth import LOOKED_AT, Truth, truth_of
from lsf.data.lessons import load_lesson
from lsf.data.task import Example
from lsf.models.loading import load_model
from lsf.plans.plan import format_blocks

SCORES = Scored(
    "sst2",
    "lens",
    False,
    {
        "alignment": tuple(float(block == 4) for block in range(10)),
        "reduction": tuple(float(block == 6) for block in range(10)),
        "law_headroom": tuple(float(block == 8) for block in range(10)),
        "gradient_norm": tuple(float(block) for block in range(10)),
        "ablation": tuple(float(10 - block) for block in range(10)),
        "last": tuple(float(block) for block in range(10)),
    },
    1.0,
)


def cell(plan: str, loss: float | None, seed: int = 0, rate: float | None = 1e-3, **more: object) -> Cell:
    made = Cell("sst2", plan, seed, rate, loss, 0.5 if loss else None, loss, loss, 4.0, None, 10.0)
    return replace(made, **more)


def test_ranges_are_read_as_they_are_written() -> None:
    for blocks in ((3,), (0, 1, 2, 7, 9), tuple(range(8, 16))):
        assert blocks_of(format_blocks(blocks)) == blocks
    assert [size_of(plan) for plan in ("full", "lora", "7", "2-9")] == ["full", "lora", "1", "8"]


def test_every_rule_names_its_blocks_and_a_placebo_is_told_apart() -> None:
    named = rules([SCORES, replace(SCORES, placebo=True)], 10, 4)
    assert named["1: alignment, lens"] == (4,)
    assert named["4: SALF by reduction, lens"] == (7, 8, 9)  # behind the peak
    assert named["4: SALF by law_headroom, lens"] == (8, 9)  # from the peak on
    assert named["half: gradient_norm, lens"] == (5, 6, 7, 8, 9)
    assert named["1: ablation, lens"] == (0,) and named["1: least ablation, lens"] == (9,)  # both signs
    assert "1: alignment, lens (placebo)" in named
    assert not any(": last" in name for name in named)  # controls are measured once, not per reading
    plans = plans_of([SCORES], 10, 4)
    assert len(plans) == len(set(plans)) and {format_blocks(blocks) for blocks in named.values()} <= set(plans)


def test_single_blocks_come_first_sets_by_their_first_block_and_a_placebos_plans_under_one_seed() -> None:
    rest = tuple(float(block == 5) for block in range(10))
    scored = [SCORES, Scored("sst2", "lens", True, {"alignment": rest}, 1.0)]
    plans = plans_of(scored, 10, 4)
    assert plans[:12] == [*map(str, range(10)), "full", "lora"]
    starts = [blocks_of(plan)[0] for plan in plans[12:]]
    assert starts == sorted(starts)
    assert seeds_of("3", scored, 10, 4) == (0, 1)
    own = {plan: seeds_of(plan, scored, 10, 4) for plan in plans}
    placebo = format_blocks(rules(scored[1:], 10, 4)["4: alignment, neighbours, lens (placebo)"])
    assert own[placebo] == ((0, 1) if placebo in plans_of(scored[:1], 10, 4) else (0,))
    assert set(own.values()) == {(0, 1), (0,)}


def test_depth_plans_are_windows_sets_and_controls_and_the_same_every_time() -> None:
    plans = depth_plans(30)
    assert plans == depth_plans(30)
    assert [plans[f"window {start}"][0] for start in range(0, 23, 2)] == list(range(0, 23, 2))
    assert {len(blocks) for name, blocks in plans.items() if "%" not in name} == {8}
    assert len({plans[f"random {number}"] for number in range(20)}) == 20
    assert plans["middle 20 to 80 %"] == tuple(range(6, 24))


def test_the_rate_of_a_size_is_that_of_the_lowest_mean_over_its_judges() -> None:
    plans, rates = ["0", "9"], [1e-3, 2e-3, 4e-3]
    cells = [cell("0", 1.0), cell("9", 3.0), cell("0", 1.5, rate=2e-3), cell("9", 1.9, rate=2e-3)]
    assert shared_rate(cells, "sst2", plans, rates) is None  # the third was not tried
    cells += [cell("0", 0.1, rate=4e-3), cell("9", None, rate=4e-3)]  # one diverged
    assert shared_rate(cells, "sst2", plans, rates) == 2e-3
    assert [len(blocks) for blocks in spread_out(30, 8)] == [8] * JUDGES


def test_a_control_s_search_goes_on_until_its_best_rate_lies_between_others() -> None:
    rates = [2e-3, 1e-3, 4e-3]
    cells = [cell("lora", 1.0, rate=1e-3), cell("lora", 0.9, rate=2e-3)]
    assert widened(cells, "sst2", "lora", rates) == [1e-3, 2e-3, 4e-3]  # the third is not measured yet
    assert widened([*cells, cell("lora", None, rate=4e-3)], "sst2", "lora", rates) == [1e-3, 2e-3, 4e-3]
    cells.append(cell("lora", 0.8, rate=4e-3))
    assert widened(cells, "sst2", "lora", rates) == [1e-3, 2e-3, 4e-3, 8e-3]
    cells.append(cell("lora", 0.7, rate=8e-3))
    assert widened(cells, "sst2", "lora", rates)[-1] == 16e-3
    assert widened([*cells, cell("lora", 0.75, rate=16e-3)], "sst2", "lora", rates)[-1] == 16e-3
    least = [cell("full", loss, rate=rate) for rate, loss in ((1e-3, 0.1), (2e-3, 0.2), (4e-3, 0.3))]
    assert widened(least, "sst2", "full", rates) == [5e-4, 1e-3, 2e-3, 4e-3]
    falling = [cell("lora", 1 / 2**step, rate=1e-3 * 2**step) for step in range(12)]
    assert len(widened(falling, "sst2", "lora", rates)) == 8


def test_only_windows_and_random_sets_are_stopped_and_only_far_behind() -> None:
    assert not hopeless(9.0, [1.0] * 7)  # too few to tell
    others = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    assert hopeless(2.06, others) and not hopeless(2.04, others)  # 1.35 + 2 x 0.35
    plans = {name: format_blocks(blocks) for name, blocks in depth_plans(30).items()}
    assert may_stop(plans["random 3"], [], 30)
    assert not may_stop(plans["first"], [], 30)  # a control, though window 0 too
    assert not may_stop("5", [], 30)
    named = Scored("sst2", "lens", False, {"alignment": tuple(float(8 <= b < 16) for b in range(30))}, 1.0)
    assert may_stop("8-15", [], 30) and not may_stop("8-15", [named], 30)  # a rule names it


def test_plans_as_near_as_seeds_differ_get_a_third_seed() -> None:
    cells = {("a", 0): 1.0, ("a", 1): 1.2, ("b", 0): 1.1, ("b", 1): 0.9, ("c", 0): 0.0, ("c", 1): 0.1}
    assert near(cells, ["a", "b", "c"]) == ["a", "b"]
    assert near({**cells, ("b", 0): 0.1, ("b", 1): 0.2}, ["a", "b", "c"]) == []  # the best stands alone


def test_shuffled_completions_are_the_same_ones_at_other_prompts() -> None:
    rows = [Example(str(place), f" {place}") for place in range(9)]
    found = shuffled(rows)
    assert sorted(row.completion for row in found) == sorted(row.completion for row in rows)
    assert all(row.prompt.strip() != row.completion.strip() for row in found)


def test_regret_is_from_the_floor_and_what_is_missing_is_said() -> None:
    base = Cell("sst2", "base", 0, None, 3.0, 0.0, 3.0, None, 4.0, (0.7, 0.6), 1.0)
    cells = [base]
    for plan, right in {"full": 0.8, "0": 0.7, "4": 0.9, "9": 0.5, "lora": 0.6}.items():
        cells += [cell(plan, 0.5, seed, exact_match=right, general=5.0) for seed in (0, 1)]
    truth = truth_of("sst2", cells, [SCORES], 10)
    assert truth is not None
    assert truth.floor == 0.6  # the prior's, though the base model has 0
    assert truth.regret("0") == pytest.approx(0.2 / 0.3)
    assert truth.regret("4") == 0.0 and truth.regret("5") is None
    assert "5" in truth.missing and "4" not in truth.missing
    assert truth.forgotten["full"] == 1.0
    stopped = [*cells, cell("1", None, stopped=True)]
    again = truth_of("sst2", stopped, [SCORES], 10)
    assert again is not None and again.of("1") == 0.5  # as the worst of its size
    told = report(stopped, [SCORES], 10)
    assert "| gsm8k | none |" in told and "| sst2 | 5 | 1 |" in told
    assert "sst2: 6 plans to be measured before there is a regret" in told and "| alignment, lens |" not in told
    rest = [cell(str(plan), 0.5, exact_match=0.5, general=5.0) for plan in (2, 3, 5, 6, 7, 8)]
    told = report([*stopped, *rest], [SCORES], 10)
    assert "| alignment, lens | 0.0% of 1 tasks | 0.0% (one task) |" in told
    assert "nothing is known on all tasks yet" in told


def test_a_fixed_depth_is_judged_on_a_task_it_was_not_chosen_on_and_trec_chooses_none() -> None:
    def profile(task: str, best: int) -> Truth:
        scores = {str(block): (1.0 if block == best else 0.5,) for block in range(11)}
        return Truth(task, 0.0, 0.0, scores, {}, {}, (), (), 11)

    found = fixed_depths([profile("sst2", 3), profile("facts", 7), profile(LOOKED_AT, 5)], 0.7, 1)
    assert found[SMALL] == {"sst2": 0.5, "facts": 0.0, LOOKED_AT: 0.5}
    assert found[OTHERS] == {"sst2": 0.5, "facts": 0.5, LOOKED_AT: 0.5}  # 7, 3, and the deeper of 3 and 7
    assert fixed_depths([profile("sst2", 3)], 0.3, 1) == {SMALL: {"sst2": 0.0}, OTHERS: {}}


def test_a_second_seed_counts_for_a_size_once_all_its_plans_were_tuned_under_it() -> None:
    cells = [Cell("sst2", "base", 0, None, 3.0, 0.0, 3.0, None, 4.0, (0.7, 0.6), 1.0)]
    cells += [cell(str(plan), 0.5, 0, exact_match=0.8, general=5.0) for plan in range(10)]
    cells += [cell(str(plan), 0.5, 1, exact_match=0.6, general=5.0) for plan in range(9)]
    part = truth_of("sst2", cells, [SCORES], 10)
    assert part is not None and "9" in part.missing
    assert [part.scores[str(plan)] for plan in range(10)] == [(0.8,)] * 10
    whole = truth_of("sst2", [*cells, cell("9", 0.5, 1, exact_match=0.6, general=5.0)], [SCORES], 10)
    assert whole is not None and [whole.scores[str(plan)] for plan in range(10)] == [(0.8, 0.6)] * 10


def test_the_committed_lines_are_read_and_reported() -> None:
    assert "### Regret at 8 of 30 blocks" in report()


def test_a_small_sweep_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "CELLS", tmp_path / "cells.jsonl")
    monkeypatch.setattr(sweep, "SCORES", tmp_path / "scores.jsonl")
    monkeypatch.setattr(sweep, "TRAIN", 16)
    monkeypatch.setattr(sweep, "READINGS", ("lens",))
    monkeypatch.setattr(sweep, "TOO_DEAR", ("runs", "vocabulary", "per_example", "trial_step"))
    task = load_lesson("facts")
    task = replace(task, validation=task.validation[:6], test=task.test[:6])
    bench = sweep.Bench(load_model("bundled", "float32", "cpu"), task, 8, 2)
    assert bench.steps == 6
    lines = [sweep.step(bench, 0, alone=True) for _ in range(7)]
    assert [line.split()[1] for line in lines if line] == ["base", "scores", "scores", *["0"] * 3, "2"]
    cells = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    rates = [one["rate"] for one in cells if one["plan"] == "0"]
    assert rates == [pytest.approx(factor * rates[0], rel=0.01) for factor in FACTORS]
    assert all(one["loss"] and one["half_way"] and one["general"] for one in cells[1:])
    real, placebo = sweep.read_lines(tmp_path / "scores.jsonl", Scored)
    assert (real.placebo, placebo.placebo) == (False, True)
    assert real.scores["alignment"] != placebo.scores["alignment"] and len(real.scores["ablation"]) == 8
    one = bench.tune("6-7", 1e-3, 0, None)
    assert one.loss is not None and one.half_way is not None
    ended = bench.tune("6-7", 1e-3, 0, [0.0] * 8)
    assert ended.stopped and ended.loss is None and ended.half_way == one.half_way
