"""One's own file in a browser: nothing red before anything was chosen, columns from lists, a template of lines."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_columns_of_an_unknown_file_are_picked_and_seen_as_the_model_gets_them(tab: Tab, tmp_path: Path) -> None:
    page, path = tab.page, tmp_path / "rows.csv"
    path.write_text("ask,place,say\n" + "the cat,sat on,mat\nthe dog,sat on,tree\n" * 6)
    tab.open("model")
    tab.ready()
    page.get_by_text("File", exact=True).click()
    box = page.get_by_role("textbox", name="or the path of a file on this machine")
    box.fill(str(path))
    box.press("Enter")
    expect(page.get_by_text("Pick the columns for the prompt and the completion.")).to_be_visible()
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)
    tab.settled()
    asked = page.get_by_role("combobox", name="Prompt from")
    for column in ("ask", "place"):
        asked.click()
        page.get_by_role("option", name=column, exact=True).click()
        tab.settled()
    asked.press("Escape")
    page.get_by_role("combobox", name="Completion from").click()
    page.get_by_role("option", name="say", exact=True).click()
    expect(page.get_by_role("textbox", name="Prompt template")).to_have_value("Ask: {ask}\nPlace: {place}\nSay:")
    shown = page.locator(".lsf-tokens").first
    expect(shown).to_have_text(re.compile(r"Ask: the cat\s+Place: sat on\s+Say: mat"))
    expect(page.get_by_role("button", name="Analyse")).to_be_enabled()
