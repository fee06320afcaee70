"""The server dies while a page shows a run: killed, or told to end; afterwards the run goes on from the page."""

import json
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lsf.jobs.checkpoints import checkpoint_step
from lsf.jobs.result import RunState
from lsf.jobs.runs import load_run, read_metrics
from tests.browser.conftest import Process, Tab, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STEPS = 80
LONG = 8000
"""Steps of a run that outlasts any test."""
SECONDS = 240_000
"""Milliseconds in which a run of so many steps ends, also on a busy machine."""


def the_run(process: Process) -> Path:
    (spec,) = process.runs.glob("*/spec.json")
    return spec.parent


def test_a_run_goes_on_from_the_page_after_the_server_was_killed_and_started_again(
    own_tab: Tab, process: Process
) -> None:
    own_tab.analyse()
    own_tab.to_tuning()
    own_tab.tune_alone(STEPS, checkpoint_seconds=0.5)
    folder, address = the_run(process), own_tab.page.url
    wait_for(lambda: checkpoint_step(folder))
    process.end(signal.SIGKILL, 10)
    assert load_run(folder).state is RunState.INTERRUPTED
    step = checkpoint_step(folder)
    assert step is not None
    assert 0 < step < STEPS
    process.start()
    resume = own_tab.page.get_by_role("button", name=f"Resume from step {step}")
    expect(resume).to_be_visible(timeout=60_000)  # the page comes back by itself
    expect(own_tab.page.get_by_text(f"it can be resumed from step {step}.")).to_be_visible()
    assert own_tab.page.url == address
    resume.click()
    expect(own_tab.page.get_by_text(re.compile(rf"step \d+ of {STEPS}")).first).to_be_visible(timeout=60_000)
    expect(own_tab.page.get_by_role("button", name="Compare the runs")).to_be_visible(timeout=SECONDS)
    result = json.loads((folder / "result.json").read_text())
    assert (result["state"], result["steps"], result["resumed_at"]) == ("succeeded", STEPS, step)
    assert [row["step"] for row in read_metrics(folder)] == list(range(STEPS + 1))
    assert result["proof"]["frozen_identical"]


def test_a_server_told_to_end_leaves_a_run_that_a_new_one_resumes_and_that_can_be_stopped_and_kept(
    own_tab: Tab, process: Process
) -> None:
    page = own_tab.page
    own_tab.analyse()
    own_tab.to_tuning()
    own_tab.tune_alone(LONG)
    folder, address = the_run(process), page.url
    assert checkpoint_step(folder) is None  # a minute between checkpoints
    page.goto("about:blank")
    process.end(signal.SIGTERM, 30)
    step = checkpoint_step(folder)
    assert step == read_metrics(folder)[-1]["step"]  # not a step is lost
    assert load_run(folder).state is RunState.INTERRUPTED
    process.start()
    page.goto(address)  # the first page that the new server is asked for
    expect(page.get_by_role("heading", name="Fine-tune")).to_be_visible()
    expect(page.get_by_role("link", name="6 Compare")).to_be_visible()
    expect(page.get_by_test_id("stSidebar")).to_have_count(0)
    assert page.title() == "LSF: where to fine-tune"
    expect(page.get_by_text(f"it can be resumed from step {step}.")).to_be_visible(timeout=60_000)
    own_tab.button(f"Resume from step {step}")
    expect(page.get_by_text(re.compile(rf"step \d+ of {LONG}")).first).to_be_visible(timeout=60_000)
    wait_for(lambda: read_metrics(folder)[-1]["step"] > step)
    own_tab.button("Stop and keep")
    expect(page.get_by_role("button", name="Compare the runs")).to_be_visible(timeout=60_000)
    wait_for((folder / "result.json").exists)
    result = json.loads((folder / "result.json").read_text())
    assert result["state"] == "cancelled"
    assert step < result["steps"] < LONG
    assert result["metrics"]["after"]["exact_match"] is not None
    assert list((folder / "weights").glob("*.safetensors"))
