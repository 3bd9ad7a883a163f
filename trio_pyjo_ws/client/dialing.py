"""The way to the server: TCP, a Unix socket, or through a proxy; TLS if the URL asks for it."""

from __future__ import annotations

import os
import ssl
from importlib import import_module
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, cast

import trio

from .._engine.sockets import RECEIVE_SIZE
from ..errors import HandshakeError
from ..handshake.tunnel import Proxy, Tunnel

if TYPE_CHECKING:
    from ..handshake.url import Url
    from ..options import ClientSettings

__all__ = ["dial", "proxy_of_environment", "wrap_tls"]


async def dial(url: Url, settings: ClientSettings) -> trio.abc.Stream:
    """A stream to the server of ``url``, without its TLS.

    TCP tries all the addresses of a name, as trio does it (happy eyeballs, RFC 8305).

    Raises OSError if there is no connection, HandshakeError if a proxy refuses it, ImportError for SOCKS without the
    extra ``proxy``, ValueError for a proxy of the environment that cannot be understood.
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
            adapter = import_module("..adapters.socks", __package__)
        except ImportError as exc:
            raise ImportError("a SOCKS proxy needs python-socks: pip install 'trio-pyjo-ws[proxy]'") from exc
        # A zone has a meaning on this machine only.
        host = url.host.partition("%")[0]
        stream = await adapter.open_socks_stream(proxy, host, url.port, settings.local_address)
        return cast("trio.abc.Stream", stream)
    return await _open_tunnel(proxy, url, settings)


def proxy_of_environment(url: Url) -> Proxy | None:
    """The proxy for ``url`` in the environment or, if that names none at all, in the settings of Windows or macOS.

    One for WebSockets comes before SOCKS, and that before one for HTTPS and HTTP (RFC 6455, section 4.1). Raises
    ValueError, with the name of the variable, if its value cannot be understood.
    """
    request = import_module("urllib.request")  # here: with http.client and email it is a seventh of the whole import
    environment = request.getproxies_environment()
    proxies = environment or request.getproxies()
    for kind in ("wss", "socks", "https", "all") if url.secure else ("ws", "socks", "https", "http", "all"):
        if not proxies.get(kind):
            continue
        if environment:
            bypassed = _is_bypassed(url, environment.get("no", ""))
        else:
            bypassed = request.proxy_bypass(f"{url.host}:{url.port}")
        if bypassed:
            return None
        try:
            proxy = Proxy.parse(proxies[kind])
        except ValueError as exc:
            # The standard library takes the names in any case, and of two the one in lower case.
            names = [name for name in os.environ if name.lower() == f"{kind}_proxy"]
            raise ValueError(f"{max(names, key=str.islower, default='system settings')}: {exc}") from None
        # System settings give a SOCKS proxy as http://.
        return proxy._replace(scheme="socks5h") if kind == "socks" and proxy.scheme == "http" else proxy
    return None


def _is_bypassed(url: Url, no_proxy: str) -> bool:
    """Whether ``no_proxy`` names the host of ``url``, as curl reads it.

    Its entries stand between commas or spaces: ``*`` is every host; a name stands for itself and all below it, with or
    without a dot before it; an address may stand in brackets; ``10.0.0.0/8`` is a network (curl knows them since 7.86).
    Unlike in curl, a port may follow, as in the standard library and Go.
    """
    host = url.host.partition("%")[0].removesuffix(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        name, port = entry, None
        if entry.count(":") == 1 or "]:" in entry:
            name, _, port = entry.rpartition(":")
        if port in (None, str(url.port)) and (name == "*" or _matches(name.strip("[]."), host)):
            return True
    return False


def _matches(name: str, host: str) -> bool:
    """Whether a name, address or network of ``no_proxy`` stands for this host."""
    try:
        address = ip_address(host)
    except ValueError:
        return bool(name) and f".{host}".endswith(f".{name}")
    try:
        return address in ip_network(name, strict=False)
    except ValueError:
        return False


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
        )
        await stream.send_all(tunnel.write())
        is_open = False
        while not is_open:
            data = await stream.receive_some(RECEIVE_SIZE)
            is_open = tunnel.read(bytes(data)) if data else tunnel.read_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        await trio.aclose_forcefully(stream)
        raise HandshakeError(f"cannot connect through the proxy {proxy.host}: {exc.__cause__ or exc}") from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def wrap_tls(stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> trio.SSLStream[trio.abc.Stream]:
    """TLS on ``stream``, which verifies ``host``. The handshake comes with the first use.

    The last dot of a name is for the resolver, and no part of what is sent and verified (RFC 6066, section 3); nor is
    the zone of an address.
    """
    host = host.partition("%")[0].removesuffix(".")
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
