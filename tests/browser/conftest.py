"""The real app behind a real server, driven in headless Chromium.

Every test has a browser profile of its own. `tab` is on a server that tests share, where models, analyses and runs stay
as they do on a working day, and the worker is left idle; `own_tab` is on the test's own `process`, fresh and without
runs. A server's start, with torch, costs more than most tests: own ones are for tests that end them, and have torch.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
from playwright.sync_api import expect as at_once

from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from tests.children import ROOT, Child

CHROMIUM = Path(os.environ.get("LSF_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing leaves this machine
]
START_SECONDS = 60.0
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
NOT_OURS = (
    ("list", "[data-testid=stSidebarNavItems]"),  # Streamlit puts the heading "More" between the items of its list
    ("listitem", "[data-testid=stSidebarNavItems]"),
)
"""Rules of axe, and what Streamlit or Plotly draws against them in a way that we cannot mend."""
PICTURES = ".lsf-chart svg"
"""Plotly's drawings, thousands of parts: each stands in a figure whose words are looked at, and say what it shows."""
FAULTS = """async ([rules, known, pictures]) => {
    for (const change of document.getAnimations()) try { change.finish(); } catch { /* it has no end */ }
    const only = rules.length ? {runOnly: rules} : {};
    const found = await axe.run({exclude: [[pictures]]}, {resultTypes: ["violations"], elementRef: true, ...only});
    const grave = found.violations.filter((fault) => ["serious", "critical"].includes(fault.impact));
    return grave.flatMap((fault) => fault.nodes
        .filter((node) => !known.some(([rule, ours]) => rule === fault.id && node.element.closest(ours)))
        .map((node) => `${fault.id}: ${node.html.slice(0, 200)} (${node.failureSummary})`));
}"""
"""Script that returns what axe-core finds serious or critical on a page."""
TIMEOUT = 30_000
"""Milliseconds within which what is expected has to hold."""
COLD = 90_000
"""Milliseconds in which a page of a server that has just started, and loads torch, stands."""
WORK = 240_000
"""Milliseconds in which a short job ends, also where four browsers and their servers share two cores."""
LONG = 8000
"""Steps of a run that outlasts any test."""


class Patient:
    """Assertions of Playwright's `expect`, which fail at once where two elements match, asked until one does.

    Streamlit keeps what it drew before until the script ends: what has moved by then stands twice for a while.
    """

    def __init__(self, actual: Any) -> None:
        self.assertions = at_once(actual)

    def __getattr__(self, name: str) -> Callable[..., None]:
        assertion = getattr(self.assertions, name)

        def ask(*wanted: Any, timeout: float = TIMEOUT, **options: Any) -> None:
            end = time.monotonic() + timeout / 1000
            while True:
                left = max(end - time.monotonic(), 0.0) * 1000
                try:
                    return assertion(*wanted, timeout=left + 1.0, **options)  # 0 would be no limit at all
                except AssertionError as error:
                    if "strict mode violation" not in str(error) or left == 0.0:
                        raise
                time.sleep(0.1)

        return ask


def expect(actual: Any) -> Any:
    """Expect something of what a page shows, as Playwright does, but patiently."""
    return Patient(actual)


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


class Process:
    """The app on one port with one folder of runs, which can be killed and started again."""

    def __init__(self, folder: Path, forked: bool = False) -> None:
        """Choose a port; where it is forked, it need not import torch each time that it is started."""
        self._forked = forked
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url, self.runs, self._log = f"http://127.0.0.1:{self.port}", folder / "runs", folder / "server.log"
        self.analysis = ""
        """Address of a finished analysis of what is chosen by default; empty before the first."""
        self.toured = ""
        """Address of the analysis and the run of a finished tour; empty before the first."""
        self._process: subprocess.Popen[bytes] | Child | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        own = {"LSF_RUNS": str(self.runs), "STREAMLIT_SERVER_HEADLESS": "true"}
        if self._forked:
            self._process = Child(*command, environment=own)
        else:
            with self._log.open("a") as file:
                self._process = subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=os.environ | own, stdout=file, stderr=file
                )
        if not answers(f"{self.url}/_stcore/health", self._process):
            said = self._process.err if isinstance(self._process, Child) else self._log.read_text()
            pytest.fail(f"the app did not start:\n{said}")

    def end(self, how: int, seconds: float) -> None:
        """Send it a signal and wait for its end; one that does not end in time is killed."""
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """The app on a free port of this machine, with an empty folder of runs; ended afterwards."""
    yield from _serve(Process(tmp_path, forked=True))


@pytest.fixture(scope="session")
def shared_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The app that tests share."""
    yield from _serve(Process(tmp_path_factory.mktemp("app")))


def _serve(process: Process) -> Iterator[Process]:
    try:
        process.start()
        yield process
    finally:
        process.end(signal.SIGTERM, 10)


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until a condition holds, looking seldom: what is waited for needs the processor."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.25)


def answers(url: str, process: subprocess.Popen[bytes] | Child) -> bool:
    """Wait until an address answers; False where its process ended or nothing came in time."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def named(address: str, *names: str) -> str:
    """Return the part of an address that names these things, such as `analysis=...`."""
    asked = parse_qs(urlsplit(address).query)
    return urlencode({name: asked[name][0] for name in names})


STILL = """document.getAnimations().every(
    one => one.playState !== "running" || one.effect.getTiming().iterations === Infinity
)"""
"""JavaScript that says whether every transition of the page has come to its end."""


class Tab:
    """One tab, and what a person does in it."""

    def __init__(self, page: Page, process: Process | None = None) -> None:
        """Take a new page; the process is that of the app, None where it is another server's."""
        self.page = page
        self._process = process
        self.outside: list[str] = []
        self.crashes: list[str] = []
        page.on("request", self._note)  # watched, not routed: routes take away the cache and pass through Python
        page.on("pageerror", lambda error: self.crashes.append(f"{error}\n{error.stack or ''}"))
        page.on("crash", lambda _: self.crashes.append("the tab itself ended"))

    def _note(self, request: Request) -> None:
        """Remember what tries to leave this machine."""
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.outside.append(request.url)

    @property
    def process(self) -> Process:
        """The app."""
        assert self._process is not None
        return self._process

    def open(self, address: str = "") -> None:
        """Go to a page by its address, such as `compare?run=...`, the first by none; wait until it stands."""
        self.page.goto(f"{self.process.url}/{address}")
        expect(self.page.locator(".lsf-bar")).to_be_visible(timeout=COLD)  # its first part
        self.settled(COLD)
        expect(self.page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=COLD)  # scripts of widgets are there

    def button(self, name: str) -> None:
        """Press a button once the page stands still."""
        button = self.page.get_by_role("button", name=name)
        expect(button).to_be_visible()
        self.settled()
        button.click()

    def ready(self) -> None:
        """Wait until that page is whole: its last part says what the model's memory is."""
        expect(self.page.get_by_text(re.compile("enough to load it|In memory:"))).to_be_visible(timeout=COLD)
        self.settled()

    def settled(self, milliseconds: float = TIMEOUT) -> None:
        """Wait until the script has run to its end: what is clicked before may be drawn anew under the pointer."""
        expect(self.page.locator('[data-test-script-state="notRunning"]')).to_be_attached(timeout=milliseconds)

    def analyse(self) -> None:
        """Click through to a finished analysis of what is chosen by default."""
        self.button("Analyse")
        done = self.page.get_by_role("button", name="Choose blocks")
        expect(done).to_be_visible(timeout=WORK)  # a cold server imports torch first, and the replay takes its time
        skip, again = (self.page.get_by_role("button", name=name) for name in ("Skip to the result", "Replay"))
        expect(skip.or_(again)).to_be_visible()
        if skip.is_visible():
            skip.click()
        expect(again).to_be_visible()
        self.process.analysis = named(self.page.url, "analysis")

    def analysed(self) -> None:
        """Look at a finished analysis: that of an earlier test by its address, where the app still has one."""
        if self.process.analysis:
            self.open(f"trajectories?{self.process.analysis}")
            done = self.page.get_by_role("button", name="Choose blocks")
            expect(done.or_(self.page.get_by_text("No analysis yet"))).to_be_visible()
            if done.is_visible():
                return
        self.open("model")
        self.analyse()

    def set_steps(self, steps: int) -> None:
        box = self.page.get_by_role("spinbutton", name="Steps")
        expect(box).to_have_count(1)  # a page that is drawn again has what it had before, until its script has ended
        box.fill(str(steps))
        box.press("Enter")

    def start_long(self, **settings: float) -> Path:
        """Let a run of two blocks go on that was asked for and has not begun, so long that it outlasts any test."""
        plan = Plan("bundled", 8, (6, 7))
        spec = RunSpec("bundled", "lesson:facts", plan, steps=LONG, eval_limit=8, **settings)  # pyright: ignore[reportArgumentType]
        folder = create_run(self.process.runs, spec)
        self.open(f"tune?run={folder.name}")
        self.button("Resume from the start")
        self.under_way()
        return folder

    def under_way(self) -> None:
        """Wait until a long run is seen to make steps; a server just started loads torch and the model first."""
        expect(self.page.get_by_text(re.compile(rf"step \d+ of {LONG}")).first).to_be_visible(timeout=WORK)

    def violations(self, *rules: str) -> list[str]:
        """What axe-core finds serious or critical as the page stands, by all of its rules or by those named."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE)
        asked = [list(rules), [list(one) for one in NOT_OURS], PICTURES]
        found: list[str] = self.page.evaluate(FAULTS, asked)
        if found:  # what is just being drawn anew is faded, and colours change by and by: it is looked at again
            self.settled()
            expect(self.page.locator("[data-stale=true]")).to_have_count(0)
            self.page.wait_for_function(STILL)
            found = self.page.evaluate(FAULTS, asked)
        return found

    def axis(self, chart: str) -> list[float]:
        """Range of the horizontal axis of the first chart of a CSS selector."""
        return self.page.evaluate("chart => document.querySelector(chart).layout.xaxis.range.map(Number)", chart)

    def draws(self, chart: str) -> int:
        """How often the first chart of a CSS selector has been drawn."""
        return int(self.page.evaluate("chart => document.querySelector(chart).dataset.drawn || 0", chart))


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser profile of its own; its tabs share cookies."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext, shared_process: Process) -> Iterator[Tab]:
    """A tab of the shared app, still empty."""
    yield from _new_tab(context, shared_process)


@pytest.fixture
def own_tab(context: BrowserContext, process: Process) -> Iterator[Tab]:
    """A tab of the test's own app, still empty."""
    yield from _new_tab(context, process)


def _new_tab(context: BrowserContext, process: Process) -> Iterator[Tab]:
    tab = Tab(context.new_page(), process)
    yield tab
    assert not tab.crashes, tab.crashes
    assert not tab.outside, tab.outside
