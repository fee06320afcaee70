"""How long *Show me in 60 seconds*, or the guided run on the real model, takes in a fresh process, page by page.

    python -m benchmarks.tour [--real] [--collecting] [--times N]

Starts the app on a free port with an empty folder of runs, clicks in Chromium, touches nothing more, and prints the
seconds from the click to each page and to the verdict. `--collecting` lets Streamlit collect garbage after every run
of a script, as it does by default and the project's config.toml says not to.
"""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from benchmarks.moving_picture import app

PATIENCE = 3_600_000.0
"""Milliseconds for a page at the most."""
STOPS = 4
"""Pages of the tour."""


def tour(real: bool) -> tuple[list[float], str]:
    """Return seconds from the click to each page of the tour and to the verdict on the last, and what it says there."""
    with tempfile.TemporaryDirectory() as folder, app(Path(folder)) as url, sync_playwright() as playwright:
        path = os.environ.get("LSF_CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        button = page.get_by_role("button", name="Show me on SmolLM2" if real else "Show me in 60 seconds")
        expect(button).to_be_visible(timeout=PATIENCE)
        seconds, begun = list[float](), time.monotonic()
        button.click()
        panel = page.locator(".st-key-tour-panel")
        for stop in range(1, STOPS + 1):
            expect(panel).to_contain_text(f"{stop} of {STOPS}", timeout=PATIENCE)
            seconds.append(time.monotonic() - begun)
        expect(panel).to_contain_text(re.compile("whole model's gain"), timeout=PATIENCE)
        seconds.append(time.monotonic() - begun)
        said = panel.locator("p").first.inner_text()
        browser.close()
    return seconds, said


def main() -> None:
    """Print a line per tour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="on SmolLM2-135M-Instruct")
    parser.add_argument("--collecting", action="store_true", help="garbage after every run of a script")
    parser.add_argument("--times", type=int, default=1)
    asked = parser.parse_args()
    os.environ["STREAMLIT_RUNNER_POST_SCRIPT_GC"] = str(asked.collecting).lower()
    for _ in range(asked.times):
        (*pages, verdict), said = tour(asked.real)
        print(
            f"pages after {', '.join(f'{second:.1f}' for second in pages)} s, verdict after {verdict:.1f} s\n{said}",
            flush=True,
        )


if __name__ == "__main__":
    main()
