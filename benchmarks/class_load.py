"""How a class of 30 loads its one process: students over the app's own websocket, who join, predict and see the result.

`python benchmarks/class_load.py` starts `lsf class` on a free port of this machine with a room of its own, leads a
lesson as a teacher, and prints how long page scripts took and what was kept. A script's time is what its client
waits: from the message that asks for it to the one that says it is done, all students at the same time.
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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
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


def measure(server: Server, students: int, rounds: int, seconds: float) -> None:
    """Lead a lesson with so many students, who load the page `rounds` times and then watch it for so many seconds."""
    teacher = enter(server)
    process = psutil.Process(server.process.pid if server.process else None)
    with ThreadPoolExecutor(students) as pool:
        begun = time.monotonic()
        clients = list(pool.map(lambda number: join(server, f"student {number}"), range(students)))
        print(f"{students} students joined in {time.monotonic() - begun:.1f} s")
        teacher.press("Open predictions")
        barrier = threading.Barrier(students)

        def take_part(number: int) -> None:
            client = clients[number]
            client.run()
            barrier.wait()
            predict(client, number % 8, f"reason {number}")
            for _ in range(rounds):
                client.run()

        list(pool.map(take_part, range(students)))
        before = process.memory_info().rss
        busy, begun = sum(process.cpu_times()[:2]), time.monotonic()
        list(pool.map(lambda client: client.watch(seconds), clients))
        share = (sum(process.cpu_times()[:2]) - busy) / (time.monotonic() - begun)
        teacher.run()
        teacher.press("Reveal what was measured")
        list(pool.map(lambda client: client.run(), clients))
    taken = [second for client in clients for second in client.seconds]
    kept = {one["student"]: one["block"] for one in server.records() if one["what"] == "predict"}
    print(
        f"{len(taken)} scripts of students at once: median {statistics.median(taken):.3f} s, longest {max(taken):.3f} s"
    )
    print(f"{len(teacher.seconds)} scripts of the teacher: median {statistics.median(teacher.seconds):.3f} s")
    looks = [second for client in clients for second in client.looks]
    print(
        f"{len(looks)} looks whether the teacher went on, each student every {clients[0].interval:.0f} s, all at once:"
    )
    print(f"  median {statistics.median(looks):.3f} s, longest {max(looks):.3f} s, {share:.0%} of a core")
    results = sum(client.sees("Measured, tuned alone") for client in clients)
    print(f"predictions on disk: {len(kept)} of {students}; results shown: {results}")
    after = process.memory_info().rss
    print(f"resident memory of the server: {before / 1e6:.0f} MB before all watched, {after / 1e6:.0f} MB at the end")
    blocks = sorted(kept.values())
    lost = blocks != sorted(number % 8 for number in range(students))
    print("NOT ALL PREDICTIONS ARE THERE" if lost else "nothing lost")
    for client in (*clients, teacher):
        client.close()
    if lost:
        raise SystemExit(1)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            server.start()
            measure(server, arguments.students, arguments.rounds, arguments.seconds)
        finally:
            server.end()


if __name__ == "__main__":
    main()
