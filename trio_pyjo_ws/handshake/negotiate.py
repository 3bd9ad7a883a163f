"""What the headers of the opening handshake mean (RFC 6455, section 4; RFC 7692, section 7).

Pure functions over a :class:`~.messages.Request` and a :class:`~.messages.Response`: each takes headers, and returns
what they mean or raises HandshakeError. On the server the error carries the response that answers the client; on the
client it carries the response that was wrong. Every parser here is linear, and knows SP and HTAB as its only white
space: to Python's own ``str.split()`` and ``str.strip()`` the bytes 0B, 0C, 1C and 85 are white space too, to HTTP they
are not.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from dataclasses import replace
from hashlib import sha1
from typing import TYPE_CHECKING, Final

from ..errors import HandshakeError
from ..escaping import escape
from ..wire.deflate import Agreement
from .forwarded import PROXY, Forwarding
from .messages import MAX_SHOWN, TOKEN, Headers, HeadersLike, Request, Response, is_token, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..wire.deflate import Deflate, PerMessageDeflate

__all__ = [
    "Terms",
    "accept_offer",
    "accept_value",
    "check_agreed",
    "check_chosen",
    "check_final",
    "check_method",
    "check_origin",
    "check_request",
    "check_response",
    "choose_subprotocol",
    "is_plain",
    "make_key",
    "offer",
    "offered_subprotocols",
    "parse_extensions",
    "refusal",
    "status_of",
    "without_subprotocol",
]

Extension = tuple[str, list[tuple[str, str | None]]]

GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

VERSION: Final = "13"
"""RFC 6455, section 4.1, item 9."""

# 16 bytes in base64. The last digit may have stray bits, as the example of RFC 6455, section 4.1, has.
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}


# Lists


def _has_token(headers: Headers, name: str, token: str) -> bool:
    """Whether a header that is a comma list of tokens holds this one, which is given in lower case."""
    return any(part.strip(" \t").lower() == token for value in headers.getall(name, ()) for part in value.split(","))


def _show(values: Sequence[str]) -> str:
    """The values of one header for a message."""
    return shorten(", ".join(values)) if values else "none"


def refusal(status: int, message: str, headers: HeadersLike = ()) -> HandshakeError:
    """The error by which a server refuses a request, with the response that says so to the client."""
    return HandshakeError(message, Response(status, headers, f"{message}\n"))


def status_of(response: Response) -> str:
    """The status and reason of a response for a message."""
    return f"{response.status} {escape(response.reason[:MAX_SHOWN])}".rstrip()


_PIECE = re.compile(
    # No two white space loops stand side by side anywhere, so that no input is tried in more than linear time.
    rf"[ \t]*(?P<name>{TOKEN})[ \t]*(?:=[ \t]*(?:(?P<token>{TOKEN})|"
    r'"(?P<quoted>(?:[^"\\]|\\.)*)")[ \t]*)?(?P<end>[;,]|\Z)',
    re.DOTALL,
)
_EMPTY_ELEMENTS = re.compile(r"[ \t,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """The extensions of Sec-WebSocket-Extensions headers with their parameters (RFC 6455, section 9.1).

    A parameter without a value gives None. Empty list elements are skipped (RFC 9110, section 5.6.1.2). Raises
    ValueError unless each value is of that section's form, by which a quoted value is a token, too.
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
            found = None
            if piece is not None:
                found = piece["token"] if piece["quoted"] is None else _ESCAPE.sub(r"\1", piece["quoted"])
            if piece is None or (found is not None and (parameters is None or not is_token(found))):
                raise ValueError(f"expected an extension or parameter, found {shorten(value[position:])}")
            if parameters is None:
                parameters = []
                extensions.append((piece["name"], parameters))
            else:
                parameters.append((piece["name"], found))
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


def check_method(request: Request) -> None:
    """See that the method is GET; raise HandshakeError with 405 if not."""
    if request.method != "GET":
        raise refusal(405, f"expected method GET, found {shorten(request.method)}", {"Allow": "GET"})


def check_request(request: Request) -> None:
    """See that the request opens a WebSocket (RFC 6455, section 4.2.1); raise HandshakeError with the answer if not."""
    headers = request.headers
    check_method(request)
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
    """See that the request comes from one of these origins (RFC 6455, section 10.2), or raise HandshakeError with 403.

    A ``str`` is compared as it stands, a pattern must match the whole origin, None stands for a request without Origin,
    which a browser never sends.
    """
    if isinstance(origins, str):
        raise TypeError(f"origins must be a sequence of origins, not one: {origins!r:.60}")
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
    """The subprotocols that the client offers, in its order of preference. Raises HandshakeError with 400 if malformed.

    The error does not show what was found: it may be a token that authenticates the client.
    """
    offered = []
    for value in request.headers.getall("Sec-WebSocket-Protocol", ()):
        for part in value.split(","):
            subprotocol = part.strip(" \t")
            if subprotocol:
                if not is_token(subprotocol):
                    raise refusal(400, "malformed Sec-WebSocket-Protocol: expected tokens, separated by commas")
                offered.append(subprotocol)
    return offered


def check_chosen(request: Request, subprotocol: str | None) -> None:
    """Raise ValueError for a subprotocol that the client did not offer, and HandshakeError as the offers are read."""
    if subprotocol is not None and subprotocol not in offered_subprotocols(request):
        raise ValueError(f"subprotocol must be one that the client offered, not {shorten(subprotocol)}")


def check_final(response: Response) -> None:
    """Raise ValueError for a response that does not end the handshake: one with a status of 1xx."""
    if response.status < 200:
        raise ValueError(f"status must be 200 to 599, not {response.status}")


class Terms:
    """What a server has settled of a connection, before it answers the opening handshake."""

    __slots__ = ("deflate", "forwarding", "proxied", "subprotocol")

    def __init__(self, deflate: Deflate | None = None) -> None:
        self.deflate = deflate
        """What this side wishes for, to compress messages."""
        self.subprotocol: str | None = None
        """What was chosen of the subprotocols that the client offers."""
        self.forwarding = Forwarding()
        """Which reverse proxies are trusted to name the client."""
        self.proxied: str | None = None
        """The client's address by the PROXY protocol, if that is how they name it."""

    def client(self, request: Request | None) -> str | None:
        """The IP address of the client, as a trusted proxy names it; None if it does not."""
        if self.forwarding.header == PROXY:
            return self.proxied
        return None if request is None else self.forwarding.client(request.headers)


def choose_subprotocol(request: Request, supported: Sequence[str]) -> str | None:
    """The first of the supported subprotocols that the client offers, or None (RFC 6455, section 4.2.2, item 4)."""
    offered = frozenset(offered_subprotocols(request))
    return next((subprotocol for subprotocol in supported if subprotocol in offered), None)


def without_subprotocol(request: Request, supported: Sequence[str]) -> HandshakeError:
    """The refusal of a request without a subprotocol in common. One that is wrong otherwise is refused for that."""
    try:
        check_request(request)
        offered = "others" if offered_subprotocols(request) else "none"
    except HandshakeError as error:
        return error
    expected = (
        f"expected one of the subprotocols {', '.join(supported)}" if supported else "expected another subprotocol"
    )
    return refusal(400, f"{expected}, found {offered}")


def accept_offer(values: Sequence[str], deflate: Deflate | None) -> tuple[str, PerMessageDeflate] | None:
    """The answer to the first acceptable offer of permessage-deflate, and its codec; None if there is no such offer.

    ``values`` are the client's Sec-WebSocket-Extensions headers, ``deflate`` is what the server wants, None for no
    compression. Other extensions are ignored, invalid offers are declined (RFC 7692, section 7.1). A malformed header
    raises HandshakeError with 400, also if nobody wants an extension (RFC 6455, section 9.1).
    """
    try:
        extensions = parse_extensions(values)
    except ValueError as error:
        raise refusal(400, f"malformed Sec-WebSocket-Extensions: {error}") from error
    for name, parameters in extensions:
        if name == "permessage-deflate" and deflate is not None:
            try:
                offered = _check_parameters(parameters, offer=True)
            except ValueError:
                continue
            return _answer(offered, deflate)
    return None


def _answer(offered: dict[str, int], wanted: Deflate) -> tuple[str, PerMessageDeflate]:
    """The stricter of the offer and of what the server wants, as a header and as a codec.

    The server may limit its own window and forgo either takeover without being asked (RFC 7692, sections 7.1.1.1 to
    7.1.2.1). The client's window it may limit only if the client says that it understands this (7.1.2.2).
    """
    agreed = replace(
        wanted,
        server_no_context_takeover=wanted.server_no_context_takeover or "server_no_context_takeover" in offered,
        client_no_context_takeover=wanted.client_no_context_takeover or "client_no_context_takeover" in offered,
        server_max_window_bits=min(wanted.server_max_window_bits, offered.get("server_max_window_bits", 15)),
        client_max_window_bits=(
            min(wanted.client_max_window_bits, offered["client_max_window_bits"])
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
    """The parameters of permessage-deflate by name. Raises ValueError if they break RFC 7692, section 7.1."""
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            raise ValueError(f"expected {name} once, found it twice")
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
    """The codec of the server's answer to ``offer(deflate)``; None if it declined.

    Whatever was not offered, or is not what was asked for, raises HandshakeError (RFC 6455, section 9.1; RFC 7692,
    section 7.1).
    """
    try:
        extensions = parse_extensions(values)
        agreed = _merge(extensions, deflate) if extensions else None
    except ValueError as error:
        raise HandshakeError(f"Sec-WebSocket-Extensions {_show(values)}: {error}") from error
    return None if agreed is None else agreed.codec(client=True)


def _merge(extensions: Sequence[Extension], wanted: Deflate | None) -> Deflate:
    """What the server's extensions leave of what the client wants. Raises ValueError if they do not answer that."""
    if wanted is None:
        raise ValueError("expected no extension, because none was offered")
    name, parameters = extensions[0]
    if name != "permessage-deflate" or len(extensions) > 1:
        raise ValueError("expected permessage-deflate, once")
    agreed = _check_parameters(parameters, offer=False)
    if wanted.server_no_context_takeover and "server_no_context_takeover" not in agreed:
        raise ValueError("expected server_no_context_takeover, which was asked for")
    server_max_window_bits = agreed.get("server_max_window_bits", 15)
    if server_max_window_bits > wanted.server_max_window_bits:
        raise ValueError(f"expected at most {wanted.server_max_window_bits} for server_max_window_bits")
    client_max_window_bits = agreed.get("client_max_window_bits", wanted.client_max_window_bits)
    if client_max_window_bits > wanted.client_max_window_bits:
        raise ValueError(f"expected at most {wanted.client_max_window_bits} for client_max_window_bits")
    return replace(
        wanted,
        server_no_context_takeover="server_no_context_takeover" in agreed,
        client_no_context_takeover=wanted.client_no_context_takeover or "client_no_context_takeover" in agreed,
        server_max_window_bits=server_max_window_bits,
        client_max_window_bits=client_max_window_bits,
    )


def check_response(
    request: Request,
    response: Response,
    *,
    subprotocols: Sequence[str] = (),
    require_subprotocol: bool = False,
    deflate: Deflate | None = None,
) -> Agreement:
    """What the server agreed to (RFC 6455, section 4.1, second list). Raises HandshakeError, with the response, if not.

    ``subprotocols`` and ``deflate`` are what the request offered. Without ``require_subprotocol`` the server need not
    choose one.
    """
    headers = response.headers
    if response.status != 101:
        raise HandshakeError(f"expected status 101, found {status_of(response)}", response)
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
    # Neither what was offered nor what was chosen is shown: a client may authenticate itself by one of them.
    if len(chosen) > 1:
        raise HandshakeError(f"expected at most one Sec-WebSocket-Protocol, found {len(chosen)}", response)
    if chosen and chosen[0] not in subprotocols:
        expected = "one of the offered subprotocols" if subprotocols else "no subprotocol, because none was offered"
        raise HandshakeError(f"expected {expected}, found another", response)
    if require_subprotocol and not chosen:
        raise HandshakeError("expected one of the offered subprotocols, found none", response)
    try:
        codec = check_agreed(headers.getall("Sec-WebSocket-Extensions", ()), deflate)
    except HandshakeError as error:
        error.response = response
        raise
    return Agreement(chosen[0] if chosen else None, codec)
