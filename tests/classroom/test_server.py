"""The server of a class, spoken to as no page of ours would: what a student can get at, and what a kill loses."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from benchmarks.class_load import COOKIE, PASSWORD, ROOT, Client, Server, enter, join, predict
from lsf.app.lessons import lessons_measured
from lsf.cli.main import main
from lsf.evidence.packed import shown

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A class on all networks of this machine, that these tests share; predictions of its first lesson are open."""
    server = Server(tmp_path_factory.mktemp("class"), host="0.0.0.0")
    try:
        server.start()
        teacher = enter(server)
        teacher.press("Open predictions")
        teacher.close()
        yield server
    finally:
        server.end()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A class of the test's own, on this machine alone, not started yet."""
    server = Server(tmp_path)
    try:
        yield server
    finally:
        server.end()


def own_addresses() -> list[str]:
    """Return the addresses of this machine that others can reach."""
    every = [one for of_one in psutil.net_if_addrs().values() for one in of_one if one.family == socket.AF_INET]
    return [one.address for one in every if not one.address.startswith("127.")]


def answers(address: str, port: int) -> bool:
    """Say whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def test_a_killed_server_loses_nothing_it_confirmed_and_finds_its_students_by_their_browsers(own: Server) -> None:
    own.start()
    teacher = enter(own)
    teacher.press("Open predictions")
    ada, ben = join(own, "Ada"), join(own, "Ben")
    predict(ada, 7, "the last one writes")
    predict(ada, 6, "or the one before")
    predict(ben, 2)
    assert ada.sees("Your prediction is saved: block 6")
    own.end(signal.SIGKILL)
    own.start()
    again = Client(own, cookie=ada.cookie)
    again.run()
    assert again.sees("Your prediction is saved: block 6")
    assert again.sees("You are Ada")
    predict(again, 5)
    back = Client(own, "teacher", teacher.cookie)
    back.run()
    assert "Password of the teacher" in back.widgets  # who came in as the teacher is not on the disk
    back = enter(own, teacher.cookie)
    back.press("Reveal what was measured")
    stranger = Client(own)
    stranger.run()
    assert "Password of the room" in stranger.widgets
    again.run()
    assert again.sees("Yours, block 5, scored 0.52 less")
    last = {one["student"]: one["block"] for one in own.records() if one["what"] == "predict"}
    assert sorted(last.values()) == [2, 5]


def numbers(client: Client) -> set[str]:
    """Return the numbers of two decimals that a client was ever sent, but for versions and styles."""
    sent = re.sub(r"(?s)<style>.*?</style>", "", b"".join(client.received).decode(errors="replace"))
    return set(re.findall(r"(?<![\d.])\d\.\d\d(?!rem|[\d.]*\d)", sent))


def test_nothing_measured_and_nothing_of_others_reaches_a_student_before_it_is_revealed(server: Server) -> None:
    lesson = lessons_measured()["sums"]
    told = {shown(lesson.setting.truth.mean((block,)), lesson.metric) for block in range(8)}
    teacher = enter(server)
    teacher.press("One more than the sum")
    teacher.press("Open predictions")
    ada, ben = join(server, "Ada"), join(server, "Bengt")
    predict(ben, 3, "a reason of one's own")
    predict(ada, 4)
    hidden = ("Measured", "Bengt", "a reason of", "lsf-votes")
    assert not numbers(ada)
    assert not [one for one in hidden if one.encode() in b"".join(ada.received)]
    teacher.press("Show the histogram")
    ada.run(fragment=ada.fragment)  # the look that its page takes every few seconds
    assert ada.sees("lsf-votes")
    assert not numbers(ada)
    assert not [one for one in hidden[:3] if one.encode() in b"".join(ada.received)]
    teacher.press("Reveal what was measured")
    ada.run(fragment=ada.fragment)
    assert told <= numbers(ada)
    assert not [one for one in hidden[1:3] if one.encode() in b"".join(ada.received)]
    teacher.press(next(label for label in teacher.widgets if label.startswith("Capitals that moved")))
    teacher.press("Open predictions")


def test_what_is_written_is_text_on_the_pages_of_both(server: Server) -> None:
    teacher, name = enter(server), "<script>x</script> **b**"
    student = join(server, name)
    predict(student, 1, "=cmd|' /C x'!A0")
    teacher.run()
    escaped = "You are &lt;script&gt;x&lt;/script&gt; **b**"
    assert student.sees(escaped)
    for client in (student, teacher):
        written = [one for one in client.shown if "<script>" in one or "cmd|" in one]
        # A table's cells and a field's value are never HTML or Markdown; nothing else holds what students write.
        assert all("default:" in one or "arrow_data" in one or "data:" in one for one in written), written


def test_a_student_does_not_get_in_as_the_teacher(server: Server) -> None:
    teacher, student = enter(server), join(server, "Cleo")
    before = server.records()
    for label in ("Close predictions", "Reveal what was measured", "Show the histogram"):
        student.run([WidgetState(id=teacher.widgets[label].id, trigger_value=True)])
    other = Client(server, "teacher", student.cookie)
    other.run()
    assert list(other.widgets) == ["Password of the teacher", "Enter"]
    for label in ("Close predictions", "Reveal what was measured"):
        other.run([WidgetState(id=teacher.widgets[label].id, trigger_value=True)])
    for word in (PASSWORD, "", "a guess"):
        other.fill("Password of the teacher", word)
        other.press("Enter")
        assert other.sees("Wrong password")
    assert list(other.widgets) == ["Password of the teacher", "Enter"]
    assert server.records() == before


def test_no_page_of_the_app_is_there(server: Server) -> None:
    student = join(server, "Dora")
    own_page = student.widgets.keys()
    for page in ("model", "tune", "compare", "choose", "evidence", "lessons", "pages/model", "../app"):
        student.page, student.page_hash = page, ""
        student.run()
        assert student.widgets.keys() == own_page, page
        assert not student.sees("Model and data"), page


def test_an_address_changes_nothing(server: Server) -> None:
    student = join(server, "Emil")
    before = student.shown
    for query in ("run=../../etc", "analysis=1&grid=.", "embed=true&model=/etc/passwd", "teacher=1"):
        student.run(query=query)
        assert student.shown == before, query


def test_what_is_sent_past_the_page_is_not_taken(server: Server) -> None:
    student = join(server, "Fay")
    pills = student.widgets["Which block would you tune?"]
    before = server.records()
    for block in ("8", "-1", "0.5", "x"):
        student.fill("Which block would you tune?", block)
        student.press("Predict")
    assert server.records() == before
    predict(student, 1, "x" * 201)
    (record,) = server.records()[len(before) :]
    assert (record["block"], record["why"]) == (1, "x" * 200)
    student.run([WidgetState(id=f"$$ID-{'0' * 32}-model-path", string_value="/etc/passwd")])
    assert student.widgets["Which block would you tune?"].id == pills.id


def test_messages_that_no_page_sends_are_not_answered(server: Server) -> None:
    student = join(server, "Gus")
    told = len(student.received)
    for kind in ("load_git_info", "clear_cache", "set_run_on_save", "debug_shutdown_runtime"):
        message = BackMsg()
        setattr(message, kind, True)
        student.send(message)
    message = BackMsg()
    message.file_urls_request.file_names.append("a.txt")
    student.send(message)
    student.run()
    kinds = {ForwardMsg.FromString(one).WhichOneof("type") for one in student.received[told:]}
    assert "script_finished" in kinds
    assert not kinds & {"git_info_changed", "file_urls_response", "session_event"}
    assert student.sees("You are Gus")


def test_no_file_can_be_sent_and_the_server_tells_nothing_of_itself(server: Server) -> None:
    student = join(server, "Hal")
    headers = {"Cookie": f"{COOKIE}={student.cookie}", "X-Xsrftoken": student.cookie}
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n--b--\r\n'
    kinds = {"Content-Type": "multipart/form-data; boundary=b"}
    for path, method in (
        (f"/_stcore/upload_file/{student.session}/file", "PUT"),
        (f"//_stcore/upload_file/{student.session}/file", "PUT"),
        ("/_stcore/metrics", "GET"),
        ("/_stcore/agent/interact", "POST"),
        ("/_stcore/agent/mcp", "POST"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path, body if method == "PUT" else None, headers | kinds)
        assert connection.getresponse().status in (400, 404, 405), path
        connection.close()
    for path in (
        "/app.py",
        "/../app.py",
        "/static/../../app.py",
        "/component/../app.py",
        "/media/x.csv",
        "/.git/config",
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", path)
        found = connection.getresponse()
        assert found.status in (400, 403, 404) or b"<title>Streamlit</title>" in found.read(), path
        connection.close()


def test_a_page_of_another_host_cannot_speak_to_it(server: Server) -> None:
    address = f"ws://127.0.0.1:{server.port}/_stcore/stream"
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example", "Origin": "http://evil.example"}):
        with pytest.raises(InvalidStatus), connect(address, additional_headers=headers, proxy=None):
            pass
    with connect(address, additional_headers={"Origin": server.url}, proxy=None):
        pass


def test_a_class_can_be_reached_from_the_network_and_says_so(server: Server) -> None:
    said = server.log.read_text()
    assert "Anyone on this machine's networks can reach this server" in said
    for address in own_addresses():
        assert f"http://{address}:{server.port}" in said
        assert answers(address, server.port)


def test_passwords_that_were_made_are_printed_once_lie_nowhere_else_and_cannot_be_tried_one_after_the_other(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in own.given:
        monkeypatch.delenv(name, raising=False)
    own.given = {}
    own.start()
    made = re.findall(r"password ((?:[a-z0-9]{4}-?)+)$", own.log.read_text(), re.MULTILINE)
    assert [len(one) for one in made] == [9, 19]
    assert "Anyone" not in own.log.read_text()  # on this machine alone
    assert not [address for address in own_addresses() if answers(address, own.port)]
    client = Client(own, "teacher")
    client.run()
    client.fill("Password of the teacher", made[1])
    client.press("Enter")
    client.press("Open predictions")
    assert own.process is not None
    told = " ".join(psutil.Process(own.process.pid).cmdline()) + json.dumps(own.records()) + client.page
    assert not [one for one in made if one in told]
    assert all(own.log.read_text().count(one) == 1 for one in made)
    passwords_cannot_be_tried_one_after_the_other(own, made[1])
    own.end(signal.SIGINT)
    assert own.process.returncode == 130
    assert own.log.read_text().splitlines()[-1].startswith("lsf: the class has ended")
    assert "Traceback" not in own.log.read_text()


def passwords_cannot_be_tried_one_after_the_other(own: Server, right: str) -> None:
    for number in range(5):
        client = Client(own, "teacher")  # each a new browser
        client.run()
        client.fill("Password of the teacher", f"guess {number}")
        client.press("Enter")
        assert client.sees("Wrong password")
        client.close()
    client = Client(own, "teacher")
    client.run()
    client.fill("Password of the teacher", right)
    client.press("Enter")
    assert client.sees("Too many wrong passwords")
    assert client.widgets.keys() == {"Password of the teacher", "Enter"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lesson", "drama"], "Unknown lesson 'drama'; known are: facts"),
        (["--port", "0"], "--port is 0; 1 to 65535 are accepted"),
        (["--host", "203.0.113.1"], "Cannot listen on 203.0.113.1"),
        (["--room", "/proc/room"], "Cannot make the folder /proc/room"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["class", "--room", str(tmp_path / "room"), *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert len(told.err.splitlines()) == 1


def test_a_second_server_gets_neither_the_room_nor_the_port(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for room, port, said in (
        (server.room, 8519, "held by another server"),
        (tmp_path, server.port, "Cannot listen on 127.0.0.1"),
    ):
        assert main(["class", "--host", "127.0.0.1", "--room", str(room), "--port", str(port)]) == 2
        assert said in capsys.readouterr().err


def test_the_server_of_a_class_loads_nothing_that_runs_or_measures() -> None:
    code = "import sys, lsf.app.classroom.__main__; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "lsf.app.classroom.pages" in loaded.split()
    never = {"torch", "lsf.app.runtime", "lsf.app.state", "lsf.app.actions", "lsf.jobs.worker", "lsf.jobs.queue"}
    assert not never & set(loaded.split())
