"""The client: from a URL to a transaction in a nursery."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from .dialing import dial, wrap_tls
from .errors import HandshakeError
from .housekeeper import Housekeeper
from .settings import ClientOptions, ClientSettings
from .transaction import Transaction
from .transport import open_transport
from .wire.http1 import ClientHandshake, Url
from .wire.protocol import Protocol
from .wire.redirect import redirected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from typing_extensions import Unpack

    from .transport import Transport

__all__ = ["Target", "connect", "open_websocket"]

_FAILURES = (Exception, KeyboardInterrupt, SystemExit)


class Target:
    """A URL and the options for it, checked: what can be connected to, any number of times.

    Raises ValueError or TypeError for arguments that do not fit, before any input or output.
    """

    def __init__(self, url: str, options: ClientOptions, stream: trio.abc.Stream | None = None) -> None:
        self.settings = settings = ClientSettings.of(options)
        self.url = Url.parse(url)
        # The first connection takes it; another needs another key.
        self._checked: ClientHandshake | None = _handshake(self.url, settings)
        if not self.url.secure and (settings.ssl_context, settings.server_hostname) != (None, None):
            name = "server_hostname" if settings.ssl_context is None else "ssl_context"
            raise ValueError(f"{name} is for wss://, and this is a ws:// URL")
        ways = {
            "unix": settings.unix,
            "proxy": None if settings.proxy is True else settings.proxy,
            "local_address": settings.local_address,
            "stream": stream,
        }
        given = [name for name, way in ways.items() if way is not None]
        if "proxy" in given and "local_address" in given:
            given.remove("local_address")  # The way to the proxy begins there.
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are two ways to the server, accepted is one")

    async def connect(
        self,
        nursery: trio.Nursery,
        stream: trio.abc.Stream | None = None,
        crash: Callable[[Exception], None] | None = None,
    ) -> Transaction:
        """As :func:`connect`. ``crash`` is told of an exception in a callback, in place of the nursery."""
        settings = self.settings
        with trio.fail_after(settings.open_timeout):
            protocol, transport = await self._follow(stream)
            try:
                housekeeper = Housekeeper(nursery)
                transaction = Transaction(protocol, transport, housekeeper, settings, crash)
                housekeeper.retire()
                nursery.start_soon(housekeeper.run, name=f"housekeeper of {transaction!r}")
            except BaseException:
                await _close(transport)
                raise
        transaction._start()  # noqa: SLF001 - the engine's own start
        return transaction

    async def _follow(self, stream: trio.abc.Stream | None) -> tuple[Protocol, Transport]:
        """Open where the URL leads to, redirect by redirect."""
        url, settings = self.url, self.settings
        handshake, self._checked = self._checked, None
        redirects = 0
        while True:
            protocol = Protocol(
                "client",
                handshake=handshake or _handshake(url, settings),
                max_websocket_size=settings.max_websocket_size,
                max_empty_fragments=settings.max_empty_fragments,
            )
            transport = await _reach(url, settings, stream)
            try:
                await _shake_hands(protocol, transport)
            except HandshakeError as exc:
                response = exc.response
                # What is connected to otherwise than by the URL has no way to another.
                if response is None or stream is not None or settings.unix is not None:
                    raise
                target = redirected(url, response)
                if target is None:
                    raise
                if redirects == settings.max_redirects:
                    found = f"{response.status} after {redirects} redirects"
                    raise HandshakeError(f"expected status 101, found {found}", response) from exc
            else:
                return protocol, transport
            redirects += 1
            if target.origin != url.origin:
                # What of these is a secret only their owner knows, and what is none was not meant for that server.
                settings = replace(settings, additional_headers=(), server_hostname=None)
            url, handshake = target, None


def _handshake(url: Url, settings: ClientSettings) -> ClientHandshake:
    return ClientHandshake(
        url,
        headers=settings.additional_headers,
        subprotocols=settings.subprotocols,
        origin=settings.origin,
        deflate=settings.compression,
        user_agent=settings.user_agent,
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
    )


async def _reach(url: Url, settings: ClientSettings, stream: trio.abc.Stream | None) -> Transport:
    """A transport to the server of ``url``, over ``stream`` where that is given, ready for the opening handshake."""
    if stream is None:
        stream = await dial(url, settings)
    host = settings.server_hostname or url.host
    try:
        if url.secure:
            stream = wrap_tls(stream, settings.ssl_context or ssl.create_default_context(), host)
        transport = open_transport(stream)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    try:
        await transport.do_handshake()
    except BaseException as exc:
        await _close(transport)
        if isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError)):
            raise HandshakeError(f"TLS with {host} failed: {exc.__cause__ or exc}") from exc
        raise
    return transport


async def _shake_hands(protocol: Protocol, transport: Transport) -> None:
    """The opening handshake. The transport is closed where it fails."""
    try:
        await transport.send_all(protocol.client_write())
        while protocol.agreement is None:
            data = await transport.receive()
            if data:
                protocol.client_read(data)
            else:
                protocol.client_close()
    except BaseException as exc:
        await _close(transport)
        if isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError)):
            raise HandshakeError(f"the connection was lost in the opening handshake: {exc}") from exc
        raise


async def _close(transport: Transport) -> None:
    transport.close()
    await transport.aclose()


async def connect(
    nursery: trio.Nursery,
    url: str,
    *,
    stream: trio.abc.Stream | None = None,
    **options: Unpack[ClientOptions],
) -> Transaction:
    """Open a connection to ``url`` (``ws://`` or ``wss://``) that lives in ``nursery``, and return its transaction.

    The nursery does not end before the connection does: close it, or iterate until the peer closes. Cancelling the
    nursery closes the socket at once.

    ``options`` are those of :class:`~trio_pyjo_ws.ClientOptions`. ``stream`` is used in place of a new connection, and
    belongs to the transaction from then on; ``wss`` puts TLS on it.

    Raises ValueError or TypeError before any input or output, ``stream`` untouched, for arguments that do not fit;
    OSError where there is no connection; :class:`HandshakeError` where TLS, a proxy or the opening handshake fails;
    ImportError for SOCKS without the extra ``proxy``; :class:`trio.TooSlowError` after ``open_timeout`` seconds.
    A checkpoint; whatever else it raises, and when it is cancelled, the socket is closed.
    """
    return await Target(url, options, stream).connect(nursery, stream)


@asynccontextmanager
async def open_websocket(
    url: str, *, stream: trio.abc.Stream | None = None, **options: Unpack[ClientOptions]
) -> AsyncIterator[Transaction]:
    """A connection as of :func:`connect`, in a nursery of its own, for ``async with``.

    Raises what :func:`connect` raises. Leaving the block closes the connection with 1000, as
    :meth:`Transaction.aclose` does; cancelled, the socket is closed at once. An exception of the block
    comes out as it is; only where a callback has failed as well they come in an exception group, as a nursery's do.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                transaction = await connect(nursery, url, stream=stream, **options)
                async with transaction:
                    try:
                        yield transaction
                    except _FAILURES as exc:
                        failure = exc
            except _FAILURES as exc:
                failure = exc
            if failure is not None:
                nursery.cancel_scope.cancel()
    except BaseException as exc:
        if failure is None:
            raise
        group: Any = exc
        others = [part for part in getattr(group, "exceptions", ()) if not isinstance(part, trio.Cancelled)]
        if others:
            raise group.derive([failure, *others]) from None
    if failure is not None:
        raise failure
