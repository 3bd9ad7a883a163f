"""The log: quiet about those who want no WebSocket, and safe to read whatever a peer says."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from trio_pyjo_ws import (
    HandshakeError,
    Server,
    Transaction,
    connect,
    open_unix_listener,
    open_websocket,
    serve,
    serve_listeners,
)
from trio_pyjo_ws.testing import open_memory_pair, serve_memory

from .service import REQUEST, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

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
    assert {record.getMessage().split()[1] for record in caplog.records if record.levelno == logging.DEBUG} == names
    [error] = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert error.levelno == logging.ERROR
    assert any(name in error.getMessage() for name in names)
    assert error.exc_info is not None


# What a peer says

HOSTILE = "x)\r\nCRITICAL:root: the end \x1b[31m\x9b31m\u2028\u202e"
IN_LATIN_1 = "x)\x85CRITICAL:root: the end \x9b31m"  # what HTTP lets pass


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged, frames too. Afterwards there is a line at least, and each is one that can be printed."""
    caplog.set_level(logging.DEBUG, "trio_pyjo_ws")
    monkeypatch.setenv("PYJO_WEBSOCKET_DEBUG", "1")
    yield caplog
    records = caplog.get_records("call")
    assert records
    for record in records:
        assert record.getMessage().isprintable()
        if record.exc_info is not None:
            assert str(record.exc_info[1]).isprintable()


@pytest.mark.parametrize("crash", [False, True])
async def test_a_close_reason_is_one_harmless_line(
    crash: bool, nursery: trio.Nursery, log: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Transaction) -> None:
        try:
            async for _ in ws:
                pass
        except Exception:
            if crash:
                raise KeyError("a bug") from None
            raise

    server = await nursery.start(serve_memory, handler)
    ws = await server.connect(nursery)
    await ws.send(HOSTILE)
    await ws.finish(4000, HOSTILE)
    await server.server.aclose()
    assert any("CRITICAL" in message for message in log.messages)


async def test_messages_frames_and_callbacks_are_harmless_lines(
    nursery: trio.Nursery, log: pytest.LogCaptureFixture
) -> None:
    class Codec:
        @staticmethod
        def loads(text: str | bytes) -> object:
            raise ValueError(f"what is {text!s}?")

        dumps = repr

    client, server = open_memory_pair(nursery, json=Codec)
    server.on("json", lambda *_: None)
    await client.send(HOSTILE)
    await client.send(binary=HOSTILE.encode())
    await client.ping(b"\x1b[31m\r\n")
    await client.finish(4000, HOSTILE)
    assert any("invalid JSON" in message for message in log.messages)


@pytest.mark.parametrize(
    "sent",
    [
        request(f"GET /{IN_LATIN_1} HTTP/1.1"),
        request(origin=IN_LATIN_1),
        request(upgrade=IN_LATIN_1),
        request(sec_websocket_version=IN_LATIN_1),
        request(sec_websocket_key=IN_LATIN_1),
        request(sec_websocket_protocol=IN_LATIN_1),
        request(sec_websocket_extensions=IN_LATIN_1),
        request(x_forwarded_for=IN_LATIN_1),
        IN_LATIN_1.encode("latin-1"),
        HOSTILE.encode(),
        b"GET / HTTP/1.1\r\n\x1b[31m: a\r\n\r\n",
    ],
)
async def test_a_request_is_a_harmless_line(sent: bytes, nursery: trio.Nursery, log: pytest.LogCaptureFixture) -> None:
    server = await nursery.start(
        partial(serve_memory, echo, origins=["https://test"], trusted_proxies=["unix:"], compression=True)
    )
    stream = server.open_stream()
    await stream.send_all(sent)
    await stream.send_eof()
    async for _ in stream:
        pass
    await stream.aclose()
    await server.server.aclose()


async def test_the_path_of_a_unix_socket_is_harmless(
    nursery: trio.Nursery, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """A client may bind its own end, too, and so choose what the server sees as its address."""
    path = tmp_path / "server"
    await nursery.start(serve_listeners, echo, [open_unix_listener(path)])
    ours = trio.socket.socket(socket.AF_UNIX)
    await ours.bind(str(tmp_path / "client\r\n\x1b[31m"))
    await ours.connect(str(path))
    ws = await connect(nursery, "ws://test", stream=trio.SocketStream(ours))
    await ws.aclose()
    assert any("client\\r\\n\\x1b[31m" in message for message in log.messages)


@pytest.mark.parametrize(
    "response",
    [
        f"HTTP/1.1 403 {IN_LATIN_1}\r\n\r\n",
        f"HTTP/1.1 101 {IN_LATIN_1}\r\nUpgrade: {IN_LATIN_1}\r\n\r\n",
        f"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: {IN_LATIN_1}\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: wss://{IN_LATIN_1}/\r\n\r\n",
        f"HTTP/1.1 \x9b31m {IN_LATIN_1}\r\n\r\n",
        HOSTILE,
    ],
)
async def test_a_response_is_shown_in_a_harmless_line(response: str, nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(response.encode("latin-1", "replace"))
    await theirs.send_eof()
    with pytest.raises(HandshakeError) as raised:
        await connect(nursery, "ws://test", stream=ours)
    exc: BaseException | None = raised.value
    while exc is not None:  # The causes are printed with it.
        assert str(exc).isprintable()
        assert repr(exc).isprintable()
        exc = exc.__cause__ or exc.__context__
    assert repr(raised.value.response).isprintable()
