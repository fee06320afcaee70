"""The sentence that the guided tour ends on."""

from dataclasses import replace

from lsf.app.tour import result_words
from lsf.plans.plan import Plan
from lsf.runs.comparison import Row

PLAN = Plan("bundled", 8, (7,))


def row(role: str, after: float | None, **others: object) -> Row:
    known = Row("a", role, None, None, 1, "full", 0, 1e-3, False, "succeeded", exact_match_before=0.0)
    return replace(known, exact_match_after=after, **others)


def test_it_says_what_was_kept_at_what_cost_beside_a_control() -> None:
    rows = [row("choice", 0.9, x_params=0.11, x_time=0.4), row("full", 1.0), row("first", 0.2, fault="below the floor")]
    words = result_words(rows, PLAN)
    assert words.startswith("Tuning block 7 of 8 alone kept 90 % of what the whole model gained: 90 % of the test")
    assert "the whole model's 100 %, before tuning 0.0 % (first block: 20 %)" in words
    assert "for 11 % of its parameters and 40 % of its time a step. One seed: chance is not ruled out." in words


def test_it_claims_nothing_where_a_run_went_wrong_or_nothing_was_gained() -> None:
    diverged = row("full", 0.1, fault="diverged")
    assert result_words([row("choice", 0.9), diverged], PLAN) == (
        "There is nothing to compare: choice succeeded, full diverged."
    )
    assert result_words([], PLAN) == "There is nothing to compare: no run has ended."
    assert "gained no right answers" in result_words([row("choice", 0.9), row("full", 0.0)], PLAN)
