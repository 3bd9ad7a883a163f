"""The way to the server: TCP, a Unix socket, or through a proxy; TLS where the URL asks for it."""

from __future__ import annotations

import ssl
from importlib import import_module
from typing import TYPE_CHECKING, cast

import trio

from .errors import HandshakeError
from .transport import RECEIVE_SIZE
from .wire.tunnel import Proxy, Tunnel

if TYPE_CHECKING:
    from .settings import ClientSettings
    from .wire.http1 import Url

__all__ = ["dial", "proxy_of_environment", "wrap_tls"]


async def dial(url: Url, settings: ClientSettings) -> trio.abc.Stream:
    """A stream to the server of ``url``, without its TLS. Raises OSError, or HandshakeError for what a proxy refuses.

    TCP tries all the addresses of a name, as trio does it (happy eyeballs, RFC 8305).
    """
    if settings.unix is not None:
        return await trio.open_unix_socket(settings.unix)
    proxy = settings.proxy
    if proxy is True:
        proxy = proxy_of_environment(url)
    if proxy is None:
        return await trio.open_tcp_stream(url.host, url.port, local_address=settings.local_address)
    if proxy.scheme.startswith("socks"):
        try:
            adapter = import_module(".adapters.socks", __package__)
        except ImportError as exc:
            raise ImportError("a SOCKS proxy needs python-socks: pip install 'trio-pyjo-ws[proxy]'") from exc
        stream = await adapter.open_socks_stream(proxy, url.host, url.port, settings.local_address)
        return cast("trio.abc.Stream", stream)
    return await _open_tunnel(proxy, url, settings)


def proxy_of_environment(url: Url) -> Proxy | None:
    """The proxy for ``url`` that the environment names, or the system where the standard library asks it.

    One for WebSockets comes before SOCKS, and that before one for HTTPS and HTTP (RFC 6455, section 4.1).
    """
    request = import_module("urllib.request")  # here: with http.client and email it is a seventh of the whole import
    proxies = request.getproxies()
    for name in ("wss", "socks", "https", "all") if url.secure else ("ws", "socks", "https", "http", "all"):
        if proxies.get(name):
            if request.proxy_bypass(f"{url.host}:{url.port}"):
                return None
            proxy = Proxy.parse(proxies[name])
            # So a system's settings name a SOCKS proxy.
            return proxy._replace(scheme="socks5h") if name == "socks" and proxy.scheme == "http" else proxy
    return None


async def _open_tunnel(proxy: Proxy, url: Url, settings: ClientSettings) -> trio.abc.Stream:
    stream: trio.abc.Stream = await trio.open_tcp_stream(proxy.host, proxy.port, local_address=settings.local_address)
    try:
        if proxy.scheme == "https":
            stream = wrap_tls(stream, ssl.create_default_context(), proxy.host)
        tunnel = Tunnel(
            proxy,
            url,
            user_agent=settings.user_agent,
            max_header_bytes=settings.max_header_bytes,
            max_headers=settings.max_headers,
        )
        await stream.send_all(tunnel.write())
        is_open = False
        while not is_open:
            data = await stream.receive_some(RECEIVE_SIZE)
            is_open = tunnel.read(bytes(data)) if data else tunnel.read_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        await trio.aclose_forcefully(stream)
        raise HandshakeError(f"the proxy {proxy.host} is no way: {exc.__cause__ or exc}") from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def wrap_tls(stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> trio.SSLStream[trio.abc.Stream]:
    """TLS on ``stream``, which verifies ``host``. The handshake comes with the first use."""
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
