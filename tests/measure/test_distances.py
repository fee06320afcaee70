"""The distance of each example from its target, and the recipe made of it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from lsf.analysis.settings import AnalysisSettings
from lsf.cli import main
from lsf.data.encode import encode
from lsf.data.task import Example, Task
from lsf.measure.analyze import analyze
from lsf.measure.distances import target_distances
from lsf.measure.loading import load_model
from lsf.reporting import Silent

SUBJECTS = ("cat", "dog", "sun", "moon", "sky", "tree")
EXAMPLES = tuple(
    Example(f"the {one} sat on {two}" if long else f"the {one}", f" {two}")
    for one in SUBJECTS
    for two in ("mat", "red", "two")
    for long in (False, True)
)


def test_their_mean_is_the_target_deviation_of_the_last_state(tiny):
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    found = target_distances(loaded.anatomy, encode(loaded.tokenizer, EXAMPLES, loaded.context).rows, batch_size=5)
    assert np.isfinite(found).all() and len(found) == len(EXAMPLES)
    settings = AnalysisSettings(split="train", criteria=("deviation",))
    whole = analyze(loaded, Task("toy", EXAMPLES, EXAMPLES[:1], EXAMPLES[:1]), settings, Silent())
    assert found.mean() == pytest.approx(whole.states[-1].target_deviation, abs=1e-5)


def test_the_recipe_writes_three_files_of_as_many_examples(
    tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), *((e.prompt, e.completion) for e in EXAMPLES)])
    model = str(tiny("llama"))
    asked = ["beacons", "--model", model, "--data", str(data), "--count", "8", "--device", "cpu"]
    assert main([*asked, "--out", str(tmp_path / "out"), "--against", model]) == 0
    assert "the distance fell for 0.0% of" in capsys.readouterr().out
    rows = {}
    for name in ("filter", "reweight", "random"):
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            rows[name] = [tuple(row) for row in csv.reader(file)][1:]
    assert [len(found) for found in rows.values()] == [8, 8, 8]
    known = {(example.prompt, example.completion) for example in EXAMPLES}
    assert all(set(found) <= known for found in rows.values())
    assert len(set(rows["filter"])) == len(set(rows["random"])) == 8
