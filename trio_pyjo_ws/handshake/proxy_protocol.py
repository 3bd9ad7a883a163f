"""The PROXY protocol, versions 1 and 2: how a load balancer in TCP mode names the client.

One header stands before everything else on the connection, before TLS, too. It may not be guessed at: whoever is known
to send it must, and nobody else may (section 2 of https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from .messages import shorten

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_PROXY_HEADER", "ProxyHeader"]

MAX_PROXY_HEADER: Final = 4_096
"""Bytes of a header of version 2, with all that a proxy adds to the addresses; nginx takes as many."""

MAX_LINE: Final = 107
"""Bytes of a header of version 1, its CRLF included (section 2.1)."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""How version 2 begins (section 2.2). Version 1 begins with "PROXY"."""

_BEGIN = b"PROXY "
_HEAD = 16  # The signature, version and command, family and protocol, and the length of the rest.
# Behind UNKNOWN may stand whatever there is room for (section 2.1).
_LINE = re.compile(
    r"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(?P<kind>TCP[46]) (?P<source>[0-9A-Fa-f.:]+) (?P<destination>[0-9A-Fa-f.:]+) "
    r"(?P<source_port>0|[1-9][0-9]{0,4}) (?P<destination_port>0|[1-9][0-9]{0,4}))\r\n"
)
_ADDRESS_OF: dict[str, Callable[[str], IPv4Address | IPv6Address]] = {"TCP4": IPv4Address, "TCP6": IPv6Address}
_LOCAL, _PROXY = 0x20, 0x21
# The family and protocol of each kind of address, and its length (section 2.2).
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_LENGTHS = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyHeader:
    """One header: :meth:`read` what arrived until it is complete, at best no more than :attr:`wanted` bytes."""

    __slots__ = ("_buffer", "client", "complete", "rest")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.complete = False
        self.client: str | None = None
        """The IP address of the client; None if the proxy speaks for itself, as in a health check, or does not know."""
        self.rest = b""
        """What arrived behind the header."""

    @property
    def wanted(self) -> int:
        """How many bytes to read next so that none behind the header is read; 0 when it is complete."""
        buffer = self._buffer
        if self.complete:
            return 0
        if len(buffer) < len(SIGNATURE):
            return len(SIGNATURE) - len(buffer)  # The shortest of version 1 is three bytes longer.
        return self._size() - len(buffer) if buffer.startswith(SIGNATURE) else 1

    def read(self, data: bytes) -> bool:
        """Take what arrived; return whether the header is complete. Raises ValueError if it is not one."""
        buffer = self._buffer
        buffer += data
        if SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
            end = self._size()
            if len(buffer) >= max(end, _HEAD):
                self._end(end, self._parse_binary(bytes(buffer[:end])))
        elif _BEGIN.startswith(buffer[: len(_BEGIN)]):
            end = buffer.find(b"\n", 0, MAX_LINE) + 1
            if end:
                self._end(end, _parse_line(buffer[:end].decode("latin-1")))
            elif len(buffer) >= MAX_LINE:
                raise ValueError(f"header of the PROXY protocol is over {MAX_LINE} bytes")
        else:
            found = shorten(buffer[: len(SIGNATURE)].decode("latin-1"))
            raise ValueError(f"expected a header of the PROXY protocol, found {found}")
        return self.complete

    def _end(self, end: int, client: str | None) -> None:
        self.complete = True
        self.client = client
        self.rest = bytes(self._buffer[end:])
        self._buffer.clear()

    def _size(self) -> int:
        """Bytes of the whole header of version 2; of its first part, while that has not come."""
        buffer = self._buffer
        if len(buffer) < _HEAD:
            return _HEAD
        size = _HEAD + int.from_bytes(buffer[14:16], "big")
        if size > MAX_PROXY_HEADER:
            raise ValueError(f"header of the PROXY protocol is over {MAX_PROXY_HEADER} bytes")
        return size

    def _parse_binary(self, header: bytes) -> str | None:
        command, kind = header[12], header[13]
        if command not in (_LOCAL, _PROXY):
            raise ValueError(f"expected version 2 of the PROXY protocol and a command, found {command:#04x}")
        if command == _LOCAL:
            return None
        if kind not in _LENGTHS:
            raise ValueError(f"expected addresses of TCP in the PROXY protocol, found {kind:#04x}")
        if len(header) < _HEAD + _LENGTHS[kind]:
            raise ValueError(f"expected {_LENGTHS[kind]} bytes of addresses, found {len(header) - _HEAD}")
        if kind == _TCP4:
            return str(IPv4Address(header[16:20]))
        return _shown(IPv6Address(header[16:32])) if kind == _TCP6 else None


def _parse_line(line: str) -> str | None:
    """The client of ``PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`` and CRLF; None for ``PROXY UNKNOWN``."""
    found = _LINE.fullmatch(line)
    if found is None or not all(int(port or 0) <= 65_535 for port in found.group("source_port", "destination_port")):
        raise ValueError(f"malformed header of the PROXY protocol: {shorten(line)}")
    if found["kind"] is None:
        return None
    address_of = _ADDRESS_OF[found["kind"]]
    try:
        source, _ = address_of(found["source"]), address_of(found["destination"])
    except ValueError:
        raise ValueError(f"malformed header of the PROXY protocol: {shorten(line)}") from None
    return _shown(source)


def _shown(address: IPv4Address | IPv6Address) -> str:
    # A proxy that listens for both families gives an IPv4 address in this form.
    return str(getattr(address, "ipv4_mapped", None) or address)
