"""How a class of 30 loads its one process: students over the app's own websocket, who join, predict and see the result.

`python benchmarks/class_load.py` starts `lsf class` on a free port of this machine with a room of its own, leads a
lesson as a teacher, and prints how long page scripts took and what was kept. A script's time is what its client
waits: from the message that asks for it to the one that says it is done, all students at the same time. With
`--browsers 2` so many more students sit in Chromium, and with `--tune` a run of the bundled model goes on in a process
of its own until the lesson ends: `python benchmarks/class_load.py --browsers 2 --tune --seconds 3600` is an hour of it.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, expect, sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect
from websockets.typing import Subprotocol

ROOT = Path(__file__).parents[1]
PASSWORD, TEACHER = "a room to test", "a teacher to test"
COOKIE = "_streamlit_xsrf"
START_SECONDS, SCRIPT_SECONDS = 90.0, 60.0


class Server:
    """`lsf class` on a free port of this machine, which can be killed and started again."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        """Choose a port; the room lies in the folder."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host, self.folder, self.log = host, folder, folder / "class.log"
        self.room, self.url = folder / "room", f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.given = {"LSF_CLASS_PASSWORD": PASSWORD, "LSF_CLASS_TEACHER": TEACHER}

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = ["--room", str(self.room), "--host", self.host, "--port", str(self.port)]
        command = [sys.executable, "-m", "lsf", "class", *options]
        with self.log.open("a") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | self.given, stdout=file, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the class did not start:\n{self.log.read_text()}")

    def end(self, how: int = signal.SIGTERM) -> None:
        """Send it a signal and wait for its end."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)

    def records(self) -> list[dict[str, Any]]:
        """Return the records on disk."""
        return [json.loads(line) for line in (self.room / "room.jsonl").read_text().splitlines()]


class Client:
    """One browser session by Streamlit's own protocol: what it was shown, and what it asks for."""

    def __init__(self, server: Server, page: str = "", cookie: str | None = None) -> None:
        """Connect, as a new browser or as that of a cookie."""
        with urllib.request.urlopen(f"{server.url}/_stcore/health") as answer:
            given: str = answer.headers.get("set-cookie", "").partition(";")[0].partition("=")[2]
        self.cookie = cookie or given
        headers = {"Cookie": f"{COOKIE}={self.cookie}", "Origin": server.url}
        self._stack = ExitStack()
        opened = connect(
            f"ws://127.0.0.1:{server.port}/_stcore/stream",
            additional_headers=headers,
            subprotocols=[Subprotocol("streamlit"), Subprotocol(self.cookie)],
            max_size=None,
            proxy=None,
        )
        self._socket = self._stack.enter_context(opened)
        self.page, self.page_hash, self.session = page, "", ""
        self.widgets: dict[str, Any] = {}
        self.shown: list[str] = []
        self.received: list[bytes] = []
        self._values: dict[str, WidgetState] = {}
        self.fragment, self.interval = "", 0.0
        self.seconds: list[float] = []
        self.looks: list[float] = []

    def close(self) -> None:
        """Leave."""
        self._stack.close()

    def run(self, states: Iterable[WidgetState] = (), query: str = "", fragment: str = "") -> None:
        """Ask for a script run with the widgets' values and take in what is shown, until no run follows."""
        message = BackMsg()
        message.rerun_script.query_string = query
        message.rerun_script.page_name = self.page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        message.rerun_script.page_script_hash = self.page_hash
        message.rerun_script.widget_states.widgets.extend([*self._values.values(), *states])
        began = time.monotonic()
        self.send(message)
        self._listen()
        (self.looks if fragment else self.seconds).append(time.monotonic() - began)

    def watch(self, seconds: float) -> None:
        """Look again as often as the page asks a browser to, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.interval)
            self.run(fragment=self.fragment)

    def send(self, message: BackMsg) -> None:
        """Send a message as it is."""
        self._socket.send(message.SerializeToString())

    def fill(self, label: str, value: str) -> None:
        """Type into a text field, or pick from pills; it is sent with the next run."""
        widget = self.widgets[label]
        state = WidgetState(id=widget.id)
        if widget.DESCRIPTOR.name == "ButtonGroup":
            state.string_array_value.data.append(value)
        else:
            state.string_value = value
        self._values[widget.id] = state

    def press(self, label: str) -> None:
        """Press a button."""
        self.run([WidgetState(id=self.widgets[label].id, trigger_value=True)])

    def _listen(self) -> None:
        """Take in messages until the script is done and no further run of it was begun."""
        while True:
            message = ForwardMsg()
            data = self._socket.recv(SCRIPT_SECONDS)
            assert isinstance(data, bytes)
            message.ParseFromString(data)
            self.received.append(data)
            kind = message.WhichOneof("type")
            if kind == "new_session" and not message.metadata.run.fragment_ids:
                self.widgets, self.shown = {}, []
                self.session = message.new_session.initialize.session_id or self.session
            elif kind == "auto_rerun":
                self.fragment, self.interval = message.auto_rerun.fragment_id, message.auto_rerun.interval
            elif kind == "navigation":
                self.page_hash = message.navigation.page_script_hash
            elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                self._see(message.delta.new_element)
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return

    def _see(self, element: Any) -> None:
        found = getattr(element, element.WhichOneof("type"))
        self.shown.append(str(found))
        if hasattr(found, "id") and hasattr(found, "label"):
            self.widgets[found.label] = found

    def sees(self, text: str) -> bool:
        """Say whether the page shows a text."""
        return any(text in one for one in self.shown)


def enter(server: Server, cookie: str | None = None) -> Client:
    """Return a client that came in as the teacher."""
    client = Client(server, "teacher", cookie)
    client.run()
    client.fill("Password of the teacher", TEACHER)
    client.press("Enter")
    return client


def join(server: Server, name: str, cookie: str | None = None) -> Client:
    """Return a client that joined as a student."""
    client = Client(server, cookie=cookie)
    client.run()
    client.fill("Password of the room", PASSWORD)
    client.fill("Nickname", name)
    client.press("Join")
    return client


def predict(client: Client, block: int, why: str = "") -> None:
    """Predict a block, with a reason."""
    client.fill("Which block would you tune?", str(block))
    client.fill("Why? (optional)", why)
    client.press("Predict" if "Predict" in client.widgets else "Change my prediction")


@contextmanager
def in_chromium(server: Server, count: int) -> Iterator[list[Page]]:
    """Give pages of so many students in Chromium, each a browser of its own, who have joined."""
    if not count:
        yield []
        return
    path = os.environ.get("LSF_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        pages = [browser.new_context().new_page() for _ in range(count)]
        for number, page in enumerate(pages):
            page.set_default_timeout(SCRIPT_SECONDS * 1000)
            page.goto(server.url)
            page.get_by_label("Password of the room").fill(PASSWORD)
            page.get_by_label("Nickname").fill(f"browser {number}")
            page.get_by_role("button", name="Join").click()
            joined = page.get_by_text(f"You are browser {number}", exact=True)
            expect(joined).to_be_visible(timeout=SCRIPT_SECONDS * 1000)
        yield pages
        browser.close()


@contextmanager
def tuning(folder: Path, wanted: bool) -> Iterator[None]:
    """Tune the whole bundled model in a process of its own meanwhile; say how far it came."""
    if not wanted:
        yield
        return
    options = [
        "--model",
        "bundled",
        "--data",
        "lesson:facts",
        "--all",
        "--steps",
        "1000000",
        "--runs",
        str(folder / "runs"),
    ]
    command = [sys.executable, "-m", "lsf", "tune", *options]
    with (folder / "tune.log").open("w") as file:
        run = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
        if run.poll() is not None:
            raise RuntimeError(f"the run ended before the lesson:\n{(folder / 'tune.log').read_text()}")
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait()
    print(f"the run beside it: {(folder / 'tune.log').read_text().splitlines()[-2:]}")


class Lesson:
    """Students of a room who take part all at once, and the server's memory and work meanwhile."""

    def __init__(self, server: Server, students: int) -> None:
        """Let the teacher in, then all students at once."""
        self.server, self.students, self.teacher = server, students, enter(server)
        self.process = psutil.Process(server.process.pid if server.process else None)
        self._pool = ThreadPoolExecutor(students)
        begun = time.monotonic()
        self.clients = list(self._pool.map(lambda number: join(server, f"student {number}"), range(students)))
        print(f"{students} students joined in {time.monotonic() - begun:.1f} s")

    def predict(self, rounds: int) -> None:
        """Let all predict at the same moment, and load the page so many times after it."""
        self.teacher.press("Open predictions")
        barrier = threading.Barrier(self.students)

        def take_part(number: int) -> None:
            client = self.clients[number]
            client.run()
            barrier.wait()
            predict(client, number % 8, f"reason {number}")
            for _ in range(rounds):
                client.run()

        list(self._pool.map(take_part, range(self.students)))

    def _memory(self) -> str:
        return f"{self.process.memory_info().rss / 1e6:.0f} MB"

    def watch(self, seconds: float) -> None:
        """Let all watch for so long, and print the server's memory before and at each tenth."""
        print(f"resident memory of the server: {self._memory()} before all watch", flush=True)
        busy, begun = sum(self.process.cpu_times()[:2]), time.monotonic()
        for _ in range(10):
            list(self._pool.map(lambda client: client.watch(seconds / 10), self.clients))
            minutes = (time.monotonic() - begun) / 60
            late = max(second for client in self.clients for second in client.looks)
            print(f"  {self._memory()} after {minutes:.1f} min; longest look so far {late:.2f} s", flush=True)
        share = (sum(self.process.cpu_times()[:2]) - busy) / (time.monotonic() - begun)
        looks = [second for client in self.clients for second in client.looks]
        every = self.clients[0].interval
        print(f"{len(looks)} looks whether the teacher went on, each student every {every:.0f} s, all at once:")
        print(f"  median {statistics.median(looks):.3f} s, longest {max(looks):.3f} s, {share:.0%} of a core")

    def reveal(self) -> None:
        """Reveal the result, let all load it, and print how long scripts took; all leave."""
        self.teacher.run()
        self.teacher.press("Reveal what was measured")
        list(self._pool.map(lambda client: client.run(), self.clients))
        taken = [second for client in self.clients for second in client.seconds]
        middle, longest = statistics.median(taken), max(taken)
        print(f"{len(taken)} scripts of students at once: median {middle:.3f} s, longest {longest:.3f} s")
        led = self.teacher.seconds
        print(f"{len(led)} scripts of the teacher: median {statistics.median(led):.3f} s")
        results = sum(client.sees("Measured, tuned alone") for client in self.clients)
        print(f"results shown: {results} of {self.students}")
        for client in (*self.clients, self.teacher):
            client.close()
        self._pool.shutdown()


def measure(server: Server, students: int, browsers: int, rounds: int, seconds: float) -> None:
    """Lead a lesson with so many students, who load the page `rounds` times and then watch it for so many seconds."""
    lesson = Lesson(server, students)
    with in_chromium(server, browsers) as pages:
        lesson.predict(rounds)
        for number, page in enumerate(pages):
            page.get_by_role("radio", name=str(number), exact=True).click()
            page.get_by_role("button", name="Predict", exact=True).click()
            expect(page.get_by_role("button", name="Change my prediction")).to_be_visible(timeout=SCRIPT_SECONDS * 1000)
        lesson.watch(seconds)
        lesson.reveal()
        for page in pages:
            expect(page.get_by_text("Measured, tuned alone").first).to_be_visible(timeout=SCRIPT_SECONDS * 1000)
        print(f"results shown in Chromium: {len(pages)} of {browsers}")
    kept = sorted(one["block"] for one in server.records() if one["what"] == "predict")
    wanted = sorted([*(number % 8 for number in range(students)), *range(browsers)])
    print(f"predictions on disk: {len(kept)} of {students + browsers}")
    print("nothing lost" if kept == wanted else "NOT ALL PREDICTIONS ARE THERE")
    if kept != wanted:
        raise SystemExit(1)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--browsers", type=int, default=0, help="students in Chromium beside them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--tune", action="store_true", help="with a run that goes on meanwhile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            server.start()
            with tuning(Path(folder), arguments.tune):
                measure(server, arguments.students, arguments.browsers, arguments.rounds, arguments.seconds)
        finally:
            server.end()


if __name__ == "__main__":
    main()
