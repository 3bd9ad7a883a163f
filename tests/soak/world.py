"""The servers of a soak: ours, over TCP and over TLS, and one that breaks every rule, for our client."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trustme

from trio_pyjo_ws import serve
from trio_pyjo_ws.handshake.negotiate import accept_value
from trio_pyjo_ws.wire.frames import build_frame

from .ledger import Ledger, Wrong, binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from trio_pyjo_ws import Server, Transaction

HOST = "127.0.0.1"
MAX_SIZE = 4 * 2**20
TIMEOUTS = {"open_timeout": 20.0, "close_timeout": 5.0, "ping_interval": 2.0, "ping_timeout": 10.0}
OPTIONS: dict[str, Any] = {"max_websocket_size": MAX_SIZE, **TIMEOUTS}


class Crash(Exception):  # noqa: N818 - it is no error here
    """What a handler raises on purpose."""


class World:
    """All that the visitors meet, and what is counted."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.servers: dict[str, Server] = {}
        self.bad_port = 0
        authority, self.server_context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self.server_context)
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
        self.visits: Counter[str] = Counter()
        self.failures: list[str] = []
        self.messages = 0
        self.bytes = 0

    def count(self, ledger: Ledger) -> None:
        self.messages += ledger.messages
        self.bytes += ledger.bytes

    def fail(self, what: str, exc: BaseException) -> None:
        self.failures.append(f"{what}: {exc!r}")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        async with trio.open_nursery() as nursery:
            start = partial(serve, self.handle, 0, host=HOST, compression=True, **OPTIONS)
            self.servers["tcp"] = await nursery.start(start)
            self.servers["tls"] = await nursery.start(partial(start, ssl_context=self.server_context))
            run = partial(trio.serve_tcp, self.misbehave, 0, host=HOST)
            self.bad_port = (await nursery.start(run))[0].socket.getsockname()[1]
            yield self
            for server in self.servers.values():
                await server.aclose()
            nursery.cancel_scope.cancel()

    def connections(self) -> int:
        return sum(len(server.connections) for server in self.servers.values())

    # Our server's handlers, by the path of the URL

    async def handle(self, ws: Transaction) -> None:
        name, _, argument = ws.req.target[1:].partition("/")
        try:
            await getattr(self, f"handle_{name}")(ws, argument)
        except Wrong as exc:
            self.fail(f"the server, {name}", exc)
            raise

    async def handle_echo(self, ws: Transaction, _: str) -> None:
        async for message in ws:
            await ws.send(message)

    async def handle_count(self, ws: Transaction, _: str) -> None:
        """Echo messages that have their place in a ledger."""
        ledger = Ledger()
        async for message in ws:
            ledger.enter(message)
            await ws.send(message)
        self.count(ledger)

    async def handle_channel(self, ws: Transaction, _: str) -> None:
        async with ws.open_channel("message", 4) as messages:
            async for message in messages:
                await ws.send(message)

    async def handle_flood(self, ws: Transaction, count: str) -> None:
        for number in range(int(count)):
            await ws.send(binary(number, bytes(1000)))

    async def handle_close(self, ws: Transaction, _: str) -> None:
        await ws.receive()
        await ws.finish(4000, "enough")

    async def handle_crash(self, ws: Transaction, _: str) -> None:
        await ws.receive()
        raise Crash

    async def handle_cancel(self, ws: Transaction, seconds: str) -> None:
        """A handler that gives up at some moment, wherever it is."""
        with trio.move_on_after(float(seconds)):
            async for message in ws:
                await ws.send(message)

    async def handle_deaf(self, ws: Transaction, seconds: str) -> None:
        """A handler that does not receive, and closes with its queue full."""
        await trio.sleep(float(seconds))
        await ws.finish(1000)

    # A server that is none

    async def misbehave(self, stream: trio.SocketStream) -> None:
        random = self.random
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(8):
            async with stream:
                request = await read_head(stream)
                key = next(
                    (line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")), b""
                )
                accept = accept_value(key.partition(b":")[2].decode().strip())
                head = (
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
                ).encode()
                frame = build_frame(1, 0, 0, 0, 2, bytes(random.randrange(70_000)))
                answers = [
                    b"",
                    head[: random.randrange(len(head))],
                    head.replace(b"Accept: ", b"Accept: x"),
                    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nno",
                    os.urandom(random.randrange(2000)),
                    head + frame * 3 + frame[: random.randrange(len(frame))],
                    head + os.urandom(200),
                    head + build_frame(1, 0, 0, 0, 1, b"\xff"),
                    head + build_frame(1, 0, 0, 0, 2, b"masked", masked=True),
                    head + build_frame(1, 0, 0, 0, 8, b"\x03\xe8"),
                ]
                await stream.send_all(random.choice(answers))
                ending = random.randrange(3)
                if ending == 0:
                    reset(stream)
                elif ending == 1:
                    await stream.send_eof()
                    await trio.sleep(0.1)
                else:
                    await trio.sleep(random.choice([0.1, 6.0]))


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes up to the empty line, or up to the end of the stream."""
    head = b""
    while b"\r\n\r\n" not in head and (data := await stream.receive_some()):
        head += data
    return head


def reset(stream: trio.SocketStream) -> None:
    """Have the connection reset when it is closed."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
