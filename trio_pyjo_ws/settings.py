"""The options: those that client and server share, which bound what a peer controls, and those of one side alone.

All timeouts are seconds on trio's clock; ``None`` or ``math.inf`` means never.
"""

from __future__ import annotations

import math
import os
import ssl
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .wire.deflate import Deflate
from .wire.forwarded import HEADERS, Forwarding
from .wire.fragments import MAX_EMPTY_FRAGMENTS
from .wire.http1 import MAX_HEADER_BYTES, MAX_HEADERS, USER_AGENT
from .wire.negotiate import build_headers
from .wire.protocol import default_max_websocket_size
from .wire.tunnel import Proxy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from typing_extensions import Self

    from .objects import JsonCodec
    from .wire.negotiate import HeadersLike

__all__ = [
    "ClientOptions",
    "ClientSettings",
    "Options",
    "ServerOptions",
    "ServerSettings",
    "Settings",
    "check_ssl_context",
]

MAX_HANDSHAKES = 1024
"""Connections in the opening handshake before accepting pauses: nginx's worker_connections are 512 of any kind."""

MAX_REDIRECTS = 10
"""Redirects that a client follows. urllib and Go's net/http take ten, browsers twenty."""

_ENDLESS = frozenset({"max_connections", "max_connections_per_address", "max_handshakes"})
_NO_PROXIES = Forwarding()
_OF_CLIENTS = (
    *("additional_headers", "subprotocols", "origin", "user_agent"),
    *("ssl_context", "server_hostname", "proxy", "unix", "local_address"),
)


class Options(TypedDict, total=False):
    """The options of ``open_memory_pair`` and ``open_scripted_pair``, and of clients and servers among theirs.

    Seconds are trio's, and None means never.
    """

    compression: bool | Deflate
    max_websocket_size: int
    max_empty_fragments: int
    max_queue: int
    max_queue_bytes: int
    write_limit: int
    max_pings_owed: int
    max_header_bytes: int
    max_headers: int
    open_timeout: float | None
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    json: JsonCodec


class ClientOptions(Options, total=False):
    """The options of ``connect``, ``open_websocket`` and ``reconnecting``: those of :class:`Options`, and these."""

    additional_headers: HeadersLike
    subprotocols: Sequence[str]
    origin: str | None
    user_agent: str | None
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | Literal[True] | None
    unix: str | os.PathLike[str] | None
    local_address: str | None
    max_redirects: int


class ServerOptions(Options, total=False):
    """The options of ``serve`` and ``serve_listeners``: those of :class:`Options`, and these.

    None means any number, or never. ``proxy_header`` is the header by which ``trusted_proxies`` name the client.
    """

    max_connections: int | None
    max_connections_per_address: int | None
    max_handshakes: int | None
    max_message_rate: float | None
    idle_timeout: float | None
    trusted_proxies: Sequence[str | IPv4Address | IPv4Network | IPv6Address | IPv6Network]
    proxy_header: Literal["X-Forwarded-For", "Forwarded"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked :class:`Options`, with their defaults."""

    compression: Deflate | None = None
    """Permessage-deflate (RFC 7692): None for none, or its parameters."""
    max_websocket_size: int = 0
    """Bytes of the largest message that is accepted, before and after inflation."""
    max_empty_fragments: int = MAX_EMPTY_FRAGMENTS
    """Fragments of one message that may be empty."""
    max_queue: int = 1024
    """Messages that wait to be received before reading from the network stops."""
    max_queue_bytes: int = 1_048_576
    """Bytes of memory that messages take which wait to be received, before reading from the network stops.

    One character outside of ASCII can make Python take two or four bytes for each of its text."""
    write_limit: int = 65_536
    """Bytes that wait to be written before ``send`` waits, and ``send_nowait`` raises :class:`trio.WouldBlock`."""
    max_pings_owed: int = 64
    """Pongs that wait to be written before reading from the network stops."""
    max_header_bytes: int = MAX_HEADER_BYTES
    """Bytes of the opening handshake's head, of the request or the response."""
    max_headers: int = MAX_HEADERS
    """Header fields of the opening handshake."""
    open_timeout: float = 10.0
    """Seconds for the whole opening: name, connection, TLS and opening handshake."""
    close_timeout: float = 10.0
    """Seconds for the closing handshake and the end of the stream."""
    ping_interval: float = 20.0
    """Seconds between the pings that keep a connection alive."""
    ping_timeout: float = 20.0
    """Seconds from queueing such a ping to its pong, after which the connection is dropped."""
    json: JsonCodec | None = None
    """What encodes and decodes JSON, by ``dumps`` and ``loads``, in place of the standard library."""

    @classmethod
    def of(cls, options: Any) -> Self:
        """The settings that ``options`` ask for. Raises TypeError and ValueError that name what is accepted."""
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise TypeError(f"there is no option {name!r}; there are {', '.join(names)}")
        checked = {name: _check(name, value) for name, value in options.items()}
        checked.setdefault("max_websocket_size", default_max_websocket_size())
        return cls(**checked)


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Settings):
    """Checked :class:`ClientOptions`, with their defaults."""

    additional_headers: HeadersLike = ()
    """Headers of the request, beside those of the opening handshake."""
    subprotocols: Sequence[str] = ()
    """The subprotocols that are offered, the preferred one first."""
    origin: str | None = None
    """The value of Origin."""
    user_agent: str | None = USER_AGENT
    """The value of User-Agent; None sends none."""
    ssl_context: ssl.SSLContext | None = None
    """How ``wss`` verifies; the standard library's default context where it is None."""
    server_hostname: str | None = None
    """The name that the certificate is verified for, and that SNI sends, in place of the URL's."""
    proxy: Proxy | Literal[True] | None = True
    """The proxy; True for that of the environment, None for none."""
    unix: str | None = None
    """The path of a Unix socket to connect to."""
    local_address: str | None = None
    """The IP address to connect from."""
    max_redirects: int = MAX_REDIRECTS
    """Redirects that are followed."""

    @classmethod
    def of(cls, options: Any) -> Self:
        """The settings that ``options`` ask for. Raises TypeError and ValueError that name what is accepted."""
        own = {name: _check_of_client(name, options[name]) for name in _OF_CLIENTS if name in options}
        others = {name: value for name, value in options.items() if name not in own}
        return replace(super().of(others), **own)


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Settings):
    """Checked :class:`ServerOptions`, with their defaults."""

    max_connections: float = math.inf
    """Open connections; the next gets 503."""
    max_connections_per_address: float = math.inf
    """Connections of one client's address, those in the opening handshake included; the next gets 429."""
    max_handshakes: float = MAX_HANDSHAKES
    """Connections in the opening handshake before accepting pauses, until one of them is done or dropped."""
    max_message_rate: float = math.inf
    """Messages of one client in a second, on average over ten; a client that sends more is closed with 1008."""
    idle_timeout: float = math.inf
    """Seconds without a message of the client's before it is closed with 1001."""
    trusted_proxies: Forwarding = _NO_PROXIES
    """The proxies that are trusted to name the client, and by which header they do."""

    @classmethod
    def of(cls, options: Any) -> Self:
        """The settings that ``options`` ask for. Raises TypeError and ValueError that name what is accepted."""
        options = dict(options)
        header = options.pop("proxy_header", HEADERS[0])
        forwarding = Forwarding.of(options.pop("trusted_proxies", ()), header)
        return replace(super().of(options), trusted_proxies=forwarding)


def check_ssl_context(context: ssl.SSLContext | None, unfit: int) -> None:
    """See that ``context`` is one, if anything, and not made for the other side by the protocol ``unfit``."""
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    if context.protocol == unfit:
        raise ValueError(f"ssl_context is one for this side of TLS, not of {context.protocol.name}")


def _check(name: str, value: Any) -> Any:
    if name == "compression":
        if isinstance(value, Deflate) or value is None:
            return value
        if not isinstance(value, bool):
            raise TypeError(f"compression is True, False or a Deflate, not {value!r}")
        return Deflate() if value else None
    if name == "json":
        if not (callable(getattr(value, "dumps", None)) and callable(getattr(value, "loads", None))):
            raise TypeError(f"json is a module or an object with dumps() and loads(), not {value!r:.60}")
        return value
    unit = "messages a second" if name == "max_message_rate" else "seconds"
    is_measure = unit != "seconds" or name.endswith(("_timeout", "_interval"))
    if value is None and (is_measure or name in _ENDLESS):
        return math.inf
    if is_measure:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} is a number of {unit} or None, not {value!r}")
        if not value > 0:
            raise ValueError(f"{name} is a positive number of {unit} or None, not {value!r}")
        return float(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    least = 0 if name == "max_redirects" else 1
    if value < least:
        raise ValueError(f"{name} is at least {least}, not {value!r}")
    return value


def _check_of_client(name: str, value: Any) -> Any:
    if name == "additional_headers":
        return build_headers(value)
    if name == "subprotocols" and not isinstance(value, (str, bytes)):
        return tuple(value)
    if name == "ssl_context":
        check_ssl_context(value, ssl.PROTOCOL_TLS_SERVER)
    elif name == "proxy":
        if isinstance(value, str):
            return Proxy.parse(value)
        if value is not True and value is not None:
            raise TypeError(f"proxy is a URL, True or None, not {value!r}")
    elif name == "unix" and value is not None:
        return os.fspath(value)
    elif name in ("server_hostname", "local_address") and not isinstance(value, (str, type(None))):
        raise TypeError(f"{name} is a str or None, not {value!r}")
    return value  # The opening handshake checks the others.
