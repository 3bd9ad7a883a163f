"""The other implementations, as the tests talk to them, and what each can do."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote

import pytest
import trio
import trio.testing
import trio_websocket

from trio_pyjo_ws import Close, Deflate, open_websocket, serve
from trio_pyjo_ws.handshake.url import Url
from trio_pyjo_ws.wire.frames import Frame, parse_frame

from .process import SUBPROTOCOL

if TYPE_CHECKING:
    import ssl
    import subprocess
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trio_pyjo_ws import Transaction

    Conversation = Callable[[Transaction], Awaitable[object]]

LARGEST = 16 * 2**20

# The four parameters of permessage-deflate (RFC 7692, section 7.1), as either side may ask for them.
DEFLATE: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "deflate": {},
    "no takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True},
    "server's": {"server_no_context_takeover": True, "server_max_window_bits": 9},
    "client's": {"client_no_context_takeover": True, "client_max_window_bits": 9},
    "all four": {
        "server_no_context_takeover": True,
        "client_no_context_takeover": True,
        "server_max_window_bits": 10,
        "client_max_window_bits": 12,
    },
}


class Abilities(NamedTuple):
    """What a library can do, of what the tests ask for."""

    roles: tuple[str, ...] = ("as_server", "as_client")
    deflate: tuple[str, ...] = tuple(DEFLATE)
    """What it may be told to ask for in the opening handshake; the first is what it does otherwise."""
    fragments: bool = True
    """Whether it can send a message in fragments."""
    pings: bool = True
    """Whether a ping can be sent."""
    close_codes: range = range(1000, 5000)
    """What it may be told to close with."""
    answer: int | None = None
    """The code with which it answers a Close; None for the one that it has received, which is "typically" so (RFC 6455,
    section 5.5.1)."""
    slow: bool = True
    """Whether what it needs is only there in `nox -s interop`."""


PEERS = {
    "websockets": Abilities(slow=False),
    "trio-websocket": Abilities(deflate=("plain",), fragments=False, slow=False),
    "aiohttp": Abilities(deflate=("plain", "deflate"), fragments=False, answer=1000),
    "picows": Abilities(deflate=("plain", "deflate")),
    "ws": Abilities(),
    # What a page can do. 1000 apart, it cannot close with a code that RFC 6455 defines.
    "chromium": Abilities(("as_client",), ("deflate",), fragments=False, pings=False, close_codes=range(3000, 5000)),
}


def peers(wanted: Callable[[Abilities], bool] = lambda _: True, theirs: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Run a test with each peer that has the wanted abilities, in each of its roles.

    And with each of ``theirs``, of DEFLATE, that the peer may be told to ask for, where that is given.
    """
    cases = [
        (name, role, deflate)
        for name, abilities in PEERS.items()
        if wanted(abilities)
        for role in abilities.roles
        for deflate in [one for one in abilities.deflate if one in theirs] or [""] * (not theirs)
    ]
    names = ("peer", "role", "theirs") if theirs else ("peer", "role")
    parameters = [
        pytest.param(
            *case[: len(names)],
            id="-".join(filter(None, case)),
            marks=[pytest.mark.interop] if PEERS[case[0]].slow else [],
        )
        for case in cases
    ]
    return pytest.mark.parametrize(names, parameters, indirect=["peer"])


class Tls(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate: str
    authority: str


class Talk(NamedTuple):
    """A conversation: what we do, what the peer does, and over what."""

    conversation: Conversation
    action: str
    secure: bool = False
    deflate: str = "plain"
    """Ours, of DEFLATE."""
    theirs: str = "plain"
    subprotocols: Sequence[str] = ()
    """What the client offers; a server chooses SUBPROTOCOL."""
    wire: Wire | None = None


class Peer(Protocol):
    """A library. To talk to it gives its account of the end: the Close that it received."""

    @property
    def name(self) -> str: ...  # in PEERS
    async def as_server(self, talk: Talk) -> Close: ...
    async def as_client(self, talk: Talk) -> Close: ...


class Wire:
    """A relay between client and server over TCP, and the bytes that have passed through it each way."""

    def __init__(self) -> None:
        self.of_client = bytearray()
        self.of_server = bytearray()

    @staticmethod
    def frames(passed: bytearray) -> list[Frame]:
        """What follows the opening handshake."""
        chunk = bytearray(passed.partition(b"\r\n\r\n")[2])
        found = []
        while frame := parse_frame(chunk, LARGEST):
            found.append(frame)
        return found

    @asynccontextmanager
    async def before(self, port: int) -> AsyncIterator[int]:
        """Relay to this port; gives the port of the relay."""

        async def relay(client: trio.SocketStream) -> None:
            server = await trio.open_tcp_stream("127.0.0.1", port)
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass, client, server, self.of_client)
                nursery.start_soon(self._pass, server, client, self.of_server)

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, relay, 0, host="127.0.0.1"))
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream, passed: bytearray) -> None:
        async for data in source:
            passed += data
            await target.send_all(data)
        await target.send_eof()


@asynccontextmanager
async def through(wire: Wire | None, port: int) -> AsyncIterator[int]:
    """The port to connect to: this one, or that of a relay."""
    if wire is None:
        yield port
    else:
        async with wire.before(port) as relay:
            yield relay


def options(deflate: str) -> dict[str, Any]:
    """Our options for compression of this name."""
    parameters = DEFLATE[deflate]
    return {
        "compression": False if parameters is None else Deflate(**parameters, threshold=0),
        "max_websocket_size": LARGEST,
        "ping_interval": None,
    }


async def converse(talk: Talk, port: int, tls: Tls) -> None:
    """Be the client, of a server on this port."""
    scheme, context = ("wss", tls.client) if talk.secure else ("ws", None)
    async with through(talk.wire, port) as reached:
        url = f"{scheme}://127.0.0.1:{reached}/{talk.action}"
        given = {"subprotocols": talk.subprotocols, **options(talk.deflate)}
        async with open_websocket(url, ssl_context=context, **given) as ws:
            await talk.conversation(ws)


@asynccontextmanager
async def serving(talk: Talk, tls: Tls) -> AsyncIterator[str]:
    """Our server, which has this conversation with whoever comes; fails where the conversation does."""
    failures: list[Exception] = []

    async def handler(ws: Transaction) -> None:
        try:
            await talk.conversation(ws)
        except Exception as exc:
            failures.append(exc)
            raise

    async with trio.open_nursery() as nursery:
        context = tls.server if talk.secure else None
        given = {"subprotocols": [SUBPROTOCOL], **options(talk.deflate)}
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1", ssl_context=context, **given))
        async with through(talk.wire, server.port) as port:
            yield f"{'wss' if talk.secure else 'ws'}://127.0.0.1:{port}/"
        await server.aclose()
    assert failures == []


def account(talk: Talk, told: dict[str, Any]) -> Close:
    """The Close in what a peer tells of a connection that has ended."""
    assert told["error"] is None
    assert told["subprotocol"] == (SUBPROTOCOL if talk.subprotocols else None)
    return Close(*told["close"])


class ProcessPeer:
    """A library in a process of its own, which runs process.py or its like."""

    def __init__(self, name: str, process: subprocess.Popen[str], tls: Tls) -> None:
        self.name = name
        self._process = process
        self._tls = tls
        self._ports = json.loads(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    async def _end(self, talk: Talk) -> Close:
        while True:
            told = json.loads(await trio.to_thread.run_sync(self._read, abandon_on_cancel=True))
            if told["action"] == talk.action:  # and not that of a test before, which has failed
                return account(talk, told)

    async def as_server(self, talk: Talk) -> Close:
        await converse(talk, self._ports[talk.theirs][talk.secure], self._tls)
        return await self._end(talk)

    async def as_client(self, talk: Talk) -> Close:
        async with serving(talk, self._tls) as url:
            job = {"url": url, "deflate": talk.theirs, "action": talk.action, "subprotocols": talk.subprotocols}
            self._write(json.dumps(job))
            return await self._end(talk)


class TrioWebsocketPeer:
    """`trio-websocket`, in this process."""

    name = "trio-websocket"

    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    async def as_server(self, talk: Talk) -> Close:
        ended: list[Close] = []

        async def handle(request: trio_websocket.WebSocketRequest) -> None:
            chosen = SUBPROTOCOL if SUBPROTOCOL in request.proposed_subprotocols else None
            ended.append(await self._act(talk, await request.accept(subprotocol=chosen)))

        async with trio.open_nursery() as nursery:
            context = self._tls.server if talk.secure else None
            run = partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, context, max_message_size=LARGEST)
            server = await nursery.start(run)
            await converse(talk, server.port, self._tls)
            while not ended:
                await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()
        return ended[0]

    async def as_client(self, talk: Talk) -> Close:
        async with serving(talk, self._tls) as url:
            # A stream of our own: the library's is not closed where the server has closed the connection.
            target = Url.parse(url)
            stream: Any = await trio.open_tcp_stream(target.host, target.port)
            if talk.secure:
                stream = trio.SSLStream(stream, self._tls.client, server_hostname=target.host, https_compatible=True)
            async with stream, trio.open_nursery() as nursery:
                ws = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    target.authority,
                    f"/{talk.action}",
                    subprotocols=talk.subprotocols or None,
                    max_message_size=LARGEST,
                )
                end = await self._act(talk, ws)
                nursery.cancel_scope.cancel()
        return end

    async def _act(self, talk: Talk, ws: trio_websocket.WebSocketConnection) -> Close:
        name, *arguments = map(unquote, talk.action.partition("?")[0].split("/"))
        try:
            if name == "echo":
                while True:
                    await ws.send_message(await ws.get_message())
            elif name == "flood":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_many, ws, int(arguments[0]))
                    for number in range(int(arguments[0])):
                        assert await ws.get_message() == str(number)
            elif name == "ping":
                await ws.ping(arguments[0].encode())
                await ws.send_message("ponged")
            elif name == "abort":
                await trio.aclose_forcefully(ws._stream)
            else:
                await ws.aclose(int(arguments[0]), arguments[1])
            await ws.get_message()
        except trio_websocket.ConnectionClosed:
            assert ws.subprotocol == (SUBPROTOCOL if talk.subprotocols else None)
            return Close(1006, "") if ws.closed is None else Close(ws.closed.code, ws.closed.reason or "")
        raise AssertionError("the connection goes on")

    async def _send_many(self, ws: trio_websocket.WebSocketConnection, count: int) -> None:
        for number in range(count):
            await ws.send_message(str(number))
