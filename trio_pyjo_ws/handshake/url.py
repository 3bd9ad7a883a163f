"""URLs: those of WebSockets (RFC 6455, section 3), and what those of proxies and requests have in common with them."""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import IPv6Address
from os import PathLike
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import idna

from .messages import hide_secrets, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PORTS", "VISIBLE", "Url", "authority_of", "basic", "split_url"]

VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
"""The visible characters of ASCII, all of which may stand in a target: percent-encoding is for the others."""

PORTS: Final = {"ws": 80, "wss": 443}
"""The port of each scheme (RFC 6455, section 3)."""

MAX_HOST: Final = 253
"""Characters of a host name: what DNS has room for (RFC 1035, section 2.3.4)."""

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0]")
_URL = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^]/?#@]*\]|[^][:/?#@]*)"
    r"(?::(?P<port>[^/?#@]*))?(?P<target>[/?].*)?",
    re.DOTALL,
)
# Underscores are not for host names, but for others in DNS, and met in practice.
_HOST = re.compile(r"(?:[0-9a-z_-]{1,63}\.)*[0-9a-z_-]{1,63}\.?")
_ZONE = re.compile(r"[0-9A-Za-z._~-]+")
_PORT = re.compile(r"[0-9]{1,5}")


class Url(NamedTuple):
    """A WebSocket URI (RFC 6455, section 3), taken apart."""

    secure: bool
    host: str
    """What to connect to, in lower case and ASCII: a name, with its last dot if it has one, or an address. An IPv6
    address has no brackets, but its zone: ``fe80::1%eth0``."""
    port: int
    target: str
    """The path and query as they go on the wire; at least ``/``."""
    authority: str
    """The value of Host: without the scheme's own port, and without a zone (RFC 6874, section 4)."""
    user_information: str | None = None
    """What stood before the ``@``, as it stood there."""

    @classmethod
    def parse(cls, url: str) -> Url:
        """Take a URI apart. Raises TypeError for what is not a str, and ValueError that says which part is wrong.

        A host name that is not ASCII becomes IDNA 2008, by the mapping of UTS 46; other characters that are not ASCII
        are percent-encoded (RFC 3987, section 3.1). An IPv6 address may have a zone: ``[fe80::1%25eth0]`` (RFC 6874) or
        ``[fe80::1%eth0]``.
        """
        given: object = url
        if not isinstance(given, str):
            hint = " (write url.decode())" if isinstance(given, bytes) else ""
            if isinstance(given, PathLike):
                hint = " (the path of a Unix socket goes as unix=)"
            raise TypeError(f"URL must be a str, not {type(given).__name__}{hint}")
        scheme, user_information, host, port, target = split_url(url, PORTS)
        if not target.startswith("/"):
            target = f"/{target}"
        authority = authority_of(host.partition("%")[0], port, PORTS[scheme])
        return cls(scheme == "wss", host, port, quote(target, safe=VISIBLE), authority, user_information)

    @property
    def origin(self) -> str:
        """Scheme, host and port in their shortest form: URLs with equal values share an origin (RFC 6454)."""
        scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{authority_of(self.host.replace('%', '%25'), self.port, PORTS[scheme])}"

    def __repr__(self) -> str:
        hidden = None if self.user_information is None else "..."
        return (
            f"Url(secure={self.secure!r}, host={self.host!r}, port={self.port!r}, "
            f"target={hide_secrets(self.target)!r}, authority={self.authority!r}, user_information={hidden!r})"
        )


def authority_of(host: str, port: int, default: int | None = None) -> str:
    """Host and port as they stand in a URL, without the port if it is the ``default``."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == default else f"{bracketed}:{port}"


def basic(user_information: str) -> str:
    """The user and password of a URL as the value of Authorization (RFC 7617, section 2)."""
    user, _, password = user_information.partition(":")
    return "Basic " + b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()


def split_url(url: str, ports: Mapping[str, int]) -> tuple[str, str | None, str, int, str]:
    """Scheme, user information, host, port and the rest of a URL; ``ports`` holds each scheme's own.

    Raises ValueError that says which part is wrong, and shows no password.
    """
    forbidden = _FORBIDDEN.search(url)
    if forbidden is not None:
        raise ValueError(
            f"invalid URL: {forbidden[0]!r} at position {forbidden.start()} (expected no spaces or control characters)"
        )
    if "#" in url:
        raise ValueError("URL must not have a fragment (RFC 6455, section 3)")
    match = _URL.fullmatch(url)
    if match is None:
        # Not shown: it may hold a password.
        expected = " or ".join(f"{scheme}://host:port/path" for scheme in ports)
        raise ValueError(f"malformed URL (expected {expected})")
    scheme = match["scheme"].lower()
    if scheme not in ports:
        *others, last = map(repr, ports)
        raise ValueError(f"unsupported URL scheme {shorten(match['scheme'])} (expected {', '.join(others)} or {last})")
    port = ports[scheme]
    target = match["target"] or ""
    # Host and port may be pieces of a password with a slash in it.
    show = shorten if "@" not in target else lambda _: "..."
    if match["port"]:
        if _PORT.fullmatch(match["port"]) is None or not 1 <= int(match["port"]) <= 65_535:
            raise ValueError(f"invalid port {show(match['port'])} in URL (expected 1 to 65535)")
        port = int(match["port"])
    return scheme, match["user"] or None, _parse_host(match["host"], show), port, target


def _parse_host(host: str, show: Callable[[str], str]) -> str:
    """What to connect to; see :attr:`Url.host`."""
    try:
        if host.startswith("["):
            return _parse_ipv6(host[1:-1])
        # The length first: what is longer is wrong, and not worth the work.
        encoded = host.lower() if host.isascii() or len(host) > MAX_HOST else idna.encode(host, uts46=True).decode()
    except ValueError:
        encoded = ""
    if len(encoded.removesuffix(".")) > MAX_HOST or _HOST.fullmatch(encoded) is None:
        expected = "expected a host name, an IPv4 address, or an IPv6 address in brackets"
        raise ValueError(f"invalid host {show(host)} in URL ({expected})")
    return encoded


def _parse_ipv6(text: str) -> str:
    """An address with or without its zone, which stands behind ``%25`` (RFC 6874) or, as curl takes it too, ``%``."""
    address, percent, zone = text.partition("%")
    if not percent:
        return str(IPv6Address(address))
    if len(zone) > 2:
        zone = zone.removeprefix("25")
    if _ZONE.fullmatch(zone) is None:
        raise ValueError("not a zone")
    return f"{IPv6Address(address)}%{zone}"
