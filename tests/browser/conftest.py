"""The real app behind a real server, driven in headless Chromium; each test module has its own server and runs."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = Path(os.environ.get("LSF_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 60.0
expect.set_options(timeout=30_000)


@dataclass(frozen=True)
class Server:
    """A running app."""

    url: str
    """Where it listens."""
    runs: Path
    """Its folder of runs."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless Chromium; where there is none these tests are skipped, but never on CI."""
    if not CHROMIUM.exists():
        message = f"There is no {CHROMIUM}; install Debian's chromium, or name one in LSF_CHROMIUM."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The app on a free port of this machine, with an empty folder of runs; ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs, log = tmp_path / "runs", tmp_path / "server.log"
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environment |= {"LSF_RUNS": str(runs), "STREAMLIT_SERVER_HEADLESS": "true"}
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health", process, log)
        yield Server(f"http://127.0.0.1:{port}", runs)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the app did not start:\n{log.read_text()}")


class Tab:
    """One tab, and what a person does in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.outside: list[str] = []
        self.crashes: list[str] = []
        page.route("**/*", self._stay_inside)
        page.on("pageerror", lambda error: self.crashes.append(str(error)))

    def _stay_inside(self, route: Route) -> None:
        """Let nothing leave this machine, and remember what tried to."""
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def button(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    def analyse(self) -> None:
        """Click through to a finished analysis of what is chosen by default."""
        self.button("Analyse")
        expect(self.page.get_by_role("button", name="Choose blocks")).to_be_visible(timeout=60_000)

    def to_tuning(self) -> None:
        self.button("Choose blocks")
        self.button("Fine-tune")
        expect(self.page.get_by_role("button", name="Start ")).to_be_visible()

    def set_steps(self, steps: int) -> None:
        box = self.page.get_by_role("spinbutton", name="Steps")
        box.fill(str(steps))
        box.press("Enter")

    def tune_alone(self, steps: int) -> None:
        """Start one long run without controls, so that it can be looked at while it runs."""
        for name in ("full fine-tuning", "first blocks", "last blocks", "random blocks"):
            self.button(name)
        self.set_steps(steps)
        expect(self.page.get_by_role("button", name="Start 1 run")).to_be_visible()
        self.button("Start 1 run")
        expect(self.page.get_by_text(re.compile(rf"step \d+ of {steps}")).first).to_be_visible(timeout=60_000)

    def axis(self, chart: int = 0) -> list[float]:
        """Range of a chart's horizontal axis."""
        return self.page.evaluate(
            "place => document.querySelectorAll('.lsf-chart')[place].layout.xaxis.range.map(Number)", chart
        )

    def draws(self, chart: int = 0) -> int:
        """How often a chart has been drawn."""
        return int(
            self.page.evaluate("place => document.querySelectorAll('.lsf-chart')[place].dataset.drawn || 0", chart)
        )


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser profile of its own; its tabs share cookies."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext, server: Server) -> Iterator[Tab]:
    """A tab on the first page."""
    tab = Tab(context.new_page())
    tab.page.goto(server.url)
    yield tab
    assert not tab.crashes, tab.crashes
