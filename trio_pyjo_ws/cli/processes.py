"""A process for each connection: a message is a line of its input, and a line of its output is a message.

Its environment describes the connection as a CGI program's does (RFC 3875), and as websocketd's does.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import unquote

import trio

from .. import ConnectionClosed
from ..handshake.url import Url

if TYPE_CHECKING:
    from .. import Transaction

__all__ = ["execute", "variables"]

EXEC_GRACE = 5.0
"""Seconds that a command has to end by itself when its standard input has ended, before SIGTERM; trio sends SIGKILL
five seconds after that."""

_NAME = re.compile(r"[A-Za-z0-9-]+")
"""Headers that become variables. With an underscore a client could forge one that a proxy sets with a hyphen."""

PROXY = "proxy"
"""The header that must not: HTTP_PROXY tells many programs which proxy to use (CVE-2016-5385)."""

UNSUPPORTED = ("AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "PATH_TRANSLATED", "REMOTE_IDENT", "REMOTE_USER")
"""Empty: what the server's own environment has for them is about something else."""


async def execute(command: list[str], secure: bool, ws: Transaction) -> None:
    """Run ``command`` for ``ws``, which came over TLS if ``secure``, until either ends.

    A command that ends with status 0 closes with 1000, any other way with 1011.
    """
    run_process = partial(
        trio.run_process,
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **variables(ws, secure=secure)},
        check=False,
    )
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run_process)
        nursery.start_soon(_feed, ws, process, nursery.cancel_scope)
        try:
            complete = await _send_lines(process, ws)
        except (ConnectionClosed, trio.ClosedResourceError):
            complete = True  # Nobody would read what it still writes.
        if not complete:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await ws.finish(1011, f"a line of more than {ws.max_websocket_size} bytes")
        status = await process.wait()
        if status:
            await ws.finish(1011, f"the command ended with status {status}")
        nursery.cancel_scope.cancel()


async def _feed(ws: Transaction, process: trio.Process, scope: trio.CancelScope) -> None:
    """Write the messages of ``ws`` to the process; when they end, have it end."""
    assert process.stdin is not None
    listening = True
    try:
        async for message in ws:
            line = message.encode() if isinstance(message, str) else message
            if b"\n" in line:
                await ws.finish(1003, "a line break in a message")
            elif listening:
                try:
                    await process.stdin.send_all(line + b"\n")
                except trio.BrokenResourceError:
                    listening = False  # It reads no more, and may still write.
    except (ConnectionClosed, trio.ClosedResourceError):
        pass
    await process.stdin.aclose()
    await trio.sleep(EXEC_GRACE)
    scope.cancel()


async def _send_lines(process: trio.Process, ws: Transaction) -> bool:
    """Send what the process writes, line by line; False as soon as a line is longer than a message may be."""
    assert process.stdout is not None
    buffer = bytearray()
    async with process.stdout:
        async for data in process.stdout:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if len(line) > ws.max_websocket_size:
                    return False
                await ws.send(line.decode(errors="replace"))
            if len(buffer) > ws.max_websocket_size:
                return False
    if buffer:
        await ws.send(buffer.decode(errors="replace"))
    return True


def variables(ws: Transaction, *, secure: bool) -> dict[str, str]:
    """What the environment of a process says about its connection (RFC 3875, section 4.1)."""
    request = ws.req
    assert request is not None
    name, port = _server_of(ws, "wss" if secure else "ws")
    address = ws.remote_address or ""
    found = dict.fromkeys(UNSUPPORTED, "") | {
        "GATEWAY_INTERFACE": "CGI/1.1",
        # Decoded, so it may hold what no variable can.
        "PATH_INFO": unquote(request.path).replace("\0", "\ufffd"),
        "QUERY_STRING": request.query,
        "REMOTE_ADDR": address,
        "REMOTE_HOST": address,
        "REMOTE_PORT": str(ws.remote_port or ""),
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": request.target,
        "SCRIPT_NAME": "",
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": f"trio-pyjo-ws/{version('trio-pyjo-ws')}",
        "UNIQUE_ID": f"{os.getpid()}-{ws.connection}",
    }
    if secure:
        found["HTTPS"] = "on"
    for header in request.headers:
        if _NAME.fullmatch(header) and header.lower() != PROXY:
            value = ", ".join(request.headers.getall(header))
            # The process gets the bytes that the client sent.
            found[f"HTTP_{header.upper().replace('-', '_')}"] = os.fsdecode(value.encode("latin-1"))
    return found


def _server_of(ws: Transaction, scheme: str) -> tuple[str, str]:
    """The name and the port that the client has used, or else the address that it has reached."""
    try:
        url = Url.parse(f"{scheme}://{ws.req.headers.get('Host', '')}/")
    except ValueError:
        return ws.local_address or "", str(ws.local_port or "")
    return url.host, str(url.port)
