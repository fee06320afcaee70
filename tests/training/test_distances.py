"""The distance of each example from its target, and the recipe made of it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from lsf.cli.main import main
from lsf.criteria.result import AnalysisSettings
from lsf.data.contents import DataOptions
from lsf.data.encode import encode
from lsf.data.sources import load_task
from lsf.data.task import Example, Task
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.progress import Silent
from lsf.runs.store import list_runs
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
        again = load_task(str(tmp_path / "out" / f"{name}.jsonl"), None, None)
        assert again.train == tuple(replace(train[place], row=n, unit="line") for n, place in enumerate(places, 1))


def rows_of_several_formats() -> list[dict]:
    """Return chats of two answers, pairs, segments and token ids, six of each, of which some name a split."""
    found = []
    for number, one in enumerate(SUBJECTS):
        split = {2: "validation", 4: "test"}.get(number, "train")
        said = [("system", "the dog"), ("user", f"the {one}"), ("assistant", "mat"), ("user", one)]
        chat = {"messages": [{"role": role, "content": text} for role, text in [*said, ("assistant", "red")]]}
        pair = {"prompt": f"the {one} sat on", "completion": " two"}
        parts = {"segments": [{"label": False, "text": f"the {one}"}, {"label": True, "text": " red"}]}
        ids = {"input_ids": [3, 4, 5 + number], "labels": [-100, -100, 5 + number]}
        found += [{**row, "split": split} for row in (chat, pair, parts, ids)]
    return found


@pytest.mark.parametrize("pairs", ["auto", "raw"])
def test_the_files_are_read_as_the_rows_that_were_measured_and_tested_as_the_data_is(tiny, tmp_path, capsys, pairs):
    data, template, model = tmp_path / "rows.jsonl", tmp_path / "template.jinja", str(tiny("llama"))
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows_of_several_formats()))
    template.write_text("{% for turn in messages %} {{ turn['role'] }}: {{ turn['content'] }}{% endfor %}")
    source = ["--model", model, "--data", str(data), "--chat-template", str(template), "--pairs", pairs]
    assert main(["beacons", *source, "--device", "cpu", "--count", "12", "--out", str(tmp_path / "out")]) == 0
    assert "each with the 4 validation and 4 test rows of" in capsys.readouterr().out
    options = DataOptions(pairs=pairs, chat_template=template.read_text())
    whole, loaded = load_task(str(data), None, None, options=options), load_model(model, "float32", "cpu")
    encoding = encode(loaded.tokenizer, whole.train, loaded.context)
    chosen = filtered(target_distances(loaded.layout, encoding.rows), 12)
    file = str(tmp_path / "out" / "filter.jsonl")
    again = load_task(file, None, None)
    assert [row.content for row in again.train] == [whole.train[place].content for place in chosen]
    assert replace(whole, train=tuple(whole.train[place] for place in chosen)).fingerprint == again.fingerprint
    rows = encode(loaded.tokenizer, again.train, loaded.context).rows
    assert [row.ids for row in rows] == [encoding.rows[place].ids for place in chosen]
    assert [list(row.targets) for row in rows] == [list(encoding.rows[place].targets) for place in chosen]
    for name in ("reweight", "random"):
        other = load_task(str(tmp_path / "out" / f"{name}.jsonl"), None, None)
        assert (other.validation, other.test) == (again.validation, again.test)
    asked = ["--model", model, "--data", file, "--device", "cpu", "--blocks", "1", "--steps", "1"]
    assert main(["tune", *asked, "--runs", str(tmp_path / "runs")]) == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.result is not None and run.result.data_fingerprint == again.fingerprint
    assert main(["data", file, "--model", model]) == 0
    assert "12 train" in capsys.readouterr().out.replace(",", "")


def test_plain_text_has_no_distance_to_choose_by_which_is_said_before_a_model_is_loaded(tmp_path, capsys):
    data = tmp_path / "text.jsonl"
    data.write_text("".join(f"{json.dumps({'text': 'the cat sat on the mat ' * n})}\n" for n in range(1, 9)))
    asked = ["beacons", "--model", "none/there", "--data", str(data), "--count", "2", "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert said == f"lsf: beacons measures answers; {data} has rows of plain text, in which none begins.\n"
    assert not (tmp_path / "out").exists()
