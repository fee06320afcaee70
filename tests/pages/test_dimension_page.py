"""The page of the intrinsic dimension: a search in the worker, its live curve, what was measured before."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lsf.app.dimension import KIND, folder_of, kept_studies
from lsf.app.runtime import runtime
from lsf.app.work import Request, Source
from lsf.data.contents import DataOptions
from lsf.data.lessons import data_words
from lsf.dimension import study as kept
from lsf.dimension.study import Study
from tests.pages.conftest import Driver


def settle(app: Driver, **values: int) -> None:
    for name, value in values.items():
        app.at.number_input(key=f"dimension-{name}").set_value(value)
    app.at.run()


def test_a_search_runs_in_the_worker_and_ends_in_a_curve_and_a_gap(
    app: Driver, tiny: Callable[[str], Path], cats: Path
) -> None:
    app.use(tiny("llama"), cats)
    app.go("dimension")
    assert not app.at.exception
    settle(app, steps=20, batch_size=8, low=30, high=30, bisections=0, rates=1)
    app.click("Search d_90")
    view = app.wait(KIND)
    at = app.at.run()
    assert not at.exception
    assert view.error is None
    study = view.result
    assert isinstance(study, Study)
    assert [curve.method for curve in study.curves] == ["said", "did"]
    assert f"d_90 of {data_words(study.data)}" in app.shown()
    assert "Generalisation gap" in app.shown()
    table = at.dataframe[0].value
    assert table["method"].tolist() == ["full", "said", "did"]
    assert table["d"].tolist()[1:] == [30, 30]


def test_a_study_of_other_templates_is_not_shown_as_one_of_these_rows(app: Driver, runs: Path, tmp_path: Path) -> None:
    rows, found = tmp_path / "rows.csv", kept.over_lessons()[0]
    plain = Source("bundled", str(rows))
    other, chats = replace(plain, prompt_template="{a}?"), replace(plain, options=DataOptions(train_on="last"))
    folders = {one: folder_of(one) for one in (plain, other, chats)}
    assert len(set(folders.values())) == 3
    folders[plain].mkdir(parents=True)
    for name in ("20260101-1.json", "20260102-1.json"):
        replace(found, data=str(rows)).save(folders[plain] / name)
    assert len(kept_studies(plain)) == 2
    assert kept_studies(other) == kept_studies(chats) == []
    app.at.session_state["lsf"].request = Request(plain)
    at = app.go("dimension")
    assert not at.exception
    newest, oldest = at.selectbox(key="dimension-study").options
    assert (newest.split(" (number")[0], newest[-20:]) == (oldest.split(" (number")[0], "(number 2 of 2 alike)"[-20:])


def test_a_search_whose_grid_is_turned_round_is_refused_in_a_sentence(app: Driver) -> None:
    app.go("dimension")
    settle(app, low=300, high=30)
    assert any("low is 300 and high is 30" in sentence for sentence in app.errors())
    assert not runtime().jobs(KIND)


def test_what_was_measured_before_is_shown_beside_the_published_numbers(app: Driver) -> None:
    app.go("dimension")
    assert not app.at.exception
    assert "SAID needs fewer than DID on" in app.shown()
    assert "cannot be compared" in app.shown()
    for name in ("facts", "labels"):
        app.at.selectbox(key="kept-curves").set_value(f"lesson:{name}").run()
        assert data_words(f"lesson:{name}") in app.shown() and "ring: d_90, the smallest d" in app.shown()
    published = next(frame.value for frame in app.at.dataframe if "whose" in frame.value.columns)
    assert set(published["whose"]) == {"published", "ours"}
    assert "207" in published["d_90 of SAID"].tolist()


def test_without_kept_measurements_the_page_says_how_they_are_made(
    app: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FILE", tmp_path / "no.json")
    kept.measured.cache_clear()
    try:
        app.go("dimension")
        assert "No committed measurements" in app.shown()
    finally:
        kept.measured.cache_clear()


def test_the_kept_measurements_are_whole() -> None:
    value = json.loads(kept.FILE.read_text())
    assert value["studies"]
    assert kept.FILE.stat().st_size < 200_000
    assert len(kept.measured()) == len(value["studies"])
    assert len(kept.over_lessons()) == len({study.data for study in kept.over_lessons()})
