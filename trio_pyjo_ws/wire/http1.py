"""The HTTP/1.1 bytes of the opening handshake, read and written by h11 (RFC 6455, section 4; RFC 9112).

Bytes in, bytes out, for one connection and one request: ``read(data)`` takes what arrived, ``write()`` gives what is to
be sent, ``rest`` is what arrived behind the handshake and belongs to the frames. What the headers mean is decided in
``negotiate``. A head is collected here and handed to h11 in one piece, which keeps byte-wise delivery linear, and lets
this module refuse what h11 lets pass: a bare LF and a folded line.
"""

from __future__ import annotations

import re
from base64 import b64encode
from http import HTTPStatus
from ipaddress import IPv6Address
from sys import intern
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast
from urllib.parse import quote, unquote_to_bytes

import h11
from multidict import CIMultiDict

from ..errors import HandshakeError, LocalProtocolError
from .negotiate import (
    VERSION,
    Headers,
    HeadersLike,
    Request,
    Response,
    accept_offer,
    accept_value,
    build_headers,
    check_request,
    check_response,
    is_token,
    make_key,
    offer,
    offered_subprotocols,
    refusal,
    shorten,
)
from .protocol import Agreement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .deflate import Deflate

__all__ = [
    "MAX_HEADERS",
    "MAX_HEADER_BYTES",
    "MAX_REQUEST_LINE",
    "MAX_RESPONSE_BODY",
    "USER_AGENT",
    "ClientHandshake",
    "Exchange",
    "ServerHandshake",
    "Url",
    "basic",
    "split_url",
]

MAX_HEADER_BYTES: Final = 65_536
"""Bytes of a head, its first line included. node.js takes 16 KiB, nginx 32 KiB, http.client 64 KiB a line."""

MAX_HEADERS: Final = 128
"""Headers of a head. http.client takes 100, Apache 100, websockets 128; a browser sends about 20."""

MAX_REQUEST_LINE: Final = 8_192
"""Bytes of a request line. RFC 9112, section 3, asks for 8,000 at least; Apache takes 8,190."""

MAX_RESPONSE_BODY: Final = 65_536
"""Bytes of a refusing response's body that the client keeps: it explains the refusal to a person, the rest is cut."""

USER_AGENT: Final = "trio_pyjo_ws"
"""The value of User-Agent, unless the caller has another."""

MAX_INFORMATIONAL: Final = 5
"""Responses such as 103 Early Hints that the client skips before the one that counts; Go's net/http takes 5."""

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_PORTS = {"ws": 80, "wss": 443}
_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0]")
_URL = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^]%/?#@]*\]|[^][:/?#@]*)"
    r"(?::(?P<port>[^/?#@]*))?(?P<target>[/?].*)?",
    re.DOTALL,
)
_HOST = re.compile(r"[0-9a-z._-]+")
_PORT = re.compile(r"[0-9]{1,5}")
# The last two would have the peer wait for a body that does not come.
_OWN_HEADERS = frozenset({"upgrade", "connection", "content-length", "transfer-encoding"})
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


class Url(NamedTuple):
    """A WebSocket URI (RFC 6455, section 3), taken apart."""

    secure: bool
    host: str
    """What to connect to: in lower case and ASCII, an IPv6 address without its brackets."""
    port: int
    target: str
    """The path and query as they go on the wire; at least ``/``."""
    authority: str
    """The value of Host: without the port where that is the scheme's own."""
    user_information: str | None = None
    """What stood before the ``@``, as it stood there."""

    @classmethod
    def parse(cls, url: str) -> Url:
        """Take a URI apart; ValueError names the part that is wrong and what is accepted.

        A host name that is not ASCII becomes IDNA (RFC 3490, by the standard library's codec), other characters that
        are not ASCII are percent-encoded (RFC 3987, section 3.1).
        """
        scheme, user_information, host, port, target = split_url(url, _PORTS)
        bracketed = f"[{host}]" if ":" in host else host
        authority = bracketed if port == _PORTS[scheme] else f"{bracketed}:{port}"
        if not target.startswith("/"):
            target = f"/{target}"
        return cls(scheme == "wss", host, port, quote(target, safe=_ASCII), authority, user_information)

    @property
    def origin(self) -> str:
        """Scheme, host and port in their shortest form: two URLs with the same are of the same origin (RFC 6454)."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}"

    def __repr__(self) -> str:
        hidden = None if self.user_information is None else "..."
        return (
            f"Url(secure={self.secure!r}, host={self.host!r}, port={self.port!r}, target={self.target!r}, "
            f"authority={self.authority!r}, user_information={hidden!r})"
        )


def split_url(url: str, ports: Mapping[str, int]) -> tuple[str, str | None, str, int, str]:
    """Scheme, user information, host, port and the rest of a URL; ``ports`` holds each scheme's own.

    ValueError names the part that is wrong and what is accepted, and shows no password.
    """
    forbidden = _FORBIDDEN_IN_URL.search(url)
    if forbidden is not None:
        found = f"{forbidden[0]!r} at {forbidden.start()}"
        raise ValueError(f"URL has {found}, accepted are no spaces and control characters")
    if "#" in url:
        raise ValueError("URL has a fragment, accepted is none (RFC 6455, section 3)")
    match = _URL.fullmatch(url)
    if match is None:
        # Not shown: it may hold a password.
        accepted = " or ".join(f"{scheme}://host:port/path" for scheme in ports)
        raise ValueError(f"URL is malformed, accepted is {accepted}")
    scheme = match["scheme"].lower()
    if scheme not in ports:
        *others, last = map(repr, ports)
        raise ValueError(f"URL has the scheme {shorten(match['scheme'])}, accepted are {', '.join(others)} and {last}")
    port = ports[scheme]
    target = match["target"] or ""
    # Host and port may be pieces of a password with a slash in it.
    show = shorten if "@" not in target else lambda _: "..."
    if match["port"]:
        if _PORT.fullmatch(match["port"]) is None or not 1 <= int(match["port"]) <= 65_535:
            raise ValueError(f"URL has the port {show(match['port'])}, accepted is 1 to 65535")
        port = int(match["port"])
    return scheme, match["user"] or None, _parse_host(match["host"], show), port, target


def _parse_host(host: str, show: Callable[[str], str]) -> str:
    """What to connect to: in lower case and ASCII, an IPv6 address without its brackets."""
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        encoded = (host if host.isascii() else host.encode("idna").decode()).lower()
    except ValueError:
        encoded = ""
    if _HOST.fullmatch(encoded) is None:
        accepted = "accepted is a host name, an IPv4 address, or an IPv6 address in brackets"
        raise ValueError(f"URL has the host {show(host)}, {accepted}")
    return encoded


class _Head:
    """Collects the bytes of one head after the other, in linear time however they arrive.

    Raises h11's own error for what h11 would let pass, with the status that answers it.
    """

    __slots__ = ("_line_ended", "_max_first_line", "_max_header_bytes", "_max_headers", "_searched", "buffer")

    def __init__(self, max_header_bytes: int, max_headers: int, max_first_line: int) -> None:
        self.buffer = bytearray()
        self._max_header_bytes = max_header_bytes
        self._max_headers = max_headers
        self._max_first_line = max_first_line
        self._searched = 0
        self._line_ended = False

    def add(self, data: bytes) -> bytes | None:
        """A whole head up to its empty line, or None while more is needed; what follows stays in ``buffer``."""
        buffer = self.buffer
        buffer += data
        searched = self._searched
        end = buffer.find(b"\r\n\r\n", max(searched - 3, 0))
        stop = self._searched = len(buffer) if end < 0 else end + 4
        # Each LF needs a CR before it: other parsers take a bare LF for the end of a line or of the head, and h11 does
        # too, so a proxy and this server could see two different requests (RFC 9112, section 2.2).
        if buffer.count(b"\n", searched, stop) != buffer.count(b"\r\n", max(searched - 1, 0), stop):
            raise h11.RemoteProtocolError("bare LF")
        if not self._line_ended:
            # So an empty line, and the first byte of TLS, is refused without waiting for the end of a head.
            if buffer and buffer[0] <= 0x20:
                raise h11.RemoteProtocolError(f"first byte is {bytes(buffer[:1])!r}")
            self._line_ended = buffer.find(b"\r\n", max(searched - 1, 0), self._max_first_line + 2) >= 0
            if not self._line_ended and stop >= self._max_first_line + 2:
                raise h11.RemoteProtocolError(f"first line is over {self._max_first_line} bytes", 414)
        if stop > self._max_header_bytes:
            raise h11.RemoteProtocolError(f"head is over {self._max_header_bytes} bytes", 431)
        if end < 0:
            return None
        head = bytes(buffer[:stop])
        del buffer[:stop]
        self._searched = 0
        self._line_ended = False
        if head.count(b"\r\n") - 2 > self._max_headers:
            raise h11.RemoteProtocolError(f"more than {self._max_headers} headers", 431)
        if b"\r\n " in head or b"\r\n\t" in head:
            raise h11.RemoteProtocolError("folded header line")  # RFC 9112, section 5.2
        return head


def _next_event(connection: h11.Connection) -> Any:
    """What h11 makes of what it was given. Its errors show what they are about, which in a header may be a secret."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        message, _, shown = str(error).partition(":")
        if not shown or "header" not in message:
            raise
        raise h11.RemoteProtocolError(message, error.error_status_hint) from None


def _decode(event: h11.Request | h11.InformationalResponse | h11.Response) -> Headers:
    """The headers as text; h11 has checked them."""
    # All connections have the same few names: interned, they take 0.5 KiB less of each.
    items = event.headers.raw_items()
    return Headers(CIMultiDict([(intern(name.decode("ascii")), value.decode("latin-1")) for name, value in items]))


def _encode(headers: CIMultiDict[str] | Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


def _caller_headers(headers: HeadersLike) -> Headers:
    """The caller's headers, none of which may be the library's own."""
    built = build_headers(headers)
    for name in built:
        if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"header {shorten(name)} is set by the handshake, accepted are others")
    return built


class Exchange:
    """A request without a body, and the head of its response: what all the requests of a client have in common."""

    request: Request
    response: Response | None
    """What the server answered, once its head is complete."""
    expected = 101
    """The status that answers the request well."""

    def __init__(self, request: Request, max_header_bytes: int, max_headers: int) -> None:
        self.request = request
        self.response = None
        self._connection = h11.Connection(h11.CLIENT)
        self._output = self._connection.send(
            h11.Request(method=request.method, target=request.target, headers=_encode(request.headers))
        )
        self._connection.send(h11.EndOfMessage())
        self._head = _Head(max_header_bytes, max_headers, max_header_bytes)
        self._informational = 0

    def write(self) -> bytes:
        """The request, once; then nothing."""
        output, self._output = self._output, b""
        return output

    def _read_head(self, data: bytes) -> Response | None:
        """The response once its head is complete, None while more is needed; ``rest`` of the head has what follows."""
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

    Everything that cannot be sent raises TypeError or ValueError here, before there is a connection. ``headers`` go
    into the request as they are; a Host, User-Agent or Authorization among them replaces that of the handshake.
    """

    rest: bytes
    """What arrived behind the head of the 101."""

    def __init__(
        self,
        url: str | Url,
        *,
        headers: HeadersLike = (),
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        deflate: Deflate | None = None,
        user_agent: str | None = USER_AGENT,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_headers: int = MAX_HEADERS,
        max_response_body: int = MAX_RESPONSE_BODY,
    ) -> None:
        url = Url.parse(url) if isinstance(url, str) else url
        if isinstance(subprotocols, (str, bytes)):
            raise TypeError(f"subprotocols is {subprotocols!r}, accepted is a sequence of tokens")
        self._subprotocols = tuple(subprotocols)
        for subprotocol in self._subprotocols:
            if not is_token(subprotocol) or self._subprotocols.count(subprotocol) > 1:
                raise ValueError(f"subprotocol is {shorten(subprotocol)}, accepted are tokens, each once")
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
        own = _caller_headers(headers)
        for name in ("Host", "User-Agent", "Authorization"):
            if name in own:
                built.pop(name, None)
        built.extend(own)
        for name in ("Host", "Origin"):
            if len(built.getall(name, ())) > 1:
                raise ValueError(f"header {name} is given twice, accepted is once")
        super().__init__(Request("GET", url.target, list(built.items())), max_header_bytes, max_headers)
        self.rest = b""
        self._body = bytearray()
        self._ended = False

    def read(self, data: bytes) -> Agreement | None:
        """Take what arrived: the agreement once the server has agreed, None while more is needed.

        Raises HandshakeError when the handshake failed. A response other than 101 is read with its body first, of which
        ``max_response_body`` bytes are kept. Must not be called after either.
        """
        if self._ended:
            raise LocalProtocolError("the handshake has ended")
        try:
            agreement = self._read(data)
        except h11.RemoteProtocolError as error:
            self._ended = True
            response = None if self.response is None else self._add_body(self.response)
            raise HandshakeError(f"malformed response: {shorten(str(error))}", response) from error
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
        return check_response(self.request, response, subprotocols=self._subprotocols, deflate=self._deflate)

    def _read_body(self, response: Response, data: bytes) -> Agreement | None:
        """Collect the body of a response other than 101; check_response raises once it is complete or long enough."""
        if data:  # To h11 no data means the end of the stream.
            self._connection.receive_data(data)
        while (event := _next_event(self._connection)) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) <= self._max_response_body:
                    continue
            return check_response(self.request, self._add_body(response))
        return None

    def _add_body(self, response: Response) -> Response:
        """The response with as much of its body as there is."""
        body = bytes(self._body[: self._max_response_body])
        self.response = Response(response.status, response.headers, body, response.reason)
        return self.response

    def read_eof(self) -> NoReturn:
        """The server has closed its side: raises HandshakeError, with the response where its head was complete."""
        self._ended = True
        if self.response is not None and self.response.status != 101:
            check_response(self.request, self._add_body(self.response))
        raise HandshakeError("the server closed the connection before the handshake was complete", self.response)


def basic(user_information: str) -> str:
    """The user and password of a URI as Authorization (RFC 7617, section 2)."""
    user, _, password = user_information.partition(":")
    return "Basic " + b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()


def _too_old() -> HandshakeError:
    """The refusal of a version of HTTP that knows no WebSocket."""
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
        self._head = _Head(max_header_bytes, max_headers, max_request_line)
        self._output = b""

    def read(self, data: bytes) -> Request | None:
        """Take what arrived: the request once its head is complete, None while more is needed.

        Judges the request as HTTP only. Raises HandshakeError, with its response queued, for what is not HTTP/1.1, is
        over a limit or has a body. Must not be called after either.
        """
        if self.request is not None or self.response is not None:
            raise LocalProtocolError("the request was read already")
        try:
            head = self._head.add(data)
            if head is None:
                return None
            self._connection.receive_data(head)
            event = cast("h11.Request", _next_event(self._connection))
            request = self.request = Request(event.method.decode(), event.target.decode(), _decode(event))
            if event.http_version != b"1.1":  # RFC 6455, section 4.1, item 2
                self._is_old = True  # Plain HTTP by 1.0, as health checks still send it, is for the server to answer.
                if event.http_version != b"1.0":
                    self._fail(_too_old())
            if _next_event(self._connection) is h11.NEED_DATA:
                self._fail(refusal(400, "expected a request without a body"))
        except h11.RemoteProtocolError as error:
            # h11 hints at 501 for a transfer coding that it does not know; here none is right.
            status = error.error_status_hint if error.error_status_hint in (414, 431) else 400
            self._fail(refusal(status, f"malformed request: {shorten(str(error))}"))
        self.rest = bytes(self._head.buffer)
        return request

    def read_eof(self) -> NoReturn:
        """The client has closed its side: raises HandshakeError."""
        raise HandshakeError("the client closed the connection before the handshake was complete", self.response)

    def accept(
        self, *, subprotocol: str | None = None, deflate: Deflate | None = None, headers: HeadersLike = ()
    ) -> Agreement:
        """Queue the response that opens the WebSocket (RFC 6455, section 4.2.2), and give what was agreed.

        A request that does not open a WebSocket raises HandshakeError, with its response queued. A subprotocol that the
        client did not offer and headers that cannot be sent raise ValueError, and nothing is queued.
        """
        request = self._unanswered()
        own = _caller_headers(headers)
        try:
            if self._is_old:
                raise _too_old()
            check_request(request)
            if subprotocol is not None and subprotocol not in offered_subprotocols(request):
                raise ValueError(f"subprotocol is {shorten(subprotocol)}, accepted is one that the client offered")
            extensions = request.headers.getall("Sec-WebSocket-Extensions", ())
            agreed = accept_offer(extensions, deflate) if deflate is not None and extensions else None
        except HandshakeError as error:
            self._fail(error)
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_value(request.headers["Sec-WebSocket-Key"])),
        ]
        if subprotocol is not None:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        if agreed is not None:
            fields.append(("Sec-WebSocket-Extensions", agreed[0]))
        fields.extend(own.items())
        response = self.response = Response(101, fields, reason="Switching Protocols")
        self._output = self._connection.send(
            h11.InformationalResponse(
                status_code=101, headers=_encode(response.headers), reason=response.reason.encode()
            )
        )
        del self._connection, self._head  # The handshake stays with an open connection, and these are most of it.
        return Agreement(subprotocol, None if agreed is None else agreed[1])

    def refuse(self, response: Response) -> None:
        """Queue a response that ends the connection; the handshake frames its body and says Connection: close.

        May be called before there is a request, by a server that cannot wait for it. 1xx raises ValueError, and so does
        what HTTP/1.1 cannot carry.
        """
        if response.status < 200:
            raise ValueError(f"status is {response.status}, accepted is 200 to 599")
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
        # RFC 9110, section 8.6: what has no body by definition has no length either.
        has_body = response.status not in (204, 304)
        if has_body:
            headers["Content-Length"] = str(len(response.body))
        else:
            headers.popall("Content-Length", None)
        headers["Connection"] = "close"
        self._output = self._connection.send(
            h11.Response(
                status_code=response.status,
                headers=_encode(headers),
                reason=(response.reason or _REASONS.get(response.status, "")).encode("latin-1"),
            )
        )
        if has_body and (self.request is None or self.request.method != "HEAD"):
            self._output += self._connection.send(h11.Data(data=response.body))
