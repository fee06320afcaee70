"""The journey through the app with a table of one's own, in Chromium, and whether the time left was told true.

    python -m benchmarks.journey [--model smollm2] [--examples 32] [--blocks 2] [--steps 40]
                                 [--tried] [--pictures FOLDER]

Starts the app on a free port with an empty folder of runs; writes 640 questions of TREC (of the shared folder) as a CSV
with the columns `question` and `answer`; analyses them, takes the recommended criterion's run of neighbours, tunes it
beside the whole model and as many random blocks, and opens *Compare*. Every five seconds it reads how long the page
says that the analysis, then the queue, will still take. What it says counts from a tenth of the whole time on; the bar
is half to one and a half times what was still to come. With `--tried` the blocks are found by trying, for as many
steps, and the tries are looked at too; with `--pictures` pages are kept as they look, light and dark.
"""

import argparse
import csv
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.moving_picture import app, settled
from benchmarks.settings import SHARED, TREC_WORDS
from lsf.runs.store import list_runs

ROWS = 640
EVERY = 5.0
"""Seconds between two looks."""
PATIENCE = 3_600_000.0
"""Milliseconds for a part of the journey at the most."""
LOW, HIGH, FROM = 0.5, 1.5, 0.1
"""The bar: what is told over what is still to come; and the share of the whole from which on it counts."""
NAMES = {"bundled": "Bundled", "smollm2": "SmolLM2-135M-Instruct"}
UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0}
LEFT = re.compile(r"about ((?:[\d.]+ (?:h|min|s) ?)+)left")

Look = tuple[float, float | None]
"""Seconds since the start, and the seconds that the page said were left; None where it said nothing."""


def write_table(path: Path) -> None:
    """Write the questions and the kinds of their answers as a person would keep them."""
    lines = (SHARED / "data/trec/train.txt").read_text(encoding="latin-1").splitlines()[:ROWS]
    pairs = (line.split(" ", 1) for line in lines)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("question", "answer"))
        rows.writerows((text, TREC_WORDS[label.partition(":")[0]]) for label, text in pairs)


def seconds_in(text: str) -> float | None:
    """Return the seconds that a text says are left; None where it says nothing of it."""
    if "less than a second left" in text:
        return 0.0
    found = LEFT.search(text)
    if found is None:
        return None
    parts = found[1].split()
    return sum(float(value) * UNITS[unit] for value, unit in zip(parts[::2], parts[1::2], strict=True))


def watched(page: Page, said: Callable[[str], str | None], ended: Callable[[], bool]) -> list[Look]:
    """Look at the bars of a page until something has ended.

    Args:
        page: the page.
        said: the text of a bar -> what it says of the whole; None where it is of something else.
        ended: whether it has.
    """
    begun, looks = time.monotonic(), list[Look]()
    while not ended():
        bars = page.get_by_test_id("stProgress").all_inner_texts()
        told = next((words for bar in bars if (words := said(bar)) is not None), None)
        looks.append((time.monotonic() - begun, None if told is None else seconds_in(told)))
        page.wait_for_timeout(EVERY * 1000)
    return [*looks, (time.monotonic() - begun, 0.0)]


def judged(name: str, looks: list[Look]) -> str:
    """Return in a line how often the time left was within the bar, and the looks at which it was not."""
    whole = looks[-1][0]
    counted = [(at, left / (whole - at)) for at, left in looks[:-1] if left is not None and at >= FROM * whole]
    silent = sum(left is None for at, left in looks[:-1] if at >= FROM * whole)
    missed = [(at, ratio) for at, ratio in counted if not LOW <= ratio <= HIGH]
    shown = ", ".join(f"{at:.0f} s: {ratio:.2f}x" for at, ratio in missed)
    held = f"within the bar in {len(counted) - len(missed)} of {len(counted)} looks"
    return f"{name}, {whole:.0f} s: {held}, {silent} without a time" + (f"; not at {shown}" if missed else "")


def press(page: Page, name: str, onward: str = "") -> None:
    """Press a button once the page stands still, again where it was drawn anew under the pointer.

    Args:
        page: the page.
        name: what is written on the button.
        onward: the page it leads to; empty where it is not waited for.
    """
    button = page.get_by_role("button", name=name)
    expect(button).to_be_enabled(timeout=PATIENCE)
    settled(page)
    button.click()
    while onward and f"/{onward}" not in page.url:
        page.wait_for_timeout(5000)
        if f"/{onward}" not in page.url and button.is_visible():
            button.click()


def fill(page: Page, name: str, value: int) -> None:
    """Fill a field for a number."""
    box = page.get_by_role("spinbutton", name=name)
    expect(box).to_have_count(1)
    box.fill(str(value))
    box.press("Enter")
    settled(page)


def tried(page: Page, steps: int) -> None:
    """Find the blocks by trying, on the page *Choose*, and take them."""
    button = page.get_by_role("button", name=re.compile("^Try .* depths"))
    if not button.is_visible():
        page.get_by_text("Try instead of predicting").click()
        settled(page)
    fill(page, "Steps of the run", steps)
    press(page, "depths and")
    take = page.locator(".st-key-take-tries")
    expect(page.get_by_test_id("stProgress").first).to_be_visible(timeout=PATIENCE)
    print(judged("the tries", watched(page, lambda bar: bar, take.is_visible)), flush=True)
    print(page.get_by_text(re.compile("the least validation loss after")).first.inner_text(), flush=True)
    take.get_by_role("button").click()
    settled(page)


def keep(page: Page, folder: Path | None, name: str) -> None:
    """Keep a page as it looks, light and dark; without a folder nothing is kept."""
    for scheme in ("light", "dark") if folder is not None else ():
        page.emulate_media(color_scheme=scheme)
        settled(page)
        page.screenshot(path=f"{folder}/{name}-{scheme}.png")
    page.emulate_media(color_scheme="light")


def analysed(page: Page, url: str, runs: Path, asked: argparse.Namespace) -> None:
    """Open model and table, and analyse them."""
    table = runs.parent / "questions.csv"
    write_table(table)
    page.goto(f"{url}/model")
    expect(page.get_by_text(re.compile("enough to load it|In memory:"))).to_be_visible(timeout=PATIENCE)
    page.get_by_text(NAMES[asked.model], exact=True).first.click()
    page.get_by_text("File", exact=True).click()
    box = page.get_by_role("textbox", name="or the path of a file on this machine")
    box.fill(str(table))
    box.press("Enter")
    settled(page)
    page.get_by_text("What is measured").click()
    fill(page, "Maximum examples", asked.examples)
    press(page, "Analyse", "trajectories")
    done = page.get_by_role("button", name="Choose blocks")
    expect(page.get_by_test_id("stProgress").first).to_be_visible(timeout=PATIENCE)
    print(judged("the analysis", watched(page, lambda bar: bar, done.is_visible)), flush=True)
    keep(page, asked.pictures, "trajectories")
    press(page, "Choose blocks", "choose")


def tuned(page: Page, asked: argparse.Namespace) -> None:
    """Choose blocks, and tune them beside controls."""
    slider = page.get_by_role("slider")
    expect(slider).to_be_visible(timeout=PATIENCE)
    settled(page)
    slider.press("Home")
    for _ in range(asked.blocks - 1):
        slider.press("ArrowRight")
    settled(page)
    if asked.tried:
        tried(page, asked.steps)
    keep(page, asked.pictures, "choose")
    print(page.get_by_role("heading", name=re.compile("The plan: tune")).inner_text(), flush=True)
    press(page, "Fine-tune", "tune")
    expect(page.get_by_role("button", name="Start ")).to_be_visible(timeout=PATIENCE)
    settled(page)
    for role in ("first blocks", "last blocks"):
        page.get_by_role("button", name=role).click()
        settled(page)
    fill(page, "Steps", asked.steps)
    keep(page, asked.pictures, "tune")
    press(page, "Start ")
    expect(page.get_by_test_id("stProgress").first).to_be_visible(timeout=PATIENCE)
    whole = re.compile("The whole queue")
    queue = watched(page, lambda bar: bar if whole.match(bar) else None, page.locator(".lsf-bar .idle").is_visible)
    print(judged("the queue", queue), flush=True)


def journey(page: Page, url: str, runs: Path, asked: argparse.Namespace) -> None:
    """Go from the first page to the last, and print what was told and what came of it."""
    analysed(page, url, runs, asked)
    tuned(page, asked)
    for run in list_runs(runs):
        spec, found = run.spec, run.result
        if spec is None or found is None or found.after is None or found.total_seconds is None:
            print(f"{run.id}: {run.state}", flush=True)
            continue
        foreseen = found.predicted.wall_seconds or 0.0
        print(
            f"{spec.role}, {spec.plan.label}: exact match {found.after.exact_match:.1%}, rate {found.learning_rate:g}, "
            f"{found.total_seconds:.0f} s, foreseen at its start {foreseen:.0f} s",
            flush=True,
        )
    press(page, "Compare the runs", "compare")
    expect(page.locator(".st-key-verdict-numbers")).to_be_visible(timeout=PATIENCE)
    settled(page)
    keep(page, asked.pictures, "compare")
    print(page.get_by_role("heading").nth(1).inner_text(), flush=True)


def main() -> None:
    """Print a line per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", choices=NAMES)
    parser.add_argument("--examples", type=int, default=32, help="read by the analysis")
    parser.add_argument("--blocks", type=int, default=2, help="tuned")
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--tried", action="store_true", help="find the blocks by trying")
    parser.add_argument("--pictures", type=Path, help="an existing folder to keep every page in")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = Path(folder) / "runs"
        with app(runs) as url:
            path = os.environ.get("LSF_CHROMIUM", "/usr/bin/chromium")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            journey(browser.new_page(viewport={"width": 1280, "height": 900}), url, runs, asked)
            browser.close()


if __name__ == "__main__":
    main()
