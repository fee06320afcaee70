"""Blocks x methods in a browser: cells fill, a click opens the run behind one."""

import re

import pytest

from lsf.figures.blocks_by_methods import MEASURES, in_words
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run, list_runs
from tests.browser.conftest import WORK, Process, Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_grid_fills_while_it_is_looked_at_and_a_click_opens_a_cell_s_run(tab: Tab, shared_process: Process) -> None:
    page = tab.page
    folder = create_run(shared_process.runs, RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (6, 7)), steps=4))
    before = {run.id for run in list_runs(shared_process.runs)}
    tab.open(f"blocks_by_methods?run={folder.name}")
    expect(page.get_by_text("the chosen plan is")).to_be_visible()
    how = page.get_by_role("combobox", name="Methods")
    for left in (5, 4, 3, 2):
        how.press("Backspace")
        expect(page.get_by_role("button", name=f"Start {2 * left} runs")).to_be_visible()
    how.press("Escape")
    page.get_by_role("button", name="whole model").click()
    steps = page.get_by_role("spinbutton", name="Steps")
    steps.fill("3")
    steps.press("Enter")
    tab.button("Start 2 runs")
    expect(page.get_by_text("2 of 2 cells already exist")).to_be_visible(timeout=WORK)
    expect(page.get_by_text("All jobs ended")).to_be_visible(timeout=WORK)
    grid = page.locator(".lsf-chart").first
    expect(page.get_by_role("heading", name=re.compile("^(Best|All 2 cells).* exact match"))).to_be_visible()
    page.get_by_text("stored bytes", exact=True).first.click()
    (lora,) = [
        run
        for run in list_runs(shared_process.runs)
        if run.id not in before and run.spec is not None and run.spec.method == "lora"
    ]
    assert lora.result is not None and lora.result.stored_bytes is not None
    stored = re.escape(in_words(lora.result.stored_bytes / 1e3, MEASURES["stored_bytes"]))
    expect(page.get_by_role("heading", name=re.compile(f"^Best stored bytes: LoRA on .*, {stored}$"))).to_be_visible()
    area = grid.locator(".nsewdrag")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    expect(page.get_by_role("heading", name=re.compile("^LoRA on block"))).to_be_visible()
    expect(page.get_by_text("parameters tuned at learning rate 0.01")).to_be_visible()
    tab.button("Show this run")
    expect(page).to_have_url(re.compile("run="))
