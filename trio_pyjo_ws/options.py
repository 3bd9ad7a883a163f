"""The options of clients and servers: the check, the default and the meaning of each, in one place.

A field of the settings below is an option: its metadata hold the check that the caller's value goes through, the
default as a caller would write it, and the meaning, which is what ``docs/options.md`` and the reference show. The typed
dictionaries are for annotations and for type checkers; a test keeps both alike.

All timeouts are seconds on trio's clock; ``None`` or ``math.inf`` disables one.
"""

from __future__ import annotations

import math
import os
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypedDict

from .handshake.forwarded import HEADERS, Forwarding
from .handshake.http1 import MAX_HEADER_BYTES, MAX_REQUEST_LINE, USER_AGENT
from .handshake.messages import build_headers
from .handshake.tunnel import Proxy
from .wire.deflate import Deflate
from .wire.protocol import MAX_WEBSOCKET_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from typing_extensions import Self

    from .handshake.messages import HeadersLike
    from .json_codec import JsonCodec

__all__ = [
    "UNBOUNDED",
    "ClientOptions",
    "ClientSettings",
    "Options",
    "ServerOptions",
    "ServerSettings",
    "Settings",
    "check_ssl_context",
    "whole_number",
]

UNBOUNDED: Final = 1 << 62
"""What the settings hold for a bound of None. The compiled codec counts to twice this."""

MAX_HANDSHAKES: Final = 1024
"""Connections in the opening handshake: nginx's worker_connections are 512 of any kind."""

MAX_REDIRECTS: Final = 10
"""Redirects that a client follows. urllib and Go's net/http take ten, browsers twenty."""

_ELSEWHERE: Final = {
    "compress": "compression",
    "connect_timeout": "open_timeout",
    "disconnect_timeout": "close_timeout",
    "extra_headers": "additional_headers",
    "headers": "additional_headers",
    "heartbeat": "ping_interval",
    "max_message_size": "max_websocket_size",
    "max_msg_size": "max_websocket_size",
    "max_size": "max_websocket_size",
    "message_queue_size": "max_queue",
    "process_request": "on_request",
    "protocols": "subprotocols",
    "ssl": "ssl_context",
    "timeout": "open_timeout",
    "user_agent_header": "user_agent",
}
"""The names of other libraries for our options: websockets', aiohttp's and trio-websocket's."""

Check = Callable[[str, Any], Any]
"""Takes an option's name and the caller's value, and returns what the settings hold.

Raises TypeError or ValueError that name the option, the value and what was expected."""


class Options(TypedDict, total=False):
    """The options of ``open_memory_pair`` and ``open_scripted_pair``, which clients and servers have, too.

    Seconds are trio's. ``None`` disables a timeout, or removes a bound.
    """

    compression: bool | Deflate | None
    json: JsonCodec | None
    max_websocket_size: int | None
    max_queue: int | None
    max_queue_bytes: int | None
    write_limit: int
    open_timeout: float | None
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    max_header_bytes: int


class ClientOptions(Options, total=False):
    """The options of ``connect``, ``open_websocket`` and ``reconnecting``: those of :class:`Options`, and these."""

    additional_headers: HeadersLike
    subprotocols: Sequence[str]
    require_subprotocol: bool
    origin: str | None
    user_agent: str | None
    max_redirects: int
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | Literal[True] | None
    unix: str | os.PathLike[str] | None
    local_address: str | None


class ServerOptions(Options, total=False):
    """The options of ``serve`` and ``serve_listeners``: those of :class:`Options`, and these.

    ``None`` disables a limit.
    """

    max_connections: int | None
    max_connections_per_address: int | None
    max_handshakes: int | None
    max_request_line: int
    require_subprotocol: bool
    max_message_rate: float | None
    idle_timeout: float | None
    trusted_proxies: Sequence[str | IPv4Address | IPv4Network | IPv6Address | IPv6Network]
    proxy_header: Literal["X-Forwarded-For", "Forwarded", "PROXY"]


# What may be given


def whole_number(least: int = 1, accepted: str = "an int") -> Check:
    """A check for an int, which raises TypeError and ValueError."""

    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be {accepted}, not {value!r:.60}")
        shown = f"{value}" if abs(value) <= UNBOUNDED else f"{value:#x}"[:60]  # int to str refuses 4,300 digits
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {shown}")
        if value > UNBOUNDED:
            raise ValueError(f"{name} must be at most {UNBOUNDED}, not {shown}")
        return value

    return check


_count = whole_number()
_count_or_none = whole_number(1, "an int or None")


def _bound(name: str, value: Any) -> Any:
    return UNBOUNDED if value is None else _count_or_none(name, value)


def _measure(unit: str) -> Check:
    def check(name: str, value: Any) -> float:
        if value is None:
            return math.inf
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number of {unit} or None, not {value!r:.60}")
        if not value > 0:
            raise ValueError(f"{name} must be a positive number of {unit} or None, not {value!r:.60}")
        return math.inf if value > sys.float_info.max else float(value)

    return check


_seconds = _measure("seconds")


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {value!r:.60}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    return value


def _compression(name: str, value: Any) -> Deflate | None:
    if isinstance(value, Deflate) or value is None:
        return value
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True, False or a Deflate, not {value!r:.60}")
    return Deflate() if value else None


def _json(name: str, value: Any) -> Any:
    if value is not None and not (callable(getattr(value, "dumps", None)) and callable(getattr(value, "loads", None))):
        raise TypeError(f"{name} must be a module or an object with dumps() and loads(), not {value!r:.60}")
    return value


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be a sequence of str, not {value!r:.60}")
    return tuple(value)


def _proxy(name: str, value: Any) -> Proxy | Literal[True] | None:
    if isinstance(value, str):
        return Proxy.parse(value)
    if value is True or value is None:
        return value
    raise TypeError(f"{name} must be a URL, True or None, not {value!r:.60}")


def _headers(_: str, value: Any) -> HeadersLike:
    return build_headers(value)


def _path(_: str, value: Any) -> Any:
    return None if value is None else os.fspath(value)


def _ssl_context(_: str, value: Any) -> ssl.SSLContext | None:
    return check_ssl_context(value, "client")


def _forwarding(_: str, value: Any) -> Forwarding:
    return Forwarding.of(value)


def _header_name(name: str, value: Any) -> Any:
    if value not in HEADERS:
        raise ValueError(f"{name} must be one of {', '.join(HEADERS)}, not {value!r:.60}")
    return value


def check_ssl_context(context: Any, role: Literal["client", "server"]) -> ssl.SSLContext | None:
    """Return ``context``, which must be None or an :class:`ssl.SSLContext` for this side of TLS.

    Raises TypeError and ValueError.
    """
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context must be an ssl.SSLContext or None, not {context!r:.60}")
    if role == "client" and context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("ssl_context is one for servers (use ssl.create_default_context())")
    if role == "server" and context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("ssl_context is one for clients (use ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))")
    return context


def _default_max_websocket_size() -> int:
    """The value of the environment variable ``PYJO_MAX_WEBSOCKET_SIZE``, or 262,144 bytes."""
    text = os.environ.get("PYJO_MAX_WEBSOCKET_SIZE", "")
    if not text:
        return MAX_WEBSOCKET_SIZE
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"PYJO_MAX_WEBSOCKET_SIZE must be a number of bytes, not {text[:60]!r}")
    return int(text) or MAX_WEBSOCKET_SIZE  # 0 as in Mojolicious: the default


# The options themselves


def _option(default: Any, check: Check, meaning: str) -> dict[str, Any]:
    """The metadata of an option's field; ``default`` as a caller would write it."""
    return {"default": default, "check": check, "meaning": meaning}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked :class:`Options`, those that were not given included: made by :meth:`of`."""

    compression: Deflate | None = field(
        metadata=_option(False, _compression, "Permessage-deflate (RFC 7692): True, or its parameters as a `Deflate`.")
    )
    json: JsonCodec | None = field(
        metadata=_option(
            None, _json, "What encodes and decodes JSON, by `dumps` and `loads`; None for the standard library."
        )
    )
    max_websocket_size: int = field(
        metadata=_option(
            MAX_WEBSOCKET_SIZE,
            _bound,
            "Bytes of the largest message that is accepted, before and after inflation. The environment variable "
            "`PYJO_MAX_WEBSOCKET_SIZE` sets another default.",
        )
    )
    max_queue: int = field(
        metadata=_option(1024, _bound, "Messages that wait to be received before reading from the network stops.")
    )
    max_queue_bytes: int = field(
        metadata=_option(
            1_048_576,
            _bound,
            "Bytes of memory that they take before reading from the network stops. One character outside of ASCII can "
            "make Python take two or four bytes for each character of a text.",
        )
    )
    write_limit: int = field(
        metadata=_option(
            65_536, _count, "Bytes that wait to be written before `send` waits and `send_nowait` raises `WouldBlock`."
        )
    )
    open_timeout: float = field(
        metadata=_option(
            10, _seconds, "Seconds for the whole opening: name resolution, connection, TLS, opening handshake."
        )
    )
    close_timeout: float = field(
        metadata=_option(10, _seconds, "Seconds for the closing handshake and the end of the stream.")
    )
    ping_interval: float = field(
        metadata=_option(20, _seconds, "Seconds between the pings that keep a connection alive.")
    )
    ping_timeout: float = field(
        metadata=_option(
            20, _seconds, "Seconds from queueing such a ping to its pong, after which the connection is dropped."
        )
    )
    max_header_bytes: int = field(
        metadata=_option(MAX_HEADER_BYTES, _count, "Bytes of the head of the request, or of the response.")
    )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default of each option, as a caller would write it."""
        return {option.name: option.metadata["default"] for option in fields(cls)}

    parameters: ClassVar[tuple[str, ...]] = ()
    """The other arguments of the functions that take these options, for the hint at a misspelt name."""

    @classmethod
    def of(cls, options: Any) -> Self:
        """Return the settings that ``options`` ask for.

        Raises TypeError for an unknown name, and TypeError or ValueError for a wrong value.
        """
        known = {option.name: option.metadata for option in fields(cls)}
        for name in options:
            if name not in known:
                raise TypeError(_unknown(name, tuple(known), cls.parameters))
        given = {"max_websocket_size": _default_max_websocket_size(), **options}
        return cls(**{name: of["check"](name, given.get(name, of["default"])) for name, of in known.items()})


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Settings):
    """Checked :class:`ClientOptions`, those that were not given included."""

    additional_headers: HeadersLike = field(
        metadata=_option((), _headers, "Headers of the request, beside those of the opening handshake.")
    )
    subprotocols: Sequence[str] = field(
        metadata=_option((), _sequence, "The subprotocols that are offered, the preferred one first.")
    )
    require_subprotocol: bool = field(
        metadata=_option(False, _flag, "Whether a server that chooses none of them is refused, with `HandshakeError`.")
    )
    origin: str | None = field(metadata=_option(None, _text, "The value of Origin."))
    user_agent: str | None = field(metadata=_option(USER_AGENT, _text, "The value of User-Agent; None sends none."))
    max_redirects: int = field(metadata=_option(MAX_REDIRECTS, whole_number(0), "Redirects that are followed."))
    ssl_context: ssl.SSLContext | None = field(
        metadata=_option(None, _ssl_context, "How `wss://` verifies; None for the standard library's default context.")
    )
    server_hostname: str | None = field(
        metadata=_option(
            None, _text, "The name that the certificate is verified for, and that SNI sends, in place of the URL's."
        )
    )
    proxy: Proxy | Literal[True] | None = field(
        metadata=_option(True, _proxy, "The proxy's URL; True for that of the environment, None for none.")
    )
    unix: str | None = field(metadata=_option(None, _path, "The path of a Unix socket to connect to."))
    local_address: str | None = field(metadata=_option(None, _text, "The IP address to connect from."))

    parameters = ("stream", "open_stream")


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Settings):
    """Checked :class:`ServerOptions`, those that were not given included."""

    max_connections: int = field(metadata=_option(None, _bound, "Open connections; the next gets 503."))
    max_connections_per_address: int = field(
        metadata=_option(
            None,
            _bound,
            "Connections of one client's address (in IPv6, of its /64), those in the opening handshake included; the "
            "next gets 429 at once, or over TLS is closed.",
        )
    )
    max_handshakes: int = field(
        metadata=_option(
            MAX_HANDSHAKES,
            _bound,
            "Connections in the opening handshake; one more takes the place of the oldest whose client has sent "
            "nothing, and waits if there is none.",
        )
    )
    max_request_line: int = field(
        metadata=_option(
            MAX_REQUEST_LINE, _count, "Bytes of a request's first line, which holds tokens of browsers; more get 414."
        )
    )
    require_subprotocol: bool = field(
        metadata=_option(
            False,
            _flag,
            "Whether a client with which no subprotocol is agreed on gets 400, as charging stations (OCPP) expect it.",
        )
    )
    max_message_rate: float = field(
        metadata=_option(
            None,
            _measure("messages a second"),
            "Messages of one client in a second, on average over ten; a client that sends more is closed with 1008.",
        )
    )
    idle_timeout: float = field(
        metadata=_option(None, _seconds, "Seconds without a message of the client's before it is closed with 1001.")
    )
    trusted_proxies: Forwarding = field(
        metadata=_option(
            (),
            _forwarding,
            "Addresses and networks of the proxies that are trusted to name the client; `unix:` for a Unix socket's.",
        )
    )
    proxy_header: Literal["X-Forwarded-For", "Forwarded", "PROXY"] = field(
        metadata=_option(
            HEADERS[0],
            _header_name,
            "The header by which they name it: this one, `Forwarded`, or `PROXY` for the PROXY protocol.",
        )
    )

    parameters = (
        *("port", "host", "backlog", "reuse_port", "ssl_context", "handler_nursery"),
        *("on_request", "subprotocols", "origins"),
    )


def _unknown(name: str, options: tuple[str, ...], parameters: tuple[str, ...]) -> str:
    """What is wrong with an option that does not exist, and which one may be meant."""
    import difflib  # noqa: PLC0415 - only a mistake needs it

    meant = {known: known for known in (*options, *parameters)}
    meant.update((foreign, ours) for foreign, ours in _ELSEWHERE.items() if ours in meant)
    close = difflib.get_close_matches(name, meant, 1)
    hint = f"did you mean {meant[close[0]]!r}?" if close else f"expected one of {', '.join(options)}"
    return f"unknown option {name!r} ({hint})"
