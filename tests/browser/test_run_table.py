"""The tables of runs fit a narrow window."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.plans.plan import Plan, full_plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from tests.browser.conftest import Tab, expect
from tests.runs.test_comparison import make

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CUT = "grid => grid.scrollWidth - grid.clientWidth"
"""Script that returns how many pixels of a table lie outside it."""


def write(runs: Path, name: str, spec: RunSpec) -> None:
    """Write down a run that took long, as an earlier day left it."""
    (runs / name).mkdir(parents=True, exist_ok=True)
    spec.save(runs / name / "spec.json")
    made = make(name, exact=0.2604, seconds=4000.0)
    made.result.save(runs / name / "result.json")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_table_of_runs_is_not_cut_at_800_pixels(tab: Tab, method: str) -> None:
    tab.page.set_viewport_size({"width": 800, "height": 900})
    runs, many = tab.process.runs, (1, 3, 5, 7)
    named: dict[str, Any] = {"seed": 11, "max_length": 70 + len(method)}  # which no other test asks for
    choice = RunSpec("bundled", "lesson:sums", Plan("bundled", 8, many), method=method, **named)
    write(runs, f"20990101-000000-choice-{method}", choice)
    write(
        runs,
        f"20990101-000000-whole-{method}",
        RunSpec("bundled", "lesson:sums", full_plan("bundled", 8), role="full", **named),
    )
    tab.open(f"tune?run=20990101-000000-choice-{method}")
    expect(tab.page.get_by_text("Proof, and how the runs were carried out")).to_be_visible()
    grid = tab.page.locator(".dvn-scroller").first
    expect(grid).to_be_visible()
    assert grid.evaluate(CUT) <= 0


@pytest.mark.parametrize("width", [1280, 800])
def test_the_list_of_all_runs_is_not_cut(own_tab: Tab, width: int) -> None:
    page, runs = own_tab.page, own_tab.process.runs
    page.set_viewport_size({"width": width, "height": 900})
    spec = RunSpec("models/SmolLM2-135M-Instruct", "customer-questions.jsonl", Plan("m", 30, (1, 3, 5, 7, 24)), seed=11)
    for method, options in (("full", {}), ("lora", {"r": 4, "maps": "mlp"})):
        create_run(runs, replace(spec, method=method, options=options))  # has not begun, which is told as its problem
    write(runs, "20990101-000000-whole", replace(spec, plan=full_plan("m", 30), role="full"))
    own_tab.open("tune")
    page.get_by_text(re.compile(r"All \d+ runs in")).click()
    grid = page.locator(".st-key-run-store .dvn-scroller")
    expect(grid).to_be_visible()
    own_tab.settled()
    assert grid.evaluate(CUT) <= 0
