"""The README's moving picture: tower and walk of one analysis on the bundled model, the choice, and the verdict.

    python benchmarks/moving_picture.py            writes docs/images/trajectories.gif, and whole pages as PNG

Starts the app on a free port with an empty folder of runs, goes through it in Chromium (`LSF_CHROMIUM`, else
/usr/bin/chromium) and keeps what the window shows. Needs what requirements-dev.txt installs.
"""

import argparse
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "docs" / "images" / "trajectories.gif"
SIZE = {"width": 1280, "height": 880}
COLORS = 96
STILLS = {"trajectories": "2 Trajectories", "criteria": "3 Criteria", "choose": "4 Choose"}
"""Name of the picture of a whole page, written beside the moving one -> its link."""
LARGEST = 3_000_000
"""Bytes that the picture may have."""
WALK_AT, CHOICE_AT = 210, 400
"""Pixels by which a page is scrolled down, so that its pictures are seen whole."""
WALK, LOOK = 450, 3500
"""Milliseconds for which a step of the walk and a page are shown."""
PATIENCE = 400_000.0
"""Milliseconds until an analysis or a run has ended at the latest."""


class Film:
    """Frames of one window, and for how long each is shown."""

    def __init__(self, page: Page) -> None:
        """Look at a page."""
        self.page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def shoot(self, milliseconds: int) -> None:
        """Keep what the window shows; where it is as it was, the last frame is shown longer, but not for ever."""
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] = max(self.durations[-1], milliseconds)
            return
        self.frames.append(frame)
        self.durations.append(milliseconds)

    def write(self, path: Path) -> None:
        """Write an endless GIF; one palette for all, so that nothing flickers."""
        wide, high = self.frames[0].size
        joined = Image.new("RGB", (wide, high * len(self.frames)))
        for place, frame in enumerate(self.frames):
            joined.paste(frame, (0, high * place))
        palette = joined.quantize(COLORS, method=Image.Quantize.MEDIANCUT)
        first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        first.save(path, save_all=True, append_images=rest, duration=self.durations, loop=0, optimize=True)


@contextmanager
def app(runs: Path) -> Iterator[str]:
    """Serve the app with a folder of runs; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    environment = os.environ | {"LSF_RUNS": str(runs), "STREAMLIT_SERVER_HEADLESS": "true"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def settled(page: Page) -> None:
    """Wait until the script has run to its end and its pictures are drawn."""
    page.wait_for_timeout(600)
    expect(page.locator('[data-test-script-state="notRunning"]')).to_be_attached(timeout=PATIENCE)
    page.wait_for_timeout(1200)


def scroll(page: Page, pixels: int) -> None:
    """Scroll the page down from its top."""
    page.get_by_test_id("stMain").evaluate("(main, top) => main.scrollTo(0, top)", pixels)
    page.wait_for_timeout(300)


def click(page: Page, name: str | re.Pattern[str]) -> None:
    """Press a button and wait for what it brings."""
    page.get_by_role("button", name=name).click()
    settled(page)


def film_journey(page: Page, address: str) -> Film:
    """Go through the app: analysis, choice, runs, comparison."""
    film = Film(page)
    page.goto(f"{address}/model")
    expect(page.get_by_text(re.compile("enough to load it|In memory:"))).to_be_visible(timeout=PATIENCE)
    settled(page)
    page.get_by_role("button", name="Analyse", exact=True).click()
    skip, again = (page.get_by_role("button", name=name) for name in ("Skip to the result", "Replay"))
    expect(page.get_by_role("button", name="Choose blocks")).to_be_visible(timeout=PATIENCE)
    expect(skip.or_(again)).to_be_visible(timeout=PATIENCE)
    if not again.is_visible():
        skip.click()
    expect(again).to_be_visible(timeout=PATIENCE)
    settled(page)
    again.click()
    told = page.locator(".st-key-replay")
    expect(told).to_be_visible()
    scroll(page, WALK_AT)
    while told.is_visible():
        film.shoot(WALK)
        page.wait_for_timeout(250)
    settled(page)
    scroll(page, WALK_AT)
    film.shoot(LOOK)
    click(page, "Choose blocks")
    scroll(page, CHOICE_AT)
    film.shoot(LOOK)
    click(page, "Fine-tune")
    for name in ("first blocks", "last blocks"):
        click(page, name)
    click(page, re.compile("^Start "))
    expect(page.locator(".lsf-bar .idle")).to_be_visible(timeout=PATIENCE)
    settled(page)
    page.get_by_role("link", name="6 Compare").click()
    expect(page.get_by_text("Gain kept", exact=True)).to_be_visible(timeout=PATIENCE)
    settled(page)
    film.shoot(LOOK + 1500)
    return film


def still(page: Page, link: str, path: Path) -> None:
    """Go to a page and keep all of it, in a window that is as high."""
    page.get_by_role("link", name=link).click()
    settled(page)
    height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
    page.set_viewport_size({"width": SIZE["width"], "height": height})
    settled(page)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    page.set_viewport_size({"width": SIZE["width"], "height": SIZE["height"]})


def main() -> None:
    """Make the pictures and say how large the moving one is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGE, help="the file to write")
    out = parser.parse_args().out
    chromium = os.environ.get("LSF_CHROMIUM", "/usr/bin/chromium")
    with tempfile.TemporaryDirectory() as runs, app(Path(runs)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE)  # pyright: ignore[reportArgumentType]
        page.set_default_timeout(PATIENCE)
        film = film_journey(page, address)
        for name, link in STILLS.items():
            still(page, link, out.with_name(f"{name}.png"))
        browser.close()
    film.write(out)
    size = out.stat().st_size
    print(f"{out}: {len(film.frames)} frames, {sum(film.durations) / 1000:.0f} s, {size / 1e6:.2f} MB")
    if size >= LARGEST:
        raise SystemExit(f"It may have {LARGEST / 1e6:.0f} MB at most.")


if __name__ == "__main__":
    main()
