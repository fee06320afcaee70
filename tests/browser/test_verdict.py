"""Compare in Chromium where the whole model's run went wrong, and a second Start beside runs that are looked at."""

import re

import pytest

from lsf.cli.main import main
from lsf.runs.result import RunState
from lsf.runs.store import Run, list_runs, load_run
from tests.browser.conftest import WORK, Process, Tab, expect, named, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def choice(shared_process: Process) -> Run:
    """One block, tuned; beside it the whole model at a rate at which it is wrecked."""
    known = {run.id for run in list_runs(shared_process.runs)}
    shared = ["--model", "bundled", "--data", "lesson:facts", "--steps", "12", "--seed", "43", "--eval-limit", "32"]
    for which in (["--blocks", "7"], ["--all", "--learning-rate", "1"]):
        main(["tune", *shared, *which, "--runs", str(shared_process.runs)])  # the second may end as failed
    made = [run for run in list_runs(shared_process.runs) if run.id not in known]
    return next(run for run in made if run.spec is not None and not run.spec.plan.is_full)


def test_no_verdict_is_over_a_wrecked_whole_model_and_a_second_start_is_looked_at(tab: Tab, choice: Run) -> None:
    page = tab.page
    tab.open(f"compare?run={choice.id}")
    fault = "(diverged|below the floor|forgot .+ nats)"
    expect(page.get_by_role("heading", name=re.compile("the whole model's run has a fault"))).to_be_visible()
    expect(page.get_by_text(re.compile(f"The whole model: {fault}.*[Tt]ry the rate"))).to_be_visible()
    expect(page.locator(".st-key-verdict-numbers").get_by_text("Gain kept")).to_be_hidden()
    started, start = [choice.id], page.get_by_role("button", name=re.compile(r"Start \d"))
    tab.open(f"tune?run={choice.id}")
    for _ in range(2):
        tab.settled()
        expect(start).to_be_enabled(timeout=WORK)
        tab.set_steps(4)
        tab.settled()
        start.click()
        page.wait_for_url(lambda url: named(url, "run") != f"run={started[-1]}")
        started.append(named(page.url, "run").removeprefix("run="))
        wait_for(lambda: not states(tab) & {RunState.QUEUED, RunState.RUNNING}, WORK / 1000)
        expect(page.get_by_role("heading", name=re.compile("^Validation|^Training"))).to_be_visible()
    assert len(set(started)) == 3
    assert {load_run(tab.process.runs / one).state for one in started} == {RunState.SUCCEEDED}


def states(tab: Tab) -> set[RunState]:
    return {run.state for run in list_runs(tab.process.runs)}
