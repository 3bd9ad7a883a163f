"""Cancelled anywhere between the first byte and the last, a client and a server leave nothing behind."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import ConnectionClosed, HandshakeError, Transaction, broadcast, open_websocket
from trio_pyjo_ws.testing import MemoryServer, ScriptedPeer, serve_memory

from .cancelling import LINKS, at_each_pause, contexts, open_link, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

LARGE = os.urandom(20_000)  # more than a socket's buffer takes of it


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
                opened.append(
                    await server.connect(home, streams=streams, ssl_context=ssl_context, ping_interval=None)
                )

            async with trio.open_nursery() as home:
                done = await run_cancelled(pause, run)
                for ws in opened:
                    await ws.send("Hello")
                    assert await ws.receive() == "Hello"
                    await ws.aclose()
            # The nursery has ended: nothing of the client is left. The server has noticed, and not by a timeout.
            await trio.sleep(5)
            assert not server.server._scopes
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
                    await ws.send(LARGE)
                    assert await ws.receive() == LARGE

            done = await run_cancelled(pause, run)
            await trio.sleep(5)
            assert not server.server._scopes
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
            # One that closes properly, one that has fallen silent, and one in the opening handshake.
            good, silent = [
                await server.connect(nursery, streams=streams, ssl_context=ssl_context, ping_interval=None)
                for streams in links[:2]
            ]
            silent.open_channel("frame", max_buffer_size=1)
            server.open_stream(links[2])
            await trio.sleep(1)
            done = await run_cancelled(pause, server.server.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert not server.server._scopes
            with pytest.raises(trio.BrokenResourceError):
                server.open_stream()
            for ws in (quick, silent):
                await ws.aclose()
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

    async def note(ws: Transaction, message: bytes) -> None:
        await trio.sleep(0.01)
        called.append(message)

    ws.on("binary", note)
    async with ws.open_channel("json") as channel:
        await ws.send(json={"a": 1})
        assert await channel.receive() == {"a": 1}
    await ws.send("Hello")
    assert await ws.receive() == "Hello"
    await broadcast([ws], LARGE, slow="wait")
    await ws.send(note_written, b"callback")
    await ws.drain()
    await ws.ping()
    while len(called) < 2:
        await trio.sleep(0.1)
    assert called == [LARGE, b"callback"]
    await ws.finish()


async def note_written(ws: Transaction) -> None:
    await trio.sleep(0)


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
