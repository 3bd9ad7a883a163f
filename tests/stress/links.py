"""What carries the connection of one seed, and how that is opened, killed and cleared away."""

from __future__ import annotations

import functools
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
import trustme

from trio_pyjo_ws import ConnectionClosed, HandshakeError, connect, serve
from trio_pyjo_ws.testing import Faults, FaultyStream, MemoryServer, open_memory_pair, serve_memory

from .plan import IN_MEMORY, REAL, SERVED, SIDES
from .sending import ENDS

if TYPE_CHECKING:
    from random import Random

    from trio_pyjo_ws import Transaction

    from .record import Side
    from .world import World

HOST = "127.0.0.1"
NAME = "memory.test"
SOCKET_BUFFER = 4096
GONE = (ConnectionClosed, HandshakeError, trio.EndOfChannel, trio.BrokenResourceError, OSError)
"""What a neighbour meets when the server has ended."""
CALLBACK_PAUSE = 5
"""Units: no callback takes as long for a message."""
CLOSE_TIMEOUT = 3000
"""Units: no reader is so slow that a close must not wait for him."""


class Recorder(FaultyStream):
    """A stream that faults as its plan says, and records what is read from it."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, world: World, side: Side) -> None:
        super().__init__(stream)
        self._world = world
        self._side = side
        self.is_closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        self._side.chunks.append((self._world.tick(), data))
        return data

    async def aclose(self) -> None:
        self.is_closed = True
        await super().aclose()


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's, and the server's."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, HOST).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


class Link:
    """The connection beneath both sides."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._scopes = {side: trio.CancelScope() for side in SIDES}
        self._accepted = trio.Event()
        self._streams: list[Recorder] = []
        self.server: Any = None
        """The server of the library, if there is one."""

    async def open(self, nursery: trio.Nursery) -> None:
        """Open the connection: both sides have their transactions then. What runs it runs in ``nursery``."""
        if self._plan.transport in SERVED:
            self.server = await nursery.start(self._serve)
            await nursery.start(self._connect)
            await self._accepted.wait()
        else:
            self._scopes["server"] = self._scopes["client"]  # They live in one nursery.
            await nursery.start(self._run_pair)
        for stream, side in zip(self._streams, SIDES, strict=False):
            self._fault(nursery, stream, self._plan.faults[side])

    def kill(self, side: str) -> None:
        """Cancel the nursery that ``side`` lives in."""
        self._scopes[side].cancel()

    async def clear_away(self) -> None:
        """The connection has ended: end the server, once the asynchronous callbacks have what came for them."""
        self._world.handler_may_end.set()
        is_quiet = self._world.is_quiet()
        while not is_quiet() or (self.server is not None and self.server.connections):
            await self._world.sleep(CALLBACK_PAUSE)
        self._scopes["server"].cancel()

    def left(self) -> list[str]:
        """The streams that are not closed, when all is over."""
        return [
            f"the {side}'s stream" for stream, side in zip(self._streams, SIDES, strict=False) if not stream.is_closed
        ]

    def _fault(self, nursery: trio.Nursery, stream: Recorder, settings: dict[str, Any]) -> None:
        """Begin with the faults, now that the connection is open."""
        stream.sending = Faults(**settings)
        stream.receiving = Faults(chunk_size=settings.get("chunk_size"))
        if "stall_at" in settings:

            async def release() -> None:
                await self._world.sleep(2 + settings["stall_at"] % 11)
                stream.sending.release()

            nursery.start_soon(release)

    def _open_streams(self) -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        """The client's, and the server's."""
        pair = self._plain_streams()
        if self._plan.transport not in IN_MEMORY:
            return pair
        self._streams = [
            Recorder(stream, self._world, self._world.sides[side]) for stream, side in zip(pair, SIDES, strict=True)
        ]
        return self._streams[0], self._streams[1]

    def _plain_streams(self) -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        """Streams that do not fault."""
        if self._plan.transport in IN_MEMORY:
            return trio.testing.memory_stream_pair()
        socks = socket.socketpair()
        for sock in socks:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        client, server = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socks)
        return client, server

    def _options(self, side: str) -> dict[str, Any]:
        options = {"open_timeout": None, "close_timeout": CLOSE_TIMEOUT, **self._plan.options[side]}
        for name in ("close_timeout", "ping_interval"):
            if options[name] is not None:
                options[name] *= self._world.unit
        return options

    async def _run_pair(self, task_status: trio.TaskStatus[None]) -> None:
        with self._scopes["client"], self._world.nothing_lost("the pair's nursery"):
            async with trio.open_nursery() as nursery:
                pair = open_memory_pair(nursery, streams=self._open_streams(), **self._options("client"))
                for side, ws in zip(SIDES, pair, strict=True):
                    self._world.sides[side].ws = ws
                task_status.started()

    async def _serve(self, task_status: trio.TaskStatus[Any]) -> None:
        options = self._options("server")
        context = contexts()[1] if self._plan.transport in ("tls", "tls-sockets", "wss") else None
        with self._scopes["server"], self._world.nothing_lost("the server's nursery"):
            async with trio.open_nursery() as nursery:
                if self._plan.transport in REAL:
                    run = partial(serve, self._handle, 0, host=HOST, ssl_context=context, **options)
                    task_status.started(await nursery.start(run))
                else:
                    self._memory_server = await nursery.start(
                        partial(serve_memory, self._handle, ssl_context=context, **options)
                    )
                    task_status.started(self._memory_server.server)

    async def _connect(self, task_status: trio.TaskStatus[None]) -> None:
        with self._scopes["client"], self._world.nothing_lost("the client's nursery"):
            async with trio.open_nursery() as nursery:
                self._world.sides["client"].ws = await self._dial(nursery, "/")
                task_status.started()

    async def visit(self, name: str) -> None:
        """A neighbour: another connection to the same server, which has its messages sent back, and leaves."""
        world, chance = self._world, self._world.chance(name)
        await world.sleep(chance.randrange(10))
        expected = GONE if self._server_ends() else ()
        with world.nothing_lost(name, expected):
            async with trio.open_nursery() as nursery, await self._dial(nursery, self._target(chance)) as ws:
                for number in range(chance.choice((0, 1, 3, 8))):
                    message = f"{name} {number}"
                    await ws.send(message)
                    if (answer := await ws.receive()) != message:
                        world.wrong("changed", f"{name} was sent {answer!r:.80} for {message!r}")
                    await world.sleep(chance.choice((0, 0, 1)))
        world.note(name, "has left")

    def _target(self, chance: Random) -> str:
        # A callback cannot wait for room.
        return chance.choice(("/echo", "/callback")) if self._plan.options["server"]["write_limit"] > 100 else "/echo"

    def _server_ends(self) -> bool:
        """Whether the server as a whole ends before its connections do."""
        ending = self._plan.ending
        return ending.side == "server" and ending.how in ("nursery", "server closes")

    async def _dial(self, nursery: trio.Nursery, target: str) -> Transaction:
        options = self._options("client")
        if self._plan.transport in ("tls", "tls-sockets", "wss"):
            options["ssl_context"] = contexts()[0]
        if self._plan.transport in REAL:
            url: str = self.server.url
            return await connect(nursery, url + target[1:], **options)
        streams = self._open_streams() if target == "/" else self._plain_streams()
        try:
            server: MemoryServer = self._memory_server
            return await server.connect(nursery, target, streams=streams, **options)
        except BaseException:  # The server may be gone, and takes nothing.
            for stream in streams:
                await trio.aclose_forcefully(stream)
            raise

    async def _handle(self, ws: Transaction) -> None:
        """The handler of the server."""
        assert ws.req is not None
        if ws.req.target == "/echo":
            async for message in ws:
                await ws.send(message)
        elif ws.req.target == "/callback":
            ws.on("message", send_back)
            async for _ in ws:
                raise AssertionError("a callback subscribes to all messages")
        else:
            self._world.sides["server"].ws = ws
            self._accepted.set()
            await self._world.handler_may_end.wait()
            if self._world.handler_raises:
                raise self._world.crash("the handler")


def send_back(ws: Transaction, message: str | bytes) -> None:
    """A callback that answers where the message is received."""
    with suppress(*ENDS):
        ws.send_nowait(message)
