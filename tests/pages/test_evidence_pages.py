"""The pages of evidence and lessons, and the recommendation on the page where blocks are chosen; real sweeps."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.app.lessons import NOTES, lessons_measured
from lsf.app.runtime import runtime
from lsf.app.state import Session, looked_at
from lsf.app.truth import Swept, swept_truth
from lsf.app.work import Analysed
from lsf.evidence.own import own_evidence, record_here
from lsf.evidence.packed import packed_evidence
from lsf.evidence.real import real_tasks, real_words
from lsf.evidence.regret import regret, truth_of
from lsf.evidence.sweep import Score
from lsf.plans.policies import recommended_plan
from tests.evidence.test_own import sweep_of
from tests.pages.conftest import SECONDS, Driver


def tables(app: Driver) -> list[Any]:
    return [frame.value for frame in app.at.dataframe]


def lost(app: Driver) -> Any:
    """What every way of choosing lost on one model and task."""
    return next(table for table in tables(app) if {"tunes", "regret"} <= set(table))


def test_the_page_of_evidence_shows_what_every_way_of_choosing_lost_elsewhere(app: Driver) -> None:
    app.go("evidence")
    assert not app.at.exception
    found = next(table for table in tables(app) if "worst" in table)
    assert {"Deviation", "First", "Last", "The recommendation", "Full fine-tuning", "Best constant"} <= set(
        found["way of choosing"]
    )
    assert found["mean"].is_monotonic_increasing
    assert found["settings"].max() == len({one.setting.name for one in packed_evidence() if one.setting.truth.gains})
    verdicts = lost(app)
    assert verdicts["regret"].dropna().is_monotonic_increasing
    assert "relative regret" in app.shown().lower()
    titles = [element.value for element in app.at.subheader]
    assert titles[0].startswith("Tuned alone, block ")  # a picture, before any table: of the real model
    wanted = ["Sets of 8 blocks"] if real_tasks()[0].sets is not None else []  # of the task that is shown first
    for title, begin in zip(titles[1:], [*wanted, "The recommendation lost "], strict=False):
        assert title.startswith(begin)
    real = next(table for table in tables(app) if "lost, shuffled" in table)
    one = real_tasks()[0]
    assert real["lost"].is_monotonic_increasing
    assert dict(zip(real["criterion"], real["blocks"], strict=True))["Gradient alignment"] == str(
        *one.named("alignment")
    )
    assert (real_words(one.weights) or "none") in app.shown()
    assert "scored best of all plans of 1 block; Gradient alignment lost" in app.shown()
    another_site_shows_its_own_truth(app)


def another_site_shows_its_own_truth(app: Driver) -> None:
    other = packed_evidence()[-1]
    app.at.selectbox(key="setting").set_value(other.setting.name).run()
    assert not app.at.exception
    verdicts = lost(app)
    told = {
        tunes: value for tunes, value in zip(verdicts["tunes"], verdicts["regret"], strict=True) if tunes.isdecimal()
    }
    assert len(told) > 3
    for block, value in told.items():
        assert value == pytest.approx(regret(other.setting.truth, (int(block),)).regret, abs=1e-6)


def test_without_an_analysis_the_truth_panel_says_where_one_is_made(app: Driver) -> None:
    app.at.session_state["evidence-tab"] = "Measure it here"
    app.go("evidence")
    assert "Nothing to measure on yet" in app.shown()


@pytest.fixture
def measured(app: Driver, known: Callable[..., Analysed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setenv("LSF_EVIDENCE", str(tmp_path / "evidence"))
    app.at.session_state["evidence-tab"] = "Measure it here"
    app.look_at(known("ablation"), "evidence")
    next(item for item in app.at.number_input if item.label == "Steps per run").set_value(8).run()
    return app


def test_a_sweep_of_another_file_of_the_same_name_is_not_taken_for_ones_own(measured: Driver) -> None:
    found, gate = looked_at(measured.at.session_state["lsf"]), threading.Event()
    assert found is not None
    source = found.request.source
    elsewhere = replace(source, data=f"/elsewhere/{Path(source.data).name}")
    assert elsewhere.title == source.title
    for about, told in ((elsewhere, False), (source, True)):
        title = f"sweep of {about.title}"
        runtime().worker.submit("sweep", title, lambda report: gate.wait(SECONDS), "somebody", about=about)
        measured.at.run()
        assert ("Started in another browser" in measured.shown()) == told
        assert ("Measure the truth" in [button.label for button in measured.at.button]) != told
    gate.set()


def test_a_sweep_with_hardly_a_right_answer_is_shown_by_its_loss(measured: Driver) -> None:
    here = measured.at.session_state["lsf"]
    found = looked_at(here)
    assert found is not None
    source, sweep = found.request.source, sweep_of(best=7)
    for most, metric in ((1 / 256, "loss"), (0.5, "exact_match")):
        cells = []
        for cell in sweep.cells:
            assert cell.after is not None
            cells.append(replace(cell, after=replace(cell.after, exact_match=most if cell.plan == "3" else 0.0)))
        made = Swept(source, replace(sweep, cells=tuple(cells), prior=Score(0.0, 3.0)))
        runtime().worker.submit("sweep", "made by hand", lambda report, made=made: made, "somebody", about=source)
        measured.wait("sweep")
        shown = swept_truth(here)
        assert shown is not None
        assert shown[1] == metric


@pytest.mark.slow
def test_the_truth_panel_measures_a_sweep_and_judges_the_criteria_of_the_analysis(measured: Driver) -> None:
    measured.click("Measure the truth")
    view = measured.wait("sweep")
    assert isinstance(view.result, Swept)
    assert view.result.sweep.missing == ()
    assert view.result.sweep.spec.seeds == 3
    measured.at.run()
    assert not measured.at.exception
    found = lost(measured)
    assert {"Deviation", "Reduction", "Drawn at random (mean)", "Full fine-tuning"} <= set(found["way of choosing"])
    assert found["regret"].min() <= 0
    measured.go("criteria")
    assert "gained in the last sweep" in measured.shown()
    assert any({"block", "need", "gain"} == set(frame.value) for frame in measured.at.dataframe)

    measured.go("evidence")
    before = record_here()
    measured.click("Count it as evidence")
    assert measured.wait("evidence").error is None
    (pair,) = own_evidence()
    assert pair.setting.truth.full == truth_of(view.result.sweep, pair.metric).full
    measured.at.run()
    assert not measured.at.exception
    assert record_here().pairs == f"{before.pairs} and 1 of your own"
    assert f"Counted: the recommendation rests on {record_here().pairs}." in measured.shown()
    measured.at.session_state["evidence-tab"] = "Measured elsewhere"
    measured.at.run()
    assert "Your own sweeps: 1" in {expander.label for expander in measured.at.expander}
    measured.click("Stop counting it")
    assert not measured.at.exception
    assert own_evidence() == ()
    assert record_here() == before


@pytest.mark.slow
def test_a_sweep_whose_time_is_over_says_what_is_unknown_and_fills_nothing_in(
    measured: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsf.app.truth.MINUTE", 10.0)  # 2 s in place of 12
    measured.at.slider(key="truth-minutes").set_value(0.2).run()
    next(item for item in measured.at.number_input if item.label == "Steps per run").set_value(5000).run()
    measured.click("Measure the truth")
    view = measured.wait("sweep")
    assert isinstance(view.result, Swept)
    assert view.result.sweep.missing
    measured.at.run()
    assert not measured.at.exception
    assert "Time ran out after" in measured.shown()
    assert not measured.at.dataframe


@pytest.mark.slow
def test_the_recommendation_names_its_evidence_and_can_be_taken(app: Driver, known: Callable[..., Analysed]) -> None:
    app.look_at(known(), "choose")
    assert not app.at.exception
    here: Session = app.at.session_state["lsf"]
    expected = recommended_plan(known().analysis, 1).blocks
    assert f"Tune block {expected[0]}." in app.shown()
    assert "Thin evidence" in app.shown()
    app.click("Use this plan")
    here = app.at.session_state["lsf"]
    assert here.plan is not None
    assert here.plan.blocks == expected


def test_every_lesson_has_its_truth_and_its_words() -> None:
    assert list(lessons_measured()) == list(NOTES)


def test_nothing_is_given_away_before_a_prediction_is_locked_in_which_then_gets_its_own_regret(app: Driver) -> None:
    assert any(block["value"] for block in app.tower()["blocks"])  # of the study, on the page before
    app.go("lessons")
    assert not any(block["value"] or block["tuned"] for block in app.tower()["blocks"])
    assert not app.at.exception
    assert "What was measured" not in [str(item.value) for item in app.at.header]
    assert len(tables(app)) == 1  # examples only
    button = next(item for item in app.at.button if item.label == "Lock in my prediction")
    assert button.disabled
    for name in NOTES:
        a_prediction_gets_its_own_regret_beside_the_criteria(app, name)


def a_prediction_gets_its_own_regret_beside_the_criteria(app: Driver, name: str) -> None:
    app.at.session_state["guided-lesson"] = name
    app.at.run()
    app.at.session_state[f"prediction-{name}-1"] = (3,)
    app.at.run()
    app.click("Lock in my prediction")
    assert not app.at.exception
    truth = lessons_measured()[name].setting.truth
    shown = {metric.label: metric.value for metric in app.at.metric}
    assert shown["You chose"] == "3"
    assert shown["Your regret"] == f"{regret(truth, (3,)).regret:.2f}"
    verdicts = lost(app)
    own = verdicts[verdicts["way of choosing"] == "Your prediction"]
    assert own["regret"].tolist() == [pytest.approx(regret(truth, (3,)).regret)]
    app.click("Predict again")
    assert "3 What was measured" not in [str(item.value) for item in app.at.header]
