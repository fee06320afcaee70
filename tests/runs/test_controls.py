from dataclasses import replace

import pytest

from lsf.errors import UnknownNameError
from lsf.plans.plan import Plan, full_plan
from lsf.runs.controls import CONTROLS, control_blocks, control_spec, with_controls
from lsf.runs.spec import METHODS_OWN, RunSpec

SPEC = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (2, 5), final_norm=True), steps=7, seed=3)


def test_a_control_differs_from_the_choice_in_its_plan_and_role_alone():
    for role in CONTROLS:
        control = control_spec(SPEC, role)
        assert replace(control, plan=SPEC.plan, role=SPEC.role) == SPEC
        assert control.role == role


def test_the_full_control_of_another_method_is_full_fine_tuning_at_its_own_rate():
    choice = replace(SPEC, method="lora", options={"r": 4}, learning_rate=1e-2)
    full = control_spec(choice, "full")
    assert (full.method, full.options, full.learning_rate) == ("full", {}, METHODS_OWN)
    assert control_spec(replace(choice, learning_rate=None), "full").learning_rate is None
    first = control_spec(choice, "first")
    assert (first.method, first.options, first.learning_rate) == ("lora", {"r": 4}, 1e-2)


def test_a_rate_that_was_tried_goes_with_as_many_blocks_and_not_with_the_whole_model():
    choice = replace(SPEC, plan=replace(SPEC.plan, rates={"full": 2e-3}))
    assert (choice.known_rate, choice.tried_rate, choice.rate_asked) == (2e-3, 2e-3, "tried")
    for role in ("first", "last", "random"):
        assert control_spec(choice, role).known_rate == 2e-3
    whole = control_spec(choice, "full")
    assert (whole.known_rate, whole.rate_asked) == (None, "default")
    adapted = replace(choice, method="lora")  # by which nothing was tried
    assert (adapted.known_rate, adapted.rate_asked) == (None, "default")
    asked = replace(choice, learning_rate=None)
    assert (asked.searches_rate, asked.known_rate) == (False, 2e-3)
    assert control_spec(asked, "full").searches_rate
    by_hand = replace(choice, learning_rate=1e-4)
    assert (by_hand.known_rate, by_hand.tried_rate, by_hand.rate_asked) == (1e-4, None, "given")


def test_controls_are_as_large_as_the_choice():
    assert control_spec(SPEC, "full").plan.is_full
    assert control_spec(SPEC, "first").plan.blocks == (0, 1)
    assert control_spec(SPEC, "last").plan.blocks == (6, 7)
    assert len(control_spec(SPEC, "random").plan.blocks) == 2
    assert control_spec(SPEC, "random").plan.final_norm
    connector = replace(SPEC, plan=replace(SPEC.plan, modules=("model.connector",)))
    assert control_spec(connector, "first").plan.modules == ("model.connector",)


def test_random_is_seeded_and_never_the_choice_where_it_can_be_another():
    draws = {control_blocks("random", 3, (1,), seed) for seed in range(40)}
    assert draws == {(0,), (2,)}
    assert control_blocks("random", 8, (2, 5), 4) == control_blocks("random", 8, (2, 5), 4)
    assert control_blocks("random", 2, (0, 1), 0) == (0, 1)


def test_a_control_that_repeats_a_plan_is_left_out():
    choice = replace(SPEC, plan=Plan("bundled", 8, (6, 7)))
    roles = [spec.role for spec in with_controls(choice, ("full", "last", "first"))]
    assert roles == ["choice", "full", "first"]
    whole = replace(SPEC, plan=full_plan("bundled", 8))
    assert [spec.role for spec in with_controls(whole, CONTROLS)] == ["choice"]
    adapted = with_controls(replace(whole, method="lora"), CONTROLS)  # full fine-tuning does not repeat it
    assert [(spec.role, spec.method) for spec in adapted] == [("choice", "lora"), ("full", "full")]


def test_an_unknown_control_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="known are: full, first, last, random"):
        control_spec(SPEC, "middle")
