"""The page of evidence in a browser: what was measured elsewhere, and the truth measured here in the worker."""

import re

import pytest

from lsf.evidence.real import real_tasks
from tests.browser.conftest import WORK, Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_measured_truth_of_another_site_can_be_looked_at(tab: Tab) -> None:
    page = tab.page
    tab.open("evidence")
    expect(page.get_by_role("heading", name="On a real language model")).to_be_visible()
    best = re.compile(r"^Tuned alone, block \d+ scored best, (level with block.*, )?with one seed")
    expect(page.get_by_role("heading", name=best)).to_be_visible()
    expect(page.get_by_text(re.compile("^Measured on SmolLM2-135M")).first).to_be_visible()  # and of sets below
    expect(page.get_by_role("heading", name=re.compile("^The recommendation lost"))).to_be_visible()
    expect(page.get_by_role("heading", name="Tuned alone, block 6 scored best")).to_be_visible()
    tab.settled()
    box = page.get_by_role("combobox", name="Model and task")
    box.focus()
    box.press("ArrowDown")
    page.get_by_role("option", name=re.compile("bundled, One more than the sum")).click()
    expect(page.get_by_role("heading", name="Tuned alone, block 0 scored best")).to_be_visible()
    sets = real_tasks()[0].sets is not None  # of the real task that is shown first: one more picture
    expect(page.locator(".lsf-chart")).to_have_count(4 + sets)


def test_a_sweep_is_measured_while_the_page_looks_on_until_it_is_whole_or_its_time_is_over(tab: Tab) -> None:
    page = tab.page
    tab.analysed()
    page.get_by_role("link", name="Evidence").click()
    page.get_by_role("tab", name="Measure it here").click()
    box = page.get_by_role("spinbutton", name="Steps per run")
    box.fill("8")  # long enough to be seen on a fast machine, too
    box.press("Enter")
    page.get_by_role("slider").press("Home")  # 12 seconds
    tab.button("Measure the truth")
    expect(page.get_by_text(re.compile("run: (full|block)")).first).to_be_visible(timeout=30_000)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    done = page.get_by_text(re.compile("Time ran out after|Tuned alone, block"))
    expect(done.first).to_be_visible(timeout=WORK)
