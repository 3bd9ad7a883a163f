"""What a server logs of those who want no WebSocket: nothing that anybody sees by default."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from trio_pyjo_ws import Server, Transaction, open_websocket, serve

from .service import REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TLS_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
REQUESTS = {
    "nothing": b"",
    "garbage": b"\x00\xff\x16" * 100,
    "line breaks": b"\r\n\r\n",
    "half a request": REQUEST[:40],
    "another protocol": b"SSH-2.0-OpenSSH_9.0\r\n",
    "TLS": TLS_HELLO,
    "a health check": b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
}


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(made)
    return made


@pytest.fixture(params=["ws", "wss"])
async def server(
    request: pytest.FixtureRequest, nursery: trio.Nursery, context: ssl.SSLContext
) -> AsyncIterator[Server]:
    options = {"ssl_context": context} if request.param == "wss" else {}
    started: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", open_timeout=0.2, **options))
    yield started
    await started.aclose()


@pytest.mark.parametrize("abort", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS)
async def test_health_checks_and_port_scans_are_not_heard(
    server: Server, data: bytes, abort: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
        if data:
            await stream.send_all(data)
        if abort:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await server.aclose()  # which waits for its end
    for record in caplog.records:
        assert record.levelno == logging.DEBUG, record.getMessage()
        assert record.exc_info is None


async def test_who_says_nothing_at_all_is_dropped_in_silence(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", server.port or 0) as stream:
            assert await stream.receive_some() == b""
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_each_line_names_its_connection(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_pyjo_ws")

    async def crash(ws: Transaction) -> None:
        raise RuntimeError("a bug")

    with trio.fail_after(10):
        server = await nursery.start(partial(serve, crash, 0, host="127.0.0.1"))
        async with open_websocket(server.url) as ws:
            with pytest.raises(trio.BrokenResourceError):
                await ws.receive()
        await server.aclose()
    names = {ws.connection, f"server-{int(ws.connection.partition('-')[2]) - 1}"}
    assert {record.getMessage().split()[1] for record in caplog.records if record.levelno == logging.DEBUG} <= names
    [error] = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert error.levelno == logging.ERROR
    assert any(name in error.getMessage() for name in names)
    assert error.exc_info is not None
