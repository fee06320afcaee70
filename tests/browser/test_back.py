"""The browser's Back: one press undoes one click."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import Tab, expect
from tests.runs.test_comparison import FULL, make

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def end_others(runs: Path) -> None:
    """Write down two runs of another model that ended, as an earlier day left them."""
    for name, one in (("20990101-000000-a-aaaa", make("c")), ("20990101-000000-b-bbbb", FULL)):
        (runs / name).mkdir(parents=True)
        assert one.spec is not None and one.result is not None
        one.spec.save(runs / name / "spec.json")
        one.result.save(runs / name / "result.json")


@pytest.mark.parametrize("analysed", [True, False])
def test_one_press_takes_back_the_click_that_shows_other_runs(own_tab: Tab, analysed: bool) -> None:
    page = own_tab.page
    end_others(own_tab.process.runs)
    if analysed:
        own_tab.open("model")
        own_tab.analyse()
    else:
        own_tab.open()
    page.get_by_role("link", name="6 Compare").click()
    offered = page.get_by_text("Runs of other models or data that have ended:")
    runs = page.get_by_text(re.compile("^Runs of m on d"))
    expect(offered).to_be_visible()
    own_tab.settled()
    own_tab.button("Compare 2 runs of m on d")
    expect(runs).to_be_visible()
    own_tab.settled()
    page.go_back()
    expect(offered).to_be_visible()
    expect(runs).to_have_count(0)
    expect(page).not_to_have_url(re.compile("run="))
    page.go_forward()
    expect(runs).to_be_visible()
    page.get_by_role("link", name="5 Fine-tune").click()  # which keeps what is looked at
    expect(page).to_have_url(re.compile(r"/tune\?.*run=20990101"))
    page.go_back()  # to the same page by its bare address, or to the one before, as the browser had it
    own_tab.settled()
    expect(page).to_have_url(re.compile("run=20990101"))
