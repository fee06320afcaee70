"""Compare: which of the tuned blocks did it, and one's own words; measured and answered by the real worker."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lsf.app.graft import PART
from lsf.app.runtime import runtime
from lsf.app.tuned_models import PROMPT
from lsf.cli.main import main
from lsf.plans.plan import Plan
from lsf.runs.graft import GRAFT, Graft, which_did_it
from lsf.runs.lock import RESULT, SPEC
from lsf.runs.store import list_runs
from tests.pages.conftest import Driver

HOSTILE = "the cat <img src=x onerror=alert(1)> **sat** $x$ on"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]) -> Path:
    """Two blocks and the whole model, tuned once for these tests."""
    folder = tmp_path_factory.mktemp("tuned")
    subjects, places = ("cat", "dog", "sun", "moon", "sky"), ("mat", "tree", "red", "blue", "two", "three")
    rows = [f"the {subject} sat on {place}, {place}" for subject in subjects for place in places]
    (folder / "data.csv").write_text("\n".join(["prompt,completion", *rows]))
    shared = ["--model", str(tiny("llama")), "--data", str(folder / "data.csv"), "--device", "cpu"]
    shared += ["--steps", "8", "--batch-size", "4", "--learning-rate", "0.01", "--runs", str(folder / "runs")]
    for which in (["--blocks", "1,3"], ["--all"]):
        assert main(["tune", *shared, *which]) == 0
    return folder / "runs"


@pytest.fixture
def tuned(runs: Path, made: Path) -> Path:
    """Copies of those runs where the app looks; the folder of the first."""
    shutil.copytree(made, runs)
    return next(run.folder for run in list_runs(runs) if run.spec is not None and run.spec.plan.blocks == (1, 3))


def compared(app: Driver, run: Path) -> AppTest:
    """Open Compare with a run and what belongs to it, by its address."""
    app.at.query_params["run"] = run.name
    return app.go("compare")


def test_the_graft_is_measured_drawn_both_ways_and_picked_on_the_tower(tuned: Path, app: Driver) -> None:
    compared(app, tuned)
    assert "Each tuned block alone is put into the base model" in app.shown()
    assert not (tuned / GRAFT).exists()
    app.click("Measure the graft")
    app.wait("graft")
    at = app.at.run()
    assert not at.exception
    found = Graft.load(tuned / GRAFT)
    assert which_did_it(found)[0] in app.shown().replace("**", "")
    drawn = app.tower(picks=True)
    assert drawn["editable"]
    most = found.most("alone")
    assert most is not None
    assert drawn["picked"] == most.block
    assert [block["value"] != "" for block in drawn["blocks"]] == [False, True, False, True]
    assert at.selectbox(key=PART).value == most.name
    at.segmented_control(key="graft-way").set_value("without").run()
    assert app.tower(picks=True)["title"] == "Taken out of the tuned model"

    assert not runtime().jobs("ask-graft")
    most = found.most("without")
    assert most is not None
    assert at.selectbox(key=PART).value == most.name
    (other,) = (part for part in found.parts if part is not most)
    at.selectbox(key=PART).set_value(other.name).run()  # what a click on the tower sets; AppTest has no JavaScript
    app.wait("ask-graft")
    at.run()
    assert app.tower(picks=True)["picked"] == other.block
    loss = other.without.reading.loss
    assert f"{loss:.3f}" in [metric.value for metric in at.metric]
    answered = app.shown()
    for name in ("base model", f"tuned model without {other.name}", "tuned model"):
        assert f"**{name}**" in answered
    assert len(runtime().jobs("ask-graft")) == 1  # the same is not asked again


def test_ones_own_words_are_answered_side_by_side_and_never_markup(tuned: Path, app: Driver) -> None:
    compared(app, tuned)
    at = app.at
    at.text_area(key="own-prompt").set_value(" ")
    app.click("Ask")
    assert "Write a prompt first." in app.shown()
    assert not app.errors()
    at.text_area(key="own-prompt").set_value(HOSTILE)
    at.text_area(key="own-second").set_value("moon was")
    app.click("Ask")
    view = app.wait("ask")
    at.run()
    assert not at.exception
    asked = view.result
    assert len(asked.answers) == 6  # base, blocks and whole model, on two prompts
    page = app.html()
    assert "<img" not in page
    assert "the cat &lt;img src=x onerror=alert(1)&gt; **sat** $x$ on" in page
    for answer in asked.answers:
        assert answer.done
        assert len(answer.lens) == 5
    assert page.count('class="lsf-lens"') == 6
    assert "always the most likely token, 32 at most" in app.shown()
    again = Driver()  # a reload: the answers are found again
    compared(again, tuned)
    assert again.html().count('class="lsf-lens"') == 6
    others = [shutil.copytree(run.folder, run.folder.with_name(f"2099{run.id[4:]}")) for run in list_runs(tuned.parent)]
    for folder in others:  # a comparison of other runs on the same model and data
        spec = json.loads((folder / "spec.json").read_text())
        (folder / "spec.json").write_text(json.dumps({**spec, "steps": 9}))
    for run, shown in ((others[0], 0), (tuned, 6)):
        again = Driver()
        compared(again, run)
        assert again.html().count('class="lsf-lens"') == shown


def test_a_damaged_graft_is_told_and_can_be_measured_again(tuned: Path, app: Driver) -> None:
    (tuned / GRAFT).write_text('{"n_rows": "many"}')
    compared(app, tuned)
    assert any("graft.json is not a whole graft" in error or "n_rows is" in error for error in app.errors())
    app.click("Measure the graft")
    app.wait("graft")
    app.at.run()
    assert not app.errors()
    assert Graft.load(tuned / GRAFT).n_rows > 0


def test_runs_without_weights_offer_neither(tuned: Path, app: Driver, runs: Path) -> None:
    for run in list_runs(runs):
        for file in (run.folder / "weights").iterdir():
            file.unlink()
        (run.folder / "weights").rmdir()
    compared(app, tuned)
    titles = [element.value for element in app.at.subheader]
    assert "Your own words" not in titles
    assert "Which of the tuned blocks did it?" not in titles


def test_where_one_block_was_tuned_nobody_is_asked_which_of_them_did_it(tuned: Path, app: Driver, runs: Path) -> None:
    for run in list_runs(runs):
        assert run.spec is not None
        replace(run.spec, plan=Plan(run.spec.model, 4, (3,)), role="manual").save(run.folder / "spec.json")
    compared(app, tuned)
    titles = [element.value for element in app.at.subheader]
    assert "Your own words" in titles
    assert "Which of the tuned blocks did it?" not in titles


def test_runs_picked_and_a_prompt_asked_are_there_when_the_page_is_opened_again(tuned: Path, app: Driver) -> None:
    at = compared(app, tuned)
    at.multiselect[0].set_value([tuned.name]).run()
    at.text_area(key="own-prompt").set_value(HOSTILE)
    app.click("Ask")
    app.wait("ask")
    app.go("tune")
    at = app.go("compare")
    assert at.multiselect[0].value == [tuned.name]
    assert at.text_area(key="own-prompt").value == HOSTILE
    shutil.rmtree(tuned)  # picked, and gone
    assert not at.run().exception


def test_the_prompt_offered_is_of_the_runs_compared_until_somebody_writes_one(tuned: Path, app: Driver) -> None:
    other = shutil.copytree(tuned, tuned.with_name("other"))
    spec, result = json.loads((other / SPEC).read_text()), json.loads((other / RESULT).read_text())
    for sample in result["samples"]:
        sample["prompt"] = "of other data"
    (other / SPEC).write_text(json.dumps(spec | {"data": "other.csv"}))
    (other / RESULT).write_text(json.dumps(result))

    def offered(session: Driver, run: Path) -> str:
        return compared(session, run).text_area(key=PROMPT).value or ""

    assert offered(app, tuned).startswith("the ")
    assert offered(app, other) == "of other data"
    again = Driver()
    assert offered(again, tuned).startswith("the ")
    again.at.text_area(key=PROMPT).set_value("mine")
    again.click("Ask")
    again.wait("ask")
    assert offered(again, other) == "mine"
