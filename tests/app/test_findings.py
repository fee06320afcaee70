"""What pages say at their end, computed from records."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.app.findings import criterion_to_come, of_criteria, of_runs, of_trajectories, plan_to_come
from lsf.criteria.result import Analysis
from lsf.evidence.packed import packed_record
from lsf.plans.plan import Plan
from lsf.runs.comparison import to_row
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


def test_the_paths_page_ties_state_to_block_and_says_what_chooses_and_why(scored: Analysis) -> None:
    record = packed_record()
    found, onward = of_trajectories(scored, plan_to_come(None, None, scored, 1), record)
    assert found == (
        "The model is furthest from the straight path in state 2, which leaves block 1; its last state puts the target "
        "first at 1 of 2 positions."
    )
    assert onward.startswith("Gradient alignment chooses block 1: where the truth was measured (")
    assert f"it lost {100 * record.mean:.1f} % of the whole model's gain" in onward
    assert onward.endswith("Next: choose the blocks.")
    other = of_trajectories(scored, plan_to_come(None, "deviation", scored, 1), record)[1]
    assert "of all criteria Gradient alignment has the best record" in other


def test_the_criteria_page_says_how_many_blocks_are_named_best(scored: Analysis) -> None:
    found, _ = of_criteria(scored, plan_to_come(None, None, scored, 1), packed_record())
    assert found == "3 criteria name 2 different blocks as the best (0, 1)."  # the control `last` is none


def test_runs_are_told_once_one_has_ended() -> None:
    rows = [to_row(make("c")), to_row(FULL)]
    assert of_runs([]) is None
    assert of_runs([replace(rows[0], exact_match_after=None, loss_after=None)]) is None
    assert of_runs(rows) == (
        "Block 7 ended at 80 % exact match; the whole model at 100 % exact match.",
        "Next: compare the runs, which weighs this against cost.",
    )
    waiting = of_runs([rows[0], replace(rows[1], exact_match_after=None, loss_after=None)])
    assert waiting is not None and waiting[1] == "Next: wait for 1 more."
