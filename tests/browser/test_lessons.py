"""The lessons in a browser: a prediction first, then the criteria, the truth and one's own regret."""

import re

import pytest

from lsf.evidence.real import real_tasks
from tests.browser.conftest import Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_learner_predicts_and_then_sees_the_truth_and_the_regret(tab: Tab) -> None:
    page = tab.page
    tab.open("lessons")
    expect(page.get_by_text("Which block would you tune?", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="3 What was measured")).to_have_count(0)
    tab.settled()
    page.get_by_role("radio", name="One more than the sum").click()
    expect(page.get_by_role("heading", name="1 Predict: One more than the sum")).to_be_visible()
    tab.settled()
    page.get_by_role("radio", name="7", exact=True).click()
    expect(page.get_by_role("button", name="Lock in my prediction")).to_be_enabled()
    tab.button("Lock in my prediction")
    expect(page.get_by_role("heading", name="3 What was measured")).to_be_visible()
    expect(page.get_by_test_id("stMetric").filter(has_text="Your regret")).to_contain_text(re.compile(r"0\.[12]\d"))
    expect(page.get_by_role("heading", name="Tuned alone, block 0 scored best")).to_be_visible()
    expect(page.get_by_role("heading", name="4 The same question on a real language model")).to_be_visible()
    expect(page.get_by_text("Measured on SmolLM2-135M").first).to_be_visible()
    sets = real_tasks()[0].sets is not None  # of the real task that is shown first: one more picture
    expect(page.locator(".lsf-chart")).to_have_count(3 + sets)
    tab.button("Predict again")
    expect(page.get_by_role("heading", name="3 What was measured")).to_have_count(0)
    notes_for_teachers_open_by_keyboard(tab)


def notes_for_teachers_open_by_keyboard(tab: Tab) -> None:
    notes = tab.page.locator("summary").filter(has_text="Notes for teachers")
    expect(notes).to_be_visible()
    tab.settled()
    notes.focus()
    notes.press("Enter")
    expect(tab.page.get_by_text("Learners commit to a prediction")).to_be_visible()
