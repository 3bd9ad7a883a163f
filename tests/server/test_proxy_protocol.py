"""A server behind a load balancer in TCP mode, which names the client by the PROXY protocol."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import trustme

from trio_pyjo_ws import HandshakeError, Response, Transaction, connect, serve, serve_listeners
from trio_pyjo_ws.handshake.proxy_protocol import SIGNATURE

from ..service import REQUEST, MemoryListener, echo, never, read_to_end, request

if TYPE_CHECKING:
    from trio.testing import MockClock

LINE = b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n"
BINARY = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 1]) + b"\xdc\x04\x01\xbb"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
TRUSTED = {"trusted_proxies": ["unix:", "127.0.0.1"], "proxy_header": "PROXY"}


class Balancer:
    """A server over TCP or in memory, with TLS or without, and what a load balancer does with its connections."""

    def __init__(self, kind: str, nursery: trio.Nursery) -> None:
        authority = trustme.CA()
        self.over, _, security = kind.partition(" ")
        self.nursery = nursery
        self.url = "wss://a.test/" if security else "ws://a.test/"
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if security else None
        if self.server_context is not None:
            authority.issue_cert("a.test").configure_cert(self.server_context)
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
        self.listener = MemoryListener()
        self.server: Any = None

    async def start(self, handler: Any = echo, **options: Any) -> None:
        options = {**TRUSTED, **options}
        if self.over == "tcp":
            start = partial(serve, handler, 0, host="127.0.0.1", ssl_context=self.server_context, **options)
            self.server = await self.nursery.start(start)
        else:
            listener: Any = self.listener
            if self.server_context is not None:
                listener = trio.SSLListener(listener, self.server_context, https_compatible=True)
            self.server = await self.nursery.start(partial(serve_listeners, handler, [listener], **options))

    async def dial(self) -> Any:
        if self.over == "tcp":
            return await trio.open_tcp_stream("127.0.0.1", self.server.port)
        return self.listener.connect()

    async def forward(self, header: bytes, **options: Any) -> Transaction:
        """A client's connection behind ``header``."""
        stream = await self.dial()
        for piece in [header] if len(header) < 30 else [header[:1], header[1:20], header[20:]]:
            await stream.send_all(piece)
            await trio.lowlevel.checkpoint()
        return await connect(self.nursery, self.url, stream=stream, ssl_context=self.client_context, **options)


@pytest.fixture(params=["tcp", "tcp tls", "memory", "memory tls"])
def balancer(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Balancer:
    return Balancer(request.param, nursery)


@pytest.fixture
def in_memory(nursery: trio.Nursery) -> Balancer:
    return Balancer("memory", nursery)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["version 1", "version 2"])
async def test_the_client_is_who_the_header_names(balancer: Balancer, header: bytes) -> None:
    seen: list[Any] = []

    def on_request(ws: Transaction) -> None:
        seen.append((ws.remote_address, ws.original_remote_address, ws.reverse_proxy))

    await balancer.start(on_request=on_request)
    ws = await balancer.forward(header, additional_headers={"X-Forwarded-For": "192.0.2.66"})
    await ws.send("Hello")
    assert await ws.receive() == "Hello"
    assert seen == [("203.0.113.7", "127.0.0.1" if balancer.over == "tcp" else None, True)]
    (connection,) = balancer.server.connections
    assert connection.remote_address == "203.0.113.7"


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_a_proxy_that_names_nobody_is_the_peer_itself(balancer: Balancer, header: bytes) -> None:
    await balancer.start()
    ws = await balancer.forward(header)
    (connection,) = balancer.server.connections
    assert connection.remote_address == connection.original_remote_address
    await ws.aclose()


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("header", [LINE, BINARY, LOCAL])
async def test_a_request_may_come_right_behind_the_header(in_memory: Balancer, header: bytes, bytewise: bool) -> None:
    await in_memory.start(never, on_request=lambda ws: Response(200, body=f"{ws.remote_address}"))
    stream = await in_memory.dial()
    data = header + request(upgrade=None)
    for piece in [bytes([byte]) for byte in data] if bytewise else [data]:
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()
    assert (await read_to_end(stream)).endswith(b"\r\n\r\nNone" if header is LOCAL else b"\r\n\r\n203.0.113.7")


@pytest.mark.parametrize(
    "data", [REQUEST, b"\x16\x03\x01" + bytes(20), LINE.replace(b"443", b"x\x1b[31m"), b"\r\n" * 9]
)
async def test_what_is_no_header_ends_the_connection_without_an_answer(
    balancer: Balancer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await balancer.start(never)
    async with await balancer.dial() as stream:
        await stream.send_all(data)
        with suppress(trio.BrokenResourceError):  # What is left unread resets the connection.
            assert await read_to_end(stream) == b""
    (warning,) = warnings(caplog)
    assert "PROXY protocol" in warning
    assert warning.endswith(" (proxy_header is 'PROXY')")
    assert "\x1b" not in warning
    assert balancer.server.statistics().connections_opening == 0


async def test_a_check_of_the_port_alone_is_no_news(balancer: Balancer, caplog: pytest.LogCaptureFixture) -> None:
    await balancer.start(never)
    for begin in (b"", LINE[:9], BINARY[:20]):
        async with await balancer.dial() as stream:
            if begin:
                await stream.send_all(begin)
            await stream.send_eof()
            assert await read_to_end(stream) == b""
    assert warnings(caplog) == []


async def test_a_client_that_is_no_proxy_cannot_name_itself(in_memory: Balancer) -> None:
    await in_memory.start(never, trusted_proxies=["192.0.2.1"])
    for header in (LINE, BINARY):
        stream = await in_memory.dial()
        await stream.send_all(header + REQUEST)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_is_no_proxy_comes_without_the_header(balancer: Balancer) -> None:
    await balancer.start(trusted_proxies=["192.0.2.1"])
    ws = await balancer.forward(b"")
    await ws.send("Hello")
    assert await ws.receive() == "Hello"


async def test_a_header_that_does_not_come_is_not_waited_for_longer_than_a_request(
    in_memory: Balancer, autojump_clock: MockClock
) -> None:
    await in_memory.start(never, open_timeout=8)
    started = trio.current_time()
    for begin in (b"", LINE[:-1], LINE, BINARY[:15]):
        stream = await in_memory.dial()
        await stream.send_all(begin)
        with suppress(trio.BrokenResourceError):
            await read_to_end(stream)
        assert trio.current_time() - started <= 8
        started = trio.current_time()


async def test_connections_are_counted_by_who_the_header_names(in_memory: Balancer) -> None:
    await in_memory.start(max_connections_per_address=1)
    await in_memory.forward(LINE)
    with pytest.raises(HandshakeError) as caught:
        await in_memory.forward(BINARY)
    assert caught.value.response is not None
    assert caught.value.response.status == 429
    await in_memory.forward(LINE.replace(b"113.7", b"113.8"))
