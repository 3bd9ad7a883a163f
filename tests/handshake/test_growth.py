"""Whoever sends twice as much has twice the work done, and no more: the growth of every parser that a peer reaches."""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from trio_pyjo_ws.errors import HandshakeError
from trio_pyjo_ws.handshake import negotiate
from trio_pyjo_ws.handshake.forwarded import Forwarding
from trio_pyjo_ws.handshake.http1 import ClientHandshake, ServerHandshake
from trio_pyjo_ws.handshake.messages import Request, Response, hide_secrets
from trio_pyjo_ws.handshake.proxy_protocol import SIGNATURE, ProxyHeader
from trio_pyjo_ws.handshake.redirect import redirected
from trio_pyjo_ws.handshake.tunnel import Proxy
from trio_pyjo_ws.handshake.url import Url
from trio_pyjo_ws.server.authentication import basic_authentication
from trio_pyjo_ws.wire.deflate import Deflate

from . import steps
from .steps import growth

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

MOST = 2.3
SIZE = 200
"""Characters of the smaller input: the square of it is far above what any call costs at all."""

# Whatever means something to one of the parsers, alone and in the pairs that make them go back.
FILLINGS = [
    *'/:@?#,;="\\a[]%&. \t\xe9-',
    *[
        "//",
        "/a@",
        "../",
        "a,",
        "a;",
        "a=",
        'a="',
        "a=b;",
        "a=b&",
        "%41",
        "for=",
        'for="',
        "1.1.1.1,",
        '\\"',
        " ,",
        "a ",
    ],
    *["::", "a.", "http://", "a\\", '"a"', "; a=b", "Basic "],
]


def request_head(*headers: str, line: str = "GET / HTTP/1.1") -> bytes:
    right = ["Host: a", "Upgrade: websocket", f"Sec-WebSocket-Key: {'a' * 22}==", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([line, *right, *headers, "", ""]).encode("latin-1")


def read_request(*headers: str, line: str = "GET / HTTP/1.1") -> None:
    server = ServerHandshake(max_request_line=60_000)
    server.read(request_head(*headers, line=line))
    server.accept(deflate=Deflate())


def read_response(head: str) -> None:
    client = ClientHandshake("ws://a/")
    client.read(f"{head}\r\n\r\n".encode("latin-1"))
    client.read_eof()


def opening(name: str, value: str) -> Request:
    return Request("GET", "/", [("Host", "a"), (name, value)])


async def never(_: str, __: str) -> bool:
    raise AssertionError("only malformed credentials here")


PARSERS: dict[str, Callable[[str], object]] = {
    "a log": lambda text: [hide_secrets(text), repr(opening("Referer", text))],
    "a URL's host": lambda text: Url.parse(f"ws://{text}"),
    "a URL's path": lambda text: Url.parse(f"ws://a/{text}"),
    "a proxy": Proxy.parse,
    "Location": lambda text: redirected(Url.parse("ws://a/b/c"), Response(302, {"Location": text})),
    "Location with a host": lambda text: redirected(Url.parse("ws://a/b"), Response(302, {"Location": f"//a{text}"})),
    "X-Forwarded-For": lambda text: Forwarding.of(["10.0.0.0/8"]).client(opening("X-Forwarded-For", text).headers),
    "Forwarded": lambda text: Forwarding.of(["10.0.0.0/8"], "Forwarded").client(opening("Forwarded", text).headers),
    "Upgrade": lambda text: negotiate.is_plain(opening("Upgrade", text)),
    "Origin": lambda text: negotiate.check_origin(opening("Origin", text), ["https://a"]),
    "an offer": lambda text: negotiate.accept_offer([text], Deflate()),
    "an offer's parameters": lambda text: negotiate.accept_offer([f"permessage-deflate; {text}"], Deflate()),
    "an agreement": lambda text: negotiate.check_agreed([text], Deflate()),
    "subprotocols": lambda text: negotiate.offered_subprotocols(opening("Sec-WebSocket-Protocol", text)),
    "Cookie": lambda text: opening("Cookie", f'a="{text}"; {text}').cookies,
    "the query": lambda text: Request("GET", f"/?{text.strip()}").query_parameters,
    "a request's header": lambda text: read_request("Connection: Upgrade", f"X: {text}"),
    "a request's Connection": lambda text: read_request(f"Connection: {text}"),
    "a request's line": lambda text: read_request(line=text),
    "a request's target": lambda text: read_request(line=f"GET /{text.strip()} HTTP/1.1"),
    "a request's whole URL": lambda text: read_request(line=f"GET http://a{text} HTTP/1.1"),
    "the name of a header": lambda text: read_request(f"X{text}: b"),
    "a response's line": read_response,
    "a response's reason": lambda text: read_response(f"HTTP/1.1 403 {text}"),
    "a response's header": lambda text: read_response(f"HTTP/1.1 101 OK\r\nX: {text}"),
}


def growths(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[Any], object], begin: Any, fillings: list[Any]
) -> dict[Any, float]:
    """The growth of ``call`` with ``begin`` and more and more of each of the fillings, where it is too high."""

    def fill(size: int) -> None:
        with suppress(ValueError, HandshakeError):  # It may be wrong, in linear time.
            call(begin + filling * (size // len(filling)))

    found = {}
    for filling in fillings:
        found[filling] = growth(monkeypatch, fill, SIZE)
    return {filling: times for filling, times in found.items() if times > MOST}


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_twice_the_input_takes_at_most_2_3_times_the_steps(
    parser: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert growths(monkeypatch, parser, "", FILLINGS) == {}


CHUNKS = [b"1\r\na\r\n", b"1;a=b\r\na\r\n", b"f\r\n0123456789abcde\r\n", b"0", b";", b"\r\n", b"a", b"0\r\n\r\n"]


@pytest.mark.parametrize("begin", [b"", b"1;", b"0\r\n", b"0\r\nX: "])
@pytest.mark.parametrize("bytewise", [False, True])
def test_the_chunks_of_a_refusal(begin: bytes, bytewise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(body: bytes) -> None:
        client = ClientHandshake("ws://a/")
        client.read(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in [bytes([byte]) for byte in body] if bytewise else [body]:
            client.read(piece)
        client.read_eof()

    assert growths(monkeypatch, read, begin, CHUNKS) == {}


@pytest.mark.parametrize("credentials", ["a", "=", " ", ":", "\x80"])
@pytest.mark.parametrize("encoded", [False, True])
async def test_authorization(credentials: str, encoded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticate = basic_authentication(never if credentials != ":" else {})

    class Asked:
        req: Request

    def call(size: int) -> None:
        given = credentials * size
        Asked.req = opening("Authorization", f"Basic {b64encode(given.encode()).decode() if encoded else given}")
        coroutine: Any = authenticate(Asked)  # type: ignore[arg-type]
        with pytest.raises(StopIteration):
            coroutine.send(None)

    assert growth(monkeypatch, call, SIZE) <= MOST


@pytest.mark.parametrize("begin", [b"PROXY ", b"PROXY UNKNOWN ", SIGNATURE + b"\x21\x11\x0f\xf0"])
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_header_of_the_proxy_protocol(begin: bytes, bytewise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> None:
        header = ProxyHeader()
        for piece in [bytes([byte]) for byte in data] if bytewise else [data]:
            if not header.complete:
                header.read(piece)

    assert growths(monkeypatch, read, begin, [b"a", b" ", b"\0", b"\r", b"1.1.1.1 ", b"\r\n"]) == {}


@pytest.mark.parametrize("of", ["lines", "one line", "a target"])
def test_a_request_that_comes_byte_by_byte(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(size: int) -> None:
        server = ServerHandshake(max_headers=1_000)
        line = f"GET /{'a' * size if of == 'a target' else ''} HTTP/1.1"
        headers = {"lines": ["A: b"] * (size // 6), "one line": [f"A: {'b' * size}"]}.get(of, [])
        for byte in request_head(*headers, line=line):
            server.read(bytes([byte]))
        assert server.request is not None

    assert growth(monkeypatch, call, 1_000) <= MOST


# The measure itself


def test_the_measure_sees_a_regular_expression_that_takes_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiate, "_KEY", re.compile("//.*@"))
    assert growth(monkeypatch, lambda size: negotiate._KEY.sub("", "/" * size), SIZE) > 3.5
    assert growth(monkeypatch, lambda size: negotiate._KEY.sub("", "//a@" * (size // 4)), SIZE) < MOST
    monkeypatch.setattr(negotiate, "_KEY", re.compile("(?:a|aa)*b"))
    assert growth(monkeypatch, lambda size: negotiate._KEY.match("a" * size), 10) > 50


def test_the_measure_sees_a_loop_that_takes_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    def peel(size: int) -> None:
        text = "a " * size
        while text:
            text = text.partition(" ")[2]

    def nest(size: int) -> None:
        for outer in range(size):
            for _ in range(outer):
                pass

    assert growth(monkeypatch, peel, SIZE) > 3.5
    assert growth(monkeypatch, nest, SIZE) > 3.5


EXPRESSIONS = [
    (name, key, pattern)
    for name in steps.PARSERS
    for key, value in sorted(vars(__import__(name, fromlist=["_"])).items())
    for pattern in (value if isinstance(value, tuple) else [value])
    if isinstance(pattern, re.Pattern)
]


@pytest.mark.parametrize(("module", "name", "pattern"), EXPRESSIONS)
def test_the_measure_matches_as_re_does(module: str, name: str, pattern: re.Pattern[Any]) -> None:
    """A watched expression compares each of its matches with that of re."""
    watched = steps.Watched(pattern, steps.Steps())
    for filling in FILLINGS:
        for text in (filling, filling * 3, *(f"{begin}{filling}" for begin in ("a", "a=", 'a="', "http:", "GET /"))):
            given: Any = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
            for call in (watched.match, watched.fullmatch, watched.search, partial(watched.sub, given[:0])):
                call(given)
