"""What the headers of the opening handshake mean (RFC 6455, section 4; RFC 7692, section 7).

Pure functions over a :class:`Request` and a :class:`Response`: each takes headers, and gives what they mean or raises
HandshakeError. On the server the error carries the response that answers the client; on the client it carries the
response that was wrong. Every parser here is linear, and knows SP and HTAB as its only white space: to Python's own
``str.split()`` and ``str.strip()`` the bytes 0B, 0C, 1C and 85 are white space too, to HTTP they are not.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from hashlib import sha1
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from multidict import CIMultiDict, CIMultiDictProxy

from ..errors import HandshakeError
from .protocol import Agreement

if TYPE_CHECKING:
    from .deflate import Deflate, PerMessageDeflate

__all__ = [
    "Headers",
    "HeadersLike",
    "Request",
    "Response",
    "accept_offer",
    "accept_value",
    "build_headers",
    "check_agreed",
    "check_origin",
    "check_request",
    "check_response",
    "choose_subprotocol",
    "hide_user",
    "is_plain",
    "is_token",
    "make_key",
    "offer",
    "offered_subprotocols",
    "parse_extensions",
    "refusal",
    "shorten",
]

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
Extension = tuple[str, list[tuple[str, str | None]]]

GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

VERSION: Final = "13"
"""RFC 6455, section 4.1, item 9."""

MAX_SHOWN: Final = 60
"""How much of an offending value a message shows: a log line stays a line, whatever the peer sends."""

SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
"""Headers whose values are never shown."""

_TCHARS = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(_TCHARS)
_TARGET = re.compile(r"[\x21-\x7e]+")
# What h11 takes, so that whatever was parsed can also be built: any byte but those that some parser takes for the end
# of a line.
_VALUE = re.compile(r"[^\x00\n\r\x0b\x0c\u0100-\U0010ffff]*")
# 16 bytes in base64. The last digit may have stray bits, as the example of RFC 6455, section 4.1, has.
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")
_NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})
# In the URL of a Location or a Referer; a password may have any of a URL's own signs in it, so all up to the last @.
_USER_INFORMATION = re.compile(r"//.*@")
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}


class Headers(CIMultiDictProxy[str]):
    """Checked headers. They show themselves without what is secret: passwords, tokens, cookies."""

    __slots__ = ()

    def shown(self) -> list[tuple[str, str]]:
        """Names and values, as they may stand in a log."""
        return [(name, "..." if name.lower() in SECRET_HEADERS else hide_user(value)) for name, value in self.items()]

    def __repr__(self) -> str:
        return f"Headers({self.shown()!r})"


@dataclass(frozen=True, init=False, repr=False)
class Request:
    """The client's opening request. ``target`` is as it stands on the wire: percent-encoded, with its query.

    ``headers`` is a multidict: names in any case, ``getall`` for one that comes more than once.
    :class:`Headers` are taken as they are, any others are checked as :func:`build_headers` does.
    """

    method: str
    target: str
    headers: Headers

    def __init__(self, method: str, target: str, headers: HeadersLike = ()) -> None:
        if not is_token(method):
            raise ValueError(f"method is {shorten(method)}, accepted is a token (RFC 9110, section 5.6.2)")
        if _TARGET.fullmatch(target) is None:
            raise ValueError(f"target is {shorten(target)}, accepted are visible ASCII characters")
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "target", target)
        # The server's parser has checked its headers already, and makes one of these for every connection.
        checked = headers if isinstance(headers, Headers) else build_headers(headers)
        object.__setattr__(self, "headers", checked)

    @property
    def path(self) -> str:
        """The target up to the first ``?``, as it was sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first ``?`` of the target, as it was sent; empty where there is none."""
        return self.target.partition("?")[2]

    @property
    def path_parameters(self) -> Mapping[str, Any]:
        """What the parameters of its route stand for, by their names; empty where nothing was routed."""
        parameters: Mapping[str, Any] = self.__dict__.get("_path_parameters", _NO_PARAMETERS)
        return parameters

    def with_path_parameters(self, parameters: Mapping[str, Any]) -> Request:
        """The same request with these :attr:`path_parameters`."""
        routed = copy(self)
        routed.__dict__["_path_parameters"] = MappingProxyType(dict(parameters))
        return routed

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.target!r}, {self.headers.shown()!r})"


@dataclass(frozen=True, init=False, repr=False)
class Response:
    """The server's answer: ``Response(403, body=b"no")``, ``Response(403, {"X-Why": "closed"}, "Come back later")``.

    ``status`` is 100 to 599, ``headers`` a mapping or pairs, ``reason`` the phrase behind the status (the usual one
    where it is empty). A ``str`` as body becomes UTF-8, with a Content-Type of text/plain where none is given. What
    cannot be sent as it stands raises TypeError or ValueError.
    """

    status: int
    headers: Headers
    body: bytes
    reason: str

    def __init__(
        self,
        status: int,
        headers: HeadersLike = (),
        body: bytes | bytearray | memoryview | str = b"",
        reason: str = "",
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status is {status!r}, accepted is an int from 100 to 599")
        if not 100 <= status <= 599:
            raise ValueError(f"status is {status!r}, accepted is 100 to 599")
        if _VALUE.fullmatch(reason) is None:
            raise ValueError(f"reason is {shorten(reason)}, accepted is Latin-1 without line breaks and NUL")
        checked = build_headers(headers)
        if isinstance(body, str):
            if "Content-Type" not in checked:
                checked = build_headers([*checked.items(), ("Content-Type", "text/plain; charset=utf-8")])
            body = body.encode()
        elif not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body is of type {type(body).__name__}, accepted are bytes and str")
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", checked)
        object.__setattr__(self, "body", bytes(body))
        object.__setattr__(self, "reason", reason)

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.headers.shown()!r}, {self.body!r}, {self.reason!r})"


# Headers, tokens and lists


def build_headers(headers: HeadersLike) -> Headers:
    """Headers from a mapping or from pairs; ValueError names the name or value that HTTP cannot carry."""
    built: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        if not is_token(name):
            # A whole header line, given as a name by mistake, may hold a secret.
            begin = _TOKEN.match(name)
            is_secret = begin is not None and begin[0].lower() in SECRET_HEADERS
            shown = f"{begin[0]!r}..." if begin and is_secret else shorten(name)
            raise ValueError(f"header name is {shown}, accepted is a token (RFC 9110, section 5.6.2)")
        if _VALUE.fullmatch(value) is None:
            shown = "of a secret kind" if name.lower() in SECRET_HEADERS else shorten(value)
            raise ValueError(f"value of header {name} is {shown}, accepted is Latin-1 without line breaks and NUL")
        built.add(name, value.strip(" \t"))
    return Headers(built)


def hide_user(url: str) -> str:
    """A URL, or a text that may have one in it, without the user information."""
    return _USER_INFORMATION.sub("//...@", url)


def is_token(value: str) -> bool:
    """Whether the value is a token (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(value) is not None


def shorten(value: str) -> str:
    """The value as a literal, cut where it is too long to be shown whole."""
    return repr(value) if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]!r}... ({len(value)} characters)"


def _has_token(headers: Headers, name: str, token: str) -> bool:
    """Whether a header that is a comma list of tokens holds this one, which is given in lower case."""
    return any(part.strip(" \t").lower() == token for value in headers.getall(name, ()) for part in value.split(","))


def _show(values: Sequence[str]) -> str:
    """The values of one header for a message."""
    return shorten(", ".join(values)) if values else "none"


def refusal(status: int, message: str, headers: HeadersLike = ()) -> HandshakeError:
    """The error by which a server refuses a request, with the response that says so to the client."""
    return HandshakeError(message, Response(status, headers, f"{message}\n"))


_PIECE = re.compile(
    # No two white space loops stand side by side anywhere, so that no input is tried in more than linear time.
    rf"[ \t]*(?P<name>{_TCHARS})[ \t]*(?:(?P<equals>=)[ \t]*(?:(?P<token>{_TCHARS})[ \t]*"
    r'|"(?P<quoted>(?:[^"\\]|\\.)*)"[ \t]*)?)?(?P<end>[;,]|\Z)',
    re.DOTALL,
)
_EMPTY_ELEMENTS = re.compile(r"[ \t,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """The extensions of Sec-WebSocket-Extensions headers with their parameters (RFC 6455, section 9.1).

    A parameter without a value gives None; one with an empty value gives "", which is right nowhere, but is left for
    the extension to decline. Empty list elements are skipped (RFC 9110, section 5.6.1.2). ValueError where the value is
    not of this form.
    """
    extensions: list[Extension] = []
    for value in values:
        position = 0
        parameters: list[tuple[str, str | None]] | None = None  # None: an extension's name comes next
        while True:
            if parameters is None:
                position = _EMPTY_ELEMENTS.match(value, position).end()  # type: ignore[union-attr]
                if position == len(value):
                    break
            piece = _PIECE.match(value, position)
            if piece is None or (parameters is None and piece["equals"]):
                raise ValueError(f"expected an extension or parameter, found {shorten(value[position:])}")
            if parameters is None:
                parameters = []
                extensions.append((piece["name"], parameters))
            elif piece["quoted"] is not None:
                parameters.append((piece["name"], _ESCAPE.sub(r"\1", piece["quoted"])))
            else:
                parameters.append((piece["name"], piece["token"] or "" if piece["equals"] else None))
            position = piece.end()
            if piece["end"] == "":
                break
            if piece["end"] == ",":
                parameters = None
    return extensions


# Key and accept value


def make_key() -> str:
    """A new Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455, section 4.1, item 7)."""
    return b64encode(secrets.token_bytes(16)).decode()


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a key (RFC 6455, section 4.2.2, item 5.4)."""
    return b64encode(sha1((key + GUID).encode(), usedforsecurity=False).digest()).decode()


# Server


def is_plain(request: Request) -> bool:
    """Whether the request is ordinary HTTP: one that does not ask for a WebSocket."""
    return not _has_token(request.headers, "Upgrade", "websocket")


def check_request(request: Request) -> None:
    """See that the request opens a WebSocket (RFC 6455, section 4.2.1); HandshakeError with the answer if not."""
    headers = request.headers
    if request.method != "GET":
        raise refusal(405, f"expected method GET, found {shorten(request.method)}", {"Allow": "GET"})
    for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if not _has_token(headers, name, token):
            found = _show(headers.getall(name, ()))
            raise refusal(426, f"expected {name}: {token}, found {found}", {"Upgrade": "websocket"})
    _only(headers, "Host")
    version = _only(headers, "Sec-WebSocket-Version")
    if version != VERSION:
        raise refusal(
            426,  # Section 4.4 asks for the version in the answer, RFC 9110, section 15.5.22, for Upgrade.
            f"expected Sec-WebSocket-Version {VERSION}, found {shorten(version)}",
            {"Sec-WebSocket-Version": VERSION, "Upgrade": "websocket"},
        )
    key = _only(headers, "Sec-WebSocket-Key")
    if _KEY.fullmatch(key) is None:
        raise refusal(400, f"expected a Sec-WebSocket-Key of 16 bytes in base64, found {shorten(key)}")


def _only(headers: Headers, name: str) -> str:
    values = headers.getall(name, ())
    if len(values) != 1:
        raise refusal(400, f"expected one {name} header, found {len(values)}")
    return values[0]


def check_origin(request: Request, origins: Sequence[str | re.Pattern[str] | None]) -> None:
    """See that the request comes from one of these origins (RFC 6455, section 10.2); HandshakeError with 403 if not.

    A ``str`` is compared as it stands, a pattern must match the whole origin, None stands for a request without Origin,
    which a browser never sends.
    """
    if isinstance(origins, str):
        raise TypeError(f"origins is {origins!r}, accepted is a sequence of origins")
    values = request.headers.getall("Origin", (None,))
    if len(values) == 1:
        found = values[0]
        for origin in origins:
            if found == origin:
                return
            if isinstance(origin, re.Pattern) and found is not None and origin.fullmatch(found):
                return
    raise refusal(403, f"origin not allowed: {_show([value for value in values if value is not None])}")


def offered_subprotocols(request: Request) -> list[str]:
    """The subprotocols that the client offers, in its order of preference; HandshakeError with 400 if malformed."""
    offered = []
    for value in request.headers.getall("Sec-WebSocket-Protocol", ()):
        for part in value.split(","):
            subprotocol = part.strip(" \t")
            if subprotocol:
                if not is_token(subprotocol):
                    raise refusal(400, f"expected a token in Sec-WebSocket-Protocol, found {shorten(subprotocol)}")
                offered.append(subprotocol)
    return offered


def choose_subprotocol(request: Request, supported: Sequence[str]) -> str | None:
    """The first of the supported subprotocols that the client offers, or None (RFC 6455, section 4.2.2, item 4)."""
    offered = frozenset(offered_subprotocols(request))
    return next((subprotocol for subprotocol in supported if subprotocol in offered), None)


def accept_offer(values: Sequence[str], deflate: Deflate) -> tuple[str, PerMessageDeflate] | None:
    """The answer to the first acceptable offer of permessage-deflate, and its codec; None where there is no such offer.

    ``values`` are the client's Sec-WebSocket-Extensions headers, ``deflate`` is what the server wishes for. Other
    extensions are ignored, invalid offers are declined (RFC 7692, section 7.1). A malformed header raises
    HandshakeError with 400 (RFC 6455, section 9.1).
    """
    try:
        extensions = parse_extensions(values)
    except ValueError as error:
        raise refusal(400, f"malformed Sec-WebSocket-Extensions: {error}") from error
    for name, parameters in extensions:
        if name == "permessage-deflate":
            try:
                offered = _check_parameters(parameters, offer=True)
            except ValueError:
                continue
            return _answer(offered, deflate)
    return None


def _answer(offered: dict[str, int], wished: Deflate) -> tuple[str, PerMessageDeflate]:
    """The stricter of the offer and the wishes, as a header and as a codec.

    The server may limit its own window and forgo either takeover without being asked (RFC 7692, sections 7.1.1.1 to
    7.1.2.1). The client's window it may limit only where the client says that it understands this (7.1.2.2).
    """
    agreed = replace(
        wished,
        server_no_context_takeover=wished.server_no_context_takeover or "server_no_context_takeover" in offered,
        client_no_context_takeover=wished.client_no_context_takeover or "client_no_context_takeover" in offered,
        server_max_window_bits=min(wished.server_max_window_bits, offered.get("server_max_window_bits", 15)),
        client_max_window_bits=(
            min(wished.client_max_window_bits, offered["client_max_window_bits"])
            if "client_max_window_bits" in offered
            else 15
        ),
    )
    header = "permessage-deflate"
    if agreed.server_no_context_takeover:
        header += "; server_no_context_takeover"
    if agreed.client_no_context_takeover:
        header += "; client_no_context_takeover"
    if agreed.server_max_window_bits < 15 or "server_max_window_bits" in offered:
        header += f"; server_max_window_bits={agreed.server_max_window_bits}"
    if agreed.client_max_window_bits < 15:
        header += f"; client_max_window_bits={agreed.client_max_window_bits}"
    return header, agreed.codec(client=False)


def _check_parameters(parameters: Iterable[tuple[str, str | None]], *, offer: bool) -> dict[str, int]:
    """The parameters of permessage-deflate by name; ValueError where they break RFC 7692, section 7.1."""
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            raise ValueError(f"{name} stands there twice")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"expected no value for {name}, found {shorten(value)}")
            found[name] = True
        elif name == "client_max_window_bits" and value is None and offer:
            found[name] = 15
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value not in _WINDOW_BITS:
                raise ValueError(f"expected 8 to 15 for {name}, found {'none' if value is None else shorten(value)}")
            found[name] = _WINDOW_BITS[value]
        else:
            raise ValueError(f"expected a parameter of permessage-deflate, found {shorten(name)}")
    return found


# Client


def offer(deflate: Deflate) -> str:
    """The client's Sec-WebSocket-Extensions (RFC 7692, section 7.1).

    It always has client_max_window_bits, by which the client says that the server may choose.
    """
    header = "permessage-deflate"
    if deflate.server_no_context_takeover:
        header += "; server_no_context_takeover"
    if deflate.client_no_context_takeover:
        header += "; client_no_context_takeover"
    if deflate.server_max_window_bits < 15:
        header += f"; server_max_window_bits={deflate.server_max_window_bits}"
    header += "; client_max_window_bits"
    if deflate.client_max_window_bits < 15:
        header += f"={deflate.client_max_window_bits}"
    return header


def check_agreed(values: Sequence[str], deflate: Deflate | None) -> PerMessageDeflate | None:
    """The codec of the server's answer to ``offer(deflate)``; None where it declined.

    Whatever was not offered, or is not what was asked for, raises HandshakeError (RFC 6455, section 9.1; RFC 7692,
    section 7.1).
    """
    try:
        extensions = parse_extensions(values)
        agreed = _merge(extensions, deflate) if extensions else None
    except ValueError as error:
        raise HandshakeError(f"Sec-WebSocket-Extensions {_show(values)}: {error}") from error
    return None if agreed is None else agreed.codec(client=True)


def _merge(extensions: Sequence[Extension], wished: Deflate | None) -> Deflate:
    """What the server's extensions leave of the wishes; ValueError where they do not answer these."""
    if wished is None:
        raise ValueError("expected no extension, as none was offered")
    name, parameters = extensions[0]
    if name != "permessage-deflate" or len(extensions) > 1:
        raise ValueError("expected permessage-deflate, once")
    agreed = _check_parameters(parameters, offer=False)
    if wished.server_no_context_takeover and "server_no_context_takeover" not in agreed:
        raise ValueError("expected server_no_context_takeover, which was asked for")
    server_max_window_bits = agreed.get("server_max_window_bits", 15)
    if server_max_window_bits > wished.server_max_window_bits:
        raise ValueError(f"expected at most {wished.server_max_window_bits} for server_max_window_bits")
    client_max_window_bits = agreed.get("client_max_window_bits", wished.client_max_window_bits)
    if client_max_window_bits > wished.client_max_window_bits:
        raise ValueError(f"expected at most {wished.client_max_window_bits} for client_max_window_bits")
    return replace(
        wished,
        server_no_context_takeover="server_no_context_takeover" in agreed,
        client_no_context_takeover=wished.client_no_context_takeover or "client_no_context_takeover" in agreed,
        server_max_window_bits=server_max_window_bits,
        client_max_window_bits=client_max_window_bits,
    )


def check_response(
    request: Request, response: Response, *, subprotocols: Sequence[str] = (), deflate: Deflate | None = None
) -> Agreement:
    """What the server agreed to (RFC 6455, section 4.1, second list); HandshakeError with the response if it did not.

    ``subprotocols`` and ``deflate`` are what the request offered.
    """
    headers = response.headers
    if response.status != 101:
        found = f"{response.status} {response.reason[:MAX_SHOWN]}".rstrip()
        raise HandshakeError(f"expected status 101, found {found}", response)
    upgrade = headers.getall("Upgrade", ())
    if len(upgrade) != 1 or upgrade[0].lower() != "websocket":
        raise HandshakeError(f"expected Upgrade: websocket, found {_show(upgrade)}", response)
    if not _has_token(headers, "Connection", "upgrade"):
        raise HandshakeError(f"expected Connection: Upgrade, found {_show(headers.getall('Connection', ()))}", response)
    accept = headers.getall("Sec-WebSocket-Accept", ())
    expected = accept_value(request.headers["Sec-WebSocket-Key"])
    if len(accept) != 1 or not secrets.compare_digest(accept[0].encode("latin-1"), expected.encode()):
        raise HandshakeError(f"expected Sec-WebSocket-Accept {expected!r}, found {_show(accept)}", response)
    chosen = headers.getall("Sec-WebSocket-Protocol", ())
    if len(chosen) > 1 or (chosen and chosen[0] not in subprotocols):
        raise HandshakeError(
            f"expected at most one of the subprotocols {_show(subprotocols)}, found {_show(chosen)}", response
        )
    try:
        codec = check_agreed(headers.getall("Sec-WebSocket-Extensions", ()), deflate)
    except HandshakeError as error:
        error.response = response
        raise
    return Agreement(chosen[0] if chosen else None, codec)
