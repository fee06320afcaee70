"""The page of where x how: cells are queued, fill, and lead to their runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lsf.jobs.runs import list_runs
from lsf.ui.places import PICKED
from tests.pages.conftest import Driver


@pytest.fixture
def places(app: Driver, tiny: Callable[[str], Path], cats: Path) -> Driver:
    app.analyse(tiny("llama"), cats)
    app.go("choose")
    at = app.go("places")
    at.multiselect(key="places-how").set_value(["full", "lora", "bitfit"]).run()
    at.number_input(key="places-steps").set_value(3)
    at.number_input(key="places-batch_size").set_value(4)
    at.run()
    return app


def test_every_cell_asked_for_becomes_a_run_in_the_grid_and_a_picked_one_says_why_it_failed(
    places: Driver, runs: Path
) -> None:
    assert not places.at.exception
    places.click("Start 6 runs")
    places.wait("tune")
    at = places.at.run()
    assert not at.exception
    made = list_runs(runs)
    specs = [run.spec for run in made if run.spec]
    assert {(run.spec.plan.is_full, run.spec.method) for run in made if run.spec} == {
        (full, method) for full in (True, False) for method in ("full", "lora", "bitfit")
    }
    states = {run.spec.method: run.state for run in made if run.spec}
    assert states == {"full": "succeeded", "lora": "succeeded", "bitfit": "failed"}
    rates = {run.spec.method: run.spec.learning_rate for run in made if run.spec}
    assert rates["lora"] != rates["full"]
    grid = places.at.dataframe[0].value
    assert len(grid) == 6
    assert set(grid["place"]) == {"whole model", next(spec.plan.label for spec in specs if not spec.plan.is_full)}
    whole = grid[(grid["place"] == "whole model") & (grid["method"] == "full")].iloc[0]
    assert whole["x stored bytes"] == 1.0
    assert sum(ratio > 0 for ratio in grid["x stored bytes"].tolist()) == 4  # the two that failed stored nothing
    assert "6 of 6 cells are there already" not in places.shown()  # the two that failed can be asked for again
    assert "4 of 6 cells are there already" in places.shown()
    failed = next(run for run in list_runs(runs) if run.spec is not None and run.spec.method == "bitfit")
    places.at.session_state[PICKED] = failed.id
    places.at.run()
    assert not places.at.exception
    assert any("bias" in sentence for sentence in places.errors())


def test_without_a_plan_the_page_says_where_one_is_made(app: Driver) -> None:
    app.go("places")
    assert not app.at.exception
    assert "No plan yet" in app.shown()
