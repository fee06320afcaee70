"""Trying five depths on the page Choose: real short runs in the worker, and the best of them as the plan."""

from lsf.app.tries import KIND
from lsf.app.work import Analysed, Request, Source
from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import load_lesson
from lsf.evidence.real import spacing, trying_helps
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.plans.plan import format_blocks
from lsf.plans.policies import EVENLY_SPACED
from lsf.plans.tries import Tries, tried_sets
from lsf.progress import Silent
from tests.pages.conftest import Driver

TRY, RULE, DOUBTED = (
    "Try instead of predicting",
    "What the evidence recommends",
    "What the study of small models recommends",
)


def panels(app: Driver) -> list[str]:
    return [one.label for one in app.at.expander if one.label in (TRY, RULE, DOUBTED)]


def test_on_a_model_outside_of_the_study_trying_comes_first_where_it_was_seen_to_help(analysed: Driver) -> None:
    analysed.go("choose")
    for budget in (1, 4):
        analysed.at.slider(key="budget-4").set_value(budget).run()
        assert panels(analysed) == ([TRY, DOUBTED] if trying_helps(budget) else [DOUBTED, TRY])
    request = Request(Source("bundled"), AnalysisSettings(criteria=("alignment",), limit=8))
    known = analyze(load_model("bundled"), load_lesson("facts"), request.settings, Silent())
    analysed.look_at(Analysed(request, known), "choose")
    assert panels(analysed) == [RULE, TRY]  # the study has this one


def test_even_spacing_is_offered_outside_of_the_study_where_its_record_stands_and_becomes_the_plan(
    analysed: Driver,
) -> None:
    def offered() -> bool:
        return "take-spaced" in {button.key for button in analysed.at.button}

    analysed.go("choose")
    analysed.at.slider(key="budget-4").set_value(1).run()
    assert not offered()  # one block cannot be spread
    analysed.at.slider(key="budget-4").set_value(3).run()
    held = spacing(3)
    assert held is not None
    assert offered() == held.stands
    if held.stands:
        assert held.words in analysed.shown()
        analysed.at.button(key="take-spaced").click().run()
        assert not analysed.at.exception
        plan = analysed.at.session_state["lsf"].plan
        assert (plan.blocks, plan.policy, plan.by_hand) == ((0, 2, 3), EVENLY_SPACED, False)
        assert "The blocks are evenly spaced." in analysed.shown()
        analysed.go("tune")
        assert "Tune blocks 0, 2-3 of 4 (evenly spaced;" in analysed.shown().replace("**", "")
        analysed.go("choose")
        analysed.at.button(key="back-to-criterion").click().run()
        assert analysed.at.session_state["lsf"].plan.policy == "window"


def test_the_best_of_the_depths_becomes_the_plan(analysed: Driver) -> None:
    analysed.go("choose")
    assert not analysed.at.exception
    analysed.at.slider(key="budget-4").set_value(2).run()
    analysed.at.number_input(key="tries-steps").set_value(6).run()
    assert "With 2 blocks this was measured on no real model." in analysed.shown()
    analysed.at.button(key="start-tries").click().run()
    view = analysed.wait(KIND)
    assert view.error is None, view.error
    at = analysed.at.run()
    tries = view.result
    assert isinstance(tries, Tries)
    assert tuple(one.blocks for one in tries.tries) == tried_sets(4, 2)
    best = tries.best
    assert best is not None
    blocks, rate = format_blocks(best.blocks), f"{best.learning_rate:.2g}"
    assert f"Tune blocks {blocks} at {rate}: the least validation loss after 3 of 6 steps" in (
        analysed.shown().replace("**", "")
    )
    at.button(key="take-tries").click().run()
    assert not at.exception
    assert "A try of 3 steps says little" in analysed.shown()
    assert at.session_state["lsf"].plan.blocks == best.blocks
    assert at.session_state["lsf"].plan.rates == {"full": best.learning_rate}
    assert len(tries.rates) == 2
    analysed.go("tune")
    assert f"Blocks {blocks} and controls of as many blocks are tuned at {rate}, the rate" in analysed.shown()
    analysed.at.segmented_control(key="tune-rate-mode").set_value("By hand").run()
    assert "the rate that trying found" not in analysed.shown()
    analysed.go("choose")
    assert analysed.at.session_state["lsf"].plan.rates == {"full": best.learning_rate}
    assert "The blocks are chosen by trying." in analysed.shown()
    analysed.at.button(key="back-to-criterion").click().run()
    assert analysed.at.session_state["lsf"].plan.rates == {}
    analysed.at.button(key="take-tries").click().run()
    analysed.at.slider(key="budget-4").set_value(1).run()
    assert "4 tasks" in analysed.shown() or "5 tasks" in analysed.shown()  # one block was measured on a real model
    assert "take-tries" not in {button.key for button in analysed.at.button}  # tries of two blocks are none of one
