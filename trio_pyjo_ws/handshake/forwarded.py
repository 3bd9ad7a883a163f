"""The address of the client behind a reverse proxy: X-Forwarded-For, and Forwarded (RFC 7239).

Anybody can send these headers. So only one of them is read, the one that the proxy is known to write, from the right:
first come the addresses that trusted proxies have added, and the client is the first that is not a trusted proxy. What
stands to the left of it is what the client said about itself, and is never looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .messages import Headers

__all__ = ["HEADERS", "PROXY", "UNIX", "Forwarding"]

UNIX: Final = "unix:"
"""Stands for every client of a Unix socket; nginx uses the same name."""

PROXY: Final = "PROXY"
"""Stands for the header of the PROXY protocol, which comes before HTTP."""

HEADERS: Final = ("X-Forwarded-For", "Forwarded", PROXY)
"""The headers in which a proxy may name the client."""

# A pair of RFC 7239, section 4. Some proxies do not quote an address with a port.
_PAIR = re.compile(
    r'[ \t]*(?:(?P<name>[^\s=;,"]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s=;,"]+))[ \t]*)?(?P<end>[;,]|\Z)'
)
_NODE = re.compile(r"\[(?P<v6>[^]]*)\](?::\w+)?|(?P<v4>[0-9.]+)(?::\w+)?|(?P<bare>.*)", re.DOTALL)


@dataclass(frozen=True)
class Forwarding:
    """The proxies that are trusted to name the client, and the header in which they do."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    header: str = HEADERS[0]

    @classmethod
    def of(cls, proxies: Any, header: str = HEADERS[0]) -> Forwarding:
        """From addresses, networks and ``"unix:"``. Raises TypeError and ValueError for anything else."""
        if isinstance(proxies, (str, bytes)) or not hasattr(proxies, "__iter__"):
            raise TypeError(f"trusted_proxies must be a sequence of addresses and networks, not {proxies!r:.60}")
        if header not in HEADERS:
            raise ValueError(f"proxy_header must be one of {', '.join(HEADERS)}, not {header!r:.60}")
        networks = []
        unix = False
        for proxy in proxies:
            if proxy == UNIX:
                unix = True
                continue
            try:
                networks.append(ip_network(proxy))
            except ValueError as error:
                raise ValueError(
                    f"a trusted proxy must be an IP address, a network or {UNIX!r}, not {proxy!r:.60}"
                ) from error
        return cls(tuple(networks), unix, header)

    def trusts(self, address: str | None) -> bool:
        """Whether a trusted proxy connects from ``address``. Anything but an IP address stands for a Unix socket."""
        found = _parse(address or "")
        return self.unix if found is None else self._has(found)

    def client(self, headers: Headers) -> str | None:
        """The IP address of the client, as a trusted proxy names it; None if it does not."""
        client = None
        for node in reversed(self._nodes(headers)):
            address = _parse(node)
            if address is None or "%" in node:  # A zone has a meaning on the proxy only.
                break  # Unknown, or hidden on purpose: the last proxy that is known is the best answer.
            client = address
            if not self._has(address):
                break
        return None if client is None else str(client)

    def _has(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.networks)

    def _nodes(self, headers: Headers) -> list[str]:
        values = headers.getall(self.header, ())
        if self.header == HEADERS[0]:
            return ",".join(values).split(",")
        return [node for value in values for node in _parse_forwarded(value)]


def _parse_forwarded(value: str) -> list[str]:
    """The ``for`` of each element, empty if it has none; one empty element for a malformed value."""
    nodes = [""]
    position = 0
    while (pair := _PAIR.match(value, position)) is not None:
        if (pair["name"] or "").lower() == "for":
            nodes[-1] = pair["quoted"] or pair["plain"] or ""
        if not pair["end"]:
            return nodes
        if pair["end"] == ",":
            nodes.append("")
        position = pair.end()
    return [""]


def _parse(node: str) -> IPv4Address | IPv6Address | None:
    """The IP address of ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1`` and ``[2001:db8::1]:80``."""
    found = _NODE.fullmatch(node.strip(" \t"))
    assert found is not None
    try:
        address = ip_address(found["v6"] or found["v4"] or found["bare"] or "")
    except ValueError:
        return None
    # A socket of both families gives an IPv4 address in this form.
    return getattr(address, "ipv4_mapped", None) or address
