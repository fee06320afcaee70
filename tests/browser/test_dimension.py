"""The intrinsic dimension in a browser: kept measurements, a live search, a stop that keeps what was found."""

import re

import pytest

from tests.browser.conftest import WORK, Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_search_is_followed_live_and_stopped_and_what_it_found_stays(tab: Tab) -> None:
    page = tab.page
    tab.open("dimension")
    expect(page.get_by_role("heading", name=re.compile("SAID needs fewer than DID"))).to_be_visible()
    page.get_by_role("button", name="DID, without").click()
    steps = page.get_by_role("spinbutton", name="Steps")
    steps.fill("8")
    steps.press("Enter")
    tab.button("Search d_90")
    expect(page.get_by_text(re.compile("d_90 of Capitals that moved: .*d = "))).to_be_visible(timeout=WORK)
    found = re.compile(r"^d_90 of Capitals that moved: SAID (at most [\d,]+|[\d,]+|not reached up to [\d,]+)")
    expect(page.get_by_role("heading", name=found)).to_be_visible(timeout=WORK)
    expect(page.locator(".lsf-chart").first.locator(".point").first).to_be_attached()
    tab.button("Stop")
    expect(page.get_by_text("idle")).to_be_visible(timeout=WORK)
    tab.settled()  # until then the chart stands twice: as it was followed, and as it is kept
    expect(page.get_by_role("heading", name=found)).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile("^Generalisation gap"))).to_be_visible()
