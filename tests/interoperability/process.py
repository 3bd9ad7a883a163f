"""A peer on asyncio, in a process of its own: what the modules `*_peer` have in common.

Argv: JSON of {"deflate": {name: null or parameters}, "certificate": path, "authority": path}. Prints the ports of its
servers as {"name": [plain, tls]}. Then each line of standard input is a client's job, {"url", "deflate", "action",
"subprotocols"}; and each connection, in either role, ends with a line of output: {"action", "close": [code, reason],
"subprotocol": name or null, "error": null or text}. ws_peer.js does the same on Node.js.

An action is the path of the server's URL, and does not repeat: it has a number as its query.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any, Protocol
from urllib.parse import unquote

SUBPROTOCOL = "second"
"""What a server chooses of those that are offered."""


class Closed(Exception):  # noqa: N818 - what happened
    """The connection has ended."""


class Connection(Protocol):
    """A connection of the peer's, as the actions use it. Each method raises Closed once it has ended."""

    async def receive(self) -> str | bytes: ...
    async def send(self, message: str | bytes) -> None: ...
    async def send_fragments(self, fragments: list[str] | list[bytes]) -> None: ...
    async def ping(self, payload: bytes) -> None: ...  # and wait for the pong
    async def close(self, code: int, reason: str) -> None: ...
    async def abort(self) -> None: ...
    async def end(self) -> tuple[int, str, str | None]: ...  # wait for it: code and reason received, and subprotocol


class Peer(Protocol):
    """A library. Its server calls `run` with the connection and the action."""

    async def serve(self, deflate: Any, context: ssl.SSLContext | None) -> int: ...
    async def connect(self, job: dict[str, Any], deflate: Any, context: ssl.SSLContext | None) -> None: ...


def tell(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def act(ws: Connection, action: str) -> None:
    name, *arguments = map(unquote, action.partition("?")[0].split("/"))
    if name == "echo":
        while True:
            await ws.send(await ws.receive())
    elif name == "flood":
        await flood(ws, int(arguments[0]))
    elif name == "fragments":
        for fragments in json.loads(arguments[0]):
            await ws.send_fragments(fragments)
            await ws.send_fragments([fragment.encode() for fragment in fragments])
    elif name == "ping":
        await ws.ping(arguments[0].encode())
        await ws.send("ponged")
    elif name == "close":
        await ws.close(int(arguments[0]), arguments[1])
    elif name == "abort":
        await ws.abort()
    else:
        raise ValueError(f"there is no action {action!r}")
    while True:
        await ws.receive()


async def flood(ws: Connection, count: int) -> None:
    async def send() -> None:
        for number in range(count):
            await ws.send(str(number))

    async def receive() -> None:
        for number in range(count):
            message = await ws.receive()
            assert message == str(number), f"{message!r} came in place of {number}"

    await asyncio.gather(send(), receive())


async def run(ws: Connection, action: str) -> None:
    """What this end of a connection does, from the opening handshake on."""
    error = None
    try:
        await act(ws, action)
    except Closed:
        pass
    except Exception as exc:  # whatever it is, the test shows it
        error = repr(exc)
        await ws.close(1011, "")
    code, reason, subprotocol = await ws.end()
    tell({"action": action, "close": [code, reason], "subprotocol": subprotocol, "error": error})


async def main(peer: Peer) -> None:
    setup = json.loads(sys.argv[1])
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(setup["certificate"])
    client_context = ssl.create_default_context(cafile=setup["authority"])
    deflates = setup["deflate"]
    ports = {}
    for name, deflate in deflates.items():
        ports[name] = [await peer.serve(deflate, context) for context in (None, server_context)]
    tell(ports)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        context = client_context if job["url"].startswith("wss") else None
        await peer.connect(job, deflates[job["deflate"]], context)
