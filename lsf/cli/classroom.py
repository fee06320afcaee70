"""`class`: serve the lessons to a class on the network, each student's predictions kept on disk."""

import argparse
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from lsf.classroom.room import STUDENTS, TEACHER, Lock, Room, new_password, password_of
from lsf.cli.arguments import place, whole
from lsf.data.lessons import LESSONS
from lsf.errors import BadInputError
from lsf.evidence.packed import bundled_lessons
from lsf.wording import counted

EVERY = ("0.0.0.0", "::")
"""All addresses of this machine."""
LOCAL = ("127.0.0.1", "localhost", "::1")
"""Nobody else reaches it there."""


def class_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `class`."""
    parser.set_defaults(command=class_command)
    lessons = ", ".join(LESSONS)
    parser.add_argument("--lesson", metavar="NAME", help=f"lesson to begin with: {lessons} [default: the room's last]")
    room = "folder for the names and predictions of the class; an existing one is continued [default: class]"
    parser.add_argument("--room", type=place, default=Path("class"), metavar="DIR", help=room)
    host = "address to listen on [default: 0.0.0.0, all networks of this machine]"
    parser.add_argument("--host", default=EVERY[0], help=host)
    parser.add_argument("--port", type=whole, default=8520, help="port to listen on [default: 8520]")
    name = "another host name by which students reach this machine, such as that of a proxy; repeat for more"
    parser.add_argument("--name", action="append", default=[], metavar="HOST", help=name)


def class_command(arguments: argparse.Namespace) -> int:
    """Say where the class is, then become its server."""
    if arguments.lesson is not None:
        LESSONS[arguments.lesson]  # an unknown name is refused with the known ones
    given = {lock: password_of(lock) for lock in (STUDENTS, TEACHER)}
    passwords = {lock: password or new_password(lock) for lock, password in given.items()}
    _check_address(arguments.host, arguments.port)
    blocks = {name: one.setting.truth.n_blocks for name, one in bundled_lessons().items()}
    room = Room(arguments.room, blocks, arguments.lesson)
    names = list(_names(arguments.host))
    _say(arguments, room, names, {lock: None if given[lock] else passwords[lock] for lock in given})
    room.close()
    sys.stdout.flush()
    environment = os.environ | {lock.variable: password for lock, password in passwords.items()}
    environment["LSF_CLASS_ROOM"] = str(arguments.room.resolve())
    allowed = dict.fromkeys(["localhost", "127.0.0.1", *names, *arguments.name])
    command = [sys.executable, "-m", "lsf.app.classroom", arguments.host, str(arguments.port), *allowed]
    os.execve(sys.executable, command, environment)


def _say(arguments: argparse.Namespace, room: Room, names: list[str], made: dict[Lock, str | None]) -> None:
    """Print the addresses, and the passwords that were made."""

    def password(lock: Lock) -> str:
        return f"as in {lock.variable}" if made[lock] is None else str(made[lock])

    def address(name: str) -> str:
        return f"http://{f'[{name}]' if ':' in name else name}:{arguments.port}"

    state = room.state
    print(f"Room      {room.folder}: lesson {state.lesson}, {counted(len(state.students), 'student')} so far")
    other = f" (and as {', '.join(arguments.name)})" if arguments.name else ""
    print(f"Students  {'  '.join(map(address, names))}{other}")
    print(f"          password {password(STUDENTS)}")
    print(f"Teacher   {address('127.0.0.1' if arguments.host in EVERY else names[0])}/teacher")
    print(f"          password {password(TEACHER)}")
    if any(made.values()):
        print("Generated passwords are shown only this once.")
    if arguments.host not in LOCAL:
        print("Anyone on this machine's networks can reach this server, unencrypted, until you end it with Ctrl-C.")


def _names(host: str) -> Iterator[str]:
    """Return the names and addresses by which browsers elsewhere reach a host address of this machine."""
    if host not in EVERY:
        yield host
        return
    found = [one.address for of_one in psutil.net_if_addrs().values() for one in of_one if one.family == socket.AF_INET]
    yield from (address for address in found if not address.startswith("127."))
    yield socket.gethostname().lower()


def _check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at.

    Raises:
        BadInputError: it is not this machine's, or something listens there.
    """
    if not 1 <= port <= 65535:
        raise BadInputError(f"--port is {port}; 1 to 65535 are accepted.")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise BadInputError(f"Cannot listen on {host}, port {port}: {error.strerror or error}.") from None
