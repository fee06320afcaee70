"""What a class is shown of its predictions and of what was measured."""

import re
from dataclasses import replace

import pytest

from lsf.app.classroom.pages import beside_it, outcome, votes_html
from lsf.app.lessons import lessons_measured
from lsf.evidence.packed import Measured
from lsf.evidence.regret import Truth


def measured(*scores: tuple[float, ...]) -> Measured:
    one = lessons_measured()["facts"]
    truth = Truth(len(scores), 0.1, (0.9, 0.9), {(block,): each for block, each in enumerate(scores)}, {})
    return replace(one, setting=replace(one.setting, truth=truth))


APART = measured((0.2, 0.22), (0.8, 0.81), (0.5, 0.51))


def test_the_table_has_a_row_per_block_the_last_on_top_and_marks_ones_own() -> None:
    html = votes_html([3, 0, 6], None, own=2)
    assert re.findall(r"scope='row'>(.*?)</th>", html) == ["2 (yours)", "1", "0"]
    assert re.findall(r"width:(\d+)%", html) == ["100", "0", "50"]
    assert re.findall(r"class='number'>(\d+)</td>", html) == ["6", "0", "3"]
    assert "Measured" not in html


def test_what_was_measured_stands_beside_the_predictions_and_the_best_is_marked() -> None:
    html = votes_html([0, 0, 0], APART)
    assert re.findall(r"class='number'>(\d\.\d+)</td>", html) == ["0.51", "0.81", "0.21"]
    assert re.findall(r"width:(\d+)%", html)[1::2] == ["63", "100", "26"]
    assert html.count("<td class='bar best'>") == 1
    assert beside_it(APART).startswith("For comparison: the base model 0.10, the whole model tuned 0.90. Means of 2")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (None, "Block 1 scored best (0.81); 4 of 7 predicted it."),
        (1, "Block 1 scored best (0.81); 4 of 7 predicted it. So did you."),
        (2, "Block 1 scored best (0.81); 4 of 7 predicted it. Yours, block 2, scored 0.30 less."),
    ],
)
def test_one_sentence_says_what_came_out(own: int | None, said: str) -> None:
    assert outcome(APART, [1, 4, 2], own) == said


def test_chance_is_called_so() -> None:
    level = measured((0.1, 0.12), (0.8, 0.82), (0.79, 0.81))
    assert outcome(level, [0, 0, 1], 2) == (
        "Block 1 scored best (0.81, level within chance with 2); 0 of 1 predicted it. "
        "Yours, block 2, is level with it: 0.01 less is within chance."
    )
    assert "not decided" in outcome(measured((0.4, 0.8), (0.5, 0.7), (0.2, 0.9)), [0, 0, 0])


def test_what_is_level_with_the_best_is_not_the_best_itself() -> None:
    for name, one in lessons_measured().items():
        told = outcome(one, [0] * 8)
        best = re.match(r"Block (\d)", told)
        level = re.search(r"level within chance with ([\d, ]+)", told)
        assert best is not None, name
        assert level is None or best[1] not in level[1], told
