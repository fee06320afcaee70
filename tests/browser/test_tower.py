"""The tower beside the pages: a click, a drag and the keyboard choose blocks; other pages show the choice."""

import re

import pytest
from playwright.sync_api import Locator

from tests.browser.conftest import Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def block(tab: Tab, number: int) -> Locator:
    return tab.page.get_by_role("option", name=re.compile(f"^Block {number} of"))


def test_the_next_step_stays_in_sight_and_a_click_a_drag_and_the_keyboard_choose_blocks(tab: Tab) -> None:
    page = tab.page
    tab.analysed()
    the_next_step_stays_in_sight(tab)
    expect(block(tab, 7)).to_have_attribute("aria-selected", "true")
    expect(block(tab, 2)).to_have_attribute("aria-selected", "false")
    expect(page.get_by_role("heading", name="The plan: tune blocks 6-7", exact=True)).to_be_visible()

    block(tab, 2).click()
    expect(page.get_by_role("heading", name="The plan: tune blocks 2, 6-7", exact=True)).to_be_visible()

    first, last = block(tab, 6).bounding_box(), block(tab, 3).bounding_box()
    assert first is not None
    assert last is not None
    page.mouse.move(first["x"] + 40, first["y"] + first["height"] / 2)
    page.mouse.down()
    page.mouse.move(last["x"] + 40, last["y"] + last["height"] / 2, steps=4)
    page.mouse.up()  # block 6 was tuned: the whole run is frozen
    expect(page.get_by_role("heading", name="The plan: tune blocks 2, 7", exact=True)).to_be_visible()

    tower = page.get_by_role("listbox", name=re.compile("^Blocks to tune"))
    tower.press("Home")
    tower.press("Shift+ArrowUp")
    tower.press("Space")
    expect(page.get_by_role("heading", name="The plan: tune blocks 0-2, 7", exact=True)).to_be_visible()
    tower.press("End")
    tower.press("Enter")
    expect(page.get_by_role("heading", name="The plan: tune blocks 0-2", exact=True)).to_be_visible()

    tab.button("Fine-tune")
    shown = page.get_by_role("img", name=re.compile("Tuned: blocks 0-2; the backward pass runs from the head down to"))
    expect(shown).to_be_visible()
    expect(page.get_by_role("listbox", name=re.compile("^Blocks to tune"))).to_have_count(0)


def the_next_step_stays_in_sight(tab: Tab) -> None:
    page = tab.page
    for name in ("2 Trajectories", "3 Criteria", "4 Choose"):
        page.get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", name=name[2:], exact=True, level=1)).to_be_visible()
        tab.settled()
        onward = page.locator(".st-key-onward").get_by_role("button").first
        expect(onward).to_be_in_viewport(ratio=1)
        assert page.get_by_test_id("stMain").evaluate("main => main.scrollHeight > 1.5 * main.clientHeight"), name
