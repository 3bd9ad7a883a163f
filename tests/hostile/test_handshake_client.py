"""A hostile server, or one on the way to it: the opening handshake of the client, lines 18 to 25."""

from __future__ import annotations

import datetime as dt
import ssl
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_pyjo_ws import HandshakeError, Response, Transaction, connect, open_websocket, serve
from trio_pyjo_ws.handshake.http1 import MAX_HEADER_BYTES, MAX_RESPONSE_BODY
from trio_pyjo_ws.handshake.negotiate import accept_value

from ..client.test_connecting import UPGRADE, Peer, certified, is_closed, refused_by
from ..proxies import ProxyServer

if TYPE_CHECKING:
    from collections.abc import Callable


async def never(_: Transaction) -> None:
    raise AssertionError("it must not be open")


# 18: wrong Accept or status


ACCEPTS = {
    "another's": b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    "none": b"",
    "empty": b"Sec-WebSocket-Accept: \r\n",
    "twice": b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Accept: a\r\n",
}


@pytest.mark.parametrize("accept", ACCEPTS.values(), ids=ACCEPTS)
async def test_18_a_wrong_accept_is_a_handshake_error_with_the_response(accept: bytes) -> None:
    error = await refused_by(lambda peer: peer.answer(UPGRADE + accept + b"\r\n"))
    assert ": expected Sec-WebSocket-Accept '" in str(error)
    assert error.response is not None
    assert error.response.status == 101


async def test_18_a_right_accept_that_comes_twice_is_wrong_as_well() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(b"Sec-WebSocket-Accept: a\r\n")

    assert "expected Sec-WebSocket-Accept '" in str(await refused_by(script))


@pytest.mark.parametrize("status", [100, 102, 200, 201, 204, 304, 400, 401, 426, 500, 503, 599])
async def test_18_another_status_is_a_handshake_error_even_with_all_the_headers(status: int) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.read_request()
        line = f"HTTP/1.1 {status} Whatever\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        accept = f"Sec-WebSocket-Accept: {accept_value(request['sec-websocket-key'])}\r\n\r\n"
        await peer.stream.send_all((line + accept).encode() * (6 if status < 200 else 1))
        await peer.stream.aclose()

    error = await refused_by(script)
    assert f"expected status 101, found {status}" in str(error)
    assert (error.response and error.response.status) == (status if status >= 200 else None)


# 19: what was not offered


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (b"Sec-WebSocket-Protocol: v2\r\n", {}),
        (b"Sec-WebSocket-Protocol: v2\r\n", {"subprotocols": ["v1"]}),
        (b"Sec-WebSocket-Protocol: V1\r\n", {"subprotocols": ["v1"]}),
        (b"Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v1\r\n", {"subprotocols": ["v1"]}),
        (b"Sec-WebSocket-Extensions: permessage-deflate\r\n", {}),
        (b"Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n", {"compression": True}),
        (b"Sec-WebSocket-Extensions: permessage-deflate, x-other\r\n", {"compression": True}),
        (b"Sec-WebSocket-Extensions: permessage-deflate\r\n" * 2, {"compression": True}),
        (b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16\r\n", {"compression": True}),
        (b"Sec-WebSocket-Extensions: permessage-deflate; other\r\n", {"compression": True}),
    ],
)
async def test_19_what_was_not_offered_fails(header: bytes, options: dict[str, Any]) -> None:
    error = await refused_by(lambda peer: peer.accept(header), **options)
    assert error.response is not None
    assert error.response.status == 101


# 20: an endless response


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"", b"HTTP/1.1 101 " + b"a" * 1000),
        (UPGRADE, b"X: " + b"a" * 1000 + b"\r\n"),
        (UPGRADE + b"X: ", b"a" * 1000),
        (UPGRADE, b"X: y\r\n" * 40),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (b"HTTP/1.1 403 No\r\n\r\n", b"no" * 500),
        (b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n", b"no" * 500),
        (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"no" * 500 + b"\r\n"),
    ],
    ids=["status line", "headers", "header", "tiny headers", "early hints", "body", "redirect's body", "chunks"],
)
async def test_20_an_endless_response_is_capped(beginning: bytes, endless: bytes) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(beginning)
        try:
            while sent < 10_000_000:
                await peer.stream.send_all(endless)
                sent += len(endless)
                await trio.testing.wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            return

    tracemalloc.start()
    try:
        error = await refused_by(script)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent <= 3 * max(MAX_HEADER_BYTES, MAX_RESPONSE_BODY)
    assert peak < 2_000_000
    assert error.response is None or len(error.response.body) <= MAX_RESPONSE_BODY


async def test_20_the_response_of_a_proxy_is_capped_as_well(nursery: trio.Nursery) -> None:
    sent = 0

    async def endless(stream: trio.abc.Stream) -> None:
        nonlocal sent
        async with stream:
            await stream.send_all(b"HTTP/1.1 200 OK\r\n")
            try:
                while sent < 100_000_000:
                    await stream.send_all(b"X: " + b"a" * 1000 + b"\r\n")
                    sent += 1005
            except trio.BrokenResourceError:
                return

    listeners = await nursery.start(partial(trio.serve_tcp, endless, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(HandshakeError, match="malformed response of the proxy"):
        await connect(nursery, "ws://test/", proxy=f"http://127.0.0.1:{port}")
    assert sent < 100_000_000


async def test_20_a_byte_a_second_is_too_slow(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def trickle() -> None:
        for byte in UPGRADE[:12]:
            await theirs.send_all(bytes([byte]))
            await trio.sleep(1.5)

    with trio.CancelScope() as trickling:
        async with trio.open_nursery() as inner:
            inner.start_soon(trickle)
            with pytest.raises(trio.TooSlowError):
                await connect(nursery, "ws://test", stream=ours)
            trickling.cancel()
    assert trio.current_time() == 10
    assert await is_closed(ours)


# 21: line breaks and NUL in what the caller gives


@pytest.mark.parametrize("forbidden", ["\r", "\n", "\0", "\r\nX-Injected: yes", "\x0b", "\x0c"])
@pytest.mark.parametrize(
    "arguments",
    [
        lambda bad: {"additional_headers": {"X": f"a{bad}"}},
        lambda bad: {"additional_headers": [(f"X{bad}", "a")]},
        lambda bad: {"additional_headers": {"Cookie": f"a=b{bad}"}},
        lambda bad: {"additional_headers": {"Host": f"a{bad}"}},
        lambda bad: {"url": f"ws://test/a{bad}"},
        lambda bad: {"url": f"ws://test/?a={bad}"},
        lambda bad: {"url": f"ws://test{bad}/"},
        lambda bad: {"url": f"ws://user{bad}@test/"},
        lambda bad: {"url": f"{bad}ws://test/"},
        lambda bad: {"subprotocols": [f"a{bad}"]},
        lambda bad: {"origin": f"https://a{bad}"},
        lambda bad: {"user_agent": f"a{bad}"},
        lambda bad: {"proxy": f"http://p{bad}"},
        lambda bad: {"proxy": f"http://user{bad}@p"},
    ],
    ids=[
        *["value", "name", "cookie", "host", "path", "query", "authority", "user", "scheme", "subprotocol", "origin"],
        *["user agent", "proxy", "proxy's user"],
    ],
)
async def test_21_a_line_break_or_nul_raises_before_any_input_or_output(
    arguments: Callable[[str], dict[str, Any]],
    forbidden: str,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def dial(*_: Any, **__: Any) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    given = arguments(forbidden)
    with pytest.raises(ValueError, match=r"must be|expected"):
        await connect(nursery, given.pop("url", "ws://test/"), **given)


# 22 and 23: redirects


async def redirecting(nursery: trio.Nursery, location: str, seen: list[Transaction], **options: Any) -> str:
    """The URL of a server that redirects all to ``location``."""

    def redirect(ws: Transaction) -> Response:
        seen.append(ws)
        return Response(302, {"Location": location})

    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1", on_request=redirect, **options))
    url: str = server.url
    return url


async def test_22_authorization_and_cookie_are_not_sent_to_another_origin(nursery: trio.Nursery) -> None:
    first: list[Transaction] = []
    second: list[Transaction] = []

    async def keep(ws: Transaction) -> None:
        second.append(ws)

    other = await nursery.start(partial(serve, keep, 0, host="127.0.0.1"))
    url = await redirecting(nursery, other.url, first)
    secrets = {"Cookie": "a=secret", "X-Api-Key": "secret"}
    for given in ({**secrets, "Authorization": "Bearer secret"}, secrets):
        target = url if "Authorization" in given else url.replace("ws://", "ws://ada:secret@")
        async with open_websocket(target, additional_headers=given):
            pass
        asked, followed = first[-1].req, second[-1].req
        assert asked is not None
        assert followed is not None
        for name in ("Authorization", "Cookie", "X-Api-Key"):
            assert name in asked.headers
            assert name not in followed.headers


async def test_23_wss_to_ws_is_refused(nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    plain = await nursery.start(partial(serve, never, 0, host="127.0.0.1"))
    asked: list[Transaction] = []
    context = certified(authority.issue_cert("127.0.0.1"))
    url = await redirecting(nursery, plain.url, asked, ssl_context=context)
    with pytest.raises(HandshakeError, match="expected wss:// in Location, because this is wss://, found ws://"):
        await connect(nursery, url, ssl_context=trusting)
    assert len(asked) == 1


async def test_23_ten_redirects_at_most_are_followed(nursery: trio.Nursery) -> None:
    asked: list[Transaction] = []
    url = await redirecting(nursery, "/again", asked)
    with pytest.raises(HandshakeError, match="found 302 after 10 redirects"):
        await connect(nursery, url)
    assert len(asked) == 11


# 24: the credentials of a proxy


async def test_24_the_credentials_of_a_proxy_are_on_connect_only(nursery: trio.Nursery) -> None:
    seen: list[Transaction] = []

    async def keep(ws: Transaction) -> None:
        seen.append(ws)

    server = await nursery.start(partial(serve, keep, 0, host="127.0.0.1"))
    proxy = ProxyServer(server.port, credentials=("ada", "secret"))
    port = await proxy.start(nursery, "http")
    async with open_websocket(
        "ws://grace:other@example.test/",
        proxy=f"http://ada:secret@127.0.0.1:{port}",
        additional_headers={"Cookie": "a=b"},
    ):
        pass
    assert b"\r\nProxy-Authorization: Basic YWRhOnNlY3JldA==\r\n" in proxy.requests[0]
    assert b"Cookie" not in proxy.requests[0]
    assert b"\r\nAuthorization" not in proxy.requests[0]
    assert seen[0].req is not None
    assert "Proxy-Authorization" not in seen[0].req.headers
    assert seen[0].req.headers["Authorization"] == "Basic Z3JhY2U6b3RoZXI="


async def test_24_a_proxy_cannot_redirect(nursery: trio.Nursery) -> None:
    asked: list[Transaction] = []
    evil = await redirecting(nursery, "/", asked)
    answer = f"HTTP/1.1 302 Found\r\nLocation: {evil}\r\n\r\n".encode()
    proxy = ProxyServer(0, answer=answer)
    port = await proxy.start(nursery, "http")
    with pytest.raises(HandshakeError, match="expected status 200 of the proxy, found 302"):
        await connect(nursery, "ws://example.test/", proxy=f"http://127.0.0.1:{port}")
    assert asked == []
    assert len(proxy.asked) == 1


async def test_24_what_a_proxy_says_behind_its_response_is_not_taken_for_the_server(nursery: trio.Nursery) -> None:
    proxy = ProxyServer(0, answer=b"HTTP/1.1 200 OK\r\n\r\n" + UPGRADE + b"\r\n")
    port = await proxy.start(nursery, "http")
    with pytest.raises(HandshakeError, match="expected nothing behind the response of the proxy"):
        await connect(nursery, "ws://example.test/", proxy=f"http://127.0.0.1:{port}")


# 25: a bad certificate or host name


CERTIFICATES: dict[str, tuple[Callable[[trustme.CA], trustme.LeafCert], str]] = {
    "another name": (lambda authority: authority.issue_cert("elsewhere.test"), "Hostname mismatch"),
    "an address": (lambda authority: authority.issue_cert("127.0.0.1"), "Hostname mismatch"),
    "a wildcard above": (lambda authority: authority.issue_cert("*.localhost"), "Hostname mismatch"),
    "another authority": (lambda _: trustme.CA().issue_cert("localhost"), "unable to get local issuer certificate"),
    "expired": (
        lambda authority: authority.issue_cert(
            "localhost",
            not_before=dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
            not_after=dt.datetime(2021, 1, 1, tzinfo=dt.timezone.utc),
        ),
        "certificate has expired",
    ),
}


@pytest.mark.parametrize("way", ["TCP", "proxy", "stream"])
@pytest.mark.parametrize(("issue", "message"), CERTIFICATES.values(), ids=CERTIFICATES)
async def test_25_a_bad_certificate_or_host_name_fails(
    issue: Callable[[trustme.CA], trustme.LeafCert], message: str, way: str, nursery: trio.Nursery
) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    context = certified(issue(authority))
    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1", ssl_context=context))
    options: dict[str, Any] = {}
    if way == "proxy":
        options["proxy"] = f"http://127.0.0.1:{await ProxyServer(server.port).start(nursery, 'http')}"
    elif way == "stream":
        options["stream"] = await trio.open_tcp_stream("127.0.0.1", server.port)
    with pytest.raises(HandshakeError, match=f"TLS with localhost failed: .*{message}"):
        await connect(nursery, f"wss://localhost:{server.port}/", ssl_context=trusting, **options)


async def test_25_a_redirect_leads_to_no_bad_certificate_either(nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    other = certified(trustme.CA().issue_cert("127.0.0.1"))
    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1", ssl_context=other))
    url = await redirecting(nursery, server.url, [], ssl_context=certified(authority.issue_cert("127.0.0.1")))
    with pytest.raises(HandshakeError, match=r"TLS with 127\.0\.0\.1 failed: .*CERTIFICATE_VERIFY_FAILED"):
        await connect(nursery, url, ssl_context=trusting)
