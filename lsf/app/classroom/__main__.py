"""The server of a class, which `python -m lsf class` becomes: `python -m lsf.app.classroom HOST PORT NAME...`."""

import sys
from contextlib import suppress
from pathlib import Path

import streamlit as st
from google.protobuf.message import DecodeError
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg

from lsf.app.classroom.pages import classroom
from lsf.environment import spare_imports

CLOSED = ("/_stcore/upload_file", "/_stcore/metrics", "/_stcore/agent")
"""What no page of a class uses: the first takes files, the others tell how the server is."""
TAKEN = ("rerun_script", "stop_script", "app_heartbeat", "backend_operation_request")
"""What a page sends; the last asks for the teacher's CSV. Others tell of files here, or clear what all share."""
MEGABYTES = 1
"""Of what a browser may send at once."""


class Closed:
    """Stands before an app, and passes on only what a class needs."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer that there is nothing, or pass on; of messages only those of a kind that is taken."""

        async def taken() -> Message:
            while True:
                message = await receive()
                data = message.get("bytes")
                if data is None or _kind(data) in TAKEN:
                    return message

        if scope["type"] == "http" and any(name in scope["path"] for name in CLOSED):
            await PlainTextResponse("Not in a class.", 404)(scope, receive, send)
        else:
            await self._app(scope, taken if scope["type"] == "websocket" else receive, send)


def _kind(data: bytes) -> str | None:
    """Return what kind of message a browser sends; None for one that is none, or too long."""
    try:
        return BackMsg.FromString(data).WhichOneof("type") if len(data) <= MEGABYTES << 20 else None
    except DecodeError:
        return None


def options(host: str, port: int, names: list[str]) -> dict[str, object]:
    """Return Streamlit's options for a class; those of the folder it is started in do not matter.

    Args:
        host: address to listen at.
        port: its port.
        names: hosts that browsers may know this server by.
    """
    return {
        "server.address": host,
        "server.port": port,
        "server.allowedHosts": names,
        "server.headless": True,
        "server.enableCORS": True,
        "server.enableXsrfProtection": True,
        "server.maxUploadSize": 0,
        "server.maxMessageSize": 8 * MEGABYTES,
        "server.maxWidgetStateSize": MEGABYTES,
        "server.fileWatcherType": "none",
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.scriptHealthCheckEnabled": False,
        "global.developmentMode": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "runner.magicEnabled": False,
        "runner.postScriptGC": False,
        "browser.gatherUsageStats": False,
        "logger.hideWelcomeMessage": True,
    }


def serve(host: str, port: int, names: list[str]) -> None:
    """Serve the class until the process is told to end.

    Args:
        host: address to listen at.
        port: its port.
        names: hosts that browsers may know this server by.
    """
    classroom()  # the room is held before anybody comes
    spare_imports()  # of the pages too: a collection goes over what is left, and 30 students wait for it
    app = st.App(Path(__file__).with_name("script.py"), middleware=[Middleware(Closed)])
    app.run(config=options(host, port, names))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Streamlit's own handler of Ctrl-C may have ended the server before
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
    sys.stderr.write("lsf: the class has ended; repeat the command to continue in its room.\n")
    sys.exit(130)
