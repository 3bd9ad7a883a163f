"""The HTTP/1.1 bytes of the opening handshake, on both sides."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import HandshakeError, LocalProtocolError
from trio_pyjo_ws.handshake.http1 import (
    MAX_BODY_PIECES,
    MAX_EMPTY_LINES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_INFORMATIONAL,
    MAX_REQUEST_LINE,
    MAX_RESPONSE_BODY,
    ClientHandshake,
    ServerHandshake,
)
from trio_pyjo_ws.handshake.messages import Response
from trio_pyjo_ws.handshake.negotiate import accept_value
from trio_pyjo_ws.handshake.url import Url
from trio_pyjo_ws.wire.deflate import Deflate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trio_pyjo_ws.handshake.messages import Request
    from trio_pyjo_ws.wire.protocol import Agreement

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FRAMES = b"\x81\x80\x00\x00\x00\x00\r\n\n\x00"
RIGHT = [
    "Host: x",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
]

# How the same bytes may arrive.
CHUNKINGS = {
    "whole": lambda data: [data],
    "byte by byte": lambda data: [data[index : index + 1] for index in range(len(data))],
    "in sevens": lambda data: [data[index : index + 7] for index in range(0, len(data), 7)],
    "with nothing between": lambda data: [b"", data[:9], b"", data[9:]],
}
CHUNKED = pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS)
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]+\r\n")


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def request_head(*headers: str, line: str = "GET /chat?a=b HTTP/1.1") -> bytes:
    return head(line, *(headers or RIGHT))


def read_request(server: ServerHandshake, chunks: Iterable[bytes]) -> Request | None:
    """Read until there is a request; whatever else there is stays unread, as it would on a socket."""
    for chunk in chunks:
        request = server.read(chunk)
        if request is not None:
            return request
    return None


def read_and_accept(server: ServerHandshake, chunks: Iterable[bytes]) -> None:
    if read_request(server, chunks) is not None:
        server.accept(deflate=Deflate())


def error_of(call: Callable[..., object], *arguments: object) -> HandshakeError | None:
    """Make a call that may end in a HandshakeError, and in no other."""
    try:
        call(*arguments)
    except HandshakeError as error:
        return error
    return None


def status_of(error: HandshakeError) -> int:
    assert error.response is not None
    return error.response.status


def read_agreement(client: ClientHandshake, chunks: Iterable[bytes]) -> Agreement | None:
    for chunk in chunks:
        agreement = client.read(chunk)
        if agreement is not None:
            return agreement
    return None


def split_response(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take a written response apart, by other means than h11."""
    top, _, body = data.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    assert STATUS_LINE.match(data)
    headers: dict[str, str] = {}
    for line in lines[1:]:  # To HTTP/1.0 h11 writes Connection in two lines.
        name, _, value = line.partition(": ")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    assert parsedate_to_datetime(headers.pop("Date")).tzinfo is not None  # RFC 9110, section 6.6.1
    return int(lines[0].split(" ")[1]), headers, body


def status_in(data: bytes) -> int:
    found = STATUS_LINE.match(data)
    assert found is not None
    return int(found[1])


def check_refused(server: ServerHandshake, chunks: Iterable[bytes], status: int) -> str:
    """See that reading or accepting is refused with this status, once, and that nothing more is read."""
    with pytest.raises(HandshakeError) as caught:
        read_and_accept(server, chunks)
    response = caught.value.response
    assert response is not None
    assert response is server.response
    assert response.status == status
    sent, headers, body = split_response(server.write())
    assert sent == status
    assert headers["Connection"].lower() == ("close, upgrade" if status == 426 else "close")
    assert ("Upgrade" in headers) == (status == 426)
    if body:
        assert body.decode() == f"{caught.value}\n"
        assert headers["Content-Length"] == str(len(body))
    assert server.write() == b""
    with pytest.raises(LocalProtocolError):
        server.read(b"x")
    with pytest.raises(LocalProtocolError):
        server.accept()
    with pytest.raises(LocalProtocolError):
        server.refuse(Response(500))
    return str(caught.value)


# The client writes


@pytest.mark.parametrize(
    ("user_information", "credentials"),
    [
        ("me:secret", b"me:secret"),
        ("me", b"me:"),
        ("a%3Ab%C3%A9:c%40@d:e", b"a:b\xc3\xa9:c@@d:e"),
        ("", None),
        (":", b":"),
    ],
)
def test_password_in_a_url_is_sent_as_basic_authorization(user_information: str, credentials: bytes | None) -> None:
    client = ClientHandshake(f"ws://{user_information}@x/")
    expected = None if credentials is None else f"Basic {b64encode(credentials).decode()}"
    assert client.request.headers.get("Authorization") == expected
    assert client.request.headers["Host"] == "x"


def test_client_writes_its_request_once() -> None:
    client = ClientHandshake("ws://example.org:8080/chat?a=b")
    key = client.request.headers["Sec-WebSocket-Key"]
    assert client.write() == head(
        "GET /chat?a=b HTTP/1.1",
        "Host: example.org:8080",
        "User-Agent: trio_pyjo_ws",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    )
    assert client.write() == b""
    assert ClientHandshake("ws://x").request.headers["Sec-WebSocket-Key"] != key


def test_client_writes_what_it_is_given() -> None:
    client = ClientHandshake(
        Url.parse("wss://example.org"),
        headers=[("X-A", "1"), ("X-A", "é")],
        subprotocols=["a", "b"],
        origin="https://example.org",
        deflate=Deflate(),
        user_agent=None,
    )
    written = client.write()
    assert b"X-A: 1\r\nX-A: \xe9\r\n" in written
    assert b"Sec-WebSocket-Protocol: a, b\r\n" in written
    assert b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" in written
    assert b"Origin: https://example.org\r\n" in written
    assert b"User-Agent" not in written


def test_caller_may_replace_some_headers() -> None:
    headers = {"host": "other", "user-agent": "mine", "authorization": "Bearer x", "origin": "https://x"}
    for user_agent in ("trio_pyjo_ws", None):
        client = ClientHandshake("ws://me:secret@example.org", headers=headers, user_agent=user_agent)
        for name, value in headers.items():
            assert client.request.headers.getall(name) == [value]


@pytest.mark.parametrize(
    "name",
    ["Upgrade", "connection", "Sec-WebSocket-Key", "sec-websocket-extensions", "Content-Length", "Transfer-Encoding"],
)
def test_other_headers_are_the_library_s(name: str) -> None:
    with pytest.raises(ValueError, match=f"header {name} is set by the handshake and cannot be given"):
        ClientHandshake("ws://x", headers={name: "1"})
    server = ServerHandshake()
    server.read(request_head())
    with pytest.raises(ValueError, match=f"header {name} is set by the handshake and cannot be given"):
        server.accept(headers={name: "1"})


@pytest.mark.parametrize("bad", ["\r", "\n", "\x00", "a\r\nX: y"])
def test_nothing_of_the_caller_s_can_break_a_line(bad: str) -> None:
    url = Url.parse("ws://x/")
    with pytest.raises(ValueError, match="must be Latin-1"):
        ClientHandshake(url, headers={"X": bad})
    with pytest.raises(ValueError, match="must be a token"):
        ClientHandshake(url, headers={f"X{bad}": "1"})
    with pytest.raises(ValueError, match="subprotocol 1 of 1 must be a token"):
        ClientHandshake(url, subprotocols=[bad])
    with pytest.raises(ValueError, match="must be Latin-1"):
        ClientHandshake(url, origin=f"https://{bad}x")
    with pytest.raises(ValueError, match="must be Latin-1"):
        ClientHandshake(url, user_agent=f"a{bad}b")
    with pytest.raises(ValueError, match="must be visible ASCII"):
        ClientHandshake(url._replace(target=f"/{bad}"))
    with pytest.raises(ValueError, match="must be Latin-1"):
        ClientHandshake(url._replace(authority=f"x{bad}y"))


@pytest.mark.parametrize(("name", "origin"), [("Host", None), ("Origin", None), ("Origin", "https://x")])
def test_host_and_origin_are_given_once(name: str, origin: str | None) -> None:
    headers = [(name, "a")] * (2 if origin is None else 1)
    with pytest.raises(ValueError, match=f"header {name} must be given once, not twice"):
        ClientHandshake("ws://x", headers=headers, origin=origin)


@pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "ä", "c2VjcmV0/=="])
def test_subprotocols_are_tokens_and_are_not_shown(subprotocol: str) -> None:
    with pytest.raises(ValueError, match=r"^subprotocol 2 of 2 must be a token \(RFC 9110, section 5.6.2\)$"):
        ClientHandshake("ws://x", subprotocols=["a", subprotocol])


def test_each_subprotocol_is_offered_once() -> None:
    with pytest.raises(ValueError, match=r"^each subprotocol must be offered once, not twice$"):
        ClientHandshake("ws://x", subprotocols=["a", "b", "a"])


@pytest.mark.parametrize("subprotocols", ["chat", b"chat"])
def test_subprotocols_are_not_one_str(subprotocols: str) -> None:
    with pytest.raises(TypeError, match=r"subprotocols must be a sequence of tokens, not (str|bytes)"):
        ClientHandshake("ws://x", subprotocols=subprotocols)


# The client reads


def agreeing(client: ClientHandshake, *headers: str, line: str = "HTTP/1.1 101 Switching Protocols") -> bytes:
    accept = accept_value(client.request.headers["Sec-WebSocket-Key"])
    return head(line, "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}", *headers)


def check_failed(client: ClientHandshake, chunks: Iterable[bytes], message: str) -> Response | None:
    """See that reading fails, once, and give the response that the error carries."""
    with pytest.raises(HandshakeError, match=message) as caught:
        read_agreement(client, chunks)
    with pytest.raises(LocalProtocolError, match="has ended"):
        client.read(b"x")
    return caught.value.response


@CHUNKED
@pytest.mark.parametrize("trailing", [b"", FRAMES])
def test_client_comes_to_an_agreement(chunks: type[list[bytes]], trailing: bytes) -> None:
    client = ClientHandshake("ws://x", subprotocols=["a", "b"], deflate=Deflate())
    data = agreeing(client, "Sec-WebSocket-Protocol: b", "Sec-WebSocket-Extensions: permessage-deflate")
    arriving: Iterator[bytes] = iter(chunks(data + trailing))
    agreement = read_agreement(client, arriving)
    assert agreement is not None
    assert agreement.subprotocol == "b"
    assert agreement.deflate is not None
    assert client.rest + b"".join(arriving) == trailing
    assert client.response is not None
    assert (client.response.status, client.response.reason) == (101, "Switching Protocols")
    assert client.response.headers["sec-websocket-protocol"] == "b"
    with pytest.raises(LocalProtocolError, match="has ended"):
        client.read(b"x")


@CHUNKED
def test_wrong_101_fails_with_the_response(chunks: type[list[bytes]]) -> None:
    client = ClientHandshake("ws://x")
    response = check_failed(client, chunks(agreeing(client, "Sec-WebSocket-Protocol: a") + FRAMES), "no subprotocol")
    assert response is not None
    assert response.status == 101
    assert response is client.response


@CHUNKED
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 5"], b"Sorry"),
        (["Content-Length: 0"], b""),
        (["Transfer-Encoding: chunked"], b"2\r\nSo\r\n3\r\nrry\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("trailing", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_other_status_fails_with_the_response_and_its_body(
    chunks: type[list[bytes]], headers: list[str], body: bytes, trailing: bytes
) -> None:
    client = ClientHandshake("ws://x")
    data = head("HTTP/1.1 403 Not you", "X-A: é", *headers) + body + trailing
    response = check_failed(client, chunks(data), "expected status 101, found 403 Not you")
    assert response is not None
    assert response is client.response
    assert (response.status, response.reason, response.headers["X-A"]) == (403, "Not you", "é")
    assert response.body == (b"Sorry" if body else b"")


@CHUNKED
def test_body_without_a_length_ends_with_the_stream(chunks: type[list[bytes]]) -> None:
    client = ClientHandshake("ws://x")
    assert read_agreement(client, chunks(head("HTTP/1.1 500 Oops") + b"Sorry")) is None
    with pytest.raises(HandshakeError, match="found 500 Oops") as caught:
        client.read_eof()
    assert caught.value.response is client.response
    assert caught.value.response is not None
    assert caught.value.response.body == b"Sorry"
    with pytest.raises(LocalProtocolError, match="has ended"):
        client.read(b"x")


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "X: y"])
def test_long_body_is_cut(framing: str) -> None:
    client = ClientHandshake("ws://x")
    endless = [head("HTTP/1.1 500 Oops", framing)] + [b"a" * 1000] * 100
    response = check_failed(client, endless, "found 500")
    assert response is not None
    assert response.body == b"a" * MAX_RESPONSE_BODY
    client = ClientHandshake("ws://x", max_response_body=10)
    response = check_failed(client, endless, "found 500")
    assert response is not None
    assert response.body == b"a" * 10


def test_body_that_breaks_off_or_is_malformed_is_kept_so_far() -> None:
    client = ClientHandshake("ws://x")
    assert client.read(head("HTTP/1.1 403 No", "Content-Length: 9") + b"Sorry") is None
    with pytest.raises(HandshakeError, match="found 403 No") as caught:
        client.read_eof()
    assert caught.value.response is not None
    assert caught.value.response.body == b"Sorry"
    client = ClientHandshake("ws://x")
    data = [head("HTTP/1.1 403 No", "Transfer-Encoding: chunked") + b"2\r\nNo\r\nmore\r\n"]
    response = check_failed(client, data, "malformed response")
    assert response is not None
    assert (response.status, response.body) == (403, b"No")


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"])
def test_end_of_stream_in_the_head_fails_without_a_response(data: bytes) -> None:
    client = ClientHandshake("ws://x")
    assert client.read(data) is None
    with pytest.raises(HandshakeError, match="server closed the connection") as caught:
        client.read_eof()
    assert caught.value.response is None


def test_end_of_stream_behind_a_101_carries_it() -> None:
    client = ClientHandshake("ws://x")
    client.read(agreeing(client))
    with pytest.raises(HandshakeError, match="server closed the connection") as caught:
        client.read_eof()
    assert caught.value.response is client.response is not None


@CHUNKED
def test_informational_responses_are_skipped(chunks: type[list[bytes]]) -> None:
    client = ClientHandshake("ws://x")
    early = head("HTTP/1.1 103 Early Hints", "Link: </a>") * MAX_INFORMATIONAL
    assert read_agreement(client, chunks(early + agreeing(client))) == (None, None)


@CHUNKED
def test_endless_informational_responses_fail(chunks: type[list[bytes]]) -> None:
    early = head("HTTP/1.1 103 Early Hints") * (MAX_INFORMATIONAL + 1)
    message = f"expected status 101, found 103 after {MAX_INFORMATIONAL} such"
    assert check_failed(ClientHandshake("ws://x"), chunks(early), message) is None


@CHUNKED
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (head("HTTP/1.1 999 Odd"), "expected status 101, found 999"),
        (b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\r\n\r\n", "bare LF"),
        (head("HTTP/1.1 200 OK", "A: b", " c"), "folded"),
        (head("SSH-2.0-OpenSSH"), "malformed response: expected an HTTP status line, found 'S"),
        (b"\x15\x03\x01\x00\x02", "malformed response: expected an HTTP status line, found "),
        (head("HTTP/1.1 101 OK", "A\x00: b"), "malformed"),
        (head("HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 2"), "malformed"),
        (head("HTTP/1.1 101 OK", *["A: b"] * (MAX_HEADERS + 1)), f"more than {MAX_HEADERS} headers"),
    ],
)
def test_what_is_not_http_fails_without_a_response(chunks: type[list[bytes]], data: bytes, message: str) -> None:
    assert check_failed(ClientHandshake("ws://x"), chunks(data), message) is None


BANNERS = {
    b"SSH-2.0-OpenSSH_9.6\r\n": "found 'SSH-2.0-OpenSSH_9.6'",
    b"220 mail.example.org ESMTP\n": "found '220 mail.example.org ESMTP'",
    b"J\0\0\0\n8.0.36\0": r"found 'J\x00\x00\x00'",
    b"* OK IMAP4rev1 ready": "found '* OK IMAP4rev1 ready'",
    b"HTTP/1.1 OK\r\n": "found 'HTTP/1.1 OK'",
    b"HTTP/1.1 200OK\r\n": "found 'HTTP/1.1 200OK'",
    b"HTTP/1.1 2000 OK\r\n": "found 'HTTP/1.1 2000 OK'",
    b"HTTP/2 200\r\n": "found 'HTTP/2 200'",
    b"http/1.1 200 OK\r\n": "found 'http/1.1 200 OK'",
    b"<html>" + b"a" * 99: f"found '<html>{'a' * 54}'... (105 characters)",
    b"\x1b[31mred\x9b\r\n": r"found '\x1b[31mred\x9b'",
    b"+OK ws://ada:secret@pop/?secret\r\n": "found '+OK ws://...@pop/?...'",
    b"\x15\x03\x01\0\x02\x02\x46": "found TLS (is it wss://?)",
    b"\r\nHTTP/1.1 101 OK\r\n": "found ''",
}


@pytest.mark.parametrize("banner", BANNERS)
def test_what_speaks_no_http_is_told_at_once_by_its_first_line(banner: bytes) -> None:
    """Before there is an end of its head, which may never come."""
    client = ClientHandshake("ws://x")
    message = f"malformed response: expected an HTTP status line, {BANNERS[banner]}"
    assert check_failed(client, [banner], f"^{re.escape(message)}$") is None
    client = ClientHandshake("ws://x")
    assert check_failed(client, CHUNKINGS["byte by byte"](banner), "^malformed response: expected an HTTP st") is None


@pytest.mark.parametrize("line", ["HTTP/1.1 101", "HTTP/1.0 101 ", "HTTP/1.1 101 S\xe9 \t!", "HTTP/9.9 101 OK"])
def test_a_status_line_may_be_written_in_this_way_too(line: str) -> None:
    client = ClientHandshake("ws://x")
    assert read_agreement(client, [agreeing(client, line=line)]) == (None, None)


@pytest.mark.parametrize("start", [b"HTTP/1.1 101 ", b"HTTP/1.1 101 OK\r\n"])
def test_endless_response_head_is_capped(start: bytes) -> None:
    client = ClientHandshake("ws://x")
    chunks = [start] + [b"a" * 1000] * (MAX_HEADER_BYTES // 1000 + 1)
    check_failed(client, chunks, f"over {MAX_HEADER_BYTES} bytes")
    check_failed(ClientHandshake("ws://x", max_header_bytes=100), chunks[:2], "over 100 bytes")
    check_failed(ClientHandshake("ws://x", max_headers=1), [head("HTTP/1.1 101 OK", "A: b", "C: d")], "more than 1 h")


def test_a_body_in_tiny_chunks_is_cut_before_it_takes_its_time() -> None:
    client = ClientHandshake("ws://x")
    data = head("HTTP/1.1 403 No", "Transfer-Encoding: chunked") + b"1\r\na\r\n" * 10_000
    response = check_failed(client, [data], "found 403 No")
    assert response is not None
    assert response.body == b"a" * MAX_BODY_PIECES


# The server reads


@CHUNKED
@pytest.mark.parametrize("trailing", [b"", FRAMES])
def test_server_reads_the_request(chunks: type[list[bytes]], trailing: bytes) -> None:
    server = ServerHandshake()
    arriving: Iterator[bytes] = iter(chunks(request_head(*RIGHT, "X-A: é", "x-a:  b c\t") + trailing))
    request = read_request(server, arriving)
    assert request is not None
    assert request is server.request
    assert (request.method, request.target, request.path, request.query) == ("GET", "/chat?a=b", "/chat", "a=b")
    assert request.headers["host"] == "x"
    assert request.headers.getall("X-A") == ["é", "b c"]
    assert server.rest + b"".join(arriving) == trailing
    assert server.write() == b""
    with pytest.raises(LocalProtocolError, match="read already"):
        server.read(b"x")


@CHUNKED
@pytest.mark.parametrize("trailing", [b"", FRAMES])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        # Lines that are none.
        (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
        (b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\ry\r\n\r\n", 400),
        (request_head("Host: x", "A: b", " c"), 400),
        (request_head("Host: x", "A: b", "\tc"), 400),
        (request_head(" A: b", "Host: x"), 400),
        # Bytes that are not allowed where they stand.
        (request_head("Host: x", "A: \x00"), 400),
        (request_head("Host: x", "A\x00: b"), 400),
        (request_head("Host: x", line="GET /\x00 HTTP/1.1"), 400),
        (request_head("Host: x", line="GET /\xe9 HTTP/1.1"), 400),
        (request_head("Host : x"), 400),
        (request_head("Host"), 400),
        (request_head("Host: x", line="GET  / HTTP/1.1"), 400),
        (request_head("Host: x", line="GET /"), 400),
        (request_head("Host: x", line="GET / HTTP/11"), 400),
        (request_head("Host: x", line=" GET / HTTP/1.1"), 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),  # TLS
        # Hosts and bodies.
        (request_head("A: b"), 400),
        (request_head("Host: x", "Host: x"), 400),
        (request_head(*RIGHT, "Content-Length: 5") + b"Hello", 400),
        (request_head(*RIGHT, "Content-Length: 5"), 400),
        (request_head(*RIGHT, "Content-Length: -1"), 400),
        (request_head(*RIGHT, "Content-Length: 0", "Content-Length: 5"), 400),
        (request_head(*RIGHT, "Transfer-Encoding: chunked"), 400),
        (request_head(*RIGHT, "Transfer-Encoding: chunked", "Content-Length: 0"), 400),
        (request_head(*RIGHT, "Transfer-Encoding: identity"), 400),
        (request_head(*RIGHT, "Transfer-Encoding: \x0bchunked"), 400),
        # Limits.
        (request_head(*RIGHT, line=f"GET /{'a' * MAX_REQUEST_LINE} HTTP/1.1"), 414),
        (request_head(*RIGHT, *["A: b"] * (MAX_HEADERS - len(RIGHT) + 1)), 431),
        # Not HTTP/1.1.
        (request_head(*RIGHT, line="GET / HTTP/1.0"), 426),
        (head("GET / HTTP/1.0"), 426),
        (request_head(*RIGHT, line="GET / HTTP/2.0"), 426),
        # No WebSocket.
        (request_head("Host: x"), 426),
        (request_head(*RIGHT, line="POST / HTTP/1.1"), 405),
        (request_head(*RIGHT[:-1], "Sec-WebSocket-Version: 8"), 426),
        (request_head(*RIGHT, f"Sec-WebSocket-Key: {KEY}"), 400),
        (request_head(*RIGHT, "Sec-WebSocket-Key: abc"), 400),
        (request_head(*RIGHT[:3], "Sec-WebSocket-Key: abc", RIGHT[4]), 400),
    ],
)
def test_server_refuses(chunks: type[list[bytes]], data: bytes, status: int, trailing: bytes) -> None:
    check_refused(ServerHandshake(), chunks(data + trailing), status)


@pytest.mark.parametrize("method", ["CONNECT", "connect"])
def test_connect_never_reaches_whoever_might_answer_it_with_2xx(method: str) -> None:
    server = ServerHandshake()
    data = head(f"{method} a:1 HTTP/1.1", "Host: a:1")
    if method == "CONNECT":
        check_refused(server, [data], 405)
        assert server.response is not None
        assert server.response.headers["Allow"] == "GET"
    else:  # Methods are case-sensitive (RFC 9110, section 9.1): this is another one, unknown.
        server.read(data)
        server.refuse(Response(200))
        assert status_in(server.write()) == 200


@CHUNKED
@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://h/chat?a=b", "/chat?a=b", "h"),
        ("HTTPS://H:8443/chat", "/chat", "h:8443"),
        ("http://h:80", "/", "h"),
        ("ws://h:443/", "/", "h:443"),
        ("wss://[::1]:443?a=/b", "/?a=/b", "[::1]"),
        ("ws://[fe80::1%25eth0]/", "/", "[fe80::1]"),
        ("//h/chat", "//h/chat", "x"),
        ("/http://h/chat", "/http://h/chat", "x"),
        ("*", "*", "x"),
    ],
)
def test_the_target_may_be_a_whole_url(chunks: type[list[bytes]], target: str, path: str, host: str) -> None:
    """RFC 9112, section 3.2.2; RFC 6455, section 4.2.1, item 1."""
    server = ServerHandshake()
    request = read_request(server, chunks(request_head(line=f"GET {target} HTTP/1.1")))
    assert request is not None
    assert request.target == path
    assert request.headers.getall("Host") == [host]
    assert server.accept() == (None, None)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http:///chat", "invalid host ''"),
        ("http://a..b/", "invalid host 'a..b'"),
        ("http://h:0/", "invalid port '0'"),
        ("http://h/#a", "URL must not have a fragment"),
        ("http://ada:hidden@h/", "URL must not have user information"),
        ("http://ada:hidden@h:x/", "invalid port"),
        ("ftp://h/", "unsupported URL scheme 'ftp' (expected 'ws', 'wss', 'http' or 'https')"),
    ],
)
def test_a_target_that_is_no_url_is_400(target: str, message: str) -> None:
    shown = check_refused(ServerHandshake(), [request_head(line=f"GET {target} HTTP/1.1")], 400)
    assert shown.startswith(f"malformed request: target: {message}")
    assert "hidden" not in shown


@CHUNKED
@pytest.mark.parametrize("empty", range(MAX_EMPTY_LINES + 2))
def test_a_few_empty_lines_before_a_request_are_skipped(chunks: type[list[bytes]], empty: int) -> None:
    """RFC 9112, section 2.2."""
    server = ServerHandshake()
    data = b"\r\n" * empty + request_head()
    if empty > MAX_EMPTY_LINES:
        check_refused(server, chunks(data), 400)
    else:
        assert read_request(server, chunks(data)) is not None
        server.accept()


def test_an_empty_line_does_not_count_as_a_line() -> None:
    server = ServerHandshake(max_request_line=20, max_headers=5)
    assert read_request(server, [b"\r", b"\n\r\n", request_head(line="GET /aaaaaa HTTP/1.1")]) is not None


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS (is it ws://?)"),
        (b"EHLO mail\r\n", "'EHLO mail'"),
        (b"GET /\r\n", "'GET /'"),
        (b"GET /?secret HTTP/11\r\n", "'GET /?...'"),
        (b"GET /caf\xe9?secret HTTP/1.1\r\n", "'GET /caf\xe9?...'"),
        (b"\0\1\2", r"'\x00\x01\x02'"),
        (b" GET / HTTP/1.1", "' GET / HTTP/1.1'"),
        (b"\n", "''"),
    ],
)
def test_what_speaks_no_http_is_refused_at_its_first_line(data: bytes, found: str) -> None:
    message = check_refused(ServerHandshake(), [data], 400)
    assert message == f"malformed request: expected an HTTP request line, found {found}"


def test_limits_are_met_exactly() -> None:
    line = f"GET /{'a' * (MAX_REQUEST_LINE - 14)} HTTP/1.1"
    assert len(line) == MAX_REQUEST_LINE
    headers = [*RIGHT, *["A: b"] * (MAX_HEADERS - len(RIGHT))]
    filling = MAX_HEADER_BYTES - len(request_head(*headers, line=line))
    headers[-1] += "b" * filling
    data = request_head(*headers, line=line)
    assert len(data) == MAX_HEADER_BYTES
    assert ServerHandshake().read(data + FRAMES) is not None
    headers[-1] += "b"
    check_refused(ServerHandshake(), [request_head(*headers, line=line)], 431)
    check_refused(ServerHandshake(), [f"{line}1\r\n".encode()], 414)
    smaller = {"max_header_bytes": 400, "max_headers": 6, "max_request_line": 20}
    assert ServerHandshake(**smaller).read(request_head(*RIGHT, "A: b", line="GET /aaaaaa HTTP/1.1")) is not None
    check_refused(ServerHandshake(**smaller), [request_head(*RIGHT, "A: b", "A: b")], 414)
    check_refused(ServerHandshake(**smaller), [request_head(*RIGHT, "A: b", "A: b", line="GET / HTTP/1.1")], 431)
    check_refused(ServerHandshake(**smaller), [request_head(*RIGHT, "A: " + "b" * 300, line="GET / HTTP/1.1")], 431)


@pytest.mark.parametrize(
    ("start", "status"), [(b"", 414), (b"GET / HTTP/1.1\r\nA: ", 431), (b"GET / HTTP/1.1\r\n", 431)]
)
def test_endless_head_is_refused_at_the_limit(start: bytes, status: int) -> None:
    server = ServerHandshake()
    endless = iter([start, *[b"a" * 1000] * 70])
    message = check_refused(server, endless, status)
    assert "is over" in message
    read = MAX_REQUEST_LINE if status == 414 else MAX_HEADER_BYTES
    assert sum(map(len, endless)) > 70_000 - read - 1000


def test_a_bare_lf_is_refused_as_soon_as_it_is_seen() -> None:
    check_refused(ServerHandshake(), [b"GET / HTTP/1.1\r\nHost: x\n"], 400)


@pytest.mark.parametrize("space", ["\x0b", "\x0c", "\x1c", "\x85"])
def test_false_line_breaks_break_no_line(space: str) -> None:
    data = request_head(*RIGHT, f"A: b{space}Upgrade: c")
    server = ServerHandshake()
    if space in "\x0b\x0c":  # h11 takes them for white space that is not allowed there
        check_refused(server, [data], 400)
    else:
        request = server.read(data)
        assert request is not None
        assert request.headers["A"] == f"b{space}Upgrade: c"
        assert request.headers.getall("Upgrade") == ["websocket"]


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", request_head()])
def test_end_of_stream_fails(data: bytes) -> None:
    server = ServerHandshake()
    server.read(data)
    with pytest.raises(HandshakeError, match="client closed the connection") as caught:
        server.read_eof()
    assert caught.value.response is None


def test_content_length_of_0_is_no_body() -> None:
    server = ServerHandshake()
    assert server.read(request_head(*RIGHT, "Content-Length: 0")) is not None
    server.accept()


# The server answers


def reading_server(*headers: str, line: str = "GET / HTTP/1.1") -> ServerHandshake:
    server = ServerHandshake()
    assert server.read(request_head(*RIGHT, *headers, line=line)) is not None
    return server


def test_server_accepts() -> None:
    server = reading_server()
    assert server.accept() == (None, None)
    assert server.write() == head(
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
    )
    assert server.write() == b""
    assert server.response is not None
    assert server.response.status == 101
    assert server.response.headers["Sec-WebSocket-Accept"] == ACCEPT
    with pytest.raises(LocalProtocolError, match="answered already"):
        server.accept()


def test_server_states_what_was_agreed() -> None:
    server = reading_server("Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Extensions: permessage-deflate")
    agreement = server.accept(
        subprotocol="b",
        deflate=Deflate(server_max_window_bits=10),
        headers=[("Set-Cookie", "a=é"), ("Set-Cookie", "c")],
    )
    assert agreement.subprotocol == "b"
    assert agreement.deflate is not None
    assert agreement.deflate.compress_window_bits == 10
    written = server.write()
    assert b"\r\nSec-WebSocket-Protocol: b\r\n" in written
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n" in written
    assert b"\r\nSet-Cookie: a=\xe9\r\nSet-Cookie: c\r\n" in written


@pytest.mark.parametrize("extensions", [[], ["Sec-WebSocket-Extensions: x"]])
def test_without_an_offer_there_is_no_compression(extensions: list[str]) -> None:
    server = reading_server(*extensions)
    assert server.accept(deflate=Deflate()).deflate is None
    assert b"Extensions" not in server.write()


@pytest.mark.parametrize("value", ["foo;bar=", 'foo;bar="b@z"', "foo;", "foo bar"])
@pytest.mark.parametrize("deflate", [None, Deflate()])
def test_malformed_extensions_fail_the_handshake_whoever_wants_them(value: str, deflate: Deflate | None) -> None:
    """RFC 6455, section 9.1."""
    server = reading_server(f"Sec-WebSocket-Extensions: {value}")
    with pytest.raises(HandshakeError, match=r"^malformed Sec-WebSocket-Extensions: "):
        server.accept(deflate=deflate)
    assert split_response(server.write())[0] == 400
    client = ClientHandshake("ws://x", deflate=deflate)
    check_failed(client, [agreeing(client, f"Sec-WebSocket-Extensions: {value}")], "^Sec-WebSocket-Extensions ")


def test_malformed_lists_are_400() -> None:
    for header, subprotocol in (("Sec-WebSocket-Extensions: a b", None), ("Sec-WebSocket-Protocol: a b", "a")):
        server = reading_server(header)
        with pytest.raises(HandshakeError, match=f"malformed {header[:-5]}"):
            server.accept(subprotocol=subprotocol, deflate=Deflate())
        assert split_response(server.write())[0] == 400


def test_a_response_may_give_the_headers_of_the_101() -> None:
    server = reading_server()
    server.accept(headers=Response(101, [("Set-Cookie", "a"), ("Set-Cookie", "b"), ("Server", "c")]).headers)
    assert server.write().endswith(b"\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nServer: c\r\n\r\n")
    for name in ("Connection", "Sec-WebSocket-Accept", "Content-Length"):
        server = reading_server()
        with pytest.raises(ValueError, match=f"header {name} is set by the handshake and cannot be given"):
            server.accept(headers=Response(101, {name: "1"}).headers)
        assert server.write() == b""


def test_mistakes_of_the_caller_leave_the_request_to_be_answered() -> None:
    server = reading_server("Sec-WebSocket-Protocol: a")
    with pytest.raises(ValueError, match="subprotocol must be one that the client offered, not 'b'"):
        server.accept(subprotocol="b")
    with pytest.raises(ValueError, match="must be Latin-1"):
        server.accept(headers={"A": "\n"})
    with pytest.raises(ValueError, match="status must be 200 to 599, not 101"):
        server.refuse(Response(101))
    assert server.response is None
    assert server.write() == b""
    server.refuse(Response(500))
    assert split_response(server.write())[0] == 500


def test_nothing_is_accepted_before_there_is_a_request() -> None:
    with pytest.raises(LocalProtocolError, match="no request to accept"):
        ServerHandshake().accept()


def test_server_that_shuts_down_refuses_before_there_is_a_request() -> None:
    server = ServerHandshake()
    assert server.read(b"GET / HTTP/1.1\r\n") is None
    server.refuse(Response(503))
    assert split_response(server.write())[0] == 503


def test_server_refuses_with_any_response() -> None:
    server = reading_server()
    response = Response(403, {"X-A": "é", "Connection": "keep-alive", "Content-Length": "99"}, "nö", "Nö")
    server.refuse(response)
    assert server.response is response
    data = server.write()
    assert data.startswith(b"HTTP/1.1 403 N\xf6\r\n")
    assert split_response(data) == (
        403,
        {
            "X-A": "é",
            "Connection": "close",
            "Content-Length": "3",
            "Content-Type": "text/plain; charset=utf-8",
        },
        b"n\xc3\xb6",
    )


def test_body_is_never_chunked() -> None:
    server = reading_server()
    server.refuse(Response(403, {"Transfer-Encoding": "chunked"}, b"no"))
    assert split_response(server.write()) == (403, {"Content-Length": "2", "Connection": "close"}, b"no")


def test_usual_reason_is_filled_in() -> None:
    for status, reason in ((503, b"Service Unavailable"), (599, b"")):
        server = reading_server()
        server.refuse(Response(status))
        assert server.write().startswith(b"HTTP/1.1 %d %s\r\n" % (status, reason))


def test_head_gets_no_body() -> None:
    server = reading_server(line="HEAD / HTTP/1.1")
    server.refuse(Response(404, body=b"nothing here"))
    assert split_response(server.write()) == (404, {"Content-Length": "12", "Connection": "close"}, b"")


@pytest.mark.parametrize(("status", "length"), [(204, {}), (205, {"Content-Length": "0"}), (304, {})])
def test_status_without_a_body_has_no_length(status: int, length: dict[str, str]) -> None:
    server = reading_server()
    server.refuse(Response(status, {"Content-Length": "2"}, b"no"))
    assert split_response(server.write()) == (status, {**length, "Connection": "close"}, b"")


def test_every_final_response_has_the_date_unless_it_has_another() -> None:
    """RFC 9110, section 6.6.1."""
    before = datetime.now(timezone.utc).replace(microsecond=0)
    for response in (Response(200), Response(404, body="no"), Response(503)):
        server = reading_server()
        server.refuse(response)
        found = re.search(rb"\r\nDate: ([^\r]+)\r\n", server.write())
        assert found is not None
        assert before <= parsedate_to_datetime(found[1].decode()) <= datetime.now(timezone.utc)
        assert found[1].endswith(b" GMT")
    server = reading_server()
    server.refuse(Response(200, {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}))
    assert re.findall(rb"\r\nDate: ([^\r]+)", server.write()) == [b"Sun, 06 Nov 1994 08:49:37 GMT"]


def test_a_response_with_upgrade_names_it_in_connection() -> None:
    """RFC 9110, section 7.8."""
    for headers, connection in (({}, "close"), ({"upgrade": "h2c"}, "close, Upgrade")):
        server = reading_server()
        server.refuse(Response(200, headers))
        assert split_response(server.write())[1]["Connection"] == connection


# Both together, and whatever a peer writes


@settings(deadline=None)
@given(
    subprotocols=st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    size=st.integers(1, 50),
    compress=st.booleans(),
)
def test_client_and_server_come_to_the_same_agreement(subprotocols: list[str], size: int, *, compress: bool) -> None:
    client = ClientHandshake("ws://x/", subprotocols=subprotocols, deflate=Deflate() if compress else None)
    server = ServerHandshake()
    data = client.write()
    assert read_request(server, [data[start : start + size] for start in range(0, len(data), size)]) == client.request
    ours = server.accept(subprotocol=subprotocols[-1] if subprotocols else None, deflate=Deflate())
    data = server.write()
    theirs = read_agreement(client, [data[start : start + size] for start in range(0, len(data), size)])
    assert theirs is not None
    assert theirs.subprotocol == ours.subprotocol
    assert (theirs.deflate is not None) == (ours.deflate is not None) == compress


PIECES = st.sampled_from(
    [
        *(f"{line}\r\n".encode() for line in RIGHT),
        *(b"Sec-WebSocket-Extensions: permessage-deflate;", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        *(b"GET / HTTP/1.1\r\n", b"HTTP/1.1 101 OK\r\n", b"HTTP/1.1 403 No\r\n", b"HTTP/1.1 100 \r\n"),
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b",", b":", b"\x00", b"\x0b", b"\x85"),
    ]
) | st.binary(max_size=5)


@settings(deadline=None)
@given(data=st.lists(PIECES, max_size=12).map(b"".join), start=st.booleans(), size=st.integers(1, 100))
def test_only_handshake_errors_come_of_any_bytes(data: bytes, size: int, *, start: bool) -> None:
    server = ServerHandshake()
    error = error_of(read_and_accept, server, _sized(b"GET / HTTP/1.1\r\n" * start + data, size))
    written = server.write()
    if written:
        assert status_in(written) == (101 if error is None else status_of(error))
    else:
        assert error is None
    client = ClientHandshake("ws://x", deflate=Deflate())
    if error_of(read_agreement, client, _sized(b"HTTP/1.1 200 OK\r\n" * start + data, size)) is None:
        assert isinstance(error_of(client.read_eof), HandshakeError)


@settings(deadline=None)
@given(data=st.lists(PIECES, max_size=12).map(b"".join))
def test_any_chunking_comes_to_the_same(data: bytes) -> None:
    outcomes = set()
    for size in (1, 3, len(data) + 100):
        server = ServerHandshake()
        error = error_of(read_request, server, _sized(b"GET / HTTP/1.1\r\nHost: x\r\n" + data, size))
        outcomes.add(repr(server.request) if error is None else status_of(error))
    assert len(outcomes) == 1


def _sized(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
