"""The server: who gets in, what a handler's end means, and how everything stops."""

from __future__ import annotations

import asyncio  # noqa: TID251 - to be told that it does not do
import gc
import logging
import re
import socket
import ssl
import sys
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    Deflate,
    HandshakeError,
    Response,
    Server,
    Transaction,
    connect,
    open_websocket,
    serve,
    serve_listeners,
)
from trio_pyjo_ws._engine.tls import TlsTransport

from ..service import (
    KEY,
    REQUEST,
    MemoryListener,
    Service,
    echo,
    never,
    read_head,
    read_to_end,
    request,
    status,
)
from ..service import start as serve_in_memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    Starter = Callable[..., Awaitable["Service"]]
    Errors = Callable[[], list[BaseException | None]]

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

DESCRIPTORS = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")


@pytest.fixture
def start(nursery: trio.Nursery) -> Starter:
    return partial(serve_in_memory, nursery)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[BaseException | None]]:
    """The exceptions that were logged as errors so far."""
    caplog.set_level(logging.DEBUG, "trio_pyjo_ws")

    def logged() -> list[BaseException | None]:
        records = [record for record in caplog.records if record.levelno >= logging.WARNING]
        return [record.exc_info and record.exc_info[1] for record in records]  # type: ignore[misc]

    return logged


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "test").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# Listening


async def test_start_gives_a_server_that_tells_where_it_is(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    assert isinstance(server, Server)
    assert server.port == server.listeners[0].socket.getsockname()[1]
    assert server.url == f"ws://127.0.0.1:{server.port}/"
    assert server.connections == frozenset()
    assert repr(server) == f"<Server {server.url} connections=0>"


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],  # noqa: S104
)
async def test_its_url_reaches_it(nursery: trio.Nursery, host: str, name: str) -> None:
    server = await nursery.start(partial(serve, echo, 0, host=host))
    assert server.url == f"ws://{name}:{server.port}/"
    async with open_websocket(server.url) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"
        assert {connection.remote_port for connection in server.connections} == {ws.local_port}
        assert repr(server) == f"<Server {server.url} connections=1>"


async def test_it_tells_where_it_was_after_its_end(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    url = server.url
    await server.aclose()
    assert server.url == url
    assert repr(server) == f"<Server {url} connections=0>"


async def test_a_listener_in_memory_has_no_url(start: Starter) -> None:
    service = await start(echo)
    assert service.server.url is None
    assert service.server.port is None
    assert repr(service.server) == "<Server None connections=0>"
    assert service.server.listeners == [service.listener]


async def test_a_unix_socket_is_served(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    server = await nursery.start(serve_listeners, echo, [trio.SocketListener(sock)])
    assert server.url is None
    async with open_websocket("ws://localhost/", stream=await trio.open_unix_socket(path)) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"
        (connection,) = server.connections
        assert connection.local_address == ws.remote_address == path


async def test_the_port_is_that_of_the_first_listener_that_has_one(nursery: trio.Nursery) -> None:
    listeners = [MemoryListener(), *await trio.open_tcp_listeners(0, host="127.0.0.1")]
    server = await nursery.start(serve_listeners, echo, listeners)
    assert server.port == listeners[1].socket.getsockname()[1]  # type: ignore[attr-defined]


async def test_wss(nursery: trio.Nursery, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=server_context))
    assert server.url == f"wss://127.0.0.1:{server.port}/"
    async with open_websocket(server.url, ssl_context=client_context) as ws:
        await ws.send("secret")
        assert await ws.receive() == "secret"
        (connection,) = server.connections
        assert connection.local_port == server.port
        assert connection.remote_port == ws.local_port


async def test_a_certificate_is_renewed_under_open_connections(nursery: trio.Nursery, authority: trustme.CA) -> None:
    def certificate_of(ws: Transaction) -> bytes | None:
        assert isinstance(ws.__connection__.transport, TlsTransport)
        return ws.__connection__.transport._tls.getpeercert(binary_form=True)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=context))
    before = await connect(nursery, server.url, ssl_context=trusting)
    shaking_hands = await trio.open_tcp_stream("127.0.0.1", server.port)

    authority.issue_cert("127.0.0.1").configure_cert(context)
    after = await connect(nursery, server.url, ssl_context=trusting)
    assert certificate_of(after) != certificate_of(before)
    late = await connect(nursery, server.url, ssl_context=trusting, stream=shaking_hands)
    for ws in (before, after, late):
        await ws.send("here")
        assert await ws.receive() == "here"
    assert len(server.connections) == 3


async def test_a_port_that_is_taken_is_an_oserror(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    with pytest.raises(OSError, match=rf"in use: '127\.0\.0\.1:{server.port}'$"):
        await serve(echo, server.port, host="127.0.0.1")
    with pytest.raises(OSError, match=rf"in use: '127\.0\.0\.1:{server.port}'$"):
        await serve(echo, server.port, host=b"127.0.0.1")
    taken = await nursery.start(serve, echo, 0)
    with pytest.raises(OSError, match=rf"in use: '\*:{taken.port}'$"):
        await serve(echo, taken.port)


async def test_a_host_that_is_none_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r": 'no such host\.invalid:0'$"):
        await serve(echo, 0, host="no such host.invalid")


@pytest.mark.parametrize(
    ("arguments", "raised", "message"),
    [
        ({"ssl_context": True}, TypeError, "ssl_context must be an ssl.SSLContext or None, not True"),
        (
            {"ssl_context": ssl.create_default_context()},
            ValueError,
            "ssl_context is one for clients (use ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))",
        ),
        ({"on_request": Response(200)}, TypeError, "on_request must be a function, not Response(200, "),
        ({"subprotocols": "chat"}, TypeError, "subprotocols must be a sequence of str, not 'chat'"),
        ({"subprotocols": ["a b"]}, ValueError, "a subprotocol must be a token (RFC 6455, section 4.1), not 'a b'"),
        ({"require_subprotocol": True}, ValueError, "require_subprotocol needs subprotocols to choose from, or an on_"),
        (
            {"require_subprotocol": 1, "subprotocols": ["a"]},
            TypeError,
            "require_subprotocol must be True or False, not 1",
        ),
        ({"max_queue": 0}, ValueError, "max_queue must be at least 1, not 0"),
        ({"max_websocket_size": 2**63}, ValueError, "max_websocket_size must be at most 4611686018427387904, not 0x80"),
        ({"timeout": 1}, TypeError, "unknown option 'timeout' (did you mean 'open_timeout'?)"),
        ({"ssl": True}, TypeError, "unknown option 'ssl' (did you mean 'ssl_context'?)"),
    ],
)
async def test_what_does_not_fit_raises_before_it_listens(
    arguments: dict[str, Any], raised: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listen(*_: Any, **__: Any) -> None:
        raise AssertionError("it listens")

    monkeypatch.setattr(trio, "open_tcp_listeners", listen)
    with pytest.raises(raised, match=re.escape(message)):
        await serve(echo, 0, **arguments)
    if "ssl_context" not in arguments:
        with pytest.raises(raised, match=re.escape(message)):
            await serve_listeners(echo, [MemoryListener()], **arguments)


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (
            "https://example.org/",
            "origins holds 'https://example.org/', which no browser sends (write 'https://example.org')",
        ),
        ("https://Example.org", "(write 'https://example.org')"),
        ("HTTPS://example.org", "(write 'https://example.org')"),
        ("https://example.org:443", "(write 'https://example.org')"),
        ("http://example.org:80", "(write 'http://example.org')"),
        ("http://example.org:443/chat?room#1", "(write 'http://example.org:443')"),
        ("https://ada:secret@example.org", "(write 'https://example.org')"),
        ("wss://example.org", "(write 'https://example.org')"),
        ("ws://localhost:8000", "(write 'http://localhost:8000')"),
        ("example.org", "(write 'https://example.org')"),
        ("localhost:3000", "(write 'https://localhost:3000')"),
        ("https://m\xfcnchen.example", "(write 'https://xn--mnchen-3ya.example')"),
        ("http://[0:0::1]:80", "(write 'http://[::1]')"),
        ("chrome-extension://abcdef/page", "(write 'chrome-extension://abcdef')"),
        ("*", "origins must not hold '*', which no browser sends (without origins, any is accepted)"),
        (
            "https://*.example.org",
            r"origins holds 'https://*.example.org', but has no wildcards (write re.compile(r'https://[^.]+\.example\.org'))",
        ),
        ("https://example.org:99999", "origins holds 'https://example.org:99999', which no browser sends: "),
        ("https://a b", "which no browser sends: "),
        ("", "origins holds '', which no browser sends: "),
    ],
)
async def test_an_origin_that_no_browser_sends_raises_before_it_listens(origin: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        await serve(echo, 0, origins=["https://example.org", origin])


@pytest.mark.parametrize(
    "origin",
    [
        *("https://example.org", "http://example.org:443", "http://localhost:3000", "http://127.0.0.1", "http://[::1]"),
        *("null", "file://", "chrome-extension://abcdef", "https://xn--mnchen-3ya.example", None),
    ],
)
async def test_an_origin_that_browsers_and_programs_send_is_accepted(start: Starter, origin: str | None) -> None:
    service = await start(echo, origins=[origin])
    assert (await service.connect(origin=origin)).established


@pytest.mark.parametrize(
    ("origins", "raised", "message"),
    [
        ("https://example.org", TypeError, "origins must be a sequence of str, patterns and None, not 'https://exam"),
        ([], ValueError, "origins must not be empty"),
        ([b"https://example.org"], TypeError, "origins must hold str, patterns of str and None, not b'https"),
        ([re.compile(b"https://.*")], TypeError, "origins must hold str, patterns of str and None, not re.compile"),
    ],
)
async def test_origins_are_a_sequence_of_what_can_be_compared(
    origins: Any, raised: type[Exception], message: str
) -> None:
    with pytest.raises(raised, match=re.escape(message)):
        await serve(echo, 0, origins=origins)


async def test_subprotocols_and_origins_may_come_from_iterators(start: Starter) -> None:
    service = await start(echo, subprotocols=iter(["v2", "v1"]), origins=iter(["https://example.org"]))
    for _ in range(2):
        ws = await service.connect(subprotocols=["v1"], origin="https://example.org")
        assert ws.protocol == "v1"


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_a_port_that_there_is_not_raises_before_it_listens(port: int) -> None:
    with pytest.raises(ValueError, match=f"^port must be 0 to 65535, not {port}$"):
        await serve(echo, port)


@pytest.mark.parametrize("port", ["8000", None, True, 80.0, echo])
async def test_a_port_is_an_int(port: Any) -> None:
    with pytest.raises(TypeError, match=r"^port must be an int, as in serve\(handler, 8000\), not "):
        await serve(echo, port)


@pytest.mark.parametrize("function", [serve, serve_listeners])
async def test_a_nursery_is_named(function: Callable[..., Any], nursery: trio.Nursery) -> None:
    name = function.__name__
    message = rf"^{name} is started in a nursery: write await nursery.start\({name}, handler, \w+\)$"
    for given in ([nursery, echo, 8000], [nursery, echo], [echo, 8000, nursery]):
        with pytest.raises(TypeError, match=message):
            await function(*given)


async def test_a_host_given_by_position_is_named() -> None:
    misplaced: Any = ["localhost", 8000]
    example = r'serve\(handler, 8000, host="localhost"\); not 8000$'
    with pytest.raises(TypeError, match=rf"^serve takes options by name, as in {example}"):
        await serve(echo, *misplaced)
    misplaced = [[MemoryListener()], "chat"]
    with pytest.raises(
        TypeError, match=r"^serve_listeners takes options by name, as in serve_listeners\(handler, .*'chat'"
    ):
        await serve_listeners(echo, *misplaced)


@pytest.mark.parametrize("listeners", [[], "", "/run/chat", 8000])
async def test_listeners_are_a_sequence_of_at_least_one(listeners: Any) -> None:
    with pytest.raises(ValueError, match=r"^listeners must be a sequence of at least one listener, not "):
        await serve_listeners(echo, listeners)


@pytest.mark.parametrize(
    ("listeners", "message"),
    [
        (MemoryListener(), r"^listeners must be a sequence of listeners, not one: write \[<.*\]$"),
        ([MemoryListener(), 8000], r"^listeners must hold only listeners, not \["),
        ([Path("/run/chat")], r"^listeners must hold only listeners, not \["),
    ],
)
async def test_what_is_no_listener_is_named(listeners: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        await serve_listeners(echo, listeners)


async def test_a_handler_that_was_called_is_named() -> None:
    given: Any = echo
    with pytest.raises(TypeError, match=r"^handler must be an async function, not a call of it: write echo in place"):
        await serve(given(None), 0)


@pytest.mark.parametrize("start_server", [lambda: serve(echo, 0), lambda: serve_listeners(echo, [MemoryListener()])])
def test_on_asyncio_it_says_how_to_run_the_program(start_server: Callable[[], Any]) -> None:
    async def main() -> None:
        await start_server()

    with pytest.raises(RuntimeError, match=r"start the program with trio\.run\(main\), not with asyncio\.run\(main"):
        asyncio.run(main())


# The request


async def test_frames_right_behind_the_request_are_delivered(start: Starter) -> None:
    frames = b"\x81\x82\0\0\0\0hi" + b"\x82\x81\0\0\0\0!" + b"\x88\x82\0\0\0\0\x03\xe8"
    received = []

    async def handler(ws: Transaction) -> None:
        received.extend([message async for message in ws])

    service = await start(handler)
    response = await service.ask(REQUEST + frames)
    assert status(response) == 101
    assert response.endswith(b"\r\n\r\n\x88\x02\x03\xe8")
    assert received == ["hi", b"!"]


async def test_frames_that_come_while_the_request_is_judged_are_delivered(start: Starter) -> None:
    judged = trio.Event()

    async def judge(_: Transaction) -> None:
        await judged.wait()

    service = await start(echo, on_request=judge)
    stream = service.dial()
    await stream.send_all(REQUEST)
    await stream.send_all(b"\x81\x82\0\0\0\0hi")
    await trio.testing.wait_all_tasks_blocked()
    judged.set()
    received = await read_head(stream)
    while not received.endswith(b"\x81\x02hi"):
        received += await stream.receive_some()


async def test_a_request_may_come_byte_by_byte(start: Starter) -> None:
    service = await start(echo)
    stream = service.dial()
    for index in range(len(REQUEST)):
        await stream.send_all(REQUEST[index : index + 1])
        await trio.testing.wait_all_tasks_blocked()
    assert status(await read_head(stream)) == 101


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(REQUEST[:-2] + b"X: " + b"a" * 70_000, 431, id="endless header bytes"),
        pytest.param(request("GET / HTTP/1.1", *["X: y"] * 129), 431, id="more than 128 headers"),
        pytest.param(b"GET /" + b"a" * 9_000, 414, id="endless request line"),
        pytest.param(REQUEST.replace(b"\r\nHost", b"\nHost"), 400, id="bare LF"),
        pytest.param(REQUEST.replace(b"Host: ", b"Host:\r\n "), 400, id="folded line"),
        pytest.param(request(host="a\0b"), 400, id="NUL"),
        pytest.param(request(content_length="5") + b"hello", 400, id="a body"),
        pytest.param(request(transfer_encoding="chunked") + b"0\r\n\r\n", 400, id="a chunked body"),
        pytest.param(request(host=None), 400, id="no Host"),
        pytest.param(request("GET / HTTP/1.1", "Host: other"), 400, id="two Hosts"),
        pytest.param(request(sec_websocket_key=None), 400, id="no key"),
        pytest.param(request("GET / HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"), 400, id="two keys"),
        pytest.param(request(sec_websocket_key="c2hvcnQ="), 400, id="a short key"),
        pytest.param(request(sec_websocket_key="!" * 24), 400, id="a key that is not base64"),
        pytest.param(request(sec_websocket_version="8"), 426, id="another version"),
        pytest.param(request("POST / HTTP/1.1"), 405, id="another method"),
        pytest.param(request("GET / HTTP/1.0"), 426, id="HTTP/1.0"),
        pytest.param(request(upgrade=None), 426, id="a plain GET"),
        pytest.param(request(connection="close"), 426, id="no Connection: Upgrade"),
        pytest.param(request(sec_websocket_protocol="a b"), 400, id="a subprotocol that is no token"),
        pytest.param(request(sec_websocket_extensions="a; b=;"), 400, id="a malformed extension"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01", 400, id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 426, id="HTTP/2"),
    ],
)
async def test_a_bad_request_gets_its_status_and_the_connection_ends(
    start: Starter, errors: Errors, data: bytes, expected: int
) -> None:
    service = await start(never, compression=True)
    response = await service.ask(data)
    assert status(response) == expected
    assert re.search(rb"(?i)\r\nConnection: close(, upgrade)?\r\n", response)
    assert re.search(rb"\r\nDate: [^\r]+ GMT\r\n", response)
    assert errors() == []  # It is the peer's mistake, not the server's.
    assert not service.server.connections


async def test_another_version_is_told_the_right_one(start: Starter) -> None:
    service = await start(never)
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in await service.ask(request(sec_websocket_version="8"))


@pytest.mark.parametrize(
    "header",
    [
        {"connection": "keep-alive, Upgrade" + "," * 8192},
        {"connection": " " * 8192 + "upgrade"},
        {"sec_websocket_extensions": ", " * 4096 + "x"},
        {"sec_websocket_extensions": "permessage-deflate; server_max_window_bits=7"},
        {"sec_websocket_extensions": "permessage-deflate; server_max_window_bits=16"},
        {"sec_websocket_extensions": "permessage-deflate; server_max_window_bits=abc"},
        {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits; client_max_window_bits"},
        {"x_odd": "a\x1cb\x85c"},
    ],
    ids=lambda header: next(iter(header.values()))[:70].strip(),
)
async def test_an_odd_request_is_accepted_without_extensions(start: Starter, header: dict[str, str]) -> None:
    service = await start(echo, compression=True)
    stream = service.dial()
    await stream.send_all(request(**header))
    response = await read_head(stream)
    assert status(response) == 101
    assert b"Extensions" not in response


async def test_the_bound_of_the_request_is_an_option(start: Starter) -> None:
    service = await start(never, max_header_bytes=100)
    assert status(await service.ask()) == 431


async def test_one_byte_a_second_is_dropped_at_the_open_timeout(
    start: Starter, autojump_clock: MockClock, errors: Errors
) -> None:
    service = await start(never, open_timeout=10)
    stream = service.dial()
    await trio.sleep(0.5)
    for byte in REQUEST[:10]:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(REQUEST[10:11])
    assert await read_to_end(stream) == b""
    assert errors() == []


@pytest.mark.parametrize(("open_timeout", "dropped_at"), [(7, 5), (3, 3)])
async def test_a_peer_that_says_nothing_is_dropped_before_the_open_timeout(
    start: Starter, autojump_clock: MockClock, open_timeout: float, dropped_at: float
) -> None:
    service = await start(never, open_timeout=open_timeout)
    assert await service.ask(b"") == b""
    assert trio.current_time() == dropped_at


async def test_a_peer_may_take_any_time_if_there_is_no_open_timeout(start: Starter, autojump_clock: MockClock) -> None:
    service = await start(echo, open_timeout=None)
    stream = service.dial()
    await trio.sleep(1000)
    await stream.send_all(REQUEST[:10])
    await trio.sleep(1000)
    await stream.send_all(REQUEST[10:])
    assert status(await read_head(stream)) == 101


async def test_tls_that_stalls_is_dropped_at_the_open_timeout(
    nursery: trio.Nursery, autojump_clock: MockClock, server_context: ssl.SSLContext, errors: Errors
) -> None:
    listener = MemoryListener()
    await nursery.start(partial(serve_listeners, never, [trio.SSLListener(listener, server_context)], open_timeout=7))
    assert await read_to_end(listener.connect()) == b""
    assert trio.current_time() == 7
    assert errors() == []


async def test_what_is_not_tls_on_a_tls_port_ends_that_connection_only(
    nursery: trio.Nursery, server_context: ssl.SSLContext, client_context: ssl.SSLContext, errors: Errors
) -> None:
    listener = MemoryListener()
    secure = trio.SSLListener(listener, server_context, https_compatible=True)
    await nursery.start(partial(serve_listeners, echo, [secure]))
    plain = listener.connect()
    await plain.send_all(REQUEST)
    assert b"HTTP" not in await read_to_end(plain)
    ws = await connect(nursery, "wss://test/", stream=listener.connect(), ssl_context=client_context)
    await ws.send("secret")
    assert await ws.receive() == "secret"
    assert errors() == []


async def test_the_open_timeout_is_over_once_the_connection_is_open(start: Starter, autojump_clock: MockClock) -> None:
    service = await start(echo, open_timeout=1)
    ws = await service.connect()
    await trio.sleep(100)
    await ws.send("still here")
    assert await ws.receive() == "still here"


@pytest.mark.parametrize("sent", [b"", b"GET", REQUEST[:-1]])
async def test_a_peer_that_leaves_in_the_handshake_is_no_error(start: Starter, errors: Errors, sent: bytes) -> None:
    service = await start(never)
    stream = service.dial()
    await stream.send_all(sent)
    await stream.send_eof()
    assert await read_to_end(stream) == b""
    assert errors() == []


@pytest.mark.parametrize("sent", [REQUEST, request("POST / HTTP/1.1")])
async def test_a_peer_that_leaves_before_the_answer_is_no_error(start: Starter, errors: Errors, sent: bytes) -> None:
    service = await start(never)
    stream = service.dial()
    await stream.send_all(sent)
    await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert errors() == []
    ws = await connect(
        service.nursery, "ws://test/", stream=service.dial(), open_timeout=5, additional_headers={"Host": "a"}
    )
    assert ws.established  # The server lives.


async def test_a_peer_that_resets_in_the_handshake_is_no_error(nursery: trio.Nursery, errors: Errors) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(b"GET")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    await stream.aclose()
    async with open_websocket(server.url) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"
    assert errors() == []


async def test_over_tcp_a_refusal_is_read_whole_though_the_peer_goes_on_sending(nursery: trio.Nursery) -> None:
    # A socket that is closed while it has unread data resets the connection, and takes the response along.
    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1"))
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(request("POST / HTTP/1.1"))
        for _ in range(16):
            await stream.send_all(b"x" * 65_536)
        await stream.send_eof()
        assert status(await read_to_end(stream)) == 405


# on_request


async def test_on_request_sees_the_request_and_lets_it_pass(start: Starter) -> None:
    seen: list[str] = []

    def look(ws: Transaction) -> None:
        assert not ws.established
        seen.append(ws.req.headers["X-Test"])

    service = await start(echo, on_request=look)
    ws = await service.connect(additional_headers={"X-Test": "yes"})
    await ws.send("in")
    assert await ws.receive() == "in"
    assert seen == ["yes"]


async def test_on_request_may_take_its_time(start: Starter, autojump_clock: MockClock) -> None:
    async def look(_: Transaction) -> None:
        await trio.sleep(3)

    service = await start(echo, on_request=look)
    await service.connect()
    assert trio.current_time() == 3


async def test_on_request_may_not_take_longer_than_the_open_timeout(start: Starter, autojump_clock: MockClock) -> None:
    async def look(_: Transaction) -> None:
        await trio.sleep_forever()

    service = await start(never, on_request=look, open_timeout=5)
    assert await service.ask() == b""
    assert trio.current_time() == 5


def refuse(_: Transaction) -> Response:
    return Response(401, {"WWW-Authenticate": "Basic"}, "who are you?")


async def refuse_later(_: Transaction) -> Response:
    await trio.lowlevel.checkpoint()
    return refuse(_)


@pytest.mark.parametrize("on_request", [refuse, refuse_later])
async def test_on_request_refuses_with_a_response(start: Starter, errors: Errors, on_request: Any) -> None:
    service = await start(never, on_request=on_request)
    with pytest.raises(HandshakeError) as raised:
        await service.connect()
    response = raised.value.response
    assert response is not None
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Basic"
    assert response.body == b"who are you?"
    assert errors() == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_on_request_may_answer_plain_http(start: Starter, errors: Errors, method: str, version: str) -> None:
    page = Response(203, {"Content-Type": "text/html", "X-Page": "1"}, b"<p>fine</p>", "Fair enough")
    service = await start(never, on_request=lambda _: page, origins=["https://example.org"])  # which HTTP does not send
    response = await service.ask(f"{method} /health HTTP/{version}\r\nHost: test\r\n\r\n".encode())
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 203 Fair enough\r\n")
    for header in (b"Content-Type: text/html", b"X-Page: 1", b"Content-Length: 11", b"Connection: close"):
        assert header in head.split(b"\r\n")
    assert body == (b"" if method == "HEAD" else b"<p>fine</p>")
    assert errors() == []


async def test_plain_http_that_nobody_answers_is_426(start: Starter) -> None:
    service = await start(never, origins=["https://example.org"])
    assert status(await service.ask(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")) == 426


async def test_a_page_of_any_size_is_read_whole(nursery: trio.Nursery) -> None:
    page = b"a" * 3_000_000
    server = await nursery.start(
        partial(serve, never, 0, host="127.0.0.1", on_request=lambda _: Response(200, body=page))
    )
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await read_to_end(stream)).endswith(b"\r\n\r\n" + page)


def fail(_: Transaction) -> None:
    raise KeyError("a bug")


async def fail_later(_: Transaction) -> None:
    await trio.lowlevel.checkpoint()
    raise KeyError("a bug")


def fail_with_an_answer_of_somebody_elses(_: Transaction) -> None:
    raise HandshakeError("from a server behind this one", Response(404, body="of no concern to the client"))


@pytest.mark.parametrize(
    ("on_request", "logged"),
    [
        (fail, KeyError),
        (fail_later, KeyError),
        (fail_with_an_answer_of_somebody_elses, HandshakeError),
        (lambda _: "nonsense", TypeError),
        (lambda _: 403, TypeError),
        (lambda _: Response(103), TypeError),
        (lambda _: Response(101, body="hello"), TypeError),
        (lambda _: Response(101, reason="Come In"), TypeError),
        (lambda _: Response(101, {"Sec-WebSocket-Protocol": "chat"}), ValueError),
        (lambda _: Response(101, {"upgrade": "websocket"}), ValueError),
        (lambda _: (yield), TypeError),
        (lambda ws: ws.with_compression("yes"), TypeError),
    ],
)
async def test_on_request_that_fails_is_500_and_logged(
    start: Starter, errors: Errors, on_request: Any, logged: type[Exception]
) -> None:
    service = await start(never, on_request=on_request)
    response = await service.ask()
    assert status(response) == 500
    assert response.endswith(b"\r\n\r\n")
    assert [type(error) for error in errors()] == [logged]
    assert status(await service.ask()) == 500  # The server lives.


async def test_on_request_chooses_a_subprotocol(start: Starter) -> None:
    def choose(ws: Transaction) -> None:
        assert ws.with_protocols("v3", "v1") == "v1"
        assert ws.protocol == "v1"

    service = await start(echo, on_request=choose, subprotocols=["v2"])
    ws = await service.connect(subprotocols=["v2", "v1"])
    assert ws.protocol == "v1"


async def test_on_request_may_find_no_subprotocol(start: Starter) -> None:
    service = await start(echo, on_request=lambda ws: ws.with_protocols("v3"))
    assert (await service.connect(subprotocols=["v2", "v1"])).protocol is None


async def test_on_request_turns_compression_on(start: Starter) -> None:
    service = await start(echo, on_request=lambda ws: ws.with_compression(Deflate(server_max_window_bits=9)))
    ws = await service.connect(compression=True)
    assert ws.compressed
    assert ws.res.headers["Sec-WebSocket-Extensions"] == "permessage-deflate; server_max_window_bits=9"
    assert not (await service.connect()).compressed  # It was not offered.


@pytest.mark.parametrize("call", [Transaction.with_compression, Transaction.with_protocols])
async def test_what_is_for_on_request_is_for_nothing_else(start: Starter, call: Any) -> None:
    service = await start(echo)
    ws = await service.connect()
    (connection,) = service.server.connections
    for side in (ws, connection):
        with pytest.raises(RuntimeError, match=r"only in a server.s on_request"):
            call(side)


# Subprotocols, origins, compression


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["v1", "v2"], "v2"), (["v1"], "v1"), (["v9"], None), ([], None), (["v2", "v9"], "v2")]
)
async def test_the_first_of_the_servers_subprotocols_is_taken_that_is_offered(
    start: Starter, offered: list[str], chosen: str | None
) -> None:
    service = await start(echo, subprotocols=["v2", "v1"])
    ws = await service.connect(subprotocols=offered)
    assert ws.protocol == chosen
    assert {connection.protocol for connection in service.server.connections} == {chosen}


@pytest.mark.parametrize(
    ("offered", "found"), [({}, "none"), ({"sec_websocket_protocol": "v9, secret"}, "others")], ids=["none", "others"]
)
async def test_a_client_without_a_subprotocol_in_common_is_refused_if_one_is_required(
    start: Starter, errors: Errors, offered: dict[str, str], found: str
) -> None:
    service = await start(never, subprotocols=["v2", "v1"], require_subprotocol=True)
    response = await service.ask(request(**offered))
    assert status(response) == 400
    assert response.endswith(f"\r\n\r\nexpected one of the subprotocols v2, v1, found {found}\n".encode())
    assert errors() == []


async def test_a_subprotocol_that_is_required_may_be_chosen_by_on_request(start: Starter) -> None:
    service = await start(echo, on_request=lambda ws: ws.with_protocols("v1") and None, require_subprotocol=True)
    assert (await service.connect(subprotocols=["v1"])).protocol == "v1"
    with pytest.raises(HandshakeError) as caught:
        await service.connect(subprotocols=["v2"])
    assert caught.value.response is not None
    assert caught.value.response.body == b"expected another subprotocol, found others\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(upgrade=None), 426),
        (request(sec_websocket_version="8"), 426),
        (request("POST / HTTP/1.1"), 405),
        (request(sec_websocket_key=None), 400),
    ],
)
async def test_what_is_no_opening_request_is_not_refused_for_its_subprotocol(
    start: Starter, data: bytes, expected: int
) -> None:
    service = await start(never, subprotocols=["v1"], require_subprotocol=True)
    response = await service.ask(data)
    assert status(response) == expected
    assert b"subprotocol" not in response


@pytest.mark.parametrize("origin", ["https://example.org", "https://a.example.net", None])
async def test_an_origin_that_is_listed_is_let_in(start: Starter, origin: str | None) -> None:
    origins = ["https://example.org", re.compile(r"https://\w+\.example\.net"), None]
    service = await start(echo, origins=origins)
    assert (await service.connect(origin=origin)).established


@pytest.mark.parametrize("origin", ["https://example.com", "http://example.org", "https://example.org.evil", None])
async def test_an_origin_that_is_not_listed_is_403(start: Starter, errors: Errors, origin: str | None) -> None:
    service = await start(never, origins=["https://example.org"], on_request=never)
    with pytest.raises(HandshakeError, match="expected status 101, found 403") as raised:
        await service.connect(origin=origin)
    assert raised.value.response is not None
    assert raised.value.response.status == 403
    assert errors() == []


@pytest.mark.parametrize(("ours", "theirs"), [(True, True), (True, False), (False, True), (False, False)])
async def test_compression_takes_both(start: Starter, ours: bool, theirs: bool) -> None:
    service = await start(echo, compression=ours)
    ws = await service.connect(compression=theirs)
    assert ws.compressed is (ours and theirs)
    await ws.send("again and again " * 100)
    assert await ws.receive() == "again and again " * 100


# How a handler ends


async def test_a_handler_that_returns_closes_with_1000(start: Starter, errors: Errors) -> None:
    async def handler(ws: Transaction) -> None:
        await ws.send("bye")

    service = await start(handler)
    ws = await service.connect()
    assert [message async for message in ws] == ["bye"]
    assert ws.closed == Close(1000, "")
    assert errors() == []
    await trio.testing.wait_all_tasks_blocked()
    assert not service.server.connections


async def test_a_handler_may_close_by_itself(start: Starter, errors: Errors) -> None:
    async def handler(ws: Transaction) -> None:
        await ws.finish(4000, "kaboom")

    service = await start(handler)
    ws = await service.connect()
    with pytest.raises(ConnectionClosed):
        await ws.receive()
    assert ws.closed == Close(4000, "kaboom")
    assert errors() == []


async def test_a_handler_that_raises_closes_with_1011_and_is_logged_and_the_others_live(
    start: Starter, errors: Errors
) -> None:
    async def handler(ws: Transaction) -> None:
        async for message in ws:
            if message == "fail":
                raise KeyError("a bug")
            await ws.send(message)

    service = await start(handler)
    failing, other = await service.connect(), await service.connect()
    await failing.send("fail")
    with pytest.raises(ConnectionClosed) as raised:
        await failing.receive()
    assert raised.value.close == Close(1011, "")  # What failed is nobody's business.
    assert [repr(error) for error in errors()] == ["KeyError('a bug')"]
    await other.send("still here")
    assert await other.receive() == "still here"
    assert len(service.server.connections) == 1


async def test_a_handler_whose_peer_does_not_answer_its_close_ends_at_the_close_timeout(
    start: Starter, autojump_clock: MockClock
) -> None:
    async def handler(_: Transaction) -> None:
        pass

    service = await start(handler, close_timeout=5)
    response = await service.ask()
    assert response.endswith(b"\x88\x02\x03\xe8")
    assert trio.current_time() == 5


@pytest.mark.parametrize("kind", ["alone", "in a group", "in a group of groups"])
async def test_a_connection_that_ends_under_its_handler_is_no_error(start: Starter, errors: Errors, kind: str) -> None:
    async def alone(ws: Transaction) -> None:
        while True:
            await ws.receive()

    async def in_a_group(ws: Transaction) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alone, ws)

    async def in_a_group_of_groups(ws: Transaction) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_a_group, ws)

    handlers = {"alone": alone, "in a group": in_a_group, "in a group of groups": in_a_group_of_groups}
    service = await start(handlers[kind])
    for close in ((1000,), (4000, "no reason"), None):
        ws = await service.connect()
        if close is None:
            ws.__connection__.end()
        else:
            await ws.finish(*close)
        await trio.testing.wait_all_tasks_blocked()
    assert errors() == []
    assert not service.server.connections


@pytest.mark.parametrize(
    "exception",
    [
        trio.EndOfChannel(),
        trio.ClosedResourceError(),
        ConnectionClosed(Close(1006, "")),
        ExceptionGroup("", [trio.EndOfChannel(), KeyError()]),
    ],
    ids=repr,
)
async def test_an_end_of_something_else_is_an_error_of_the_handlers(
    start: Starter, errors: Errors, exception: Exception
) -> None:
    async def handler(_: Transaction) -> None:
        raise exception

    service = await start(handler)
    ws = await service.connect()
    with pytest.raises(ConnectionClosed, match="1011"):
        await ws.receive()
    assert errors() == [exception]


async def test_a_bug_that_the_end_of_the_connection_brings_out_is_an_error(start: Starter, errors: Errors) -> None:
    failure = ExceptionGroup("", [ConnectionClosed(Close(1006, "")), KeyError("a bug")])

    async def handler(ws: Transaction) -> None:
        async for _ in ws:
            pass
        raise failure

    service = await start(handler)
    await (await service.connect()).finish(1000)
    await trio.testing.wait_all_tasks_blocked()
    assert errors() == [failure]


async def test_a_handlers_interrupt_is_not_swallowed() -> None:
    async def handler(_: Transaction) -> None:
        raise SystemExit(3)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            listener = MemoryListener()
            server = await nursery.start(serve_listeners, handler, [listener])
            await Service(server, listener, nursery).connect()
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        await run()
    assert raised.group_contains(SystemExit)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_callback_that_raises_closes_that_connection_only_with_1011(
    start: Starter, errors: Errors, kind: str
) -> None:
    def fail_now(_: Transaction, data: bytes) -> None:
        if data == b"fail":
            raise KeyError("a bug")

    async def fail_soon(ws: Transaction, data: bytes) -> None:
        fail_now(ws, data)

    ended: list[Close | None] = []

    async def handler(ws: Transaction) -> None:
        ws.on("text", fail_now if kind == "sync" else fail_soon)
        try:
            await trio.sleep_forever()
        finally:
            ended.append(ws.closed)

    service = await start(handler)
    failing, other = await service.connect(), await service.connect()
    await failing.send("fail")
    with pytest.raises(ConnectionClosed, match="1011"):
        await failing.receive()
    assert [repr(error) for error in errors()] == ["KeyError('a bug')"]
    assert len(ended) == 1  # The handler was cancelled.
    await other.send("no failure")
    await other.ping()
    assert len(service.server.connections) == 1


async def test_a_finish_callback_that_raises_is_logged_and_the_server_lives(start: Starter, errors: Errors) -> None:
    def fail_at_the_end(*_: Any) -> None:
        raise KeyError("a bug")

    async def handler(ws: Transaction) -> None:
        ws.on("finish", fail_at_the_end)
        await echo(ws)

    service = await start(handler)
    assert (await (await service.connect()).finish(1000)).code == 1000
    await trio.testing.wait_all_tasks_blocked()
    assert [repr(error) for error in errors()] == ["KeyError('a bug')"]
    assert (await service.connect()).established


# Shutting down


async def test_aclose_sends_1001_to_the_open_and_waits_for_them(start: Starter, errors: Errors) -> None:
    ended: list[str] = []

    async def handler(ws: Transaction) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
        ended.append(ws.connection)

    service = await start(handler)
    connections = [await service.connect() for _ in range(3)]
    for ws in connections:
        service.nursery.start_soon(drain, ws)
    await service.server.aclose()
    assert len(ended) == 3
    assert not service.server.connections
    for ws in connections:
        assert ws.closed == Close(1001, "the server is shutting down")
    assert errors() == []


async def drain(ws: Transaction) -> None:
    async for _ in ws:
        pass


async def drain_to_any_end(ws: Transaction) -> None:
    with suppress(ConnectionClosed):
        await drain(ws)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHo", REQUEST], ids=["nothing", "a part", "all"])
async def test_aclose_answers_503_to_those_in_the_handshake(start: Starter, errors: Errors, sent: bytes) -> None:
    async def judge(_: Transaction) -> None:
        await trio.sleep_forever()

    service = await start(never, on_request=judge)
    stream = service.dial()
    await stream.send_all(sent)
    await trio.testing.wait_all_tasks_blocked()
    service.nursery.start_soon(service.server.aclose)
    assert status(await read_to_end(stream)) == 503
    assert errors() == []


async def test_aclose_answers_503_over_tcp_too(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1"))
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(REQUEST[:20])
        while not server._service.sessions:
            await trio.testing.wait_all_tasks_blocked(0.001)
        nursery.start_soon(server.aclose)
        response = await read_head(stream)
        await stream.send_all(REQUEST[20:])  # No reset takes the response along.
        await stream.send_eof()
        assert status(response + await read_to_end(stream)) == 503


async def test_aclose_answers_503_to_one_that_was_accepted_at_the_last_moment(
    nursery: trio.Nursery, errors: Errors
) -> None:
    class Late(MemoryListener):
        shield = True

        async def accept(self) -> trio.abc.Stream:
            with trio.CancelScope(shield=self.shield):
                self.shield = False
                return await super().accept()

    listener = Late()
    server = await nursery.start(serve_listeners, never, [listener])
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as inner:
        inner.start_soon(server.aclose)
        await trio.testing.wait_all_tasks_blocked()
        stream = listener.connect()
        await stream.send_all(REQUEST)
        assert status(await read_to_end(stream)) == 503
    assert errors() == []


async def test_aclose_closes_with_1001_one_whose_response_is_on_its_way(nursery: trio.Nursery) -> None:
    listener = MemoryListener()
    server = await nursery.start(serve_listeners, never, [listener])
    stream, theirs = trio.testing.lockstep_stream_pair()  # What is sent has to be received.
    listener.offer(theirs)
    await stream.send_all(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(server.aclose)
    await trio.testing.wait_all_tasks_blocked()
    received = await read_head(stream)
    await stream.send_all(b"\x88\x82\0\0\0\0\x03\xe9")
    received += await read_to_end(stream)
    assert status(received) == 101
    assert received.endswith(b"\r\n\r\n\x88\x1d\x03\xe9the server is shutting down")


async def test_aclose_lets_a_refusal_go_out_that_is_on_its_way(nursery: trio.Nursery) -> None:
    listener = MemoryListener()
    server = await nursery.start(serve_listeners, never, [listener])
    stream, theirs = trio.testing.lockstep_stream_pair()
    listener.offer(theirs)
    await stream.send_all(request("POST / HTTP/1.1"))
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(server.aclose)
    await trio.testing.wait_all_tasks_blocked()
    received = await read_to_end(stream)
    assert status(received) == 405
    assert received.count(b"HTTP") == 1


async def test_a_peer_that_does_not_read_its_101_is_dropped_at_the_open_timeout(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    listener = MemoryListener()
    await nursery.start(partial(serve_listeners, never, [listener], open_timeout=5))
    stream, theirs = trio.testing.lockstep_stream_pair()
    listener.offer(theirs)
    await stream.send_all(REQUEST)
    await trio.sleep(5.5)
    received = await read_to_end(stream)
    assert received.endswith(b"\r\n\r\n")  # And no frame behind a response that was given up.


async def test_aclose_does_not_answer_who_cannot_be_answered(
    nursery: trio.Nursery, server_context: ssl.SSLContext, errors: Errors
) -> None:
    listener = MemoryListener()
    server = await nursery.start(serve_listeners, never, [trio.SSLListener(listener, server_context)])
    in_tls = listener.connect()
    await trio.testing.wait_all_tasks_blocked()
    await server.aclose()
    assert await read_to_end(in_tls) == b""
    assert errors() == []


async def test_aclose_is_bounded_though_a_peer_in_the_handshake_does_not_read(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    listener = MemoryListener()
    server = await nursery.start(partial(serve_listeners, never, [listener], close_timeout=5))
    ours, theirs = trio.testing.lockstep_stream_pair()  # What is sent has to be received.
    listener.offer(theirs)
    await trio.testing.wait_all_tasks_blocked()
    await server.aclose()
    assert trio.current_time() == 5
    assert (await read_to_end(ours)).startswith(b"HTTP/1.1 503 ")  # It lay there, and then the stream ended.


async def test_aclose_is_bounded_though_a_handler_ignores_it(start: Starter, autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def handler(_: Transaction) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    service = await start(handler, close_timeout=5)
    ws = await service.connect()
    service.nursery.start_soon(drain, ws)
    await service.server.aclose()
    assert ended == [5]
    assert trio.current_time() == 5


async def test_aclose_is_bounded_though_a_peer_never_answers(start: Starter, autojump_clock: MockClock) -> None:
    service = await start(echo, close_timeout=5)
    stream = service.dial()
    await stream.send_all(REQUEST)
    received = await read_head(stream)
    await service.server.aclose()
    assert trio.current_time() == 5
    received += await read_to_end(stream)
    assert received.endswith(b"\x88\x1d\x03\xe9the server is shutting down")


async def test_aclose_is_as_quick_as_the_peers(start: Starter, autojump_clock: MockClock) -> None:
    service = await start(echo)
    ws = await service.connect()
    service.nursery.start_soon(drain, ws)
    await service.server.aclose()
    assert trio.current_time() < 0.5  # The client looks up from its own business within its grace of 0.1 s.


async def test_aclose_cancelled_cancels_the_handlers_at_once(start: Starter, autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def handler(_: Transaction) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    service = await start(handler, close_timeout=100)
    stream = service.dial()
    await stream.send_all(REQUEST)
    await read_head(stream)
    with trio.move_on_after(2) as scope:
        await service.server.aclose()
    assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()
    assert ended == [2]


async def test_aclose_closes_with_a_code_and_reason_of_ones_own(start: Starter) -> None:
    service = await start(echo)
    ws = await service.connect()
    service.nursery.start_soon(drain_to_any_end, ws)
    await service.server.aclose(1012, "back in a minute")
    assert ws.closed == Close(1012, "back in a minute")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1001, "x" * 124)])
async def test_aclose_with_what_may_not_be_sent_stops_nothing(start: Starter, code: int, reason: str) -> None:
    service = await start(echo)
    with pytest.raises(ValueError, match=r"\d"):
        await service.server.aclose(code, reason)
    assert (await service.connect()).established


@pytest.mark.parametrize("grace", [1, 60])
async def test_aclose_gives_the_handlers_a_grace(start: Starter, autojump_clock: MockClock, grace: float) -> None:
    ended: list[float] = []

    async def handler(ws: Transaction) -> None:
        try:
            await drain(ws)
        except trio.ClosedResourceError:
            await trio.sleep(30)  # It puts away what it has.
        finally:
            ended.append(trio.current_time())

    service = await start(handler, close_timeout=10)
    ws = await service.connect()
    service.nursery.start_soon(drain, ws)
    await service.server.aclose(grace=grace)
    assert ended == [pytest.approx(min(grace, 30), abs=0.5)]


async def test_aclose_may_be_called_twice_and_by_two(start: Starter) -> None:
    service = await start(echo)
    ws = await service.connect()
    service.nursery.start_soon(drain, ws)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.server.aclose)
        nursery.start_soon(service.server.aclose)
    await service.server.aclose()
    assert not service.server.connections


async def test_aclose_by_aclosing_ends_serve_and_closes_the_listeners() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
        async with aclosing(server):
            pass
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
    # And the nursery ends by itself, for serve() has returned.


async def test_aclose_waits_until_the_listeners_are_closed(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    class Slow(MemoryListener):
        async def aclose(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            await super().aclose()

    server = await nursery.start(serve_listeners, echo, [Slow()])
    await server.aclose()
    assert trio.current_time() == 3


async def test_aclose_is_a_checkpoint(start: Starter) -> None:
    service = await start(echo)
    with trio.testing.assert_checkpoints():
        await service.server.aclose()
    with trio.testing.assert_checkpoints():
        await service.server.aclose()


# Cancelling


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_cancelling_the_nursery_closes_all_at_once(
    secure: bool, autojump_clock: MockClock, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    listener = MemoryListener()
    listeners: list[Any] = [trio.SSLListener(listener, server_context) if secure else listener]
    ended: list[str] = []

    async def handler(ws: Transaction) -> None:
        try:
            await echo(ws)
        finally:
            ended.append(ws.connection)

    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, handler, listeners)
            in_handshake = listener.connect()
            connections = [
                await connect(
                    clients,
                    "wss://test/" if secure else "ws://test/",
                    stream=listener.connect(),
                    ssl_context=client_context if secure else None,
                )
                for _ in range(3)
            ]
            served = server.connections
            assert len(served) == 3
            nursery.cancel_scope.cancel()
        assert len(ended) == 3
        assert all(ws.is_finished for ws in served)
        assert not server.connections
        for ws in connections:
            with pytest.raises(ConnectionClosed, match="1006"):
                await ws.receive()
        assert await read_to_end(in_handshake) == b""
    assert trio.current_time() == 0


async def test_cancelling_closes_sockets_at_once() -> None:
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
            connections = [await connect(clients, server.url) for _ in range(3)]
            nursery.cancel_scope.cancel()
        for ws in connections:
            with pytest.raises(ConnectionClosed, match="1006"):
                await ws.receive()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_handlers_run_in_a_nursery_of_ones_own() -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as handlers:
        async with trio.open_nursery() as accepting:
            server = await accepting.start(partial(serve_listeners, echo, [listener], handler_nursery=handlers))
            service = Service(server, listener, handlers)
            ws = await service.connect()
            accepting.cancel_scope.cancel()
        # Nobody is accepted any more; who is there stays.
        await ws.send("still here")
        assert await ws.receive() == "still here"
        await ws.finish(1000)
    # And the nursery ends by itself: the housekeeper has gone with the last of them.
    assert not server.connections


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_nursery_that_is_closed_is_refused_and_the_listeners_are_closed(cancelled: bool) -> None:
    listeners = [listener for _ in range(2) for listener in await trio.open_tcp_listeners(0, host="127.0.0.1")]
    async with trio.open_nursery() as handlers:
        pass
    with trio.CancelScope() as scope:
        if cancelled:
            scope.cancel()
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="Nursery is closed")):
            await serve_listeners(echo, listeners, handler_nursery=handlers)
    assert [listener.socket.fileno() for listener in listeners] == [-1] * len(listeners)


# Nothing is left behind


async def test_many_connections_leave_nothing_behind(
    nursery: trio.Nursery, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async def handler(ws: Transaction) -> None:
        async for message in ws:
            if message == "fail":
                raise KeyError
            await ws.send(message)

    there_already = count_transactions()  # in the tracebacks of what other tests have raised
    async with trio.open_nursery() as handlers:
        servers = [
            await nursery.start(
                partial(serve, handler, 0, host="127.0.0.1", ssl_context=context, handler_nursery=handlers)
            )
            for context in (None, server_context)
        ]

        async def one(number: int) -> None:
            server = servers[number % 2]
            context = client_context if number % 2 else None
            how = number // 2 % 6
            if how == 0:  # a request that is refused
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(request("POST / HTTP/1.1"))
                await stream.send_eof()
                await read_to_end_of_anything(stream)
                await stream.aclose()
            elif how == 1:  # one that leaves at once
                await (await trio.open_tcp_stream("127.0.0.1", server.port)).aclose()
            elif how == 2:  # one whose handler fails
                async with open_websocket(server.url, ssl_context=context) as ws:
                    await ws.send("fail")
                    with pytest.raises(ConnectionClosed):
                        await ws.receive()
            elif how == 3:  # one that is cancelled
                async with trio.open_nursery() as inner:
                    ws = await connect(inner, server.url, ssl_context=context)
                    await ws.send("hello")
                    inner.cancel_scope.cancel()
            elif how == 4:  # one that breaks a rule
                async with open_websocket(server.url, ssl_context=context) as ws:
                    await ws.send(frame=[1, 1, 1, 1, 15, b""])
            else:
                async with open_websocket(server.url, ssl_context=context) as ws:
                    await ws.send("hello")
                    assert await ws.receive() == "hello"

        async def many(count: int) -> tuple[int, int]:
            async with trio.open_nursery() as inner:
                for number in range(count):
                    inner.start_soon(one, number)
            with trio.fail_after(5):
                while len(handlers.child_tasks) > len(servers):
                    await trio.testing.wait_all_tasks_blocked(0.001)
            return open_descriptors(), trio.lowlevel.current_statistics().tasks_living

        logging.getLogger("trio_pyjo_ws").addFilter(silent)
        try:
            before = await many(12)
            assert await many(120) == before
        finally:
            logging.getLogger("trio_pyjo_ws").removeFilter(silent)
        for server in servers:
            assert not server.connections
            assert not server._service.sessions
            assert server._handshakes.housekeeper.deadlines == 0
        assert count_transactions() < there_already + 20
        for server in servers:
            await server.aclose()


def count_transactions() -> int:
    gc.collect()
    return sum(isinstance(thing, Transaction) for thing in gc.get_objects())


async def read_to_end_of_anything(stream: trio.abc.ReceiveStream) -> None:
    """A TLS server may reset what is no TLS."""
    try:
        await read_to_end(stream)
    except trio.BrokenResourceError:
        return


def open_descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


def silent(_: logging.LogRecord) -> bool:
    return False


async def test_a_flood_of_connections_is_served_each(start: Starter) -> None:
    service = await start(echo)
    async with trio.open_nursery() as nursery:
        flood = service._replace(nursery=nursery)
        connections = [await flood.connect() for _ in range(200)]
        assert len(service.server.connections) == 200
        for number, ws in enumerate(connections):
            await ws.send(str(number))
        for number, ws in enumerate(connections):
            assert await ws.receive() == str(number)
        nursery.cancel_scope.cancel()
