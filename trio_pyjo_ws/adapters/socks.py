"""Through a SOCKS proxy, by python-socks: the extra ``proxy``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import unquote

import trio
from python_socks import ProxyConnectionError, ProxyError, ProxyType
from python_socks.async_.trio import Proxy as SocksProxy

from ..errors import HandshakeError

if TYPE_CHECKING:
    from ..handshake.tunnel import Proxy

__all__ = ["open_socks_stream"]

_UNREACHABLE = frozenset({1, 3, 4, 5, 6, 0x5B})
"""Replies that are about the way behind the proxy, and may pass (RFC 1928, section 6; 5B is all that SOCKS4 knows)."""


async def open_socks_stream(proxy: Proxy, host: str, port: int, local_address: str | None) -> trio.SocketStream:
    """A stream to ``host`` and ``port`` through ``proxy``; with socks4a and socks5h the proxy looks the name up.

    Raises OSError if the proxy cannot be reached or cannot reach the host, HandshakeError if the proxy refuses.
    """
    user, _, password = (proxy.user_information or "").partition(":")
    socks = SocksProxy(
        ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=unquote(user) or None,
        password=unquote(password) if user else None,
        rdns=proxy.scheme in ("socks4a", "socks5h"),
    )
    local = None if local_address is None else (local_address, 0)
    try:
        # The time is bounded by the caller: with the name, TLS and everything.
        sock = await socks.connect(host, port, timeout=math.inf, local_addr=local)
    except ProxyConnectionError:
        raise
    except ProxyError as exc:
        message = f"the proxy did not connect to {host}:{port}: {exc}"
        if exc.error_code in _UNREACHABLE:
            raise OSError(message) from exc
        raise HandshakeError(message) from exc
    except UnicodeDecodeError as exc:  # python-socks decodes the name in the reply, which nobody reads.
        raise HandshakeError(f"the proxy did not connect to {host}:{port}: malformed reply") from exc
    except OSError as exc:
        raise OSError(f"the connection to the proxy was lost: {exc}") from exc
    return trio.SocketStream(sock)
