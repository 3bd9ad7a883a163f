"""What is a secret stays one: it is in no log, no repr and no error; and nobody can guess what must not be guessed."""

from __future__ import annotations

import logging
import os
import re
import secrets
import traceback
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import HandshakeError, Request, Response, connect, serve_listeners
from trio_pyjo_ws.handshake import negotiate
from trio_pyjo_ws.handshake.http1 import ClientHandshake, ServerHandshake
from trio_pyjo_ws.handshake.messages import build_headers
from trio_pyjo_ws.handshake.redirect import redirected
from trio_pyjo_ws.handshake.tunnel import Proxy, Tunnel
from trio_pyjo_ws.handshake.url import Url

from .attack import REQUEST, TEXT, Listener, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_pyjo_ws import Transaction

SECRET = "hunter2"  # noqa: S105 - no other will do
URL = f"ws://alice:{SECRET}@test/chat?token={SECRET}"
SECRETS = [
    ("Authorization", f"Bearer {SECRET}"),
    ("authorization", f"Basic {b64encode(f'alice:{SECRET}'.encode()).decode()}"),
    ("Proxy-Authorization", f"Basic {SECRET}"),
    ("Cookie", f"session={SECRET}"),
    ("Set-Cookie", f"session={SECRET}; HttpOnly"),
    ("Location", f"wss://alice:{SECRET}@elsewhere/"),
    ("Referer", f"https://alice:a/b?{SECRET}@test/page"),
    ("X-Original-URI", f"/chat?token={SECRET}"),
    # A browser cannot set Authorization: this is how Kubernetes takes a token.
    ("Sec-WebSocket-Protocol", f"v1, base64url.bearer.authorization.k8s.io.{SECRET}"),
]
HIDDEN = re.compile(f"{SECRET}|{re.escape(SECRETS[1][1][6:])}")


def assert_hidden(*values: object) -> None:
    for value in values:
        for shown in (repr(value), str(value)):
            assert not HIDDEN.search(shown), shown


def shown_error(call: Callable[[], object]) -> str:
    """What a log shows of the exception that ``call`` raises: the traceback of all of its causes."""
    with pytest.raises((ValueError, TypeError, HandshakeError)) as info:
        call()
    assert_hidden(info.value, getattr(info.value, "response", None))
    text = "".join(
        line
        for line in traceback.format_exception(info.value)
        if not line.startswith("  File")  # not our own source
    )
    assert not HIDDEN.search(text), text
    return str(info.value)


# Secrets are not shown


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_headers_requests_and_responses_do_not_show_secrets(name: str, value: str) -> None:
    request = Request("GET", "/", [("Host", "test"), (name, value)])
    response = Response(403, [("X-Why", "closed"), (name, value)], b"no")
    assert_hidden(request, request.headers, response, response.headers, build_headers([(name, value)]))
    assert request.headers[name] == response.headers[name] == value
    for shown in (repr(request), repr(request.headers)):
        assert "'Host', 'test'" in shown
        assert name in shown
    assert_hidden(HandshakeError("refused", response), [request], {"headers": response.headers})


def test_urls_do_not_show_passwords() -> None:
    assert_hidden(Url.parse(URL), Proxy.parse(f"http://alice:{SECRET}@proxy:3128"))


@pytest.mark.parametrize(
    "url",
    [
        f"ws://alice:{SECRET}@te st/",
        f"ws://alice:{SECRET}@test:port/",
        f"ws://alice:{SECRET}@test#fragment",
        f"ws://alice:{SECRET}/more@test/",  # A slash that is not percent-encoded ends the authority.
        f"ws://alice:{SECRET}?more@test/",
        f"ws://{SECRET}%2F/more@test/",
        f"ftp://alice:{SECRET}@test/",
        f"alice:{SECRET}@test:",
        f"ws:alice:{SECRET}@te st",
    ],
)
def test_errors_of_urls_do_not_show_passwords(url: str) -> None:
    shown_error(lambda: ClientHandshake(url))
    shown_error(lambda: Proxy.parse(url.replace("ws", "socks6") + "/path"))


@pytest.mark.parametrize(("name", "value"), SECRETS[:5])
def test_errors_of_the_callers_headers_do_not_show_secrets(name: str, value: str) -> None:
    for headers in ([(name, f"{value}\n")], [(f"{name}: {value}", "")], [(f"{name} {value}", "")]):
        assert "must be" in shown_error(lambda headers=headers: ClientHandshake("ws://test/", headers=headers))


# h11 shows the line that it does not take.
BAD_LINES = [f"{name} : {value}" for name, value in SECRETS] + [f"{name}: {value}\0" for name, value in SECRETS]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_malformed_header_line_is_not_shown(line: str) -> None:
    server = ServerHandshake()
    request = REQUEST % f"{line}\r\n".encode()
    assert shown_error(lambda: server.read(request)) == "malformed request: illegal header line"
    assert not HIDDEN.search(server.write().decode())
    response = f"HTTP/1.1 101 Switching Protocols\r\n{line}\r\n\r\n".encode()
    client = ClientHandshake("ws://test/")
    assert shown_error(lambda: client.read(response)) == "malformed response: illegal header line"
    tunnel = Tunnel(Proxy.parse("http://proxy"), Url.parse(URL), max_header_bytes=1000)
    assert shown_error(lambda: tunnel.read(response)) == "malformed response of the proxy: illegal header line"


def test_a_location_that_is_none_is_shown_without_its_secrets() -> None:
    response = Response(302, {"Location": f"wss://alice:{SECRET}@te[st/?{SECRET}"})
    assert "'wss://...@te[st/?...'" in shown_error(lambda: redirected(Url.parse(URL), response))


@pytest.mark.parametrize(
    "line",
    [f"GET /?token={SECRET}", f"GET /?token={SECRET}\xe9 HTTP/1.1", f"GET http://alice:{SECRET}@test:x/ HTTP/1.1"],
)
def test_a_malformed_request_line_is_shown_without_its_secrets(line: str) -> None:
    server = ServerHandshake()
    assert "malformed request: " in shown_error(lambda: server.read(f"{line}\r\nHost: test\r\n\r\n".encode("latin-1")))
    assert not HIDDEN.search(server.write().decode())


def test_a_token_among_the_subprotocols_is_in_no_error() -> None:
    shown_error(lambda: ClientHandshake("ws://test/", subprotocols=["v1", f"{SECRET}=/"]))
    shown_error(lambda: ClientHandshake("ws://test/", subprotocols=[SECRET, SECRET]))
    server = ServerHandshake()
    server.read(REQUEST % f"Sec-WebSocket-Protocol: v1, {SECRET}=/\r\n".encode())
    shown_error(lambda: server.accept(subprotocol="v1"))
    assert not HIDDEN.search(server.write().decode())
    for answer in (f"Sec-WebSocket-Protocol: v1, {SECRET}\r\n", f"Sec-WebSocket-Protocol: {SECRET}\r\n" * 2):
        client = ClientHandshake("ws://test/", subprotocols=["v1", SECRET])
        accept = negotiate.accept_value(client.request.headers["Sec-WebSocket-Key"])
        head = f"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
        shown_error(partial(client.read, f"{head}{answer}\r\n".encode()))


@pytest.mark.parametrize("ending", ["accepted", "refused", "on_request fails", "handler fails", "malformed", "lost"])
async def test_nothing_that_happens_to_a_connection_logs_a_secret(
    ending: str, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Server and client, with secrets in all that they send in the opening handshake."""
    caplog.set_level(logging.DEBUG)
    seen: list[Any] = []

    def on_request(ws: Transaction) -> Response | None:
        seen.extend([ws, ws.req, ws.handshake, ws.statistics()])
        if ending == "on_request fails":
            raise KeyError("a bug")
        return Response(403, SECRETS) if ending == "refused" else None

    async def handler(ws: Transaction) -> None:
        if ending == "handler fails":
            raise KeyError("a bug")
        async for _ in ws:
            pass

    async def open_client(stream: trio.abc.Stream) -> None:
        try:
            ws = await connect(nursery, URL, stream=stream, additional_headers=SECRETS[2:4], subprotocols=[SECRET])
            seen.extend([ws, ws.req, ws.res, ws.handshake])
            await ws.aclose()
            seen.append(ws.error)
        except HandshakeError as exc:
            seen.extend([exc, exc.response, "".join(traceback.format_exception(exc))])

    listener = Listener()
    await nursery.start(partial(serve_listeners, handler, [listener], on_request=on_request))
    ours, theirs = trio.testing.memory_stream_pair()
    listener.connect.send_nowait(theirs)
    if ending == "malformed":
        await ours.send_all(REQUEST % f"{BAD_LINES[0]}\r\n".encode())
    elif ending == "lost":
        await ours.send_all(f"GET / HTTP/1.1\r\nAuthorization: {SECRET}".encode())
        await ours.aclose()
    else:
        nursery.start_soon(open_client, ours)
    await wait_all_tasks_blocked()
    await trio.sleep(100)
    assert_hidden(*seen, [task.name for task in nursery.child_tasks])
    assert caplog.records
    assert not HIDDEN.search(caplog.text)
    nursery.cancel_scope.cancel()


# Secrets are compared in constant time


def test_the_accept_value_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(secrets, "compare_digest", compare)
    handshake = ClientHandshake("ws://test/")
    expected = negotiate.accept_value(handshake.request.headers["Sec-WebSocket-Key"]).encode()
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    with pytest.raises(HandshakeError, match="Sec-WebSocket-Accept"):
        handshake.read(head + b"Sec-WebSocket-Accept: \xe9\r\n\r\n")
    assert compared == [(b"\xe9", expected)]


# What nobody may guess comes from the system


class System:
    """Records what the system's generator has given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[bytes] = []
        urandom, token_bytes = os.urandom, secrets.token_bytes

        def record(generate: Callable[[int], bytes]) -> Callable[[int], bytes]:
            def generate_and_record(size: int) -> bytes:
                self.given.append(generate(size))
                return self.given[-1]

            return generate_and_record

        monkeypatch.setattr(os, "urandom", record(urandom))
        monkeypatch.setattr(secrets, "token_bytes", record(token_bytes))

    def gave(self, value: bytes) -> bool:
        return value in b"".join(self.given)


async def test_each_frame_of_a_client_has_a_masking_key_of_the_system(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(monkeypatch)
    end = Memory()
    opened: list[Transaction] = []

    async def open_client() -> None:
        opened.append(await connect(nursery, "ws://test/", stream=end.stream))

    nursery.start_soon(open_client)
    await wait_all_tasks_blocked()
    request = end.receive() or b""
    key = request.partition(b"Sec-WebSocket-Key: ")[2][:24].decode()
    end.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % negotiate.accept_value(key).encode()
    )
    await wait_all_tasks_blocked()
    for _ in range(100):
        await opened[0].send("1234567")
    await wait_all_tasks_blocked()
    sent = end.receive() or b""
    frames = [sent[start : start + 13] for start in range(0, len(sent), 13)]
    assert {frame[:2] for frame in frames} == {bytes([TEXT, 0x80 | 7])}
    keys = [frame[2:6] for frame in frames]
    assert all(system.gave(key) for key in keys)
    assert len(set(keys)) > 95
    nursery.cancel_scope.cancel()


def test_the_key_of_a_handshake_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch)
    keys = [ClientHandshake("ws://test/").request.headers["Sec-WebSocket-Key"] for _ in range(10)]
    assert sorted(keys) == sorted(b64encode(given).decode() for given in system.given)
    assert {len(given) for given in system.given} == {16}
