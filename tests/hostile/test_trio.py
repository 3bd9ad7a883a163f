"""What trio's rules owe to a server and its clients."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    Server,
    Transaction,
    broadcast,
    connect,
    open_websocket,
    serve,
    serve_listeners,
)
from trio_pyjo_ws.testing import (
    Faults,
    FaultyStream,
    ScriptedPeer,
    open_memory_pair,
    open_scripted_pair,
    serve_memory,
)

from ..cancelling import at_each_pause, contexts, open_link, open_streams, run_cancelled
from ..service import REQUEST, echo, read_head, read_to_end, start, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

DESCRIPTORS = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")


def open_descriptors() -> int:
    return sum(1 for _ in DESCRIPTORS.iterdir())


async def drain(ws: Transaction) -> None:
    with suppress(ConnectionClosed):
        async for _ in ws:
            pass


# 66. Cancelled at every checkpoint: no effect, or the connection is closed; never corrupt. (One by one, each operation
# over whatever carries the bytes: test_connection_cancelled.py, and whole programs: test_lifetime_cancelled.py.)


async def use(ws: Transaction, messages: list[bytes]) -> None:
    await ws.ping()
    for message in messages[:2]:
        await ws.send(message)
    await ws.drain()
    await ws.receive()
    await broadcast([ws], messages[2], slow="wait")
    ws.send_nowait(messages[3])
    await ws.receive()


@pytest.mark.parametrize("link", ["socket", "tls", "pieces", "stalls"])
async def test_66_cancelled_at_every_checkpoint_it_is_whole_or_closed(link: str, autojump_clock: MockClock) -> None:
    # More than a socket's buffer takes of it; the others take it all, whatever it is, or piece by piece.
    large = os.urandom(300_000 if link in ("socket", "tls") else 3000)
    messages = [b"first", large, b"third", b"fourth"]

    async def attempt(pause: int) -> bool:
        received: list[str | bytes] = []

        async def handler(ws: Transaction) -> None:
            with suppress(ConnectionClosed):
                async for message in ws:
                    received.append(message)
                    with suppress(ConnectionClosed):  # Close may have come already, behind messages to be read.
                        await ws.send(message)
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            client_context, server_context = contexts() if link == "tls" else (None, None)
            server = await nursery.start(
                partial(serve_memory, handler, ssl_context=server_context, max_websocket_size=1_000_000)
            )
            ws = await server.connect(
                nursery, streams=open_link(link, nursery), ssl_context=client_context, max_websocket_size=1_000_000
            )
            done = await run_cancelled(pause, partial(use, ws, messages))
            with suppress(ConnectionClosed):
                await ws.send("last")
                await ws.finish()
            await trio.sleep(5)
            is_whole = received[-1:] == ["last"]
            sent = received[:-1] if is_whole else received
            assert sent == messages[: len(sent)]
            assert is_whole or ws.closed == (1006, "the connection was lost without a closing handshake")
            assert not server.server.connections
            nursery.cancel_scope.cancel()
        return done

    assert await at_each_pause(attempt) > 5


# 68. send() cancelled after its first byte left: the frame is completed, or later sends raise; a frame is never torn
# with the connection open.


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("role", ["client", "server"])
async def test_68_a_cancelled_send_of_50_mb_is_completed(role: Any, secure: bool, nursery: trio.Nursery) -> None:
    large = bytes(50_000_000)
    ws, peer = await open_tcp(nursery, role, secure)
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_blocked, scope)
        await ws.send(large)
    assert scope.cancelled_caught
    assert 0 < ws.statistics().bytes_unsent < len(large)  # Its first bytes have left.
    async with peer:
        nursery.start_soon(ws.send, "next")
        await peer.expect(large)
        await peer.expect("next")
        await peer.reply("still open")
        assert await ws.receive() == "still open"


@pytest.mark.parametrize("role", ["client", "server"])
async def test_68_a_cancelled_send_through_a_stream_is_completed(role: Any, nursery: trio.Nursery) -> None:
    streams = trio.testing.memory_stream_pair()
    stalled = FaultyStream(streams[0], send=Faults(stall_at=100))
    ws, peer = open_scripted_pair(nursery, role, streams=(stalled, streams[1]))
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_blocked, scope)
        await ws.send(bytes(1000))
    assert scope.cancelled_caught
    assert stalled.sending.passed == 100
    nursery.start_soon(ws.send, "next")
    stalled.sending.release()
    await peer.expect(bytes(1000))
    await peer.expect("next")


@pytest.mark.parametrize("role", ["client", "server"])
async def test_68_where_it_cannot_be_completed_later_sends_raise(role: Any, nursery: trio.Nursery) -> None:
    streams = trio.testing.memory_stream_pair()
    broken = FaultyStream(streams[0], send=Faults(stall_at=100, reset_at=100))
    ws, peer = open_scripted_pair(nursery, role, streams=(broken, streams[1]))
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_blocked, scope)
        await ws.send(bytes(1000))
    assert scope.cancelled_caught
    broken.sending.release()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(ConnectionClosed):
        await ws.send("next")
    with pytest.raises(ConnectionClosed):
        ws.send_nowait("next")
    with pytest.raises(AssertionError, match="received it in the middle of a frame"):
        await peer.expect_eof()


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.05)
    scope.cancel()


async def open_tcp(nursery: trio.Nursery, role: str, secure: bool) -> tuple[Transaction, ScriptedPeer]:
    """A transaction of that role over TCP, and in place of its peer a script."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()
    client_context, server_context = contexts()
    if role == "client":
        accepted: list[Any] = []

        async def accept() -> None:
            stream: Any = await listener.accept()
            if secure:
                stream = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
            accepted.append(ScriptedPeer("server", stream))
            await accepted[0].accept()

        nursery.start_soon(accept)
        url = f"{'wss' if secure else 'ws'}://{host}:{port}/"
        ws = await connect(nursery, url, ssl_context=client_context if secure else None)
        await listener.aclose()
        return ws, accepted[0]
    opened: list[Transaction] = []
    over = trio.Event()

    async def handler(ws: Transaction) -> None:
        opened.append(ws)
        over.set()
        await trio.sleep_forever()

    listening: Any = trio.SSLListener(listener, server_context, https_compatible=True) if secure else listener
    await nursery.start(serve_listeners, handler, [listening])
    stream: Any = await trio.open_tcp_stream(host, port)
    if secure:
        stream = trio.SSLStream(stream, client_context, server_hostname=host, https_compatible=True)
    peer = ScriptedPeer("client", stream)
    await peer.request()
    await over.wait()
    return opened[0], peer


# 69. aclose() cancelled: the socket is closed.


@pytest.mark.parametrize("behind", [0, 300_000])
@pytest.mark.parametrize("link", ["socket", "tls"])
@pytest.mark.parametrize("role", ["client", "server"])
async def test_69_a_cancelled_aclose_closes_the_socket(
    role: Any, link: str, behind: int, autojump_clock: MockClock
) -> None:
    async def attempt(pause: int) -> bool:
        async with trio.open_nursery() as nursery:
            pair = open_memory_pair(nursery, streams=open_streams(link, nursery, role), max_websocket_size=1_000_000)
            async with trio.open_nursery() as handshakes:
                for side in pair:
                    handshakes.start_soon(side.__connection__.transport.do_handshake)  # which there is for TLS only
            ws, peer = pair if role == "client" else pair[::-1]
            descriptor = ws.__connection__.transport.fd  # type: ignore[attr-defined]
            if behind:
                ws.send_nowait(bytes(behind))  # Close has to wait for the kernel to take this.
            done = await run_cancelled(pause, ws.aclose)
            assert ws.is_finished
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
            await trio.testing.wait_all_tasks_blocked()
            with suppress(ConnectionClosed):
                assert [len(message) async for message in peer] == [behind][: bool(behind)]
            await trio.sleep(1)
            assert not nursery.child_tasks
        return done

    assert await at_each_pause(attempt) > 1


# 70. An iterator given to a streaming send raises: 1011.


class SourceError(Exception):
    """What an iterator of pieces raises."""


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("compression", [False, True])
async def test_70_an_iterator_that_raises_in_a_streaming_send_closes_with_1011(
    count: int, compression: bool, autojump_clock: MockClock
) -> None:
    closed = False

    async def pieces() -> AsyncIterator[str]:
        nonlocal closed
        try:
            for _ in range(count):
                yield "half of a message"
            raise SourceError
        finally:
            closed = True

    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, compression=compression)
        with pytest.raises(SourceError):
            await client.send(text=pieces())
        assert closed
        with pytest.raises(ConnectionClosed) as caught:
            await server.receive()  # Nothing of the message comes out.
        assert caught.value.close.code == 1011
        with pytest.raises(trio.ClosedResourceError):
            await client.send("more")
        await trio.sleep(1)
        assert client.is_finished
        assert server.is_finished


# 72. Handler crash: 1011, siblings live.


async def crash_alone(_: Transaction) -> None:
    raise KeyError("a bug")


async def crash_in_a_nursery(ws: Transaction) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, ws)
        nursery.start_soon(crash_alone, ws)


async def crash_in_several_tasks(ws: Transaction) -> None:
    await trio.lowlevel.checkpoint()
    raise ExceptionGroup("several", [KeyError("a bug"), ConnectionClosed(Close(1006))])


async def crash_in_a_callback(ws: Transaction) -> None:
    @ws.on
    def text(ws: Transaction, _: bytes) -> None:
        raise KeyError("a bug")

    await trio.sleep_forever()


async def crash_in_an_asynchronous_callback(ws: Transaction) -> None:
    @ws.on
    async def text(ws: Transaction, _: bytes) -> None:
        raise KeyError("a bug")

    await trio.sleep_forever()


@pytest.mark.parametrize(
    "crash",
    [
        crash_alone,
        crash_in_a_nursery,
        crash_in_several_tasks,
        crash_in_a_callback,
        crash_in_an_asynchronous_callback,
    ],
)
async def test_72_a_handler_that_crashes_closes_with_1011_and_its_siblings_live(
    nursery: trio.Nursery, crash: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    service = await start(nursery, {"/": echo, "/crash": crash})
    siblings = [await service.connect() for _ in range(3)]
    crashing = await connect(nursery, "ws://test/crash", stream=service.dial())
    with suppress(ConnectionClosed):
        await crashing.send("now")
    with trio.fail_after(5), pytest.raises(ConnectionClosed) as raised:
        await crashing.receive()
    assert raised.value.close == Close(1011, "")  # What went wrong is nobody's business.
    await trio.testing.wait_all_tasks_blocked()
    assert len(service.server.connections) == service.server._service.sessions == 3
    for number, sibling in enumerate([*siblings, await service.connect()]):
        await sibling.send(str(number))
        assert await sibling.receive() == str(number)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# 73. Shutdown: 1001 to open connections, 503 to those in the handshake, bounded in time.


@pytest.mark.parametrize("peers", ["that answer", "that say nothing more"])
@pytest.mark.parametrize("handlers", ["that end", "that hang", "that clean up"])
async def test_73_shutdown_tells_everybody_and_is_bounded(
    nursery: trio.Nursery, autojump_clock: MockClock, peers: str, handlers: str
) -> None:
    ended: list[float] = []

    async def handler(ws: Transaction) -> None:
        try:
            if handlers == "that hang":
                await trio.sleep_forever()
            with suppress(trio.ClosedResourceError):
                await drain(ws)
            if handlers == "that clean up":
                await trio.sleep(3)
        finally:
            ended.append(trio.current_time())

    service = await start(nursery, handler, close_timeout=10, open_timeout=1000, ping_interval=None)
    opened = [service.dial() for _ in range(5)]
    for stream in opened:
        await stream.send_all(REQUEST)
        assert status(await read_head(stream)) == 101
    in_handshake = [service.dial() for _ in range(5)]
    for number, stream in enumerate(in_handshake):
        await stream.send_all(REQUEST[: number * 20])
    await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as waiting:
        waiting.start_soon(service.server.aclose)
        await trio.testing.wait_all_tasks_blocked()
        if peers == "that answer":
            for stream in opened:
                await stream.send_all(b"\x88\x82\0\0\0\0\x03\xe9")
    stopped = trio.current_time()

    for stream in opened:
        assert await read_to_end(stream) == b"\x88\x1d\x03\xe9the server is shutting down"
    for stream in in_handshake:
        assert status(await read_to_end(stream)) == 503
    assert len(ended) == 5
    assert not service.server._service.sessions
    expected = 10.0 if peers == "that say nothing more" or handlers == "that hang" else 0.0
    assert stopped == max(expected, 3.0 if handlers == "that clean up" else 0.0)
    with pytest.raises(trio.BrokenResourceError):
        service.dial()


async def test_73_nobody_is_let_in_any_more(nursery: trio.Nursery) -> None:
    server: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    assert server.port is not None
    async with open_websocket(server.url or "") as ws:
        nursery.start_soon(drain, ws)
        await server.aclose()
        assert ws.closed == Close(1001, "the server is shutting down")
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", server.port)


# 74. Churn of 100,000 connections: flat memory and descriptors. As many as HOSTILE_CHURN says; 3,000 by default.

CHURN = int(os.environ.get("HOSTILE_CHURN", "3000"))
ROUNDS = 5
AT_ONCE = 20


@pytest.mark.once
async def test_74_connections_that_come_and_go_leave_nothing_behind(nursery: trio.Nursery) -> None:
    def on_request(ws: Transaction) -> None:
        ws.with_compression()

    options = {"idle_timeout": 300, "max_message_rate": 100, "max_connections_per_address": 1000}
    server: Server = await nursery.start(
        partial(serve, {"/{way}": echo}, 0, host="127.0.0.1", on_request=on_request, **options)
    )
    assert server.port is not None
    ways = ["closed", "closed by the server's end", "cut", "cut in the handshake", "refused"]

    async def one(way: str) -> None:
        if way == "cut in the handshake":
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(REQUEST[:50])
            await stream.aclose()
        elif way == "refused":
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(REQUEST)  # for /, which is no route
            assert status(await read_to_end(stream)) == 404
            await stream.aclose()
        else:
            async with trio.open_nursery() as inner:
                ws = await connect(inner, f"{server.url}churn", compression=way == "closed")
                await ws.send("hello" * 50)
                assert await ws.receive() == "hello" * 50
                if way == "cut":
                    inner.cancel_scope.cancel()
                elif way == "closed":
                    await ws.finish(1000)
                else:
                    await ws.send(frame=[1, 1, 1, 1, 15, b""])
                    with pytest.raises(ConnectionClosed, match="1002"):
                        await ws.receive()

    async def churn(count: int) -> tuple[int, int, int]:
        """Blocks of memory, descriptors and tasks after so many more connections."""

        async def some(share: int) -> None:
            for number in range(share):
                await one(ways[number % len(ways)])

        async with trio.open_nursery() as inner:
            for _ in range(AT_ONCE):
                inner.start_soon(some, count // AT_ONCE)
        with trio.fail_after(10):
            while server._service.sessions:
                await trio.testing.wait_all_tasks_blocked(0.001)
        # Up to a thousand deadlines that are over stay in trio's heap; what they are at the moment is chance.
        trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._prune()
        gc.collect()
        assert not server.connections
        assert server._service.admission._connections == 0
        assert not server._service.admission._counts
        assert server._handshakes.housekeeper.deadlines == 0
        assert not server._handshakes.housekeeper._members
        descriptors = open_descriptors()
        return sys.getallocatedblocks(), descriptors, trio.lowlevel.current_statistics().tasks_living

    for _ in range(3):  # What is made once (caches, interned strings, free lists) is made now.
        await churn(AT_ONCE * len(ways))
    share = CHURN // ROUNDS
    first, *others = [await churn(share) for _ in range(ROUNDS)]
    for blocks, descriptors, tasks in others:
        assert (descriptors, tasks) == first[1:]
        # Some hundred blocks come and go with Python's own caches, however many the connections are. One object that
        # each connection left behind would be four shares by the last round.
        assert blocks - first[0] < share / 4 + 500, [first, *others]
