"""A class in real browsers: joined, predicted, reloaded, revealed; and what students write is text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page

from benchmarks.class_load import PASSWORD, TEACHER, Server
from tests.browser.conftest import Process, Tab, expect
from tests.classroom.test_server import answers, own_addresses

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME, WHY = "<img src=x onerror=alert(1)>", "**<script>alert(2)</script>**"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A class on this machine."""
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.end()


def join(page: Page, name: str) -> None:
    page.get_by_label("Password of the room").fill(PASSWORD)
    page.get_by_label("Nickname").fill(name)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_text(f"You are {name}", exact=True)).to_be_visible()


def test_a_class_predicts_reloads_and_sees_what_was_measured(chromium: Browser, server: Server) -> None:
    tabs = [Tab(chromium.new_context(viewport={"width": 800, "height": 900}).new_page()) for _ in range(3)]
    teacher, ada, ben = (tab.page for tab in tabs)
    alerts: list[str] = []

    def note(dialog: Dialog) -> None:
        alerts.append(dialog.message)
        dialog.dismiss()

    for tab in tabs:
        tab.page.on("dialog", note)
    teacher.goto(f"{server.url}/teacher")
    teacher.get_by_label("Password of the teacher").fill(TEACHER)
    teacher.get_by_role("button", name="Enter").click()
    for page, name in ((ada, NAME), (ben, "Ben")):
        page.goto(f"{server.url}/model?run=..%2F..&model=/etc/passwd")  # the first page this browser asks for
        expect(page.get_by_role("link", name="Model and data")).to_have_count(0)
        page.get_by_role("button", name="Close").click()  # of the note that there is no such page
        join(page, name)
        expect(page.get_by_text("Predictions are not open")).to_be_visible()
        assert page.locator('input[type="file"]').count() == 0
    teacher.get_by_role("button", name="Open predictions").click()
    for page, block in ((ada, "3"), (ben, "7")):
        page.get_by_role("radio", name=block, exact=True).click()  # it came by itself
        page.get_by_label("Why? (optional)").fill(WHY)
        page.get_by_role("button", name="Predict", exact=True).click()
        expect(page.get_by_text(f"Your prediction is saved: block {block}")).to_be_visible()
        expect(page.get_by_role("table")).to_have_count(0)
    ada.reload()
    expect(ada.get_by_text("Your prediction is saved: block 3")).to_be_visible()
    expect(ada.get_by_label("Why? (optional)")).to_have_value(WHY)
    ada.get_by_role("radio", name="6", exact=True).click()
    ada.get_by_role("button", name="Change my prediction").click()
    expect(ada.get_by_text("Your prediction is saved: block 6")).to_be_visible()
    expect(teacher.get_by_text("2 of 2")).to_be_visible()
    teacher.get_by_text("Who predicted what, and why").click()
    expect(teacher.get_by_test_id("stDataFrame").locator("td", has_text=NAME)).to_have_count(1)
    teacher.reload()
    teacher.get_by_role("button", name="Reveal what was measured").click()
    for page in (ada, ben):
        expect(page.get_by_role("heading", name="What was measured")).to_be_visible()
        expect(page.get_by_role("rowheader", name="(yours)")).to_have_count(1)
    expect(ada.get_by_text("Block 6 scored best", exact=False)).to_contain_text("1 of 2 predicted it. So did you.")
    expect(ben.get_by_text("Block 6 scored best", exact=False)).to_contain_text("Yours, block 7")
    assert [fault for tab in tabs for fault in tab.violations()] == []
    with teacher.expect_download() as found:
        teacher.get_by_role("button", name="All predictions as CSV").click()
    rows = found.value.path().read_text().splitlines()
    assert rows[0] == "nickname,lesson,block,why,time (UTC),measured"
    assert sorted(row.split(",")[:3] for row in rows[1:]) == [[NAME, "facts", "6"], ["Ben", "facts", "7"]]
    teacher.get_by_role("button", name="Next lesson: One more than the sum").click()
    expect(ben.get_by_role("heading", name="One more than the sum")).to_be_visible()
    expect(ben.get_by_role("heading", name="What was measured")).to_have_count(0)
    assert alerts == []
    for tab in tabs:
        assert tab.outside == []
        assert tab.crashes == []
        assert tab.page.locator("img[src='x']").count() == 0
        tab.page.context.close()


def test_without_a_class_the_app_is_for_this_machine_alone(shared_process: Process) -> None:
    assert answers("127.0.0.1", shared_process.port)
    assert not [address for address in own_addresses() if answers(address, shared_process.port)]
