"""Compare in Chromium: the graft both ways by click and keyboard, and one's own words streaming side by side."""

import re

import pytest
from playwright.sync_api import Locator

from lsf.cli.main import main
from lsf.runs.graft import GRAFT, Graft, which_did_it
from lsf.runs.store import Run, list_runs
from tests.browser.conftest import WORK, Process, Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HOSTILE = "<img src=x onerror=document.title='hit'> *Jorvik* has its capital in"


@pytest.fixture(scope="module")
def tuned(shared_process: Process) -> Run:
    """Three blocks and the whole model, tuned; the run of the blocks."""
    known = {run.id for run in list_runs(shared_process.runs)}
    shared = ["--model", "bundled", "--data", "lesson:facts", "--steps", "12", "--seed", "42", "--eval-limit", "32"]
    for which in (["--blocks", "5-7"], ["--all"]):
        assert main(["tune", *shared, *which, "--runs", str(shared_process.runs)]) == 0
    made = [run for run in list_runs(shared_process.runs) if run.id not in known]
    return next(run for run in made if run.spec is not None and not run.spec.plan.is_full)


def part(tab: Tab, block: int) -> Locator:
    """A block of the graft's tower; the one beside the page cannot be clicked here."""
    return tab.page.get_by_role("option", name=re.compile(f"^Block {block} of 8"))


def metric(tab: Tab, label: str) -> Locator:
    return tab.page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue")


def test_the_graft_is_driven_both_ways_on_the_tower(tab: Tab, tuned: Run) -> None:
    page = tab.page
    tab.open(f"compare?run={tuned.id}")
    tab.button("Measure the graft")
    expect(page.get_by_text("Every part, number by number")).to_be_visible(timeout=WORK)
    found = Graft.load(tuned.folder / GRAFT)
    expect(page.get_by_text(which_did_it(found)[0])).to_be_visible()
    losses = {part.block: part for part in found.parts}
    assert losses.keys() == {5, 6, 7}

    tab.settled()
    part(tab, 5).click()
    expect(part(tab, 5)).to_have_attribute("aria-selected", "true")
    expect(metric(tab, "Test loss")).to_have_text(f"{losses[5].alone.reading.loss:.3f}")
    for name in ("base model", "base model with block 5", "tuned model"):
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    expect(page.locator(".lsf-lens")).to_have_count(3)

    tab.settled()
    page.get_by_text("Taken out of the tuned model", exact=True).first.click()
    expect(metric(tab, "Test loss")).to_have_text(f"{losses[5].without.reading.loss:.3f}")
    expect(page.get_by_text("tuned model without block 5", exact=True)).to_be_visible()

    tab.settled()
    tower = page.get_by_role("listbox", name=re.compile("Nats that are lost without"))
    tower.press("End")
    tower.press("Space")
    expect(part(tab, 7)).to_have_attribute("aria-selected", "true")
    expect(part(tab, 5)).to_have_attribute("aria-selected", "false")
    expect(metric(tab, "Test loss")).to_have_text(f"{losses[7].without.reading.loss:.3f}")
    tab.settled()
    part(tab, 2).click()  # not tuned: nothing is picked
    tab.settled()
    expect(part(tab, 7)).to_have_attribute("aria-selected", "true")


def test_the_paths_after_tuning_are_laid_over_those_before(tab: Tab, tuned: Run) -> None:
    page, chart = tab.page, ".st-key-panel-paths .lsf-chart"
    tab.analysed()
    tab.open(f"trajectories?{tab.process.analysis}&run={tuned.id}")
    box = page.get_by_role("combobox", name="Laid over: the same after tuning")
    expect(box).to_be_visible()
    tab.settled()
    box.click()
    page.get_by_role("option", name=re.compile("blocks 5-7")).first.click()
    expect(page.get_by_text("Green squares: the same after tuning")).to_be_visible(timeout=WORK)
    page.wait_for_function(f"document.querySelector('{chart}').data.some(one => one.name === 'factual after tuning')")
    apart = page.evaluate(
        """chart => {
            const find = (name) => document.querySelector(chart).data.find((one) => one.name === name);
            const [before, after] = ["factual", "factual after tuning"].map(find);
            return after.x.map((x, state) => Math.hypot(x - before.x[state], after.y[state] - before.y[state]));
        }""",
        chart,
    )
    assert len(apart) == 9
    assert max(apart[:6]) < 1e-4 < max(apart[6:])  # state 5 is the input of the lowest tuned block


def test_ones_own_words_stream_side_by_side_and_are_found_after_a_reload(tab: Tab, tuned: Run) -> None:
    page = tab.page
    tab.open(f"compare?run={tuned.id}")
    box = page.get_by_label("Prompt", exact=True)
    expect(box).to_have_value(re.compile(r"\w"))  # a test prompt stands there
    tab.settled()
    box.fill(HOSTILE)
    page.get_by_label("Second prompt (optional)").fill("Glimmer is")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".lsf-lens")).to_have_count(6, timeout=WORK)
    said = page.locator(".lsf-answer")
    expect(said.filter(has_text=HOSTILE)).to_have_count(3)
    expect(page.locator(".lsf-lens > span")).to_have_count(6 * 9)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() != "hit"
    expect(page.get_by_text("Each prompt was given as it stands")).to_be_visible()
    expect(said.filter(has_text="…")).to_have_count(0)  # the last word of the last answer is written
    words = said.all_inner_texts()
    page.reload()
    expect(page.locator(".lsf-lens")).to_have_count(6, timeout=WORK)
    assert said.all_inner_texts() == words
