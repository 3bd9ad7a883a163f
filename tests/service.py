"""A server over streams in memory, and a client of bytes in the test's own hands."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from functools import partial
from typing import Any, NamedTuple

import trio
import trio.testing

from trio_pyjo_ws import Server, Transaction, connect, serve_listeners

KEY = b64encode(b"sixteen bytes ok").decode()
HEADERS = {
    "Host": "test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(line: str = "GET / HTTP/1.1", *more: str, **changed: str | None) -> bytes:
    """An opening request; ``changed`` headers replace the right ones, with ``_`` for ``-``, or leave them out."""
    headers: dict[str, str | None] = {
        **HEADERS,
        **{name.replace("_", "-").title().replace("Websocket", "WebSocket"): value for name, value in changed.items()},
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([line, *lines, *more, "", ""]).encode("latin-1")


REQUEST = request()


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Gives the server its end of streams in memory."""

    def __init__(self) -> None:
        self._sender, self._receiver = trio.open_memory_channel[trio.abc.Stream](math.inf)

    def connect(self) -> trio.testing.StapledStream[Any, Any]:
        """The client's end of a new connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.offer(theirs)
        return ours

    def offer(self, stream: trio.abc.Stream) -> None:
        self._sender.send_nowait(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._receiver.receive()

    async def aclose(self) -> None:
        await self._receiver.aclose()


class Service(NamedTuple):
    """A server over a listener in memory."""

    server: Server
    listener: MemoryListener
    nursery: trio.Nursery

    def dial(self) -> Any:
        return self.listener.connect()

    async def connect(self, **options: Any) -> Transaction:
        return await connect(self.nursery, "ws://test/", stream=self.dial(), **options)

    async def ask(self, data: bytes = REQUEST) -> bytes:
        """What the server answers to these bytes, up to the end of the stream."""
        stream = self.dial()
        await stream.send_all(data)
        return await read_to_end(stream)


async def start(nursery: trio.Nursery, handler: Any, **arguments: Any) -> Service:
    """A server over a listener in memory, in ``nursery``."""
    listener = MemoryListener()
    server = await nursery.start(partial(serve_listeners, handler, [listener], **arguments))
    return Service(server, listener, nursery)


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def never(ws: Transaction) -> None:
    raise AssertionError(f"{ws!r} must not have been opened")


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    """The response up to its empty line."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        assert data, f"the stream ended after {received!r}"
        received += data
    return received


def status(response: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n", response)
    assert match is not None, response
    return int(match[1])
