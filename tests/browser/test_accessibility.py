"""axe-core on every page, light and dark, after an analysis and runs; and the tour, presented by the arrow keys."""

import re

import pytest

from tests.browser.conftest import WORK, Tab, expect, named

pytestmark = [pytest.mark.browser, pytest.mark.slow]
N_PAGES = 11
HEADINGS = {"Start": re.compile("LSF")}
"""Of the page whose heading is not its name in the side bar."""
DARK = "getComputedStyle(document.querySelector('.stApp')).backgroundColor === 'rgb(14, 17, 23)'"
TYPE = "parseFloat(getComputedStyle(document.documentElement).fontSize)"


def take_the_tour(tab: Tab) -> None:
    """Present the tour and wait on its first page until its analysis and its three runs have ended."""
    tab.open()
    tab.button("Show me in 60 seconds")
    tab.settled()
    tab.button("Present")
    expect(tab.page.get_by_role("button", name="Leave the presentation")).to_be_visible()
    tab.page.wait_for_url(re.compile("run="), timeout=WORK)
    expect(tab.page.get_by_text("idle", exact=True)).to_be_visible(timeout=WORK)
    tab.process.analysis = named(tab.page.url, "analysis")
    tab.process.toured = named(tab.page.url, "analysis", "run")


def test_the_tour_is_presented_in_large_type_and_led_by_the_arrow_keys(tab: Tab) -> None:
    take_the_tour(tab)
    page = tab.page
    large = page.evaluate(TYPE)
    for key, stop, title in (
        ("ArrowRight", "2 of 4", "Choose"),
        ("ArrowLeft", "1 of 4", "Trajectories"),
        ("ArrowRight", "2 of 4", "Choose"),
        ("ArrowRight", "3 of 4", "Fine-tune"),
        ("ArrowRight", "4 of 4", "Compare"),
    ):
        lead(tab, key, stop)
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        assert page.evaluate(TYPE) == large
    tab.settled()
    tab.button("Leave the presentation")
    page.wait_for_function(f"{TYPE} < {large}")


def lead(tab: Tab, key: str, stop: str) -> None:
    """Press a key until its stop is there: while its button is drawn anew it is lost, as a presenter's can be."""
    told = tab.page.get_by_text(stop).first
    for _ in range(3):
        tab.settled()  # a slow page is not a lost key
        if told.is_visible():
            break
        tab.page.keyboard.press(key)
        try:
            expect(told).to_be_visible(timeout=10_000)
        except AssertionError:
            continue
    expect(told).to_be_visible()


def test_axe_finds_nothing_serious_on_any_page(tab: Tab) -> None:
    if not tab.process.toured:
        take_the_tour(tab)
    found = {}
    tab.open(f"?{tab.process.toured}")
    links = tab.page.get_by_test_id("stSidebarNavLink")
    expect(links).to_have_count(N_PAGES)
    for place in range(N_PAGES):
        tab.page.emulate_media(color_scheme="light")
        links.nth(place).click()
        expect(links.nth(place)).to_have_attribute("aria-current", "page")
        name = links.nth(place).inner_text().lstrip("0123456789 ")
        expect(tab.page.get_by_role("heading", level=1)).to_have_text(HEADINGS.get(name, name))
        tab.settled()
        found[name] = tab.violations()
        tab.page.emulate_media(color_scheme="dark")
        tab.page.wait_for_function(DARK)
        found[f"{name}, dark"] = tab.violations("color-contrast")
    assert len(found) == 2 * N_PAGES
    assert {name: told for name, told in found.items() if told} == {}
