"""The profile of single blocks and the triangle of runs."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.evidence.regret import Truth
from lsf.figures.palette import Picture
from lsf.figures.sweeps import CONTRIBUTION, draw_need, draw_profile, draw_regrets, draw_triangle, measured_gain

TRUTH = Truth(
    3,
    0.1,
    (0.9, 0.7),
    {(0,): (0.2, 0.2), (1,): (0.4, 0.6), (2,): (0.3, 0.3), (1, 2): (0.8, 0.8), (0, 2): (0.95, 0.95)},
    {},
)


def drawn(picture: Picture) -> Any:
    return picture.figure


def test_the_profile_marks_the_best_block_and_draws_each_spread() -> None:
    picture = draw_profile(TRUTH, "exact_match")
    others, best, full, base = drawn(picture).data
    assert list(best.x) == [1]
    assert list(others.x) == [0, 2]
    assert best.error_y.array[0] == pytest.approx(0.1414, abs=1e-4)
    assert best.marker.pattern.shape != others.marker.pattern.shape
    assert (full.y[0], base.y[0]) == (pytest.approx(0.8), 0.1)
    assert "best block 1 with 0.500" in picture.alt
    assert picture.table["mean"].tolist() == [0.2, 0.5, 0.3]


def test_one_seed_has_no_whiskers_and_a_score_beside_it_is_a_line_that_is_told() -> None:
    truth = Truth(2, 0.1, (0.8,), {(0,): (0.2,), (1,): (0.5,)}, {})
    picture = draw_profile(truth, "exact_match", beside={"LoRA": 0.6})
    assert [bar.error_y.visible for bar in drawn(picture).data[:2]] == [False, False]
    assert drawn(draw_profile(TRUTH, "exact_match")).data[0].error_y.visible
    assert (drawn(picture).data[-1].name, drawn(picture).data[-1].y[0]) == ("LoRA", 0.6)
    assert picture.alt.endswith("LoRA: 0.600.")


def test_a_loss_is_drawn_as_it_is_read() -> None:
    truth = Truth(1, -3.0, (-1.0,), {(0,): (-2.0,)}, {})
    figure = drawn(draw_profile(truth, "loss"))
    best = figure.data[1]
    assert (best.base, best.y[0], best.customdata[0]) == (3.0, -1.0, 2.0)  # from the floor down; nobody starts at zero
    assert figure.layout.yaxis.title.text == "loss (nats per token)"
    assert drawn(draw_triangle(truth, "loss")).layout.coloraxis.reversescale is True


def test_what_is_not_decided_or_not_measured_is_said_in_the_title() -> None:
    noisy = replace(TRUTH, scores={(0,): (0.1, 0.9), (1,): (0.5, 0.5), (2,): (0.5, 0.4)})
    assert "not decided" in draw_profile(noisy, "exact_match").title
    level = replace(TRUTH, scores={(0,): (0.1, 0.1), (1,): (0.5, 0.51), (2,): (0.5, 0.52)})
    assert draw_profile(level, "exact_match").title == (
        "Tuned alone, block 2 scored best, no better than block 1 beyond chance"
    )
    lacking = replace(TRUTH, scores={(1,): (0.4, 0.6), (2,): (0.3, 0.3)}, missing={(0,): "no memory"})
    assert "not all of them measured" in draw_profile(lacking, "exact_match").title
    assert draw_profile(lacking, "exact_match").table["mean"].isna().tolist() == [True, False, False]
    nothing = replace(TRUTH, scores={})
    assert draw_profile(nothing, "exact_match").title == "No single block is measured yet"
    assert draw_triangle(nothing, "exact_match").title == "No range is measured yet"
    assert "with one seed" in draw_profile(Truth(1, 0.0, (1.0,), {(0,): (0.5,)}, {}), "exact_match").title
    tied = Truth(3, 0.0, (1.0,), {(0,): (0.5,), (1,): (0.2,), (2,): (0.5,)}, {})
    assert draw_profile(tied, "exact_match").title == (
        "Tuned alone, block 2 scored best, level with block 0, with one seed"
    )


def test_the_answer_that_ignores_the_prompt_is_drawn_and_said_where_it_is_better_than_the_base_model() -> None:
    known = draw_profile(replace(TRUTH, prior=0.4), "exact_match")
    (line,) = [trace for trace in drawn(known).data if trace.name == "best answer without the prompt"]
    assert list(line.y) == [0.4, 0.4]
    assert "the best answer without the prompt 0.4" in known.alt
    worse = draw_profile(replace(TRUTH, prior=TRUTH.base - 0.05), "exact_match")
    assert "best answer without the prompt" not in {trace.name for trace in drawn(worse).data}
    assert "without the prompt" not in worse.alt


def test_seeds_that_agree_are_not_told_as_one_and_a_tie_has_no_best_block() -> None:
    flat = replace(TRUTH, scores={(block,): (0.5, 0.5) for block in range(3)})
    assert draw_profile(flat, "exact_match").title == "Tuned alone, every block scored the same"
    agreed = replace(TRUTH, scores={(block,): (block / 10,) * 2 for block in range(3)})
    assert draw_profile(agreed, "exact_match").title.endswith("scored best, with seeds that do not differ")


def test_a_choice_is_named_on_its_bar() -> None:
    figure = drawn(draw_profile(TRUTH, "exact_match", {"yours": (1,), "Deviation": (1,)}))
    assert list(figure.data[1].text) == ["yours, Deviation"]


def test_the_triangle_has_a_cell_for_every_measured_run_and_no_other() -> None:
    picture = draw_triangle(TRUTH, "exact_match")
    cells = drawn(picture).data[0].z
    assert [list(row) for row in cells] == [[0.2, None, None], [None, 0.5, None], [None, pytest.approx(0.8), 0.3]]
    assert picture.title == "The best measured range is blocks 1-2"  # 0 and 2 are no neighbours
    frame = drawn(picture).data[1]
    assert (list(frame.x), list(frame.y)) == ([1], [2])
    assert len(picture.table) == 4


def test_a_tie_goes_to_the_fewest_blocks_and_then_to_the_deepest_in_both_pictures() -> None:
    scores = {(0,): (0.4, 0.5), (1,): (0.8, 0.9), (2,): (0.9, 0.8), (0, 1): (0.8, 0.9), (1, 2): (0.9, 0.8)}
    level = replace(TRUTH, scores=scores)
    assert draw_profile(level, "exact_match").title == (
        "Tuned alone, block 2 scored best, no better than block 1 beyond chance"
    )
    assert draw_triangle(level, "exact_match").title == "The best measured range is block 2"
    bit = replace(TRUTH, scores={(1,): (0.1 + 0.2,), (2,): (0.3,)}, full=(0.8,))  # the first is one bit of a float more
    assert draw_triangle(bit, "exact_match").title == "The best measured range is block 2"
    assert "best block 2" in draw_profile(bit, "exact_match").alt


def test_need_is_drawn_beside_the_contribution_a_sweep_measured() -> None:
    gain, words = measured_gain(TRUTH, "exact_match")
    assert words == CONTRIBUTION
    assert gain == pytest.approx([0.1 / 0.7, 0.4 / 0.7, 0.2 / 0.7])
    picture = draw_need((2.0, 0.5, 1.0), gain, words)
    others, best = drawn(picture).data
    assert list(best.x) == [0.5] and list(best.text) == ["1"]
    assert list(others.x) == [2.0, 1.0] and others.marker.symbol != best.marker.symbol
    assert "within chance" in picture.title  # of three blocks no order says anything
    assert "needs block 0 most (2.00 nats); block 1 has the greatest gain (0.57) and is number 3 by need" in picture.alt
    assert picture.table["need"].tolist() == [2.0, 0.5, 1.0]
    assert picture.table["gain"].tolist() == list(gain)


def test_where_full_fine_tuning_hurts_the_gain_over_the_base_is_drawn_and_said() -> None:
    hurt = replace(TRUTH, base=0.79, full=(0.5, 0.6))  # full loses 0.24 and differs by 0.07 over seeds
    gain, words = measured_gain(replace(hurt, scores={(0,): (0.2, 0.2), (2,): (0.8, 0.8)}), "exact_match")
    assert gain == (pytest.approx(-0.59), None, pytest.approx(0.01))
    assert words.endswith("full fine-tuning hurts here")
    picture = draw_need((2.0, 0.5, 1.0), gain, words)
    assert sum(len(trace.x) for trace in drawn(picture).data) == 2  # the block nobody measured is not drawn
    assert picture.table["gain"].isna().tolist() == [False, True, False]


def test_full_fine_tuning_is_said_to_hurt_only_beyond_its_seeds_spread() -> None:
    for base in (0.79, 0.81, 0.9):  # full scores 0.8 on average and differs by 0.14 over seeds
        gain, words = measured_gain(replace(TRUTH, base=base), "exact_match")
        assert gain[1] == pytest.approx(0.5 - base)
        assert words.endswith("; full fine-tuning's change is within its seeds' spread")
    same = replace(TRUTH, base=0.1, full=(0.1, 0.1, 0.1))
    assert measured_gain(same, "loss")[1].endswith("; full fine-tuning's change is within its seeds' spread")
    assert measured_gain(replace(TRUTH, base=0.95), "loss")[1] == (
        "loss below the base model's (nats per token); full fine-tuning hurts here"
    )
    for full in (0.51, 0.4):
        one = Truth(2, 0.5, (full,), {(0,): (0.6,), (1,): (0.5,)}, {})
        gain, words = measured_gain(one, "exact_match")
        assert gain == (pytest.approx(0.1), 0.0)  # not ten times what full fine-tuning gains
        assert words == "exact match over the base model's; one seed tells no contribution"


def test_the_map_names_its_finding_and_the_criterion_it_is_of() -> None:
    need = tuple(float(block) for block in range(8))
    falling = draw_need(need, [-value for value in need], "Deviation (1 - cos)", "deviation")
    assert falling.title == "Blocks that the model needs more have less deviation: rho -1.00"
    assert "deviation" in falling.table and drawn(falling).data[1].name == "first quarter by deviation"
    assert "more deviation: rho 1.00" in draw_need(need, need, "Deviation (1 - cos)", "deviation").title
    at_the_level = [3.0, 2.0, 1.0, 0.0, 5.0, 4.0, 7.0, 6.0]  # rho is 1 - 6 x 24 / 504, which more than 5 % reach
    assert "within chance" in draw_need(list(map(float, range(8))), at_the_level, "Score", "deviation").title
    assert "ranks no block" in draw_need(need, [1.0] * 8, "Deviation (1 - cos)", "deviation").title


def test_regrets_are_ordered_and_controls_are_told_apart_by_more_than_colour() -> None:
    picture = draw_regrets({"Rule": 0.08, "Fisher": 0.3, "Last": 0.21, "First": 0.05}, "Rule", ["Last", "First"], 1)
    rule, fisher, controls = drawn(picture).data
    assert (list(rule.y), list(fisher.y), list(controls.y)) == (["Rule"], ["Fisher"], ["First", "Last"])
    assert len({trace.marker.pattern.shape for trace in (rule, fisher, controls)}) == 3
    assert list(drawn(picture).layout.yaxis.categoryarray) == ["Fisher", "Last", "Rule", "First"]
    assert picture.title == "Rule lost 8.0 %, beyond chance less than 1 of 2 controls"
    assert "First 5.0 %, Rule 8.0 %, Last 21 %, Fisher 30 %" in picture.alt
