"""Plain text on the pages: what was read up to a token is shown, and runs are judged by their loss."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lsf.app.runtime import runtime
from lsf.app.work import Analysed, Request, Source, analysis_work
from lsf.criteria.result import AnalysisSettings
from lsf.jobs.queue import queue_runs
from lsf.models.loading import load_model
from lsf.plans.policies import make_plan
from lsf.runs.controls import with_controls
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs
from tests.pages.conftest import SECONDS, Driver

LINE = "the cat sat on the mat\nthe dog sat on the tree\n"


@pytest.fixture
def source(tiny: Callable[[str], Path], tmp_path: Path) -> Source:
    """A tiny model, and a text of six pieces with line ends in them."""
    text = tmp_path / "notes.txt"
    text.write_text("\n".join(LINE * 50 for _ in range(6)), encoding="utf-8")
    return Source(str(tiny("llama")), str(text))


@pytest.fixture
def found(app: Driver, source: Source) -> Analysed:
    """The app's own analysis of it."""
    shared = runtime()
    request = Request(source, AnalysisSettings(split="train", max_length=64, criteria=("deviation", "last")))
    view = shared.worker.wait(shared.worker.submit("analyze", request.title, analysis_work(shared, request)), SECONDS)
    assert view.error is None, view.error
    return view.result


def test_each_position_is_shown_behind_the_text_that_was_read_there(app: Driver, found: Analysed) -> None:
    assert found.analysis.trajectories is not None
    kept = found.analysis.trajectories.examples
    assert len({path.read for path in kept[:4]}) > 1  # positions of one text, each behind another part of it
    app.look_at(found)
    for place in (0, 1):
        app.at.selectbox(key="example-choice").set_value(place + 1).run()
        (caption,) = [one for one in app.at.caption if str(one.value).startswith(f"Example {place + 1}:")]
        assert "\n" not in str(caption.value)  # a blank line would end the bold face and the paragraph
        assert kept[place].read.replace("\n", "⏎")[-20:] in app.shown()
        assert f"**{kept[place].target_token.replace(' ', '␣')}**" in str(caption.value)


def test_runs_are_followed_and_compared_by_their_loss(app: Driver, runs: Path, found: Analysed, source: Source) -> None:
    plan = make_plan(found.analysis, "last", "top_k", 1)
    spec = RunSpec(source.model, source.data, plan, steps=2, batch_size=2, max_length=64)
    loaded, task = load_model(spec.model), source.load_task()
    queued = queue_runs(runtime().worker, runs, with_controls(spec, ["full"]), lambda: loaded, lambda: task)
    runtime().worker.wait(queued[-1].job, SECONDS)
    app.look_at(found)
    app.at.query_params["run"] = list_runs(runs)[-1].id
    app.go("tune")
    assert app.at.segmented_control(key="curve-metric-of-text").value == "validation loss"
    results = next(frame.value for frame in app.at.dataframe if "in all" in list(frame.value))
    assert {"loss before", "loss after"} <= set(results) and not {"test before", "test after"} & set(results)
    app.go("compare")
    assert not app.at.exception
    table = next(frame.value for frame in app.at.dataframe if "x gain" in list(frame.value))
    assert {"loss before", "loss after", "bytes before", "bytes after"} <= set(table)
    assert not {"test before", "test after", "x quality"} & set(table)
    assert any(title.value.startswith("Best gain over the floor") for title in app.at.subheader)
