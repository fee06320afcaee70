"""What pages say at their end, computed from records."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.app.actions import specs_to_start
from lsf.app.findings import (
    criterion_to_come,
    of_criteria,
    of_dimension,
    of_grid,
    of_plan,
    of_runs,
    of_trajectories,
    of_truth,
    plan_to_come,
)
from lsf.criteria.result import Analysis
from lsf.dimension.study import over_lessons
from lsf.evidence.packed import packed_record
from lsf.evidence.regret import Truth
from lsf.evidence.study import judge_choices
from lsf.plans.plan import Plan
from lsf.runs.comparison import to_row
from lsf.runs.controls import control_blocks
from lsf.runs.spec import RunSpec
from tests.figures.conftest import analysis as analysis
from tests.runs.test_comparison import FULL, make


@pytest.fixture
def scored(analysis: Analysis) -> Analysis:
    """With the recommended criterion: block 1 is first by it and by `deviation`, block 0 by `ntk` and `last`."""
    parts = ((0.1, 3.0), (0.9, 1.0), (0.2, 2.0))
    blocks = [
        replace(block, scores={**block.scores, "alignment": one, "ntk": other})
        for block, (one, other) in zip(analysis.blocks, parts, strict=True)
    ]
    return replace(analysis, blocks=tuple(blocks))


def test_the_criterion_to_come_is_the_one_taken_else_the_recommended_else_the_first_measured(scored: Any) -> None:
    assert criterion_to_come(None, scored) == "alignment"
    assert criterion_to_come("deviation", scored) == "deviation"
    assert criterion_to_come("snr", scored) == "alignment"


def test_the_plan_to_come_is_the_one_at_hand_unless_another_criterion_was_taken(scored: Analysis) -> None:
    by_hand = Plan("made-up", 3, (2,))
    assert plan_to_come(by_hand, "deviation", scored, 1) is by_hand
    chosen = plan_to_come(None, None, scored, 1)
    assert (chosen.blocks, chosen.criterion) == ((1,), "alignment")
    assert plan_to_come(chosen, "deviation", scored, 2).criterion == "deviation"
    assert plan_to_come(Plan("other", 3, (2,)), None, scored, 1).blocks == (1,)


def test_a_plan_says_why_and_what_stays_frozen() -> None:
    one = Plan("m", 8, (7,), criterion="alignment", policy="window")
    assert of_plan(one) == (
        "Chosen by Gradient alignment: the block of the greatest score. "
        "Frozen: blocks 0-6, the embedding, the final norm and the head."
    )
    two = replace(one, blocks=(6, 7), head=True)
    assert of_plan(two) == (
        "Chosen by Gradient alignment (tune the consecutive blocks of the greatest sum). "
        "Frozen: blocks 0-5, the embedding and the final norm."
    )
    assert of_plan(Plan("m", 2, (0,))) == (
        "Chosen by hand. Frozen: block 1, the embedding, the final norm and the head."
    )
    assert of_plan(Plan("m", 3, (0, 2), policy="evenly_spaced")) == (
        "Evenly spaced; no score was looked at. Frozen: block 1, the embedding, the final norm and the head."
    )
    assert of_plan(Plan("m", 3, (1,), policy="fixed_depth")).startswith(
        "At a depth fixed beforehand; no score was looked at. Frozen"
    )
    everything = Plan("m", 2, (0, 1), embedding=True, final_norm=True, head=True)
    assert of_plan(everything) == "Chosen by hand. Nothing is frozen."


def test_the_paths_page_ties_state_to_block_and_says_what_chooses_and_why(scored: Analysis) -> None:
    record = packed_record()
    found, onward = of_trajectories(scored, plan_to_come(None, None, scored, 1), record)
    assert found == (
        "The model is furthest from the straight path in state 2, the output of block 1; its last state puts the "
        "target first at 1 of 2 positions."
    )
    assert onward.startswith("Gradient alignment chooses block 1: where the truth was measured (")
    assert f"it lost {100 * record.mean:.1f} % of what the best plan gains" in onward
    assert onward.endswith("Next: choose the blocks.")
    assert "is none of the study's models" in onward  # made-up
    known = replace(scored, model=replace(scored.model, name="bundled"))
    assert "the study's models" not in of_trajectories(known, plan_to_come(None, None, known, 1), record)[1]
    other = of_trajectories(scored, plan_to_come(None, "deviation", scored, 1), record)[1]
    assert "of all criteria Gradient alignment has the best record" in other


def test_the_criteria_page_says_how_many_blocks_are_named_best(scored: Analysis) -> None:
    found, _ = of_criteria(scored, plan_to_come(None, None, scored, 1), packed_record())
    assert found == "3 criteria name 2 different blocks as the best (0, 1)."  # the control `last` is none


def test_criteria_that_rank_nothing_name_no_block(analysis: Analysis) -> None:
    def told(**scores: tuple[float, ...]) -> str:
        by_block = [dict(zip(scores, row, strict=True)) for row in zip(*scores.values(), strict=True)]
        blocks = tuple(replace(one, scores=row) for one, row in zip(analysis.blocks, by_block, strict=True))
        found = replace(analysis, blocks=blocks)
        return of_criteria(found, plan_to_come(None, None, found, 1), packed_record())[0]

    flat, peaked = (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    assert told(alignment=peaked, ntk=peaked, snr=flat) == "All 2 criteria name block 1 as the best."
    assert told(alignment=peaked, ntk=flat, snr=flat) == (
        "One criterion ranks the blocks; it names block 1 as the best."
    )
    assert told(alignment=flat) == "No criterion ranks the blocks."


def test_runs_are_told_once_one_has_ended() -> None:
    rows = [to_row(make("c")), to_row(FULL)]
    assert of_runs([]) is None
    assert of_runs([replace(rows[0], exact_match_after=None, loss_after=None)]) is None
    assert of_runs(rows) == (
        "Block 7 ended at 80 % exact match; the whole model at 100 % exact match.",
        "Next: compare the runs, which weighs this against cost.",
    )
    other = replace(rows[0], run="o", plan="block 3", exact_match_after=0.7)
    drawn = [replace(other, run=str(n), role="random", plan="block 5", n_blocks=n) for n in (1, 2)]
    drawn += [replace(drawn[0], run="h", beside="head", exact_match_after=0.9)]
    drawn += [replace(other, run="i", role="random", exact_match_after=0.8)]  # the choice itself
    last = replace(rows[0], run="l", role="last", exact_match_after=0.6)
    assert of_runs([*rows, other, *drawn, last], "o") == (
        "Block 3 ended at 70 % exact match; the whole model at 100 % exact match; a random block at 70 % exact match; "
        "the last block at 60 % exact match.",
        "Next: compare the runs, which weighs this against cost.",
    )
    ended = replace(rows[1], exact_match_after=None, loss_after=None, state="failed")
    for state in ("queued", "running"):
        waiting = of_runs([rows[0], replace(ended, state=state), ended])
        assert waiting is not None and waiting[1] == "Next: wait for 1 more."
    nothing_more = of_runs([rows[0], ended, replace(ended, state="cancelled"), replace(ended, state="interrupted")])
    assert nothing_more is not None and nothing_more[1].startswith("Next: compare")


def test_runs_are_all_told_by_one_measure() -> None:
    none_right, few = (
        replace(to_row(make("c")), exact_match_before=0.0, exact_match_after=share) for share in (0, 0.03)
    )
    full = replace(to_row(FULL), exact_match_before=0.0, exact_match_after=0.05, loss_after=0.25)
    found = of_runs([replace(none_right, loss_after=0.5), full])
    assert found is not None and found[0] == "Block 7 ended at loss 0.5; the whole model at loss 0.25."
    found = of_runs([none_right, replace(full, exact_match_after=0.5)])
    assert found is not None and found[0] == "Block 7 ended at 0 % exact match; the whole model at 50 % exact match."
    found = of_runs([replace(few, loss_after=None), full])
    assert found is not None and found[0].startswith("Block 7 ended at 3 % exact match;")


def test_what_is_wrong_with_a_run_is_told_with_what_it_reached() -> None:
    found = of_runs([replace(to_row(make("c")), fault="forgot 6.2 nats"), to_row(FULL)])
    assert found is not None
    assert found[0] == "Block 7 ended at 80 % exact match (forgot 6.2 nats); the whole model at 100 % exact match."


def test_a_run_is_told_beside_those_of_its_own_seed_and_method() -> None:
    choice, full = to_row(make("c")), to_row(FULL)
    again = [replace(choice, run="c1", seed=1, exact_match_after=0.4), replace(full, seed=1, exact_match_after=0.5)]
    lora = replace(full, run="l", method="lora", exact_match_after=0.2)
    found = of_runs([choice, full, lora, *again])
    assert found is not None
    assert found[0] == "Block 7 (seed 0) ended at 80 % exact match; the whole model at 100 % exact match."
    found = of_runs([choice, full, lora, *again], "c1")
    assert found is not None
    assert found[0] == "Block 7 (seed 1) ended at 40 % exact match; the whole model at 50 % exact match."


def test_as_many_runs_are_announced_as_are_queued_where_a_control_equals_another_at_some_seeds() -> None:
    spec = RunSpec("m", "lesson:facts", Plan("m", 4, (3,)))
    specs = specs_to_start(spec, ("first", "random"), 10)
    fewer = sum(control_blocks("random", 4, (3,), seed) == (0,) for seed in range(10))
    assert fewer not in (0, 10)
    assert len(specs) == 30 - fewer


def test_a_sweep_is_told_by_its_best_plan_and_says_where_that_is_not_decided() -> None:
    truth = Truth(2, 0.0, (1.0, 1.0), {(0,): (0.5, 0.51), (1,): (0.9, 0.91)}, {})
    found, onward = of_truth(truth, judge_choices(truth, {"alignment": (1.0, 0.5)}, 1), 1)
    assert found == (
        "Block 1 scored best of all plans of 1 block; Gradient alignment lost 40.0 % of what the best plan gains, "
        "chance 20.0 %."
    )
    assert "measure the truth there" in onward
    noisy = Truth(2, 0.0, (1.0, 1.0), {(0,): (0.1, 0.9), (1,): (0.5, 0.52)}, {})
    assert "is not decided" in of_truth(noisy, judge_choices(noisy, {}, 1), 1)[1]
    once = Truth(2, 0.0, (1.0,), {(0,): (0.5,), (1,): (0.9,)}, {})
    assert of_truth(once, judge_choices(once, {}, 1), 1)[1].startswith("Whether that is chance is unknown without more")
    nothing = replace(truth, prior=1.0)
    found, onward = of_truth(nothing, judge_choices(nothing, {}, 1), 1)
    assert found.startswith("No plan does better here") and "choose by it" not in onward


def test_the_grid_is_told_by_its_best_cell_and_the_cheapest_level_with_it() -> None:
    whole, some = (replace(to_row(run), stored_bytes=count) for run, count in ((FULL, 5_000_000), (make("c"), 40_000)))
    assert of_grid([("whole model", "All weights", whole)]) is None
    cells = [("whole model", "All weights", whole), ("block 7", "LoRA", replace(some, exact_match_after=0.99))]
    found = of_grid(cells)
    assert found is not None and found[0] == (
        "All weights on whole model reached the most, 100 % exact match, storing 5,000 kB; LoRA on block 7 is within "
        "one test example of it, storing 40 kB."
    )
    for right in range(1, 51):  # 6/50 is less than 7/50 - 1/50 by its last bit
        best, one_less = (
            (*cell[:2], replace(cell[2], exact_match_after=n / 50))
            for cell, n in zip(cells, (right, right - 1), strict=True)
        )
        found = of_grid([best, one_less])
        assert found is not None and "within one test example" in found[0]
    assert of_grid([cells[0], (*cells[1][:2], replace(some, fault="diverged"))]) is None
    long = [(*one[:2], replace(one[2], exact_match_before=0.0, exact_match_after=0.0)) for one in cells]
    found = of_grid(long)
    assert found is not None and "reached the most, a gain of 2.5 nats, storing 5,000 kB." in found[0]
    assert found[1] == "One seed each. Next: repeat the best two with other seeds before trusting it."
    gains = -0.5, None
    below = [(*one[:2], replace(one[2], gain=gain)) for one, gain in zip(long, gains, strict=True)]
    assert of_grid(below) == (
        "No cell gained anything over the floor; All weights on whole model came nearest, 0.5 nats above.",
        "One seed each. Next: give the cells more steps, or search their rates.",
    )


def test_the_intrinsic_dimension_is_told_by_its_extremes() -> None:
    found = of_dimension(over_lessons(), "On the bundled model")
    assert found is not None
    assert found[0] == (
        'On the bundled model, 35 numbers suffice for "One more than the sum" by DID, 5,477 for "Verdicts in other '
        'words" by DID, of 1,377,408; for "New names for known countries" 30,000 do not.'
    )
    assert of_dimension([], "") is None
