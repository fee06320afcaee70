"""The tower of blocks: what is drawn of scores, choice and cost."""

import json

import pytest

from lsf.app.tower import draw_graft, draw_tower, step_work
from lsf.criteria.result import Analysis
from lsf.plans.cost import block_flops, training_flops
from tests.figures.conftest import analysis as analysis
from tests.runs.test_graft import graft


def test_scores_become_shades_and_the_choice_a_reach(analysis: Analysis) -> None:
    tower = draw_tower(3, (1,), analysis.scores("deviation"), "Deviation", step_work(analysis, (1,)))
    assert [one.shade for one in tower.blocks] == [0.0, 1.0, 0.5]
    assert [one.value for one in tower.blocks] == ["0.25", "0.75", "0.50"]
    assert [one.tuned for one in tower.blocks] == [False, True, False]
    assert tower.reach == 1
    assert tower.title == "Tune block 1 of 0-2"
    assert "Deviation is highest at block 1 (0.75) and lowest at block 0 (0.25)" in tower.alt
    assert "down to block 1" in tower.alt
    words = [one.words for one in tower.blocks]
    assert words[0] == "Block 0 of 3, from state 0 to state 1: Deviation 0.25; frozen, no gradient"
    assert words[1].endswith("Deviation 0.75; tuned")
    assert words[2].endswith("frozen, gradients pass")


@pytest.mark.parametrize("blocks", [(1,), (0, 2), (0, 1, 2)])
def test_the_work_of_a_step_is_the_cost_models(analysis: Analysis, blocks: tuple[int, ...]) -> None:
    head = 2 * 2.0 * analysis.model.width * analysis.model.vocab_size
    parts = block_flops(analysis, blocks)
    assert sum(map(sum, parts)) + head == pytest.approx(training_flops(analysis, blocks))
    work = step_work(analysis, blocks)
    assert max(map(sum, work)) == pytest.approx(1.0)
    assert all((weights > 0) == (block in blocks) for block, (_, _, weights) in enumerate(work))
    assert all((backward > 0) == (block >= min(blocks)) for block, (_, backward, _) in enumerate(work))


def test_nothing_measured_and_nothing_chosen_is_said() -> None:
    tower = draw_tower(80, ())
    assert len(tower.blocks) == 80
    assert {one.shade for one in tower.blocks} == {None}
    assert tower.reach is None
    assert tower.score == ""
    assert tower.title == "80 blocks, none chosen"
    assert "not measured" in tower.blocks[79].words


def test_blocks_that_were_not_measured_yet_are_left_blank_and_alike_ones_are_in_the_middle() -> None:
    tower = draw_tower(3, (), [None, 1e-5, 1e-5], "Fisher")
    assert [one.shade for one in tower.blocks] == [None, 0.5, 0.5]
    assert [one.value for one in tower.blocks] == ["", "1e-5", "1e-5"]
    assert json.loads(json.dumps(tower.to_json()))["blocks"][0]["shade"] is None


def test_a_graft_colours_tuned_blocks_by_their_share_of_the_gain_and_leaves_the_others_blank() -> None:
    found = graft({1: -0.5, 2: 1.0, None: 0.2}, {1: 0.5, 2: 3.0, None: 0.1})
    tower = draw_graft(4, found, "alone")
    assert [one.shade for one in tower.blocks] == [None, 0.0, 0.5, None]
    assert [one.value for one in tower.blocks] == ["", "-0.50", "1.00", ""]
    assert tower.blocks[0].words == "Block 0 of 4: not tuned"
    words = "Block 2 of 4: Nats over the floor that the block brings alone, 1.00 (0.9 to 1.1)"
    assert tower.blocks[2].words == words
    assert tower.ends == ("none", "all of the gain (2)")
    assert "block 1 -0.5 (-0.6 to -0.4); block 2 1 (0.9 to 1.1)" in tower.alt
    assert [one.shade for one in draw_graft(4, found, "without").blocks] == [None, 0.25, 1.0, None]
    nothing = draw_graft(4, graft({1: -0.5, 2: 0.2}, {1: 0.1, 2: 0.4}, gain=-0.3), "without")
    assert [one.shade for one in nothing.blocks] == [None, 0.25, 1.0, None]
    assert nothing.ends == ("none", "most (0.4)")
