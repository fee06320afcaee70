"""Which runs a grid of places and methods is made of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.errors import BadInputError
from lsf.methods.catalogue import CATALOGUE
from lsf.plans.plan import Plan
from lsf.runs.controls import METHOD_CHOICES, cell_of, grid_specs, missing, same_grid
from lsf.runs.result import Metrics, RunResult, RunState
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.runs.store import Run

BASE = RunSpec("m", "lesson:facts", Plan("m", 8, (5, 6)), steps=10)


def run_of(spec: RunSpec, state: RunState, name: str) -> Run:
    return Run(Path(name), name, spec, state, None, None)


def ended(spec: RunSpec, name: str, **measured_on: Any) -> Run:
    result = RunResult(RunState.SUCCEEDED, before=Metrics(), **measured_on)
    return replace(run_of(spec, RunState.SUCCEEDED, name), result=result)


def test_a_grid_holds_runs_of_one_model_one_data_set_and_one_device_only() -> None:
    full, lora = grid_specs(BASE, ["choice"], [METHOD_CHOICES["full"], METHOD_CHOICES["lora"]], False)
    here = {"weights": "w", "data_fingerprint": "d", "environment": {"device": "cpu"}}
    chat = {"rendering": "chat, by the model's template"}  # by `auto`, since a template was added
    for other in ({"weights": "x"}, {"data_fingerprint": "e"}, {"environment": {"device": "cuda:0"}}, chat):
        runs = [run_of(lora, RunState.QUEUED, "3"), ended(full, "2", **here), ended(lora, "1", **here | other)]
        assert [run.id for run in same_grid(runs, BASE)] == ["3", "2"]
        assert [run.id for run in same_grid(runs[1:], BASE)] == ["2"]
    assert missing((full,), same_grid([ended(replace(full, learning_rate=1.0), "1", **here)], BASE)) == (full,)


def test_a_rate_that_was_tried_is_left_out_of_a_grid() -> None:
    tried = replace(BASE, plan=replace(BASE.plan, rates={"full": 0.002}))
    full, lora = grid_specs(tried, ["choice"], [METHOD_CHOICES["full"], METHOD_CHOICES["lora"]], False)
    assert (full.known_rate, lora.known_rate) == (None, None)
    runs = [run_of(one, RunState.QUEUED, str(place)) for place, one in enumerate((full, lora, tried))]
    assert [run.id for run in same_grid(runs, tried)] == ["0", "1"]
    assert missing((full,), [runs[2]]) == (full,)


def test_every_method_of_the_catalogue_can_be_a_column() -> None:
    assert {chosen_method.method for chosen_method in METHOD_CHOICES.values()} == set(CATALOGUE)
    for chosen_method in METHOD_CHOICES.values():
        assert grid_specs(BASE, ["choice"], [chosen_method], False)[0].how == chosen_method.name


def test_a_grid_has_every_place_by_every_method_with_the_method_s_own_rate_full_first() -> None:
    specs = grid_specs(
        BASE,
        ["choice", "last", "full"],
        [METHOD_CHOICES["said"], METHOD_CHOICES["lora"], METHOD_CHOICES["full"]],
        False,
    )
    assert [cell_of(spec) for spec in specs[:2]] == [("whole model", "full"), ("whole model", "said")]
    assert {cell_of(spec) for spec in specs} == {
        (place, method) for place in ("whole model", "blocks 5-6", "blocks 6-7") for method in ("full", "lora", "said")
    }
    assert {spec.learning_rate for spec in specs} == {METHODS_OWN}
    assert all(spec.learning_rate is None for spec in grid_specs(BASE, ["choice"], [METHOD_CHOICES["full"]], True))


def test_places_that_are_one_and_the_same_are_run_once() -> None:
    last = replace(BASE, plan=Plan("m", 8, (6, 7)))
    assert len(grid_specs(last, ["choice", "last"], [METHOD_CHOICES["full"]], False)) == 1


@pytest.mark.parametrize(("places", "sentence"), [([], "at least one place"), (["top"], "no place 'top'; accepted")])
def test_a_grid_of_nothing_or_of_an_unknown_place_is_refused(places: list[str], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        grid_specs(BASE, places, [METHOD_CHOICES["full"]], False)


def test_cells_that_ended_well_or_wait_are_not_asked_for_again_and_the_newest_run_is_the_cell() -> None:
    full, lora = grid_specs(BASE, ["choice"], [METHOD_CHOICES["full"], METHOD_CHOICES["lora"]], False)
    runs = [
        run_of(lora, RunState.FAILED, "3"),
        run_of(full, RunState.SUCCEEDED, "2"),
        run_of(full, RunState.FAILED, "1"),
        run_of(replace(full, steps=11), RunState.SUCCEEDED, "0"),
    ]
    others = [{"eval_limit": 10}, {"weight_decay": 0.1}, {"warmup_steps": 2}]
    runs = [*(run_of(replace(lora, **other), RunState.SUCCEEDED, str(other)) for other in others), *runs]
    found = same_grid(runs, BASE)
    assert [run.id for run in found] == ["3", "2"]
    assert missing((full, lora), found) == (lora,)
    assert missing((replace(full, learning_rate=None),), found) == (replace(full, learning_rate=None),)
