"""Which plans a sweep measures, and its file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lsf.errors import BadInputError
from lsf.evidence.sweep import Rate, Score, Sweep, SweepSpec, empty_cells, plans_over, relative_cost


@pytest.mark.parametrize(
    ("over", "plans"),
    [
        ("single", [(0,), (1,), (2,)]),
        ("suffix", [(0, 1, 2), (1, 2), (2,)]),
        ("prefix", [(0,), (0, 1), (0, 1, 2)]),
        ("window:2", [(0, 1), (1, 2)]),
        ("window:3", [(0, 1, 2)]),
        ("ends:2", [(0, 2)]),
        ("ends:3", [(0, 1, 2)]),
        ("random:2:3", [(0, 1), (0, 2), (1, 2)]),
        (" single, suffix ,single", [(0,), (0, 1, 2), (1,), (1, 2), (2,)]),
    ],
)
def test_every_family_of_plans_is_listed_once_and_the_shallowest_first(over: str, plans: list[tuple[int, ...]]) -> None:
    assert list(plans_over(over, 3)) == plans


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("", "would measure nothing; accepted are: single, suffix, prefix, window:K"),
        ("pairs", "Cannot sweep over 'pairs'; accepted are: single"),
        ("window", "Cannot sweep over 'window'; accepted are: single"),
        ("window:0", "a window takes 1 to 3 blocks of this model"),
        ("window:4", "a window takes 1 to 3 blocks of this model"),
        ("window:-1", "a window takes 1 to 3 blocks of this model"),
        ("ends:1", "both ends of this model take 2 to 3 blocks"),
        ("ends", "both ends of this model take 2 to 3 blocks"),
        ("random:2:4", "3 such sets exist; random:K:N takes N different sets of K of the 3 blocks"),
        ("random:4:1", "random:K:N takes N different sets of K of the 3 blocks"),
        ("random:2", "random:K:N takes"),
        ("random:2:0", "3 such sets exist"),
        ("window:two", "a window takes 1 to 3 blocks of this model"),
    ],
)
def test_what_cannot_be_swept_over_is_answered_with_what_can(over: str, sentence: str) -> None:
    with pytest.raises(BadInputError, match=r"accepted|takes?") as error:
        plans_over(over, 3)
    assert sentence in str(error.value)


def test_random_sets_are_drawn_the_same_each_time_and_fewer_are_among_more() -> None:
    fewer, more = plans_over("random:8:20", 30), plans_over("random:8:40", 30)
    assert fewer == plans_over("random:8:20", 30)
    assert len(set(fewer)) == 20 and len(set(more)) == 40 and set(fewer) < set(more)
    assert {len(set(blocks)) for blocks in more} == {8}
    assert {block for blocks in more for block in blocks} == set(range(30))


def test_a_deeper_plan_is_expected_to_cost_less_and_the_whole_model_most() -> None:
    costs = [relative_cost((block,), 8) for block in range(8)]
    assert costs == sorted(costs, reverse=True)
    assert relative_cost(None, 8) > costs[0]


@pytest.fixture
def sweep() -> Sweep:
    spec = SweepSpec("tiny", "toy", "single", seeds=2, steps=5)
    cells = list(empty_cells(plans_over("single", 2), 2, 2))
    cells[0] = replace(cells[0], before=Score(0.1, 2.0), after=Score(0.1, 2.0), seconds=0.0, reason=None)
    cells[3] = replace(cells[3], learning_rate=1e-3, before=Score(0.1, 2.0), after=Score(None, 1.5), reason=None)
    cells[4] = replace(cells[4], reason="The loss is not finite.")
    return Sweep(spec, 2, "ab", "cd", tuple(cells), {"0": Rate(1e-3, ((1e-3, 1.5), (1e-2, None)))}, 3.5, {"lsf": "0"})


def test_a_sweep_read_again_is_the_same_with_unknown_and_missing_kept_apart(sweep: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    sweep.save(path)
    assert Sweep.load(path) == sweep
    assert json.loads(path.read_text())["schema_version"] == 1
    assert [cell.plan for cell in sweep.cells] == ["base", "full", "full", "0", "0", "1", "1"]
    assert [(cell.plan, cell.reason) for cell in sweep.missing] == [
        ("full", "not measured yet"),
        ("full", "not measured yet"),
        ("0", "The loss is not finite."),
        ("1", "not measured yet"),
        ("1", "not measured yet"),
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 9}, "has schema_version 9; a sweep of schema_version 1 was expected"),
        ({"cells": None}, "cells is None; a list was expected"),
        ({"steps": 0}, "steps is 0; it must lie between 1 and"),
        ({"rates": {"0": {}}}, "is not a whole sweep: rates[...] has no 'learning_rate'"),
    ],
)
def test_a_file_that_is_no_whole_sweep_is_refused_in_one_sentence(
    change: dict[str, object], sentence: str, sweep: Sweep, tmp_path: Path
) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(sweep.to_json() | change))
    with pytest.raises(BadInputError) as error:
        Sweep.load(path)
    assert sentence in str(error.value)


def test_a_run_of_a_sweep_is_asked_for_as_any_other_run() -> None:
    spec = SweepSpec("tiny", "toy", steps=40, batch_size=8, eval_limit=9).run_spec(4, (1, 2), seed=3)
    assert (spec.plan.blocks, spec.seed, spec.steps, spec.warmup_steps) == ((1, 2), 3, 40, 4)
    assert (spec.batch_size, spec.eval_limit, spec.plan.head) == (8, 9, False)
    assert SweepSpec("tiny", "toy").run_spec(4, None, 0).plan.head is True
