"""The distance of each example from its target, and the recipe made of it."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from lsf.cli.main import main
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.data.sources import load_task
from lsf.data.task import Example, Task
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.progress import Silent
from lsf.training.reweighting import control, drawn, fell, filtered, target_distances
from tests.tiny import save_tiny

SUBJECTS = ("cat", "dog", "sun", "moon", "sky", "tree")
EXAMPLES = tuple(
    Example(f"the {one} sat on {two}" if long else f"the {one}", f" {two}")
    for one in SUBJECTS
    for two in ("mat", "red", "two")
    for long in (False, True)
)


def test_their_mean_is_the_target_deviation_of_the_last_state(tiny):
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    found = target_distances(loaded.layout, encode(loaded.tokenizer, EXAMPLES, loaded.context).rows, batch_size=5)
    assert np.isfinite(found).all() and len(found) == len(EXAMPLES)
    settings = AnalysisSettings(split="train", criteria=("deviation",))
    whole = analyze(loaded, Task("toy", EXAMPLES, EXAMPLES[:1], EXAMPLES[:1]), settings, Silent())
    assert found.mean() == pytest.approx(whole.states[-1].target_deviation, abs=1e-5)


def test_each_example_has_its_own_distance_whatever_it_is_batched_with(tiny):
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    rows = encode(loaded.tokenizer, EXAMPLES, loaded.context).rows
    alone = [float(target_distances(loaded.layout, [row])[0]) for row in rows]
    assert len(set(alone)) > 10
    np.testing.assert_allclose(target_distances(loaded.layout, rows, batch_size=5), alone, atol=1e-5)


def test_the_distance_of_a_row_with_several_answers_is_the_mean_of_theirs(tiny):
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    row = max(encode(loaded.tokenizer, EXAMPLES, loaded.context).rows, key=lambda row: len(row.ids))
    whole, *alone = (
        replace(row, spans=tuple((place, place + 1) for place in places), turns=places)
        for places in ((1, 3), (1,), (3,))
    )
    one, other = target_distances(loaded.layout, alone)
    assert abs(one - other) > 1e-3
    assert target_distances(loaded.layout, [whole])[0] == pytest.approx((one + other) / 2, abs=1e-5)


def test_the_recipes_files_are_what_their_formulas_choose_and_against_reads_the_other_model(tiny, tmp_path, capsys):
    data = tmp_path / "data.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), *((e.prompt, e.completion) for e in EXAMPLES)])
    model, other = str(tiny("llama")), str(save_tiny("llama", tmp_path / "other", seed=5))
    asked = ["beacons", "--model", model, "--data", str(data), "--count", "8", "--tau", "0.1", "--seed", "3"]
    assert main([*asked, "--device", "cpu", "--out", str(tmp_path / "out"), "--against", other]) == 0
    train = load_task(str(data), None, None).train
    before, after = (
        target_distances(one.layout, encode(one.tokenizer, train, one.context).rows)
        for one in (load_model(place, "float32", "cpu") for place in (model, other))
    )
    share = fell(before, after)
    assert 0 < share < 1 and share != 0.5
    assert f"the distance fell for {share:.1%} of {len(train)}" in capsys.readouterr().out
    wanted = {"filter": filtered(before, 8), "reweight": drawn(before, 8, 0.1, 3), "random": control(len(train), 8, 3)}
    for name, places in wanted.items():
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            rows = [tuple(row) for row in csv.reader(file)][1:]
        assert rows == [(train[place].prompt, train[place].completion) for place in places], name
