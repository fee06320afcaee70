"""The page of blocks x methods: cells are queued, fill, and lead to their runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lsf.app.work import Analysed
from lsf.runs.store import list_runs
from tests.pages.conftest import Driver


@pytest.fixture
def places(app: Driver, known: Callable[..., Analysed]) -> Driver:
    app.look_at(known(), "choose")
    at = app.go("blocks_by_methods")
    at.multiselect(key="grid-how").set_value(["full", "lora", "bitfit"]).run()
    at.number_input(key="grid-steps").set_value(3)
    at.number_input(key="grid-batch_size").set_value(4)
    at.run()
    return app


def test_every_cell_that_the_model_can_have_becomes_a_run_and_the_others_are_left_out_with_their_reason(
    places: Driver, runs: Path
) -> None:
    every_cell_becomes_a_run(places, runs)
    a_cell_is_picked_by_its_name_where_no_pointer_is(places)
    searched_rates_are_a_grid_of_their_own(places)
    the_grid_can_be_opened_after_a_reload(str(places.at.query_params["grid"]))
    a_new_session_does_not_take_up_what_somebody_else_tunes()


def every_cell_becomes_a_run(places: Driver, runs: Path) -> None:
    assert not places.at.exception
    assert "The method bitfit tunes biases" in places.shown()
    places.click("Start 4 runs")
    places.wait("tune")
    at = places.at.run()
    assert not at.exception
    made = [run.spec for run in list_runs(runs) if run.spec]
    assert {(spec.plan.is_full, spec.method) for spec in made} == {
        (full, method) for full in (True, False) for method in ("full", "lora")
    }
    assert {run.state for run in list_runs(runs)} == {"succeeded"}
    rates = {run.spec.method: run.result.learning_rate for run in list_runs(runs) if run.spec and run.result}
    assert rates["lora"] != rates["full"]
    assert {(spec.until, spec.steps, spec.learning_rate) for spec in made} == {("flat", 15, "default")}
    grid = places.at.dataframe[0].value
    chosen = next(spec.plan.label for spec in made if not spec.plan.is_full)
    assert len(grid) == 4
    assert set(grid["place"]) == {"whole model", f"{chosen} (choice)"}
    whole = grid[(grid["place"] == "whole model") & (grid["method"] == "All weights")].iloc[0]
    assert whole["fault"]  # a random model after so few steps: its run is the reference of no ratio
    assert whole["x stored bytes"] is None
    assert "4 of 4 cells already exist" in places.shown()


def a_cell_is_picked_by_its_name_where_no_pointer_is(places: Driver) -> None:
    box = places.at.selectbox(key="grid-named")
    assert box.value is None
    assert len(box.options) == 4
    at = box.select("LoRA on whole model").run()
    assert not at.exception
    assert "LoRA on whole model" in [title.value for title in at.subheader]
    assert "parameters tuned at learning rate" in places.shown()


def searched_rates_are_a_grid_of_their_own(places: Driver) -> None:
    at = places.at
    at.checkbox(key="grid-search").check().run()
    assert "No cell of this grid has been started yet" in places.shown()  # the others are not shown in its place
    assert any(button.label == "Start 4 runs" for button in at.button)


def the_grid_can_be_opened_after_a_reload(named: str) -> None:
    fresh = Driver()
    fresh.at.query_params["grid"] = named
    at = fresh.go("blocks_by_methods")
    assert not at.exception
    assert at.number_input(key="grid-steps").value == 3
    assert at.multiselect(key="grid-how").value == ["full", "lora"]
    assert "4 of 4 cells already exist" in fresh.shown()


def a_new_session_does_not_take_up_what_somebody_else_tunes() -> None:
    fresh = Driver()
    at = fresh.go("blocks_by_methods")
    assert "No plan yet" in fresh.shown()
    (offered,) = at.selectbox(key="grid-open").options
    assert "at most 15 steps of 4, seed 0, default rates" in offered
    at.selectbox(key="grid-open").select(offered).run()
    assert not at.exception
    assert "4 of 4 cells already exist" in fresh.shown()


def test_without_a_plan_the_page_says_where_one_is_made(app: Driver) -> None:
    app.go("blocks_by_methods")
    assert not app.at.exception
    assert "No plan yet" in app.shown()
