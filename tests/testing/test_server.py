"""A server without a socket, and clients that connect to it."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import HandshakeError, Request, Response, Transaction, open_websocket
from trio_pyjo_ws.testing import Faults, FaultyStream, MemoryServer, serve_memory

if TYPE_CHECKING:
    from trio.testing import MockClock


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.fixture
async def server(nursery: trio.Nursery) -> MemoryServer:
    server: MemoryServer = await nursery.start(serve_memory, echo)
    return server


async def test_a_client_connects_and_talks(nursery: trio.Nursery, server: MemoryServer) -> None:
    ws = await server.connect(nursery)
    await ws.send("Hello")
    assert await ws.receive() == "Hello"
    (connection,) = server.server.connections
    assert connection.req.target == "/"
    assert connection.req.headers["Host"] == "memory.test"


async def test_the_arguments_are_those_of_connect(nursery: trio.Nursery, server: MemoryServer) -> None:
    ws = await server.connect(nursery, "/chat?room=1", additional_headers={"X-Test": "yes"}, max_websocket_size=5)
    assert isinstance(ws.req, Request)
    assert ws.req.target == "/chat?room=1"
    assert ws.req.headers["X-Test"] == "yes"
    assert ws.max_websocket_size == 5
    ws = await server.connect(nursery, "ws://user:password@example.org/")
    assert ws.req.headers["Host"] == "example.org"
    with pytest.raises(TypeError, match="unknown option 'size'"):
        await server.connect(nursery, size=1)


async def test_the_arguments_are_those_of_serve(nursery: trio.Nursery) -> None:
    server = await nursery.start(
        partial(serve_memory, echo, subprotocols=["v1"], on_request=lambda _: Response(401), compression=True)
    )
    with pytest.raises(HandshakeError) as caught:
        await server.connect(nursery, subprotocols=["v1"])
    assert caught.value.response is not None
    assert caught.value.response.status == 401
    with pytest.raises(TypeError, match="unknown option 'size'"):
        await serve_memory(echo, size=1)


async def test_any_client_gets_a_stream(server: MemoryServer) -> None:
    async with open_websocket("ws://memory.test/", stream=server.open_stream()) as ws:
        await ws.send("Hello")
        assert await ws.receive() == "Hello"
    stream = server.open_stream()
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 400 ")


async def test_streams_of_ones_own_may_be_given(nursery: trio.Nursery, server: MemoryServer) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(theirs, receive=Faults(chunk_size=1), send=Faults(chunk_size=1))
    ws = await server.connect(nursery, streams=(ours, faulty))
    await ws.send("Hello")
    assert await ws.receive() == "Hello"
    await ws.aclose()
    await wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()


async def test_over_tls(nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("memory.test").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server = await nursery.start(partial(serve_memory, echo, ssl_context=server_context))
    ws = await server.connect(nursery, ssl_context=client_context)
    await ws.send("secret")
    assert await ws.receive() == "secret"
    await ws.aclose()


async def test_a_server_that_has_closed_accepts_no_more(nursery: trio.Nursery, server: MemoryServer) -> None:
    ws = await server.connect(nursery)
    nursery.start_soon(server.server.aclose)
    with pytest.raises(trio.EndOfChannel):
        await ws.receive()
    assert ws.closed is not None
    assert ws.closed.code == 1001
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BrokenResourceError):
        server.open_stream()


async def test_a_server_that_is_cancelled_leaves_no_client_waiting(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as serving:
        server = await serving.start(serve_memory, echo)
        serving.cancel_scope.cancel()
        streams = [server.open_stream() for _ in range(3)]  # which nobody accepts any more
    with trio.fail_after(60):
        for stream in streams:
            assert await stream.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        server.open_stream()


async def test_time_is_the_mock_clocks(autojump_clock: MockClock, nursery: trio.Nursery, server: MemoryServer) -> None:
    ws = await server.connect(nursery)
    await trio.sleep(60 * 60)
    await ws.send("still here")
    assert await ws.receive() == "still here"
