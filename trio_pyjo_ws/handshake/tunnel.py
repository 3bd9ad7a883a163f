"""The URL of a proxy, and the bytes of HTTP CONNECT (RFC 9110, section 9.3.6; RFC 6455, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from multidict import CIMultiDict

from ..errors import HandshakeError
from .http1 import MAX_HEADERS, USER_AGENT, Exchange, MalformedError
from .messages import Request, hide_secrets, shorten
from .negotiate import status_of
from .url import authority_of, basic, split_url

if TYPE_CHECKING:
    from .url import Url

__all__ = ["Proxy", "Tunnel"]

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
# As GNOME writes a SOCKS proxy into the environment. GLib tries version 5 first.
_GNOME_SOCKS = "socks://"


class Proxy(NamedTuple):
    """A proxy, by its URL: ``http://``, ``https://`` (TLS to the proxy) or one of the four of SOCKS.

    ``host:port`` alone is ``http://``, as to curl, and GNOME's ``socks://`` is ``socks5h://``.
    """

    scheme: str
    host: str
    port: int
    user_information: str | None = None
    """What stood before the ``@``, as it stood there: it is for the proxy, and for nobody behind it."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Take a URL apart. Raises ValueError that says which part is wrong, and shows no password."""
        if "://" not in url:
            url = f"http://{url}"
        elif url[: len(_GNOME_SOCKS)].lower() == _GNOME_SOCKS:
            url = f"socks5h://{url[len(_GNOME_SOCKS) :]}"
        try:
            scheme, user_information, host, port, rest = split_url(url, _PORTS)
        except ValueError as exc:
            raise ValueError(f"proxy: {exc}") from None
        if rest not in ("", "/"):
            raise ValueError(f"proxy: URL must not have a path, found {shorten(hide_secrets(rest))}")
        return cls(scheme, host, port, user_information)

    def __repr__(self) -> str:
        hidden = None if self.user_information is None else "..."
        return f"Proxy({self.scheme!r}, {self.host!r}, {self.port!r}, user_information={hidden!r})"


class Tunnel(Exchange):
    """One CONNECT to ``proxy`` for the server of ``url``: ``write`` it, then ``read`` until that returns True.

    The proxy gets its own credentials, and nothing of the request that goes through the tunnel.
    """

    expected = 200

    def __init__(
        self,
        proxy: Proxy,
        url: Url,
        *,
        user_agent: str | None = USER_AGENT,
        max_header_bytes: int,
    ) -> None:
        # RFC 9110, section 7.1: the port is never left out here. A zone has a meaning on this machine only.
        target = authority_of(url.host.partition("%")[0], url.port)
        headers = CIMultiDict({"Host": target})
        if user_agent is not None:
            headers["User-Agent"] = user_agent
        if proxy.user_information is not None:
            headers["Proxy-Authorization"] = basic(proxy.user_information)
        super().__init__(Request("CONNECT", target, headers), max_header_bytes, MAX_HEADERS)

    def read(self, data: bytes) -> bool:
        """Take what arrived, and return whether the tunnel is open. Raises HandshakeError if the proxy refuses it."""
        try:
            response = self._read_head(data)
        except MalformedError as error:
            raise HandshakeError(f"malformed response of the proxy: {error}") from error
        if response is None:
            return False
        if not 200 <= response.status < 300:
            raise HandshakeError(f"expected status 200 of the proxy, found {status_of(response)}", response)
        if self._head.buffer:
            # The server behind the tunnel does not speak first, with or without TLS (RFC 6455, section 4.2; RFC 8446).
            raise HandshakeError("expected nothing behind the response of the proxy", response)
        return True

    def read_eof(self) -> NoReturn:
        """The proxy has closed its side: raises HandshakeError."""
        raise HandshakeError("the proxy closed the connection before the tunnel was open")
