"""The HTTP/1.1 bytes of the opening handshake (RFC 6455, section 4; RFC 9112).

Bytes in, bytes out, for one connection and one request: ``read(data)`` takes what arrived, ``write()`` gives what is to
be sent, ``rest`` is what arrived behind the handshake and belongs to the frames. What the headers mean is decided in
``negotiate``. A head is collected here and parsed by h11 in one piece, which keeps byte-wise delivery linear, and lets
this module refuse what h11 lets pass (a bare LF and a folded line), and refuse at once what is not HTTP. A server's
response is written here: its parts are checked when it is built, and it needs none of the rest of h11's state machine.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from sys import intern
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

import h11
from multidict import CIMultiDict

from ..errors import HandshakeError, LocalProtocolError
from ..wire.deflate import Agreement
from .messages import TOKEN, Headers, HeadersLike, Request, Response, build_headers, hide_secrets, is_token, shorten
from .negotiate import (
    VERSION,
    accept_offer,
    accept_value,
    check_chosen,
    check_final,
    check_method,
    check_request,
    check_response,
    make_key,
    offer,
    refusal,
)
from .url import Url, authority_of, basic, split_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..wire.deflate import Deflate

__all__ = [
    "MAX_HEADERS",
    "MAX_HEADER_BYTES",
    "MAX_REQUEST_LINE",
    "MAX_RESPONSE_BODY",
    "USER_AGENT",
    "ClientHandshake",
    "Exchange",
    "MalformedError",
    "ServerHandshake",
]

MAX_HEADER_BYTES: Final = 65_536
"""Bytes of a head, its first line included. node.js takes 16 KiB, nginx 32 KiB, http.client 64 KiB a line."""

MAX_HEADERS: Final = 128
"""Headers of a head. http.client takes 100, Apache 100, websockets 128; a browser sends about 20."""

MAX_REQUEST_LINE: Final = 8_192
"""Bytes of a request line. RFC 9112, section 3, asks for 8,000 at least; Apache takes 8,190."""

MAX_EMPTY_LINES: Final = 4
"""Empty lines before a request line that a server skips (RFC 9112, section 2.2): some clients end a body with one."""

MAX_RESPONSE_BODY: Final = 65_536
"""Bytes of a refusing response's body that the client keeps: it explains the refusal to a person, the rest is cut."""

MAX_BODY_PIECES: Final = 256
"""Pieces of such a body, chunks or what came at a time, that the client reads: a body in chunks of one byte each costs
about 10 us a byte, and is cut before it holds up everybody else."""

USER_AGENT: Final = "trio_pyjo_ws"
"""The value of User-Agent, unless the caller has another."""

MAX_INFORMATIONAL: Final = 5
"""Responses such as 103 Early Hints that the client skips before the one that counts; Go's net/http takes 5."""

_REASONS = {status.value: status.phrase for status in HTTPStatus}
# The schemes that a request's target may have, if it is a whole URL (RFC 9112, section 3.2.2; RFC 6455, section 4.2.1).
_TARGET_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_SCHEME = re.compile(r"[A-Za-z][-+.0-9A-Za-z]*://")
# The last two would have the peer wait for a body that does not come.
_OWN_HEADERS = frozenset({"upgrade", "connection", "content-length", "transfer-encoding"})
# What has no body by definition; all but 205 have no length either (RFC 9110, section 8.6).
BODILESS = frozenset({204, 205, 304})


class MalformedError(Exception):
    """What arrived is not HTTP, or over a limit; ``status`` answers it. The message shows nothing that is secret."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _FirstLine(NamedTuple):
    """What the first line of a head must be."""

    name: str
    begin: re.Pattern[bytes]
    """Matches whatever may yet become one."""
    whole: re.Pattern[bytes]
    """Matches what h11 takes for one."""
    over_tls: str
    """What to ask if TLS was found in its place."""


_REQUEST_LINE = _FirstLine(
    "an HTTP request line",
    re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]"),
    re.compile(TOKEN.encode() + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]"),
    "is it ws://?",
)
_STATUS_LINE = _FirstLine(
    "an HTTP status line",
    re.compile(rb"HTTP/|HTTP\Z|HTT\Z|HT\Z|H\Z"),
    re.compile(rb"HTTP/[0-9]\.[0-9] [0-9]{3}(?: [^\x00\n\r\x0b\x0c]*)?"),
    "is it wss://?",
)


class _Head:
    """Collects the bytes of one head after the other, in linear time however they arrive."""

    __slots__ = (
        "_empty_lines",
        "_first_line",
        "_line_ended",
        "_max_first_line",
        "_max_header_bytes",
        "_max_headers",
        "_searched",
        "buffer",
    )

    def __init__(
        self, first_line: _FirstLine, max_header_bytes: int, max_headers: int, max_first_line: int, empty_lines: int = 0
    ) -> None:
        self.buffer = bytearray()
        self._first_line = first_line
        self._max_header_bytes = max_header_bytes
        self._max_headers = max_headers
        self._max_first_line = max_first_line
        self._empty_lines = empty_lines  # that are still skipped
        self._searched = 0
        self._line_ended = False

    def add(self, data: bytes) -> bytes | None:
        """A whole head up to its empty line, or None while more is needed; what follows stays in ``buffer``."""
        buffer = self.buffer
        buffer += data
        if not self._line_ended and self._skip_empty_lines():
            return None
        searched = self._searched
        end = buffer.find(b"\r\n\r\n", max(searched - 3, 0))
        stop = self._searched = len(buffer) if end < 0 else end + 4
        if not self._line_ended:
            self._check_first_line(searched)
        # Each LF needs a CR before it: other parsers take a bare LF for the end of a line or of the head, and h11 does
        # too, so a proxy and this server could see two different requests (RFC 9112, section 2.2).
        if buffer.count(b"\n", searched, stop) != buffer.count(b"\r\n", max(searched - 1, 0), stop):
            raise MalformedError("bare LF")
        if stop > self._max_header_bytes:
            raise MalformedError(f"head is over {self._max_header_bytes} bytes", 431)
        if end < 0:
            return None
        head = bytes(buffer[:stop])
        del buffer[:stop]
        self._searched = 0
        self._line_ended = False
        if head.count(b"\r\n") - 2 > self._max_headers:
            raise MalformedError(f"more than {self._max_headers} headers", 431)
        if b"\r\n " in head or b"\r\n\t" in head:
            raise MalformedError("folded header line")  # RFC 9112, section 5.2
        return head

    def _skip_empty_lines(self) -> bool:
        """Drop the empty lines before the first line; return whether there is nothing else yet."""
        buffer = self.buffer
        while self._empty_lines and buffer.startswith(b"\r\n"):
            del buffer[:2]
            self._searched = 0
            self._empty_lines -= 1
        return not buffer or (self._empty_lines > 0 and buffer == b"\r")

    def _check_first_line(self, searched: int) -> None:
        """Refuse what is not the first line, as soon as that is known: whoever speaks no HTTP may never end a head."""
        buffer, first_line = self.buffer, self._first_line
        end = buffer.find(b"\n", searched, self._max_first_line + 2)
        if end < 0 and first_line.begin.match(buffer):
            if len(buffer) >= self._max_first_line + 2:
                raise MalformedError(f"first line is over {self._max_first_line} bytes", 414)
            return
        self._line_ended = True
        line = bytes(buffer[: end if end >= 0 else None]).removesuffix(b"\r")
        if first_line.whole.fullmatch(line) is None:
            found = shorten(hide_secrets(line.decode("latin-1")))
            if line.startswith((b"\x15\x03", b"\x16\x03")):  # an alert or a handshake (RFC 8446, section 5.1)
                found = f"TLS ({first_line.over_tls})"
            raise MalformedError(f"expected {first_line.name}, found {found}")


def _next_event(connection: h11.Connection) -> Any:
    """What h11 makes of what it was given."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        # Behind ": b" h11 shows what the error is about, which in a header may be a secret. Its hint at a status is 501
        # for an unknown transfer coding; here none is right.
        raise MalformedError(str(error).partition(": b")[0]) from None


def _decode(event: h11.Request | h11.InformationalResponse | h11.Response) -> Headers:
    """The headers as text; h11 has checked them."""
    # All connections have the same few names: interned, they take 0.5 KiB less of each.
    items = event.headers.raw_items()
    return Headers(CIMultiDict([(intern(name.decode("ascii")), value.decode("latin-1")) for name, value in items]))


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


def _write_head(status: int, reason: str, headers: CIMultiDict[str] | Headers) -> bytes:
    """The head of a response, whose parts have been checked when it was built."""
    lines = [f"HTTP/1.1 {status} {reason}", *[f"{name}: {value}" for name, value in headers.items()], "\r\n"]
    return "\r\n".join(lines).encode("latin-1")


def caller_headers(headers: HeadersLike) -> Headers:
    """The caller's headers. Raises ValueError if one of them is for the handshake alone to set."""
    built = build_headers(headers)
    for name in built:
        if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"header {name} is set by the handshake and cannot be given")
    return built


class Exchange:
    """A request without a body, and the head of its response: the part that all the requests of a client share."""

    request: Request
    response: Response | None
    """What the server answered, once its head is complete."""
    expected = 101
    """The status of success."""

    def __init__(self, request: Request, max_header_bytes: int, max_headers: int) -> None:
        self.request = request
        self.response = None
        self._connection = h11.Connection(h11.CLIENT)
        self._output = self._connection.send(
            h11.Request(method=request.method, target=request.target, headers=_encode(request.headers))
        )
        self._connection.send(h11.EndOfMessage())
        self._head = _Head(_STATUS_LINE, max_header_bytes, max_headers, max_header_bytes)
        self._informational = 0

    def write(self) -> bytes:
        """The request, once; then nothing."""
        output, self._output = self._output, b""
        return output

    def _read_head(self, data: bytes) -> Response | None:
        """The response once its head is complete, None while more is needed; what follows stays in the buffer."""
        while (head := self._head.add(data)) is not None:
            self._connection.receive_data(head)
            event = cast("h11.InformationalResponse | h11.Response", _next_event(self._connection))
            status = event.status_code
            if status > 599:
                raise HandshakeError(f"expected status {self.expected}, found {status}")
            if status >= 200 or status == 101:
                self.response = Response(status, _decode(event), reason=event.reason.decode("latin-1"))
                return self.response
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                found = f"{status} after {MAX_INFORMATIONAL} such responses"
                raise HandshakeError(f"expected status {self.expected}, found {found}")
            data = b""  # the next head may be there already
        return None


class ClientHandshake(Exchange):
    """The client's side of one opening handshake.

    Raises TypeError or ValueError for anything that cannot be sent, before there is a connection. ``headers`` go into
    the request as they are; a Host, User-Agent or Authorization among them replaces that of the handshake.
    """

    rest: bytes
    """What arrived behind the head of the 101."""

    def __init__(
        self,
        url: str | Url,
        *,
        headers: HeadersLike = (),
        subprotocols: Sequence[str] = (),
        require_subprotocol: bool = False,
        origin: str | None = None,
        deflate: Deflate | None = None,
        user_agent: str | None = USER_AGENT,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_headers: int = MAX_HEADERS,
        max_response_body: int = MAX_RESPONSE_BODY,
    ) -> None:
        url = url if isinstance(url, Url) else Url.parse(url)
        self._subprotocols = _check_subprotocols(subprotocols)
        if require_subprotocol and not self._subprotocols:
            raise ValueError("require_subprotocol needs subprotocols to offer")
        self._require_subprotocol = require_subprotocol
        self._deflate = deflate
        self._max_response_body = max_response_body
        built = CIMultiDict({"Host": url.authority})
        if user_agent is not None:
            built["User-Agent"] = user_agent
        if url.user_information is not None:
            built["Authorization"] = basic(url.user_information)
        if origin is not None:
            built["Origin"] = origin
        built["Upgrade"] = "websocket"
        built["Connection"] = "Upgrade"
        built["Sec-WebSocket-Key"] = make_key()
        built["Sec-WebSocket-Version"] = VERSION
        if self._subprotocols:
            built["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        if deflate is not None:
            built["Sec-WebSocket-Extensions"] = offer(deflate)
        own = caller_headers(headers)
        for name in ("Host", "User-Agent", "Authorization"):
            if name in own:
                built.pop(name, None)
        built.extend(own)
        for name in ("Host", "Origin"):
            if len(built.getall(name, ())) > 1:
                raise ValueError(f"header {name} must be given once, not twice")
        super().__init__(Request("GET", url.target, list(built.items())), max_header_bytes, max_headers)
        self.rest = b""
        self._body = bytearray()
        self._pieces = 0
        self._ended = False

    def read(self, data: bytes) -> Agreement | None:
        """Take what arrived: the agreement once the server has agreed, None while more is needed.

        Raises HandshakeError when the handshake failed. A response other than 101 is read with its body first, of which
        ``max_response_body`` bytes are kept; whoever does not want to wait for its end, which may never come, finds its
        head in ``response`` and calls :meth:`read_eof`. Must not be called after an agreement or an error.
        """
        if self._ended:
            raise LocalProtocolError("the handshake has ended")
        try:
            agreement = self._read(data)
        except MalformedError as error:
            self._ended = True
            response = None if self.response is None else self._add_body(self.response)
            raise HandshakeError(f"malformed response: {error}", response) from error
        except HandshakeError:
            self._ended = True
            raise
        self._ended = agreement is not None
        return agreement

    def _read(self, data: bytes) -> Agreement | None:
        if self.response is not None:
            return self._read_body(self.response, data)
        response = self._read_head(data)
        if response is None:
            return None
        behind = bytes(self._head.buffer)
        if response.status != 101:
            return self._read_body(response, behind)
        self.rest = behind
        return check_response(
            self.request,
            response,
            subprotocols=self._subprotocols,
            require_subprotocol=self._require_subprotocol,
            deflate=self._deflate,
        )

    def _read_body(self, response: Response, data: bytes) -> Agreement | None:
        """Collect the body of a response other than 101; check_response raises once it is complete or long enough."""
        if data:  # To h11 no data means the end of the stream.
            self._connection.receive_data(data)
        while (event := _next_event(self._connection)) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                self._body += event.data
                self._pieces += 1
                if len(self._body) <= self._max_response_body and self._pieces < MAX_BODY_PIECES:
                    continue
            return check_response(self.request, self._add_body(response))
        return None

    def _add_body(self, response: Response) -> Response:
        """The response with as much of its body as there is."""
        body = bytes(self._body[: self._max_response_body])
        self.response = Response(response.status, response.headers, body, response.reason)
        return self.response

    def read_eof(self) -> NoReturn:
        """The server has closed its side: raises HandshakeError, with the response if its head was complete."""
        self._ended = True
        if self.response is not None and self.response.status != 101:
            check_response(self.request, self._add_body(self.response))
        raise HandshakeError("the server closed the connection before the handshake was complete", self.response)


def _check_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """The subprotocols, if they may be offered. Errors name them by position, because they may be secret tokens."""
    if isinstance(subprotocols, (str, bytes)):
        raise TypeError(f"subprotocols must be a sequence of tokens, not {type(subprotocols).__name__}")
    checked = tuple(subprotocols)
    for place, subprotocol in enumerate(checked, start=1):
        if not is_token(subprotocol):
            raise ValueError(f"subprotocol {place} of {len(checked)} must be a token (RFC 9110, section 5.6.2)")
    if len(set(checked)) < len(checked):
        raise ValueError("each subprotocol must be offered once, not twice")
    return checked


def _too_old() -> HandshakeError:
    """The refusal of a version of HTTP without WebSockets."""
    return refusal(426, "expected HTTP/1.1", {"Upgrade": "websocket"})


class ServerHandshake:
    """The server's side of one opening handshake: ``read`` until there is a request, then ``accept`` or ``refuse``."""

    request: Request | None
    response: Response | None
    """The response that was queued for ``write``."""
    rest: bytes
    """What arrived behind the request."""
    _is_old = False

    def __init__(
        self,
        *,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_headers: int = MAX_HEADERS,
        max_request_line: int = MAX_REQUEST_LINE,
    ) -> None:
        self.request = None
        self.response = None
        self.rest = b""
        self._connection = h11.Connection(h11.SERVER)
        self._head = _Head(_REQUEST_LINE, max_header_bytes, max_headers, max_request_line, MAX_EMPTY_LINES)
        self._output = b""

    def read(self, data: bytes) -> Request | None:
        """Take what arrived: the request once its head is complete, None while more is needed.

        Judges the request as HTTP only. Raises HandshakeError, with its response queued, for what is not HTTP/1.1, is
        over a limit, has a body, or is a CONNECT, which no answer may open here. Must not be called after either.
        """
        if self.request is not None or self.response is not None:
            raise LocalProtocolError("the request was read already")
        try:
            head = self._head.add(data)
            if head is None:
                return None
            self._connection.receive_data(head)
            event = cast("h11.Request", _next_event(self._connection))
            request = self.request = _build_request(event)
            if request.method == "CONNECT":  # A 2xx would make a tunnel of the connection (RFC 9110, section 9.3.6).
                check_method(request)
            if event.http_version != b"1.1":  # RFC 6455, section 4.1, item 2
                self._is_old = True  # Plain HTTP by 1.0, as health checks still send it, is for the server to answer.
                if event.http_version != b"1.0":
                    raise _too_old()
            if "Transfer-Encoding" in request.headers or request.headers.get("Content-Length", "").strip("0"):
                raise refusal(400, "expected a request without a body")
        except MalformedError as error:
            self._fail(refusal(error.status, f"malformed request: {error}"))
        except HandshakeError as error:
            self._fail(error)
        self.rest = bytes(self._head.buffer)
        return request

    def read_eof(self) -> NoReturn:
        """The client has closed its side: raises HandshakeError."""
        raise HandshakeError("the client closed the connection before the handshake was complete", self.response)

    def accept(
        self, *, subprotocol: str | None = None, deflate: Deflate | None = None, headers: HeadersLike = ()
    ) -> Agreement:
        """Queue the response that opens the WebSocket (RFC 6455, section 4.2.2), and return what was agreed.

        ``headers`` go into it beside those of the handshake: ``accept(headers=Response(101, ...).headers)``.

        Raises HandshakeError, with its response queued, if the request does not open a WebSocket. Raises ValueError,
        and queues nothing, for a subprotocol that the client did not offer, and for headers that cannot be sent or are
        the handshake's own.
        """
        request = self._unanswered()
        own = caller_headers(headers)
        try:
            if self._is_old:
                raise _too_old()
            check_request(request)
            check_chosen(request, subprotocol)
            extensions = request.headers.getall("Sec-WebSocket-Extensions", ())
            agreed = accept_offer(extensions, deflate) if extensions else None
        except HandshakeError as error:
            self._fail(error)
        fields = CIMultiDict({"Upgrade": "websocket", "Connection": "Upgrade"})
        fields["Sec-WebSocket-Accept"] = accept_value(request.headers["Sec-WebSocket-Key"])
        if subprotocol is not None:
            fields["Sec-WebSocket-Protocol"] = subprotocol
        if agreed is not None:
            fields["Sec-WebSocket-Extensions"] = agreed[0]
        fields.extend(own)
        response = self.response = Response(101, fields, reason="Switching Protocols")
        self._output = _write_head(101, response.reason, response.headers)
        del self._connection, self._head  # The handshake stays with an open connection, and these are most of it.
        return Agreement(subprotocol, None if agreed is None else agreed[1])

    def refuse(self, response: Response) -> None:
        """Queue a response that ends the connection; the handshake frames its body, and sets Connection and Date.

        May be called before there is a request, by a server that cannot wait for it. Raises ValueError for a status of
        1xx.
        """
        check_final(response)
        if self.response is not None:
            raise LocalProtocolError("answered already")
        self._queue(response)

    def write(self) -> bytes:
        """What is to be sent, once; then nothing."""
        output, self._output = self._output, b""
        return output

    def _unanswered(self) -> Request:
        if self.request is None or self.response is not None:
            raise LocalProtocolError("there is no request to accept" if self.request is None else "answered already")
        return self.request

    def _fail(self, error: HandshakeError) -> NoReturn:
        self._queue(cast("Response", error.response))  # `refusal` has made the error
        raise error

    def _queue(self, response: Response) -> None:
        self.response = response
        headers = CIMultiDict(response.headers)
        headers.popall("Transfer-Encoding", None)
        body = b"" if response.status in BODILESS else response.body
        headers["Content-Length"] = str(len(body))
        if response.status in (204, 304):
            del headers["Content-Length"]
        # RFC 9110, section 7.8: whoever sends Upgrade names it here as well.
        headers["Connection"] = "close, Upgrade" if "Upgrade" in headers else "close"
        if "Date" not in headers:
            from email.utils import formatdate  # noqa: PLC0415 - only a refusal needs it

            headers["Date"] = formatdate(usegmt=True)  # RFC 9110, section 6.6.1
        self._output = _write_head(response.status, response.reason or _REASONS.get(response.status, ""), headers)
        if self.request is None or self.request.method != "HEAD":
            self._output += body


def _build_request(event: h11.Request) -> Request:
    """The request, with path and query as its target also if the client sent a whole URL (RFC 9112, section 3.2.2)."""
    target, headers = event.target.decode(), _decode(event)
    if _SCHEME.match(target) is not None:
        try:
            scheme, user_information, host, port, target = split_url(target, _TARGET_PORTS)
        except ValueError as error:
            raise MalformedError(f"target: {error}") from error
        if user_information is not None:  # RFC 9110, section 4.2.4
            raise MalformedError("target: URL must not have user information")
        target = target if target.startswith("/") else f"/{target}"
        named = CIMultiDict(headers)
        named["Host"] = authority_of(host.partition("%")[0], port, _TARGET_PORTS[scheme])
        headers = Headers(named)
    return Request(event.method.decode(), target, headers)
