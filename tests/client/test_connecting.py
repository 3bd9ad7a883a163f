"""The client: from a URL to a transaction, and what can go wrong on the way."""

from __future__ import annotations

import socket
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_pyjo_ws import Close, ConnectionClosed, Deflate, HandshakeError, Transaction, connect, open_websocket
from trio_pyjo_ws.handshake.negotiate import accept_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    Script = Callable[["Peer"], Awaitable[object]]

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

CLOSE = b"\x88\x02\x03\xe8"
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class Peer:
    """The server's end of a stream, played by a test."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.request = b""

    async def read_request(self) -> dict[str, str]:
        """The headers of the request, by their names in lower case."""
        while b"\r\n\r\n" not in self.request:
            self.request += await self.stream.receive_some()
        lines = self.request.decode().split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def accept(self, headers: bytes = b"", behind: bytes = b"") -> dict[str, str]:
        """Open the connection, with more headers and with frames right behind."""
        request = await self.read_request()
        accept = accept_value(request["sec-websocket-key"]).encode()
        await self.stream.send_all(UPGRADE + b"Sec-WebSocket-Accept: " + accept + b"\r\n" + headers + b"\r\n" + behind)
        return request

    async def answer(self, response: bytes) -> None:
        await self.read_request()
        await self.stream.send_all(response)

    async def serve(self) -> None:
        """Accept, then answer the Close that comes."""
        await self.accept()
        await self.close()

    async def close(self) -> None:
        while await self.stream.receive_some():
            await self.stream.send_all(CLOSE)
            await self.stream.aclose()
            return

    async def wait_end(self) -> bytes:
        """What the client still sends, up to the end of its stream."""
        return b"".join([bytes(data) async for data in self.stream])


@pytest.fixture
def streams() -> tuple[trio.abc.Stream, Peer]:
    """The client's end of a stream in memory, and the peer on the other."""
    ours, theirs = trio.testing.memory_stream_pair()
    return ours, Peer(theirs)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certified(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def refused_by(script: Script, **options: Any) -> HandshakeError:
    """The error of an opening handshake whose other side follows ``script``; the stream must be closed in the end."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, Peer(theirs))
        with pytest.raises(HandshakeError) as raised:
            await connect(nursery, "ws://test", stream=ours, **options)
        assert await is_closed(ours)
        nursery.cancel_scope.cancel()
    return raised.value


async def is_closed(stream: Any) -> bool:
    """Whether this end of a stream has been closed by who it belongs to."""
    try:
        await stream.send_all(b"x")
    except trio.ClosedResourceError:
        return True
    return False


# Connecting


async def test_connect_gives_an_open_transaction_that_lives_in_the_nursery(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(partial(peer.accept, behind=b"\x81\x05hello"))
    ws = await connect(nursery, "ws://example.org/chat?a=b", stream=ours)
    assert isinstance(ws, Transaction)
    assert ws.established
    assert await ws.receive() == "hello"  # It came right behind the handshake.
    assert peer.request.startswith(b"GET /chat?a=b HTTP/1.1\r\nHost: example.org\r\n")


async def test_the_nursery_waits_for_the_connection_and_ends_with_it(
    streams: tuple[trio.abc.Stream, Peer],
) -> None:
    ours, peer = streams
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve)
        ws = await connect(nursery, "ws://example.org", stream=ours)
        nursery.start_soon(ws.aclose)
    assert ws.is_finished
    assert ws.closed == Close(1000, "")


async def test_over_tcp_and_by_name(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peers: list[Peer] = []

    async def serve_one(listener: trio.SocketListener) -> None:
        async with listener:
            peers.append(Peer(await listener.accept()))
            await peers[0].serve()

    port = listeners[0].socket.getsockname()[1]
    nursery.start_soon(serve_one, listeners[0])
    async with open_websocket(f"ws://localhost:{port}/") as ws:
        assert (ws.remote_address, ws.remote_port) == ("127.0.0.1", port)
        assert repr(ws) == f"<Transaction {ws.connection} open 127.0.0.1:{port}>"
    assert f"\r\nHost: localhost:{port}\r\n".encode() in peers[0].request


async def test_the_request_carries_what_it_is_given(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    ws = await connect(
        nursery,
        "ws://user:secret@example.org:8080/",
        stream=ours,
        additional_headers=[("X-A", "1"), ("Cookie", "a=b")],
        subprotocols=["v2", "v1"],
        origin="https://example.org",
        compression=Deflate(client_max_window_bits=10),
    )
    sent = await peer.read_request()
    assert sent["host"] == "example.org:8080"
    assert sent["x-a"] == "1"
    assert sent["cookie"] == "a=b"
    assert sent["authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert sent["sec-websocket-protocol"] == "v2, v1"
    assert sent["origin"] == "https://example.org"
    assert sent["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits=10"
    assert ws.protocol is None
    assert not ws.compressed  # It was offered, and not taken.


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, "trio_pyjo_ws"),
        ({"user_agent": "me/1.0"}, "me/1.0"),
        ({"user_agent": None}, None),
        ({"additional_headers": {"User-Agent": "me/2.0"}}, "me/2.0"),
    ],
)
async def test_the_user_agent_can_be_another_or_none(
    options: dict[str, Any], sent: str | None, nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    await connect(nursery, "ws://test", stream=ours, **options)
    assert (await peer.read_request()).get("user-agent") == sent


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("ws://ada@test", "Basic YWRhOg=="),
        ("ws://ada:@test", "Basic YWRhOg=="),
        ("ws://a%40b:p%3Ass%20w@test", "Basic YUBiOnA6c3Mgdw=="),
        ("ws://gr%C3%BCn:gr%C3%BCn@test", "Basic Z3LDvG46Z3LDvG4="),
        ("ws://@test", None),
    ],
)
async def test_user_and_password_of_the_url_are_sent_as_basic(
    url: str, sent: str | None, nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    await connect(nursery, url, stream=ours)
    assert (await peer.read_request()).get("authorization") == sent


async def test_an_authorization_that_is_given_comes_before_that_of_the_url(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    await connect(nursery, "ws://ada:b@test", stream=ours, additional_headers={"authorization": "Bearer c"})
    assert (await peer.read_request())["authorization"] == "Bearer c"
    assert peer.request.lower().count(b"authorization") == 1


async def test_what_the_server_agrees_to_is_agreed(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept, b"Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n")
    ws = await connect(nursery, "ws://test", stream=ours, subprotocols=["v2", "v1"], compression=True)
    assert ws.protocol == "v1"
    assert ws.compressed
    assert ws.res.status == 101


async def test_a_subprotocol_may_be_required(nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept, b"Sec-WebSocket-Protocol: v1\r\n")
    ws = await connect(nursery, "ws://test", stream=ours, subprotocols=["v2", "v1"], require_subprotocol=True)
    assert ws.protocol == "v1"
    error, _ = await refused(Peer.accept, subprotocols=["v2", "v1"], require_subprotocol=True)
    assert str(error) == "ws://test/: expected one of the offered subprotocols, found none"
    assert error.response is not None
    assert error.response.status == 101


async def test_the_options_reach_the_transaction(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    ws = await connect(nursery, "ws://test", stream=ours, max_websocket_size=10)
    assert ws.max_websocket_size == 10


async def test_the_environment_bounds_a_message(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", "5")
    ours, peer = streams
    nursery.start_soon(partial(peer.accept, behind=b"\x81\x0512345" + b"\x81\x06123456"))
    ws = await connect(nursery, "ws://test", stream=ours)
    assert ws.max_websocket_size == 5
    assert await ws.receive() == "12345"
    with pytest.raises(ConnectionClosed, match="1009"):
        await ws.receive()


# What cannot be meant


BAD = [
    ({"url": "http://test"}, ValueError, r"unsupported URL scheme 'http' \(expected 'ws' or 'wss'\)"),
    ({"url": "wsss://test"}, ValueError, "unsupported URL scheme 'wsss'"),
    ({"url": "ws://"}, ValueError, "invalid host '' in URL"),
    ({"url": "ws://test:0/"}, ValueError, "invalid port '0' in URL"),
    ({"url": "ws://test/#part"}, ValueError, "URL must not have a fragment"),
    ({"url": "ws://test/\r\nX: y"}, ValueError, r"invalid URL: '\\r' at position 10"),
    ({"additional_headers": {"X": "a\r\nY: b"}}, ValueError, "X"),
    ({"additional_headers": {"X": "a\0"}}, ValueError, "X"),
    ({"additional_headers": {"a b": "c"}}, ValueError, "header name must be a token .*, not 'a b'"),
    ({"additional_headers": {"Upgrade": "h2c"}}, ValueError, "header Upgrade is set by the handshake"),
    ({"subprotocols": "chat"}, TypeError, "subprotocols must be a sequence of str, not 'chat'"),
    ({"subprotocols": ["a\nb"]}, ValueError, "subprotocol 1 of 1 must be a token"),
    ({"require_subprotocol": True}, ValueError, "require_subprotocol needs subprotocols to offer"),
    ({"require_subprotocol": 1}, TypeError, "require_subprotocol must be True or False, not 1"),
    ({"origin": "a\nb"}, ValueError, "Origin"),
    (
        {"url": "wss://test", "ssl_context": True},
        TypeError,
        r"ssl_context must be an ssl\.SSLContext or None, not True",
    ),
    (
        {"url": "wss://test", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)},
        ValueError,
        "ssl_context is one for servers",
    ),
    ({"url": "wss://test", "server_hostname": b"a"}, TypeError, "server_hostname must be a str or None, not b'a'"),
    ({"user_agent": "a\nb"}, ValueError, "User-Agent"),
    ({"proxy": "gopher://p"}, ValueError, "proxy: unsupported URL scheme 'gopher'"),
    ({"proxy": False}, TypeError, "proxy must be a URL, True or None, not False"),
    ({"unix": 1}, TypeError, "int"),
    ({"unix": "a", "proxy": "http://p"}, ValueError, "unix and proxy cannot both lead to the server: give one"),
    ({"unix": "a", "local_address": "::1"}, ValueError, "unix and local_address cannot both lead to the server"),
    ({"local_address": 1}, TypeError, "local_address must be a str or None, not 1"),
    ({"max_redirects": -1}, ValueError, "max_redirects must be at least 0, not -1"),
    ({"max_redirects": False}, TypeError, "max_redirects must be an int, not False"),
    ({"max_queue": 0}, ValueError, "max_queue must be at least 1, not 0"),
    ({"open_timeout": -1}, ValueError, "open_timeout must be a positive number of seconds or None, not -1"),
    ({"timeout": 1}, TypeError, "unknown option 'timeout'"),
    ({"compression": 15}, TypeError, "compression must be True, False or a Deflate, not 15"),
]


@pytest.mark.parametrize(("arguments", "raised", "message"), BAD, ids=[message for _, _, message in BAD])
async def test_what_does_not_fit_raises_before_any_input_or_output(
    arguments: dict[str, Any],
    raised: type[Exception],
    message: str,
    nursery: trio.Nursery,
    streams: tuple[trio.abc.Stream, Peer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def dial(*_: Any, **__: Any) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    url = arguments.pop("url", "ws://test")
    with pytest.raises(raised, match=message):
        await connect(nursery, url, **arguments)
    with pytest.raises(raised, match=message):
        await open_websocket(url, **arguments).__aenter__()
    ours, _ = streams
    with pytest.raises(raised, match=message):
        await connect(nursery, url, stream=ours, **arguments)
    assert not await is_closed(ours)  # It has not been taken over.


@pytest.mark.parametrize("option", [{"unix": "a"}, {"proxy": "http://p"}, {"local_address": "::1"}])
async def test_a_stream_is_the_way_to_the_server(
    option: dict[str, Any], nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, _ = streams
    with pytest.raises(ValueError, match=f"{next(iter(option))} and stream cannot both lead to the server"):
        await connect(nursery, "ws://test", stream=ours, **option)
    assert not await is_closed(ours)


async def test_an_environment_that_is_no_number_raises_too(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", "much")
    with pytest.raises(ValueError, match="PYJO_MAX_WEBSOCKET_SIZE"):
        await connect(nursery, "ws://test")


# The opening handshake that fails


async def refused(script: Script, **arguments: Any) -> tuple[HandshakeError, Peer]:
    """The error of an opening handshake whose other side follows ``script``; the stream must be closed in the end."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        with pytest.raises(HandshakeError) as raised:
            await connect(nursery, "ws://test", stream=ours, **arguments)
        assert await is_closed(ours)
        nursery.cancel_scope.cancel()
    return raised.value, peer


async def test_a_refusal_is_kept_with_its_text() -> None:
    error, _ = await refused(
        lambda peer: peer.answer(
            b"HTTP/1.1 403 Not today\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\nCome back later."
        )
    )
    assert str(error) == "ws://test/: expected status 101, found 403 Not today"
    assert error.response is not None
    assert error.response.status == 403
    assert error.response.reason == "Not today"
    assert error.response.headers["Content-Type"] == "text/plain"
    assert error.response.body == b"Come back later."


async def test_a_refusal_whose_body_ends_with_the_stream_is_kept() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 404 Not Found\r\n\r\nnothing")
        await peer.stream.send_all(b" here")
        await peer.stream.aclose()

    error, _ = await refused(script)
    assert error.response is not None
    assert error.response.status == 404
    assert error.response.body == b"nothing here"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (UPGRADE + b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", "expected Sec-WebSocket-Accept '"),
        (UPGRADE + b"\r\n", "expected Sec-WebSocket-Accept '"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", "expected Upgrade: websocket"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", "malformed response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 101 OK\nUpgrade: websocket\n\n", "malformed response"),
    ],
)
async def test_a_response_that_is_wrong_is_named(response: bytes, message: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(response)
        await peer.stream.send_eof()  # type: ignore[attr-defined]

    error, _ = await refused(script)
    assert str(error).startswith(f"ws://test/: {message}")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"Sec-WebSocket-Protocol: v9\r\n", "expected one of the offered subprotocols, found another"),
        (b"Sec-WebSocket-Extensions: permessage-deflate\r\n", "expected no extension, because none was offered"),
    ],
)
async def test_what_was_not_offered_is_not_taken(header: bytes, message: str) -> None:
    error, _ = await refused(lambda peer: peer.accept(header), subprotocols=["v1"])
    assert message in str(error)
    assert error.response is not None
    assert error.response.status == 101


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 10", UPGRADE], ids=["at once", "in a line", "in the head"])
async def test_a_peer_that_leaves_in_the_handshake_is_a_handshake_error(response: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(response)
        await peer.stream.aclose()

    error, _ = await refused(script)
    assert str(error) == "ws://test/: the server closed the connection before the handshake was complete"


async def test_a_peer_that_is_gone_before_the_request_is_a_handshake_error() -> None:
    error, _ = await refused(lambda peer: peer.stream.aclose())
    assert "the connection was lost in the opening handshake" in str(error) or "closed the connection" in str(error)


async def test_a_connection_that_is_reset_is_a_handshake_error(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def reset() -> None:
        stream = await listeners[0].accept()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await Peer(stream).read_request()
        await stream.aclose()

    async with listeners[0]:
        nursery.start_soon(reset)
        with pytest.raises(HandshakeError, match="the connection was lost in the opening handshake") as raised:
            await connect(nursery, f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    assert isinstance(raised.value.__cause__, trio.BrokenResourceError)


async def test_a_stream_that_is_closed_already_is_a_handshake_error(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], trusting: ssl.SSLContext
) -> None:
    ours, _ = streams
    await ours.aclose()
    with pytest.raises(HandshakeError, match="the connection was lost in the opening handshake"):
        await connect(nursery, "ws://test", stream=ours)
    with pytest.raises(HandshakeError, match="TLS with test failed"):
        await connect(nursery, "wss://test", stream=ours, ssl_context=trusting)


async def test_the_bounds_of_the_response() -> None:
    error, _ = await refused(lambda peer: peer.accept(b"X: y\r\n" * 128))
    assert "more than 128 headers" in str(error)
    error, _ = await refused(lambda peer: peer.accept(), max_header_bytes=100)
    assert "over 100 bytes" in str(error)


# No connection


async def test_a_connection_that_is_refused_is_an_oserror(nursery: trio.Nursery) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="connect"):
            await connect(nursery, f"ws://127.0.0.1:{nobody.getsockname()[1]}")


async def test_a_name_that_does_not_resolve_is_an_oserror(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoNames(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_: Any) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(OSError, match="not known"):
        await connect(nursery, "ws://nowhere.test")


# Time


async def test_a_silent_peer_is_too_slow(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], autojump_clock: MockClock
) -> None:
    ours, peer = streams
    with pytest.raises(trio.TooSlowError):
        await connect(nursery, "ws://test", stream=ours, open_timeout=7)
    assert trio.current_time() == 7
    assert await is_closed(ours)
    assert (await peer.wait_end()).startswith(b"GET / HTTP/1.1\r\n")


async def test_a_silent_peer_in_tls_is_too_slow(
    nursery: trio.Nursery,
    streams: tuple[trio.abc.Stream, Peer],
    autojump_clock: MockClock,
    trusting: ssl.SSLContext,
) -> None:
    ours, peer = streams
    with pytest.raises(trio.TooSlowError):
        await connect(nursery, "wss://test", stream=ours, ssl_context=trusting, open_timeout=7)
    assert trio.current_time() == 7
    assert await is_closed(ours)
    assert (await peer.wait_end()).startswith(b"\x16\x03")


async def test_connecting_counts_too(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: Any, **__: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    with pytest.raises(trio.TooSlowError):
        await connect(nursery, "ws://test", open_timeout=3)
    assert trio.current_time() == 3


async def test_without_a_timeout_it_waits_for_as_long_as_it_takes(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], autojump_clock: MockClock
) -> None:
    ours, peer = streams

    async def accept_late() -> None:
        await trio.sleep(10_000)
        await peer.accept()

    nursery.start_soon(accept_late)
    assert (await connect(nursery, "ws://test", stream=ours, open_timeout=None)).established


# Cancelling


@pytest.mark.parametrize("url", ["ws://test", "wss://test"])
async def test_cancelled_while_it_waits_for_the_peer_it_closes_the_stream(
    url: str, nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], autojump_clock: MockClock
) -> None:
    ours, peer = streams
    with trio.move_on_after(1) as scope:
        await connect(nursery, url, stream=ours)
    assert scope.cancelled_caught
    assert await is_closed(ours)
    await peer.wait_end()


@pytest.mark.parametrize("url", ["ws://test", "wss://test"])
async def test_cancelled_while_it_sends_it_closes_the_stream(
    url: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, _ = trio.testing.lockstep_stream_pair()  # Nobody receives what is sent.
    with trio.move_on_after(1) as scope:
        await connect(nursery, url, stream=ours)
    assert scope.cancelled_caught
    assert await is_closed(ours)


async def test_cancelled_before_it_began_it_closes_the_stream(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, _ = streams
    with trio.CancelScope() as scope:
        scope.cancel()
        await connect(nursery, "ws://test", stream=ours)
    assert scope.cancelled_caught
    assert await is_closed(ours)


async def test_cancelled_it_closes_its_socket(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(connect, nursery, f"ws://127.0.0.1:{listener.socket.getsockname()[1]}")
                stream = await listener.accept()
                peer = Peer(stream)
                await peer.read_request()
                scope.cancel()
        assert await peer.wait_end() == b""
        await stream.aclose()


async def test_cancelling_the_nursery_closes_the_socket_at_once(streams: tuple[trio.abc.Stream, Peer]) -> None:
    ours, peer = streams
    async with trio.open_nursery() as other:
        async with trio.open_nursery() as nursery:
            other.start_soon(peer.accept)
            ws = await connect(nursery, "ws://test", stream=ours)
            nursery.cancel_scope.cancel()
        assert ws.is_finished
        assert await is_closed(ours)
        assert await peer.wait_end() == b""


async def test_in_a_nursery_that_is_closed_it_closes_the_stream(streams: tuple[trio.abc.Stream, Peer]) -> None:
    ours, peer = streams
    async with trio.open_nursery() as closed:
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        with pytest.raises(RuntimeError, match="Nursery is closed"):
            await connect(closed, "ws://test", stream=ours)
    assert await is_closed(ours)


# TLS


@pytest.fixture
async def serve_tls(nursery: trio.Nursery) -> AsyncIterator[Callable[[trustme.LeafCert], Awaitable[int]]]:
    """A TLS server with this certificate, on a port; it accepts, and closes when it is told."""

    async def serve(certificate: trustme.LeafCert) -> int:
        async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
            try:
                await Peer(stream).serve()
            except trio.BrokenResourceError:
                await trio.aclose_forcefully(stream)

        listeners = await nursery.start(
            partial(
                trio.serve_ssl_over_tcp,
                handle,
                0,
                certified(certificate),
                host="127.0.0.1",
                https_compatible=True,
            )
        )
        port: int = listeners[0].transport_listener.socket.getsockname()[1]
        return port

    return serve


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_wss_verifies_the_name_and_goes_on(
    name: str, serve_tls: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    port = await serve_tls(authority.issue_cert(name))
    async with open_websocket(f"wss://{name}:{port}/", ssl_context=trusting) as ws:
        assert ws.established
        assert ws.remote_port == port
    assert ws.closed == Close(1000, "")


async def test_the_default_context_verifies_as_well(
    serve_tls: Any, authority: trustme.CA, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    port = await serve_tls(authority.issue_cert("localhost"))
    with pytest.raises(HandshakeError, match=r"TLS with localhost failed: .*CERTIFICATE_VERIFY_FAILED"):
        await connect(nursery, f"wss://localhost:{port}/")
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with open_websocket(f"wss://localhost:{port}/") as ws:
        assert ws.established


@pytest.mark.parametrize("sent", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["not TLS", "the end"])
async def test_a_peer_without_tls_is_a_handshake_error(
    sent: bytes, nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], trusting: ssl.SSLContext
) -> None:
    ours, peer = streams
    await peer.stream.send_all(sent)
    await peer.stream.send_eof()  # type: ignore[attr-defined]
    with pytest.raises(HandshakeError, match="TLS with test failed: "):
        await connect(nursery, "wss://test", stream=ours, ssl_context=trusting)
    assert await is_closed(ours)


async def test_wss_puts_tls_on_a_stream_that_is_given(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    ours, peer = streams
    context = certified(authority.issue_cert("test"))
    secure = Peer(trio.SSLStream(peer.stream, context, server_side=True, https_compatible=True))
    nursery.start_soon(secure.serve)
    async with open_websocket("wss://test", stream=ours, ssl_context=trusting) as ws:
        assert ws.established
    assert secure.request.startswith(b"GET / HTTP/1.1\r\nHost: test\r\n")
    assert await is_closed(ours)


# open_websocket


async def test_open_websocket_closes_with_1000(nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]) -> None:
    ours, peer = streams
    nursery.start_soon(peer.serve)
    async with open_websocket("ws://test", stream=ours) as ws:
        pass
    assert ws.closed == Close(1000, "")
    assert await is_closed(ours)


@pytest.mark.parametrize("exception", [KeyError("the body's"), ExceptionGroup("", [KeyError()]), KeyboardInterrupt()])
async def test_an_exception_of_the_body_comes_out_as_it_is(
    exception: BaseException, nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.serve)
    with pytest.raises(type(exception)) as raised:
        async with open_websocket("ws://test", stream=ours):
            raise exception
    assert raised.value is exception
    assert await is_closed(ours)


async def test_a_failure_to_connect_comes_out_as_it_is(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.stream.aclose)
    with pytest.raises(HandshakeError):
        async with open_websocket("ws://test", stream=ours):
            raise AssertionError("it must not be open")


async def test_cancelling_the_body_closes_the_stream(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], autojump_clock: MockClock
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    entered = False
    with trio.move_on_after(5) as scope:
        async with open_websocket("ws://test", stream=ours) as ws:
            entered = True
            await ws.receive()
    assert entered
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert await is_closed(ours)


def fail(*_: object) -> None:
    raise KeyError("the callback's")


async def test_a_callback_that_fails_cancels_the_body_and_comes_out_of_the_nursery(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(partial(peer.accept, behind=b"\x81\x05hello"))

    async def run() -> None:
        async with open_websocket("ws://test", stream=ours) as ws:
            ws.on("text", fail)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await run()
    assert [repr(exception) for exception in raised.value.exceptions] == ["""KeyError("the callback's")"""]
    assert await is_closed(ours)


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise ValueError("the body's") from None


async def test_where_body_and_callback_fail_both_come_out(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer]
) -> None:
    ours, peer = streams
    nursery.start_soon(partial(peer.accept, behind=b"\x81\x05hello"))

    async def run() -> None:
        async with open_websocket("ws://test", stream=ours) as ws:
            ws.on("text", fail)
            await fail_when_cancelled()

    with pytest.raises(ExceptionGroup) as raised:
        await run()
    assert {type(exception) for exception in raised.value.exceptions} == {ValueError, KeyError}
    assert await is_closed(ours)


async def test_a_body_that_fails_because_it_is_cancelled_still_comes_out(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], autojump_clock: MockClock
) -> None:
    ours, peer = streams
    nursery.start_soon(peer.accept)
    with pytest.raises(ValueError, match="the body's"), trio.move_on_after(5):
        async with open_websocket("ws://test", stream=ours):
            await fail_when_cancelled()
    assert await is_closed(ours)


async def test_a_body_that_fails_does_not_wait_for_a_callback_that_goes_on(
    nursery: trio.Nursery, streams: tuple[trio.abc.Stream, Peer], autojump_clock: MockClock
) -> None:
    ours, peer = streams
    nursery.start_soon(partial(peer.accept, behind=b"\x81\x05hello"))
    called = trio.Event()

    async def go_on(*_: object) -> None:
        called.set()
        await trio.sleep_forever()

    async def run() -> None:
        async with open_websocket("ws://test", stream=ours) as ws:
            ws.on("text", go_on)
            await called.wait()
            raise ValueError("the body's")

    with pytest.raises(ValueError, match="the body's"), trio.move_on_after(1000):
        await run()
    assert trio.current_time() < 1000


async def test_host_name_that_tls_refuses_closes_the_stream(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ValueError, match="server_hostname"):
        await connect(nursery, "wss://test/", stream=ours, server_hostname=".test")
    assert await theirs.receive_some() == b""
