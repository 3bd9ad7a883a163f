"""A proxy's URL, and the bytes of HTTP CONNECT (RFC 9110, section 9.3.6; RFC 6455, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

import h11
from multidict import CIMultiDict

from ..errors import HandshakeError
from .http1 import USER_AGENT, Exchange, basic, split_url
from .negotiate import MAX_SHOWN, Request, shorten

if TYPE_CHECKING:
    from .http1 import Url

__all__ = ["Proxy", "Tunnel"]

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


class Proxy(NamedTuple):
    """A proxy, by its URL: ``http://``, ``https://`` (TLS to the proxy) or one of the four of SOCKS."""

    scheme: str
    host: str
    port: int
    user_information: str | None = None
    """What stood before the ``@``, as it stood there: for the proxy, and nobody behind it."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Take a URL apart; ValueError names the part that is wrong and what is accepted."""
        try:
            scheme, user_information, host, port, rest = split_url(url, _PORTS)
        except ValueError as exc:
            raise ValueError(f"proxy: {exc}") from None
        if rest not in ("", "/"):
            raise ValueError(f"proxy: URL has the path {shorten(rest)}, accepted is none")
        return cls(scheme, host, port, user_information)

    def __repr__(self) -> str:
        hidden = None if self.user_information is None else "..."
        return f"Proxy({self.scheme!r}, {self.host!r}, {self.port!r}, user_information={hidden!r})"


class Tunnel(Exchange):
    """One CONNECT to ``proxy`` for what is behind ``url``: ``write`` it, then ``read`` until that gives True.

    The proxy gets its own credentials, and nothing of the request that goes through the tunnel.
    """

    expected = 200

    def __init__(
        self, proxy: Proxy, url: Url, *, user_agent: str | None = USER_AGENT, max_header_bytes: int, max_headers: int
    ) -> None:
        host = f"[{url.host}]" if ":" in url.host else url.host
        target = f"{host}:{url.port}"  # RFC 9110, section 7.1: the port is never left out here
        headers = CIMultiDict({"Host": target})
        if user_agent is not None:
            headers["User-Agent"] = user_agent
        if proxy.user_information is not None:
            headers["Proxy-Authorization"] = basic(proxy.user_information)
        super().__init__(Request("CONNECT", target, headers), max_header_bytes, max_headers)

    def read(self, data: bytes) -> bool:
        """Take what arrived: whether the tunnel is open. Raises HandshakeError, with the response, when it is not."""
        try:
            response = self._read_head(data)
        except h11.RemoteProtocolError as error:
            raise HandshakeError(f"malformed response of the proxy: {shorten(str(error))}") from error
        if response is None:
            return False
        if not 200 <= response.status < 300:
            found = f"{response.status} {response.reason[:MAX_SHOWN]}".rstrip()
            raise HandshakeError(f"expected status 200 of the proxy, found {found}", response)
        if self._head.buffer:
            # Behind the tunnel is a server, and a server does not speak first (RFC 6455, section 4.2; RFC 8446).
            raise HandshakeError("expected nothing behind the response of the proxy", response)
        return True

    def read_eof(self) -> NoReturn:
        """The proxy has closed its side: raises HandshakeError."""
        raise HandshakeError("the proxy closed the connection before the tunnel was open")
