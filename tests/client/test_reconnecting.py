"""Reconnecting: one connection after the other, and nothing left behind however the loop or the block is left."""

from __future__ import annotations

import contextvars
import logging
import socket
import ssl
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    HandshakeError,
    Response,
    Transaction,
    is_transient,
    reconnecting,
    serve,
)
from trio_pyjo_ws.client import reconnecting as reconnection
from trio_pyjo_ws.testing import MemoryServer, serve_memory

from ..cancelling import at_each_pause, run_cancelled
from .test_connecting import Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    Script = Callable[[Peer], Awaitable[object]]

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


def answering(response: bytes) -> Script:
    return lambda peer: peer.answer(response)


REFUSED = OSError("connection refused")
UNAVAILABLE = answering(b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n")
FORBIDDEN = answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
HELLO = b"\x81\x05Hello"


class Network:
    """What each attempt finds: a script of a peer's, or an exception. Then peers that accept and say nothing."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.plan: deque[Script | Exception] = deque()
        self.dialed: list[float] = []
        self.peers: list[Peer] = []

    async def open_stream(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialed.append(trio.current_time())
        script = self.plan.popleft() if self.plan else Peer.accept
        if isinstance(script, Exception):
            raise type(script)(*script.args)  # One that is kept would keep what it went through.
        ours, theirs = trio.testing.memory_stream_pair()
        peer = Peer(theirs)
        self.peers.append(peer)
        self.nursery.start_soon(script, peer)
        return ours

    @property
    def waits(self) -> list[float]:
        """The seconds from one attempt to the next."""
        return [later - earlier for earlier, later in pairwise(self.dialed)]

    def reconnecting(self, url: str = "ws://test/", **options: Any) -> reconnection.Reconnecting:
        return reconnecting(url, open_stream=self.open_stream, **options)

    async def use(self, body: Callable[[Transaction], Awaitable[object]], **options: Any) -> None:
        async with self.reconnecting(**options) as connections:
            async for ws in connections:
                await body(ws)

    async def connect(self, **options: Any) -> None:
        """Reconnect until there is a connection, and leave it."""
        async with self.reconnecting(**options) as connections:
            async for _ws in connections:
                break


@pytest.fixture
def network(nursery: trio.Nursery) -> Network:
    return Network(nursery)


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jitter always draws the longest wait."""
    monkeypatch.setattr(reconnection._jitter, "uniform", lambda _, longest: longest)


async def never(_: Transaction) -> None:
    raise AssertionError("it must not be open")


async def closed_by(peer: Peer) -> bytes:
    """Everything that this peer still gets up to the end, unmasked; it answers nothing."""
    frame = await peer.wait_end()
    return bytes(byte ^ frame[2 + i % 4] for i, byte in enumerate(frame[6:])) if frame else b""


def leaves(exc: BaseException) -> list[BaseException]:
    """The exceptions in all the groups of an exception."""
    return [leaf for part in exc.exceptions for leaf in leaves(part)] if isinstance(exc, BaseExceptionGroup) else [exc]


# One connection after the other


async def test_each_turn_of_the_loop_gives_another_connection(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [Peer.serve, Peer.serve, Peer.serve]
    seen: list[Transaction] = []
    async with network.reconnecting() as connections:
        async for ws in connections:
            assert ws.established
            assert all(last.closed == Close(1000, "") for last in seen)  # gracefully: the peer has answered
            seen.append(ws)
            if len(seen) == 3:
                break
    assert len({id(ws) for ws in seen}) == 3
    assert seen[2].closed == Close(1000, "")


async def test_over_tcp_a_server_that_comes_back_is_found_again(nursery: trio.Nursery) -> None:
    async def greet(ws: Transaction) -> None:
        await ws.send("Hello!")

    start = partial(serve, greet, host="127.0.0.1")
    server = await nursery.start(start, 0)
    greetings = 0
    async with reconnecting(server.url, initial_delay=0.001) as connections:
        async for ws in connections:
            async for message in ws:
                assert message == "Hello!"
                greetings += 1
            if greetings == 3:
                break
            await server.aclose()
            server = await nursery.start(start, server.port)
    await server.aclose()


async def test_the_request_is_that_of_connect(network: Network) -> None:
    options = {"additional_headers": {"X-A": "1"}, "subprotocols": iter(["v1"])}
    async with network.reconnecting("ws://test/chat", **options) as connections:
        ws = await connections.__anext__()
        assert ws.req.target == "/chat"
        assert ws.req.headers["X-A"] == "1"
        assert ws.req.headers["Sec-WebSocket-Protocol"] == "v1"
        await network.peers[0].stream.aclose()


async def test_each_request_has_a_key_of_its_own(network: Network, autojump_clock: MockClock) -> None:
    keys: set[str] = set()
    async with network.reconnecting() as connections:
        async for ws in connections:
            keys.add(ws.req.headers["Sec-WebSocket-Key"])
            await network.peers[-1].stream.aclose()
            if len(network.peers) == 3:
                break
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("arguments", "raised", "message"),
    [
        ({"url": "http://test"}, ValueError, "unsupported URL scheme 'http'"),
        ({"url": b"ws://test"}, TypeError, "URL must be a str, not bytes"),
        ({"additional_headers": {"a b": "c"}}, ValueError, "header name must be a token"),
        ({"initial_delay": -1}, ValueError, "initial_delay must be a number of seconds, at least 0, not -1"),
        ({"max_delay": float("nan")}, ValueError, "max_delay must be a number of seconds, at least 0, not nan"),
        ({"healthy_after": -0.5}, ValueError, "healthy_after must be a number of seconds, at least 0, not -0.5"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1, or None for no limit, not 0"),
        ({"open_stream": "tcp"}, TypeError, "open_stream must be an async function that returns a stream, not 'tcp'"),
        ({"open_stream": never, "unix": "a"}, ValueError, "unix and open_stream cannot both lead to the server"),
    ],
)
def test_what_does_not_fit_raises_at_the_call(arguments: dict[str, Any], raised: type[Exception], message: str) -> None:
    with pytest.raises(raised, match=message):
        reconnecting(**{"url": "ws://test", **arguments})


async def test_a_loop_without_its_block_says_what_to_do(network: Network) -> None:
    async def loop() -> None:
        async for _ws in network.reconnecting():
            raise AssertionError("it must not be open")

    with pytest.raises(TypeError, match=r"use async with reconnecting\(\.\.\.\) as connections"):
        await loop()
    with pytest.raises(trio.ClosedResourceError, match="is not open"):
        await network.reconnecting().__anext__()


async def test_a_block_is_entered_once(network: Network) -> None:
    connections = network.reconnecting()
    assert repr(connections) == "<Reconnecting new ws://test>"
    async with connections as entered:
        assert entered is connections
        assert repr(connections) == "<Reconnecting open ws://test>"
    assert repr(connections) == "<Reconnecting left ws://test>"
    with pytest.raises(trio.ClosedResourceError, match="is not open"):
        await aiter(connections).__anext__()
    with pytest.raises(RuntimeError, match=r"call reconnecting\(\) again"):
        await connections.__aenter__()
    assert network.dialed == []


async def test_one_task_at_a_time_asks_for_the_next(network: Network, autojump_clock: MockClock) -> None:
    network.plan.append(Peer.read_request)
    async with network.reconnecting() as connections, trio.open_nursery() as nursery:
        nursery.start_soon(connections.__anext__)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task"):
            await connections.__anext__()
        nursery.cancel_scope.cancel()


async def test_left_while_another_task_connects_the_block_waits_for_no_connection(
    network: Network, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def accept_late(peer: Peer) -> None:
        await trio.sleep(5)
        await peer.accept()

    async def connect() -> None:
        # The nursery of the connection is gone.
        with pytest.raises(RuntimeError, match="Nursery is closed"):
            await connections.__anext__()

    network.plan.append(accept_late)
    async with network.reconnecting() as connections:
        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == 0
    await trio.sleep(10)
    await network.peers[0].wait_end()


# The stream of an attempt


async def test_a_memory_server_gives_the_streams(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def greet(ws: Transaction) -> None:
        await ws.send("Hello!")

    server: MemoryServer = await nursery.start(serve_memory, greet)
    greetings = 0
    async with reconnecting("ws://memory.test/", open_stream=server.open_stream) as connections:
        async for ws in connections:
            assert await ws.receive() == "Hello!"
            greetings += 1
            if greetings == 3:
                break


@pytest.mark.usefixtures("longest")
async def test_a_server_that_accepts_no_more_is_tried_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def greet(ws: Transaction) -> None:
        await ws.send("Hello!")

    async def come_back() -> None:
        nonlocal server
        await trio.sleep(10)
        server = await nursery.start(serve_memory, greet)

    async def open_stream() -> trio.abc.Stream:
        return server.open_stream()

    server: MemoryServer = await nursery.start(serve_memory, greet)
    async with reconnecting("ws://memory.test/", open_stream=open_stream) as connections:
        async for ws in connections:
            assert await ws.receive() == "Hello!"
            if trio.current_time() > 0:
                break
            await server.server.aclose()
            nursery.start_soon(come_back)
    assert 1 + 2 + 4 + 8 <= trio.current_time() < 16


async def test_opening_a_stream_counts_as_opening(network: Network, autojump_clock: MockClock) -> None:
    async def open_stream() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError("not reached")

    with pytest.raises(trio.TooSlowError, match="still waiting for a connection"):
        async with reconnecting("ws://test/", open_stream=open_stream, open_timeout=7, max_attempts=1) as connections:
            await connections.__anext__()
    assert trio.current_time() == 7


@pytest.mark.parametrize("opened", [None, "stream"])
async def test_what_is_no_stream_is_named(opened: Any) -> None:
    with pytest.raises(TypeError, match=f"open_stream must return a trio.abc.Stream, not {opened!r}"):
        async with reconnecting("ws://test/", open_stream=lambda: opened) as connections:
            await connections.__anext__()


# Leaving the loop


async def test_a_loop_that_is_left_keeps_its_connection_until_the_block_is(
    network: Network, autojump_clock: MockClock
) -> None:
    network.plan += [Peer.serve, Peer.serve]
    async with network.reconnecting() as connections:
        first = await connections.__anext__()
        assert not first.is_finished
        async for second in connections:  # The loop may go on here.
            assert first.closed == Close(1000, "")
            assert not second.is_finished
            break
        assert not second.is_finished
    assert second.closed == Close(1000, "")


async def test_the_block_waits_for_the_peers_close_within_the_timeout(
    network: Network, autojump_clock: MockClock
) -> None:
    async with network.reconnecting(close_timeout=3) as connections:
        ws = await connections.__anext__()
    assert trio.current_time() == 3
    assert ws.closed is not None
    assert ws.closed.code == 1006
    assert await closed_by(network.peers[0]) == b"\x03\xe8"


async def leave_by_return(network: Network) -> None:
    async with network.reconnecting() as connections:
        async for _ws in connections:
            return


async def leave_by_exception(network: Network) -> None:
    async def body(_: Transaction) -> None:
        raise KeyError("the body's")

    with pytest.raises(KeyError, match="the body's") as raised:
        await network.use(body)
    assert raised.value.__context__ is None


async def leave_gracefully_by_cancelling_the_loop(network: Network) -> None:
    async with network.reconnecting() as connections:
        with trio.move_on_after(1):
            async for ws in connections:
                await ws.receive()


@pytest.mark.parametrize("leave", [leave_by_return, leave_by_exception, leave_gracefully_by_cancelling_the_loop])
async def test_however_the_block_is_left_it_closes_gracefully(
    leave: Callable[[Network], Awaitable[None]], network: Network, autojump_clock: MockClock
) -> None:
    codes: list[bytes] = []

    async def serve(peer: Peer) -> None:
        await peer.accept()
        frame = bytes(await peer.stream.receive_some())
        codes.append(bytes(byte ^ frame[2 + i % 4] for i, byte in enumerate(frame[6:])))
        await peer.stream.send_all(b"\x88\x02\x03\xe8")
        await peer.stream.aclose()

    network.plan.append(serve)
    await leave(network)
    await trio.testing.wait_all_tasks_blocked()
    assert codes == [b"\x03\xe8"]
    assert len(network.peers) == 1
    assert trio.current_time() <= 1


# Cancelling


@pytest.mark.parametrize(
    "body",
    [lambda ws: ws.receive(), lambda ws: ws.drain(), lambda ws: ws.ping()],
    ids=["receive", "drain", "ping"],
)
async def test_cancelled_in_the_body_the_socket_is_closed_at_once(
    body: Callable[[Transaction], Awaitable[object]], network: Network, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(1) as scope:
        await network.use(body, close_timeout=1000)
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    await network.peers[0].wait_end()
    assert len(network.peers) == 1


async def test_cancelled_while_it_connects_nothing_is_left(network: Network, autojump_clock: MockClock) -> None:
    network.plan.append(Peer.read_request)
    with trio.move_on_after(1) as scope:
        await network.use(never)
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    await network.peers[0].wait_end()


async def test_cancelled_before_it_began_nothing_is_opened(network: Network) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await network.use(never)
    assert scope.cancelled_caught
    assert network.dialed == []


@pytest.mark.usefixtures("longest")
async def test_cancelled_while_it_waits_to_try_again_it_ends_at_once(
    network: Network, autojump_clock: MockClock
) -> None:
    network.plan += [REFUSED] * 10
    with trio.move_on_after(5) as scope:
        await network.use(never)
    assert scope.cancelled_caught
    assert trio.current_time() == 5


async def test_cancelled_in_the_closing_of_the_last_connection_the_socket_is_closed_at_once(
    network: Network, autojump_clock: MockClock
) -> None:
    async def end(_: Transaction) -> None:
        pass  # The peer answers no Close.

    with trio.move_on_after(1) as scope:
        await network.use(end)
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert await closed_by(network.peers[0]) == b"\x03\xe8"


@pytest.fixture
async def greeter(nursery: trio.Nursery) -> MemoryServer:
    async def greet(ws: Transaction) -> None:
        await ws.send("Hello!")
        with suppress(ConnectionClosed):
            await ws.receive()

    server: MemoryServer = await nursery.start(serve_memory, greet)
    return server


async def test_after_a_loop_that_was_cancelled_anywhere_the_next_goes_on(
    greeter: MemoryServer, autojump_clock: MockClock
) -> None:
    """The scope is inside of the block: closing, waiting, opening and the body are cancelled at each checkpoint."""

    async def attempt(pause: int) -> bool:
        async with reconnecting("ws://memory.test/", open_stream=greeter.open_stream) as connections:

            async def run() -> None:
                turns = 0
                async for ws in connections:
                    assert await ws.receive() == "Hello!"
                    turns += 1
                    if turns == 3:
                        break

            done = await run_cancelled(pause, run)
            assert len(greeter.server.connections) <= 1
            async for ws in connections:
                assert await ws.receive() == "Hello!"
                break
        assert ws.closed == Close(1000, "")
        await trio.testing.wait_all_tasks_blocked()
        assert not greeter.server.connections
        return done

    assert await at_each_pause(attempt) > 10


async def test_a_block_that_is_cancelled_anywhere_leaves_nothing(
    greeter: MemoryServer, autojump_clock: MockClock
) -> None:
    async def attempt(pause: int) -> bool:
        async def run() -> None:
            turns = 0
            async with reconnecting("ws://memory.test/", open_stream=greeter.open_stream) as connections:
                async for ws in connections:
                    ws.on("message", lambda *_: None)
                    await trio.sleep(0.1)
                    turns += 1
                    if turns == 3:
                        break

        done = await run_cancelled(pause, run)
        await trio.testing.wait_all_tasks_blocked()
        assert not greeter.server.connections
        return done

    assert await at_each_pause(attempt) > 10


# A connection that ends


async def test_a_body_may_work_on_when_its_connection_has_ended(network: Network, autojump_clock: MockClock) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO + b"\x88\x02\x0f\xa0"))  # 4000
    async with network.reconnecting() as connections:
        async for ws in connections:
            if len(network.peers) == 2:
                break
            assert await ws.receive() == "Hello"
            await network.peers[0].stream.aclose()
            with pytest.raises(ConnectionClosed, match="4000"):
                await ws.receive()
            with pytest.raises(ConnectionClosed, match="4000"):
                await ws.send("too late")
            await trio.sleep(3600)
    assert network.dialed[1] >= 3600


async def test_of_an_ended_connection_nothing_stays_in_the_nursery(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [Peer.serve] * 50
    async with network.reconnecting(healthy_after=0, initial_delay=0) as connections:
        async for ws in connections:
            ws.on("message", lambda *_: None)
            await trio.testing.wait_all_tasks_blocked()
            assert len(connections._nursery.child_tasks) <= 3  # of the last connection
            if len(network.peers) == 50:
                break


# Waiting


@pytest.mark.usefixtures("longest")
async def test_the_wait_doubles_up_to_its_cap(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED] * 8
    await network.connect()
    assert network.waits == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.usefixtures("longest")
async def test_its_bounds_are_options(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED] * 4
    await network.connect(initial_delay=0.5, max_delay=3)
    assert network.waits == [0.5, 1, 2, 3]


@pytest.mark.usefixtures("longest")
async def test_after_thousands_of_failures_it_still_waits_for_the_cap(
    network: Network, autojump_clock: MockClock
) -> None:
    network.plan += [REFUSED] * 1100
    await network.connect()
    assert network.waits[-1] == 60


async def test_the_wait_is_random_below_its_bound(
    network: Network, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(least: float, longest: float) -> float:
        drawn.append((least, longest))
        return longest / 4

    monkeypatch.setattr(reconnection._jitter, "uniform", draw)
    network.plan += [REFUSED] * 3
    await network.connect()
    assert drawn == [(0, 1), (0, 2), (0, 4)]
    assert network.waits == [0.25, 0.5, 1]


async def test_the_jitter_is_the_operating_systems(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED] * 20
    await network.connect(max_delay=1)
    assert all(0 <= wait <= 1 for wait in network.waits)
    assert len(set(network.waits)) > 10


@pytest.mark.usefixtures("longest")
async def test_a_connection_that_did_not_hold_counts_as_a_failure(network: Network, autojump_clock: MockClock) -> None:
    async with network.reconnecting() as connections:
        async for ws in connections:
            await trio.sleep(59)
            await network.peers[-1].stream.aclose()
            with pytest.raises(ConnectionClosed):
                await ws.receive()
            if len(network.peers) == 4:
                break
    assert network.waits == [60, 61, 63]


@pytest.mark.usefixtures("longest")
async def test_a_connection_that_held_begins_anew(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED, REFUSED, REFUSED, Peer.accept, REFUSED, REFUSED]
    async with network.reconnecting(healthy_after=30) as connections:
        async for _ws in connections:
            if len(network.peers) == 2:
                break
            await trio.sleep(30)
            await network.peers[-1].stream.aclose()
    assert network.waits == [1, 2, 4, 31, 2, 4]


@pytest.mark.usefixtures("longest")
@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (b"Retry-After: 7", 8),
        (b"Retry-After: 3600", 60),
        (b"Retry-After: 99999999999999999999", 1),
        (b"Retry-After: Fri, 31 Dec 2027 23:59:59 GMT", 1),
        (b"Retry-After: -7", 1),
        (b"X: y", 1),
    ],
)
async def test_retry_after_is_waited_for_besides(
    header: bytes, wait: float, network: Network, autojump_clock: MockClock
) -> None:
    network.plan.append(answering(b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\n" + header + b"\r\n\r\n"))
    await network.connect()
    assert network.waits == [wait]


async def test_the_log_tells_why_and_for_how_long_and_no_password(
    network: Network, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnection._jitter, "uniform", lambda _, longest: longest)
    network.plan += [REFUSED, UNAVAILABLE]
    with caplog.at_level(logging.INFO, "trio_pyjo_ws"):
        async with network.reconnecting("ws://ada:secret@t/chat?token=secret") as connections:
            async for _ws in connections:
                if len(network.peers) == 3:
                    break
                await network.peers[-1].stream.aclose()
    refused = "ws://t/chat?...: expected status 101, found 503"
    assert caplog.messages == [
        "connecting to ws://t has failed: OSError: connection refused; connecting in 1.0 seconds",
        f"connecting to ws://t has failed: HandshakeError: {refused}; connecting in 2.0 seconds",
        "the connection to ws://t has ended; connecting in 4.0 seconds",
    ]


# What passes, and what does not


async def test_what_does_not_pass_comes_out_at_once(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED, FORBIDDEN]
    with pytest.raises(HandshakeError, match="found 403"):
        await network.use(never)
    assert len(network.dialed) == 2


async def test_the_hook_decides(network: Network, autojump_clock: MockClock) -> None:
    asked: list[Exception] = []

    def hook(exc: Exception) -> bool:
        asked.append(exc)
        return not isinstance(exc, OSError)

    network.plan += [FORBIDDEN, REFUSED]
    with pytest.raises(OSError, match="connection refused"):
        await network.use(never, is_transient=hook)
    assert [type(exc) for exc in asked] == [HandshakeError, OSError]


async def test_attempts_in_a_row_may_be_bounded(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED, REFUSED, Peer.accept, REFUSED, REFUSED, UNAVAILABLE]
    with pytest.raises(HandshakeError, match="found 503"):
        await network.use(lambda _: network.peers[-1].stream.aclose(), max_attempts=3)
    assert len(network.dialed) == 6


@pytest.mark.parametrize(
    ("kind", "argument"),
    [(HandshakeError, "another's"), (ConnectionClosed, Close(1006)), (OSError, "another's"), (trio.TooSlowError, "")],
)
async def test_an_exception_of_the_body_is_never_taken_for_one_of_the_connection(
    kind: type[Exception], argument: object, network: Network, autojump_clock: MockClock
) -> None:
    exception = kind(argument)

    async def body(_: Transaction) -> None:
        raise exception

    with pytest.raises(type(exception)) as raised:
        await network.use(body)
    assert raised.value is exception
    assert len(network.dialed) == 1


def handshake_error(status: int) -> HandshakeError:
    return HandshakeError("", Response(status))


def caused(exc: Exception, *causes: Exception) -> Exception:
    above = exc
    for cause in causes:
        above.__cause__ = above = cause
    return exc


def tls_error(kind: type[ssl.SSLError], reason: str) -> ssl.SSLError:
    exc = kind(1, reason)
    exc.reason = reason
    return exc


@pytest.mark.parametrize(
    "exc",
    [
        *map(handshake_error, [429, 500, 502, 503, 504]),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        FileNotFoundError("a Unix socket that is not there yet"),
        trio.TooSlowError(),
        trio.BrokenResourceError("a tunnel"),
        HandshakeError("the server closed the connection before the handshake was complete"),
        caused(HandshakeError("lost"), trio.BrokenResourceError(), ConnectionResetError()),
        caused(HandshakeError("lost in TLS"), trio.BrokenResourceError(), tls_error(ssl.SSLEOFError, "EOF")),
    ],
    ids=repr,
)
def test_these_may_pass(exc: Exception) -> None:
    assert is_transient(exc)


@pytest.mark.parametrize(
    "exc",
    [
        *map(handshake_error, [101, 200, 302, 400, 401, 403, 404, 426]),
        ValueError("a URL"),
        TypeError("an option"),
        ImportError("an extra"),
        RuntimeError("a bug"),
        tls_error(ssl.SSLCertVerificationError, "BAD"),
        caused(HandshakeError("TLS"), trio.BrokenResourceError(), tls_error(ssl.SSLCertVerificationError, "BAD")),
        caused(HandshakeError("TLS"), trio.BrokenResourceError(), tls_error(ssl.SSLError, "NO_VERSION")),
        caused(HandshakeError("malformed response"), ValueError()),
    ],
    ids=repr,
)
def test_these_do_not_pass(exc: Exception) -> None:
    assert not is_transient(exc)


# Callbacks


async def fail(*_: object) -> None:
    raise KeyError("the callback's")


def fail_at_once(*_: object) -> None:
    raise KeyError("the callback's")


@pytest.mark.parametrize("callback", [fail, fail_at_once])
async def test_a_callback_that_fails_cancels_the_block_and_comes_out_in_a_group(
    callback: Callable[..., Any], network: Network, autojump_clock: MockClock
) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO))

    async def body(ws: Transaction) -> None:
        ws.on("text", callback)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await network.use(body)
    assert [repr(leaf) for leaf in raised.value.exceptions] == ["""KeyError("the callback's")"""]
    assert trio.current_time() == 0  # The socket is closed at once.
    await network.peers[0].wait_end()
    assert len(network.dialed) == 1


@pytest.mark.usefixtures("longest")
async def test_it_does_so_while_the_next_connection_is_awaited(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [partial(Peer.accept, behind=HELLO + b"\x88\x00"), REFUSED, REFUSED, REFUSED]

    async def fail_late(*_: object) -> None:
        await trio.sleep(2)
        raise KeyError("the callback's")

    async def body(ws: Transaction) -> None:
        ws.on("text", fail_late)
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()
        await network.peers[0].stream.aclose()

    with pytest.raises(ExceptionGroup) as raised:
        await network.use(body)
    assert [type(leaf) for leaf in raised.value.exceptions] == [KeyError]
    assert trio.current_time() == 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_comes_out_of_a_callback_as_it_is(
    kind: type[BaseException], network: Network, autojump_clock: MockClock
) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO))
    exc = kind(3)

    async def exit_(*_: object) -> None:
        raise exc

    async def body(ws: Transaction) -> None:
        ws.on("text", exit_)
        await trio.sleep_forever()

    with pytest.raises(kind) as raised:
        await network.use(body)
    assert raised.value is exc


async def test_where_body_and_callback_fail_both_come_out(network: Network, autojump_clock: MockClock) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO))

    async def body(ws: Transaction) -> None:
        ws.on("text", fail)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the body's")

    with pytest.raises(ExceptionGroup) as raised:
        await network.use(body)
    assert [type(leaf) for leaf in leaves(raised.value)] == [KeyError, ValueError]


async def test_the_callbacks_of_an_ended_connection_run_to_their_end(
    network: Network, autojump_clock: MockClock
) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO + HELLO + b"\x88\x00"))
    ended: list[float] = []

    async def take_long(*_: object) -> None:
        await trio.sleep(100)
        ended.append(trio.current_time())

    async with network.reconnecting(initial_delay=0, close_timeout=1) as connections:
        async for ws in connections:
            if len(network.peers) == 2:
                break
            ws.on("message", take_long)
            await trio.sleep(1)
            await network.peers[0].stream.aclose()
        assert trio.current_time() == 1
    assert ended == [100, 200]


async def test_a_body_that_fails_does_not_wait_for_a_callback(network: Network, autojump_clock: MockClock) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO))

    async def go_on(*_: object) -> None:
        await trio.sleep_forever()

    async def body(ws: Transaction) -> None:
        ws.on("text", go_on)
        await trio.sleep(1)
        raise KeyError("the body's")

    with pytest.raises(KeyError, match="the body's"):
        await network.use(body, close_timeout=3)
    assert trio.current_time() == 4


async def test_callbacks_have_the_context_and_the_scopes_of_the_loop(
    network: Network, autojump_clock: MockClock
) -> None:
    network.plan.append(partial(Peer.accept, behind=HELLO))
    variable = contextvars.ContextVar("variable", default="another's")
    variable.set("the loop's")
    seen: list[object] = []

    async def look(*_: object) -> None:
        seen.append(variable.get())
        seen.append(trio.current_effective_deadline())
        try:
            await trio.sleep_forever()
        finally:
            seen.append(trio.current_time())

    async def body(ws: Transaction) -> None:
        ws.on("text", look)
        await trio.sleep_forever()

    with trio.move_on_after(5):
        await network.use(body)
    assert seen == ["the loop's", 5, 5]


async def test_there_is_no_task_outside_of_the_block(network: Network, autojump_clock: MockClock) -> None:
    def tasks(task: trio.lowlevel.Task) -> set[trio.lowlevel.Task]:
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        return {task}.union(*map(tasks, children))

    root = trio.lowlevel.current_root_task()
    assert root is not None
    async with network.reconnecting() as connections:
        before = tasks(root)
        ws = await connections.__anext__()
        ws.on("message", fail)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks(root) - before == set(connections._nursery.child_tasks)
        await network.peers[0].stream.aclose()
