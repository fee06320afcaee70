"""What is packed of the sweep on a real model: the committed lines say it, and the sentences say no more."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.real_packing import WORDS, real_tasks_of
from benchmarks.real_plans import CELLS, SCORES, Cell, Scored, read_lines
from benchmarks.real_truth import regrets, tried_plan, truth_of
from lsf.evidence.real import (
    LOOKED_AT,
    RealSets,
    RealTask,
    RealTasks,
    pack_real,
    real_budgets,
    real_record,
    real_tasks,
    real_words,
    spacing,
    tried_record,
    trying_helps,
)
from lsf.figures.sweeps import draw_sets
from lsf.plans.plan import format_blocks
from lsf.plans.policies import RECOMMENDED

ONE = RealTask(
    "a model", "ab", "a task", "exact_match", 10, 1, base=0.0, floor=0.2, whole=0.5, lora=0.6, top=0.7,
    alone=(0.4, 0.7, 0.3), scores={"alignment": (1.0, 2.0, 3.0), "last": (0.0, 1.0, 2.0)},
    placebo={"alignment": (2.0, 1.0, 0.0), "last": (0.0, 1.0, 2.0)}, at_an_end=(),
    half_way=(2.0, 2.5, None),
    sets=RealSets(
        2, 1, {"0-1": 0.7, "1-2": 0.5}, drawn=("0-1", "0, 2"), stopped=("0, 2",),
        half_way={"0-1": 1.5, "1-2": 1.0, "0, 2": 0.5},
    ),
)  # fmt: skip


def test_the_package_holds_what_the_committed_lines_say() -> None:
    cells, scored = read_lines(CELLS, Cell), read_lines(SCORES, Scored)
    packed = real_tasks()
    assert packed
    assert real_tasks_of(cells, scored, packed[0].model, packed[0].weights) == list(packed)
    for one in packed:
        task = next(name for name, words in WORDS.items() if words == one.task)
        truth = truth_of(task, cells, scored, len(one.alone))
        assert truth is not None
        for budget in one.budgets:
            reported, near = regrets(truth, scored, budget), ", neighbours" if budget > 1 else ""
            told = tried_plan(truth, [cell for cell in cells if cell.task == task], budget)
            assert format_blocks(one.tried(budget)) == told
            assert one.by_chance(budget) == pytest.approx(reported["at random"], abs=5e-4)
            for criterion in ("alignment", "reduction", "fisher"):
                own = one.lost(one.named(criterion, budget))
                assert own == pytest.approx(reported[f"{criterion}{near}, lens"], abs=5e-4)
                blind = one.lost(one.named(criterion, budget, placebo=True))
                assert blind == pytest.approx(reported[f"{criterion}{near}, lens (placebo)"], abs=5e-4)
    assert any(one.sets for one in packed)
    assert [one.task for one in packed].index(LOOKED_AT) == len(packed) - 1


def test_regret_is_a_share_of_what_the_best_plan_gains_over_the_floor() -> None:
    assert (ONE.best(), ONE.named("alignment"), ONE.named("alignment", placebo=True)) == ((1,), (2,), (0,))
    assert ONE.lost((2,)) == pytest.approx(0.4 / 0.5)
    assert ONE.by_chance() == pytest.approx((0.3 + 0.0 + 0.4) / 3 / 0.5)
    assert replace(ONE, floor=0.9).lost((2,)) is None
    assert replace(ONE, floor=0.9).by_chance() is None
    for one in real_tasks():  # pictures and sentences count from the same floor
        assert (one.truth.floor, one.truth.range) == (pytest.approx(one.floor), pytest.approx(one.top - one.floor))


def test_trying_takes_the_least_loss_half_way_of_neighbours_alone() -> None:
    assert (ONE.tried(), ONE.tried(2)) == ((0,), (1, 2))  # a set that is no run of neighbours is not tried
    assert tried_record(2, [ONE, replace(ONE, task=LOOKED_AT), replace(ONE, sets=None)]) == (
        "Measured on a model, 2 of 3 blocks, one task, at a searched rate: what was best of 5 depths half-way lost "
        "40.0 % of what the best plan gains in the end, blocks at random 20.0 %: a task 40.0 % (20.0 %). "
        "On TREC, kinds of questions, which had been looked at before the sweep and is not counted: 40.0 % (20.0 %)."
    )
    lost = replace(ONE, half_way=(None, 2.5, 2.0))
    assert lost.tried() == (2,)  # one that diverged was tried, and is none to take
    assert tried_record(3, [ONE]) is None
    assert (trying_helps(1, [ONE]), trying_helps(2, [ONE])) == (False, False)  # 60 against 47 %, 40 against 20 %
    better = replace(ONE, half_way=(2.0, 1.0, None))
    assert (trying_helps(1, [better]), trying_helps(9, [better]), trying_helps(1, [])) == (True, False, False)
    assert "1 of 30 blocks" in (tried_record(1) or "")


def test_even_spacing_stands_where_it_lost_less_than_trying_and_the_rule_and_first_where_beyond_chance() -> None:
    even = {"0-1": 0.5, "1-2": 0.5, "0, 2": 0.7}
    own = replace(ONE, sets=RealSets(2, 1, even, ("0-1",), (), {"0-1": 1.5, "1-2": 1.0, "0, 2": 0.5}))
    held = spacing(2, [own, replace(own, task=LOOKED_AT), replace(own, sets=None, task="alone")])
    assert held is not None
    assert (held.lost, held.stands, held.stands_first) == (0.0, False, False)  # five were announced
    assert held.words == (
        "Measured on a model, 2 of 3 blocks, one task, at a searched rate: evenly spaced blocks lost 0.0 % of what "
        "the best plan gains, blocks at random 40.0 %, the best of 5 depths that were tried 40.0 %, the study's rule "
        "40.0 %: a task 0.0 %. On TREC, kinds of questions, which had been looked at before the sweep and is not "
        "counted: 0.0 %, at random 40.0 %, tried 40.0 %, the rule 40.0 %."
    )
    less = RealSets(2, 1, {**even, "1-2": 0.6}, ("0-1",), (), own.sets.half_way if own.sets else {})
    several = [own, replace(own, task="b", sets=less), *(replace(own, task=task) for task in "cde")]
    held = spacing(9, several)  # the nearest that was measured
    assert held is not None and held.budget == 2
    assert held.stands_first
    worse = RealSets(2, 1, {"0-1": 0.5, "1-2": 0.7, "0, 2": 0.2}, ("0-1",), (), less.half_way)
    held = spacing(2, [*several[:4], replace(own, task="e", sets=worse)])
    assert held is not None and held.stands and not held.stands_first
    held = spacing(2, [replace(own, task=task, sets=worse) for task in "abcde"])
    assert held is not None and not held.stands
    assert spacing(1, several) is None and spacing(2, []) is None
    unmeasured = RealSets(2, 1, {"0-1": 0.7, "1-2": 0.5}, ("0-1",), (), less.half_way)
    assert spacing(2, [replace(ONE, sets=unmeasured)]) is None


def test_a_set_that_was_ended_half_way_counts_as_the_worst_of_its_size() -> None:
    assert (ONE.best(2), ONE.named("alignment", 2)) == ((0, 1), (1, 2))
    assert ONE.lost((0, 2)) == ONE.lost((1, 2)) == pytest.approx(0.2 / 0.5)
    assert ONE.by_chance(2) == pytest.approx((0.0 + 0.2) / 2 / 0.5)
    assert (ONE.budgets, replace(ONE, sets=None).budgets) == ((1, 2), (1,))


def test_every_set_is_drawn_a_row_each_and_the_one_that_was_ended_early_last() -> None:
    picture = draw_sets(ONE, "alignment")
    assert list(picture.table["blocks"]) == ["0-1", "1-2", "0, 2"]
    assert list(picture.table["kind"]) == ["at random", "named", "at random"]
    assert picture.title == "Sets of 2 blocks: Gradient alignment lost 40 %, sets at random 20 %"
    assert list(picture.figure["layout"]["yaxis"]["ticktext"]) == ["0.700", "0.500", "ended early"]


def test_evenly_spaced_blocks_are_drawn_as_what_they_are() -> None:
    assert ONE.sets is not None
    spread = replace(ONE, sets=replace(ONE.sets, scores={**ONE.sets.scores, "0, 2": 0.6}, drawn=("0-1",), stopped=()))
    picture = draw_sets(spread, "alignment")
    assert list(picture.table["kind"]) == ["at random", "evenly spaced", "named"]
    assert picture.title == (
        "Sets of 2 blocks: Gradient alignment lost 40 %, evenly spaced ones 20 %, sets at random 0.0 %"
    )
    for one in real_tasks():
        if one.sets is not None:
            assert sum(draw_sets(one, "alignment").table["kind"] == "evenly spaced") == 1


def test_the_sentence_names_blocks_what_they_lost_and_what_chance_lost() -> None:
    told = real_words("ab", tasks=[ONE, replace(ONE, task="another", placebo=ONE.scores)])
    each = "80.0 % (named block 2; best was block 1; at random 46.7 %)"
    assert told == (
        "Measured on a model, 1 of 3 blocks, one seed. Gradient alignment lost, of what the best plan gains over the "
        f"floor: a task {each}; another {each}. With shuffled completions it names the same block on another. 2 tasks: "
        "a lead, no proof."
    )
    assert real_words("ab", 2, [ONE, replace(ONE, sets=None, task="another")]) == (
        "Measured on a model, 2 of 3 blocks as neighbours, one seed. Gradient alignment lost, of what the best plan "
        "gains over the floor: a task 40.0 % (named blocks 1-2; best were blocks 0-1; at random 20.0 %). One task: a "
        "lead, no proof."
    )
    assert real_words("cd", tasks=[ONE]) is None
    assert real_words("ab", 3, [ONE]) is None
    assert (real_budgets(real_tasks()[0].weights), real_budgets("cd")) == ((1, 8), ())
    assert real_words(None) is None
    assert RECOMMENDED[0] in ONE.scores


def test_of_other_models_it_is_said_what_the_rule_lost_on_average_trec_apart() -> None:
    apart = replace(ONE, task=LOOKED_AT, alone=(0.4, 0.7, 0.7))
    assert real_record([ONE, replace(ONE, alone=(0.4, 0.7, 0.7)), apart, replace(ONE, floor=0.9)]) == (
        "On a model, one block of 3 on 2 tasks, the recommendation lost 40.0 % of what the best plan gains on average, "
        "blocks at random 33.3 %, the best of 5 depths that were tried 60.0 %. On TREC, kinds of questions, which "
        "had been looked at before the sweep and is not counted: 0.0 %, at random 20.0 %, tried 60.0 %."
    )
    assert real_record([apart]) is None


def test_what_is_packed_is_read_again(tmp_path: Path) -> None:
    pack_real([ONE], tmp_path / "real.json")
    assert RealTasks.load(tmp_path / "real.json").tasks == (ONE,)
