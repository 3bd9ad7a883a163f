"""Cancelled anywhere between the first byte and the last, a client and a server leave nothing behind."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from trio_pyjo_ws import Transaction, broadcast, open_websocket
from trio_pyjo_ws._engine.transport import SocketTransport
from trio_pyjo_ws.testing import MemoryServer, ScriptedPeer, serve_memory

from .. import peer
from ..cancelling import LINKS, at_each_pause, contexts, open_link, run_cancelled

if TYPE_CHECKING:
    from trio.testing import MockClock

# More than a socket's buffer takes of it; the others take it all, whatever it is, or piece by piece.
LARGE = {link: os.urandom(20_000 if link in ("socket", "tls") else 1000) for link in LINKS}


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def start(nursery: trio.Nursery, handler: Any, link: str, **options: Any) -> MemoryServer:
    ssl_context = contexts()[1] if link == "tls" else None
    options = {"compression": True, "ping_interval": None, **options}
    server: MemoryServer = await nursery.start(partial(serve_memory, handler, ssl_context=ssl_context, **options))
    return server


def client_context(link: str) -> Any:
    return contexts()[0] if link == "tls" else None


def descriptors(streams: tuple[Any, Any]) -> list[int]:
    return [stream.socket.fileno() for stream in streams if isinstance(stream, trio.SocketStream)]


async def assert_closed(streams: tuple[Any, Any], numbers: list[int]) -> None:
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    for stream in () if numbers else streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


@pytest.mark.parametrize("link", LINKS)
async def test_a_connect_that_is_cancelled_leaves_no_connection(link: str, autojump_clock: MockClock) -> None:
    async def attempt(pause: int) -> bool:
        opened: list[Transaction] = []
        async with trio.open_nursery() as nursery:
            server = await start(nursery, echo, link, open_timeout=1000)
            streams = open_link(link, nursery)
            numbers = descriptors(streams)

            async def run() -> None:
                ssl_context = client_context(link)
                opened.append(await server.connect(home, streams=streams, ssl_context=ssl_context, ping_interval=None))

            async with trio.open_nursery() as home:
                done = await run_cancelled(pause, run)
                for ws in opened:
                    await ws.send("Hello")
                    assert await ws.receive() == "Hello"
                    await ws.aclose()
            # The nursery has ended: nothing of the client is left. The server has noticed, and not by a timeout.
            await trio.sleep(5)
            assert not server.server._service.sessions
            await assert_closed(streams, numbers)
            nursery.cancel_scope.cancel()
        return done

    assert await at_each_pause(attempt) > 2


@pytest.mark.parametrize("link", LINKS)
async def test_an_open_websocket_that_is_cancelled_leaves_no_connection(link: str, autojump_clock: MockClock) -> None:
    async def attempt(pause: int) -> bool:
        async with trio.open_nursery() as nursery:
            server = await start(nursery, echo, link, open_timeout=1000)
            streams = open_link(link, nursery)
            numbers = descriptors(streams)
            url = f"{'wss' if link == 'tls' else 'ws'}://memory.test/"

            async def run() -> None:
                stream = server.open_stream(streams)
                async with open_websocket(url, stream=stream, ssl_context=client_context(link), compression=True) as ws:
                    await ws.send("Hello")
                    assert await ws.receive() == "Hello"
                    await ws.send(LARGE[link])
                    assert await ws.receive() == LARGE[link]

            done = await run_cancelled(pause, run)
            await trio.sleep(5)
            assert not server.server._service.sessions
            await assert_closed(streams, numbers)
            nursery.cancel_scope.cancel()
        return done

    assert await at_each_pause(attempt) > 5


@pytest.mark.parametrize("link", ["memory", "socket", "tls"])
async def test_a_servers_aclose_that_is_cancelled_closes_everything_at_once(
    link: str, autojump_clock: MockClock
) -> None:
    async def linger(ws: Transaction) -> None:
        await trio.sleep(20)

    async def attempt(pause: int) -> bool:
        async with trio.open_nursery() as nursery:
            server = await start(nursery, linger, link, open_timeout=1000, close_timeout=10)
            ssl_context = client_context(link)
            links = [open_link(link, nursery) for _ in range(3)]
            numbers = [descriptors(streams) for streams in links]
            # One that closes properly, one that says nothing any more, and one in the opening handshake.
            good = await server.connect(nursery, streams=links[0], ssl_context=ssl_context, ping_interval=None)
            stream: Any = server.open_stream(links[1])
            if ssl_context is not None:
                stream = trio.SSLStream(stream, ssl_context, server_hostname="memory.test", https_compatible=True)
            silent = ScriptedPeer("client", stream)
            await silent.request()
            server.open_stream(links[2])
            await trio.sleep(1)
            done = await run_cancelled(pause, server.server.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert not server.server._service.sessions
            with pytest.raises(trio.BrokenResourceError):
                server.open_stream()
            await good.aclose()
            await silent.aclose()
            await trio.aclose_forcefully(links[2][0])
            await trio.sleep(1)
            for streams, opened in zip(links, numbers, strict=True):
                await assert_closed(streams, opened)
            nursery.cancel_scope.cancel()
        return done

    assert await at_each_pause(attempt) > 2


async def talk(server: MemoryServer, nursery: trio.Nursery, streams: tuple[Any, Any], link: str) -> None:
    """A session with something of everything."""
    ws = await server.connect(nursery, streams=streams, ssl_context=client_context(link), compression=True)
    called: list[str | bytes] = []
    both_called = trio.Event()

    async def note(ws: Transaction, message: bytes) -> None:
        await trio.sleep(0.01)
        called.append(message)
        if len(called) == 2:
            both_called.set()

    ws.on("binary", note)
    async with ws.open_channel("json") as channel:
        await ws.send(json={"a": 1})
        assert await channel.receive() == {"a": 1}
    await ws.send("Hello")
    assert await ws.receive() == "Hello"
    await broadcast([ws], LARGE[link], slow="wait")
    await ws.send(note_written, b"callback")
    await ws.drain()
    await ws.ping()
    await both_called.wait()
    assert called == [LARGE[link], b"callback"]
    await ws.finish()


async def note_written(ws: Transaction) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("link", LINKS)
async def test_a_program_that_is_cancelled_in_any_step_of_any_task_ends_at_once(
    link: str, autojump_clock: MockClock
) -> None:
    async def attempt(pause: int) -> bool:
        async with trio.open_nursery() as outside:
            links: list[Any] = []
            numbers: list[int] = []

            async def run() -> None:
                async with trio.open_nursery() as nursery:
                    server = await start(nursery, echo, link)
                    links.append(open_link(link, outside))
                    numbers.extend(descriptors(links[0]))
                    await talk(server, nursery, links[0], link)
                    await server.server.aclose()

            done = await run_cancelled(pause, run, any_task=True)
            outside.cancel_scope.cancel()
        for streams in links:
            await assert_closed(streams, numbers)
        return done

    assert await at_each_pause(attempt) > 20


async def test_a_message_that_arrives_with_the_deadline_leaves_it_a_deadline(mock_clock: MockClock) -> None:
    for _ in range(20):  # Which task has the first turn after that is chance.
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, trio.move_on_after(10) as scope:
            async with trio.open_nursery() as nursery:
                ws = peer.start(nursery, SocketTransport(ours), "client", ping_interval=None)

                async def arrive(theirs: socket.socket) -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    theirs.send(b"\x81\x01a")
                    mock_clock.jump(10)

                nursery.start_soon(arrive, theirs)
                while True:
                    await ws.receive()
        assert scope.cancelled_caught
