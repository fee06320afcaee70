"""The server dies while a page shows a run: killed, or told to end; afterwards the run goes on from the page."""

import signal

import pytest

from lsf.runs.checkpoints import checkpoint_step
from lsf.runs.result import RunState
from lsf.runs.store import load_run, read_metrics
from tests.browser.conftest import LONG, WORK, Process, Tab, expect, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_run_goes_on_from_the_page_after_its_server_was_killed_and_after_the_next_one_was_told_to_end(
    own_tab: Tab, process: Process
) -> None:
    page = own_tab.page
    folder = own_tab.start_long(checkpoint_seconds=0.5)
    address = page.url
    wait_for(lambda: checkpoint_step(folder))
    process.end(signal.SIGKILL, 10)
    assert load_run(folder).state is RunState.INTERRUPTED
    step = checkpoint_step(folder)
    assert step is not None
    assert 0 < step < LONG
    process.start()
    said = page.get_by_text(f"it can be resumed from step {step}.")
    expect(said).to_be_visible(timeout=WORK)  # the page comes back by itself
    assert page.url == address
    own_tab.button(f"Resume from step {step}")
    own_tab.under_way()
    wait_for(lambda: read_metrics(folder)[-1]["step"] > step)

    page.goto("about:blank")
    process.end(signal.SIGTERM, 30)
    told = checkpoint_step(folder)
    assert told is not None
    assert told == read_metrics(folder)[-1]["step"] > step  # not a step is lost
    assert load_run(folder).state is RunState.INTERRUPTED
    process.start()
    page.goto(address)  # the first page that the new server is asked for
    expect(page.get_by_role("heading", name="Fine-tune")).to_be_visible()
    expect(page.get_by_role("link", name="6 Compare")).to_be_visible()
    expect(page.get_by_role("link", name="compare", exact=True)).to_have_count(0)  # Streamlit's own list of pages
    assert page.title() == "LSF: where to fine-tune"
    expect(page.get_by_text(f"it can be resumed from step {told}.")).to_be_visible(timeout=WORK)
    expect(page.get_by_role("button", name=f"Resume from step {told}")).to_be_enabled()
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(set(steps))
