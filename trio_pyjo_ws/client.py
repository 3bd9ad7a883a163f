"""The client: from a URL to a transaction in a nursery."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from .errors import HandshakeError
from .housekeeper import Housekeeper
from .settings import Options, Settings, check_ssl_context
from .transaction import Transaction
from .transport import open_transport
from .wire.http1 import ClientHandshake, Url
from .wire.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from typing_extensions import Unpack

    from .transport import Transport
    from .wire.negotiate import HeadersLike

__all__ = ["connect", "open_websocket"]

_FAILURES = (Exception, KeyboardInterrupt, SystemExit)


async def connect(
    nursery: trio.Nursery,
    url: str,
    *,
    headers: HeadersLike = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    stream: trio.abc.Stream | None = None,
    **options: Unpack[Options],
) -> Transaction:
    """Open a connection to ``url`` (``ws://`` or ``wss://``) that lives in ``nursery``, and return its transaction.

    The nursery does not end before the connection does: close it, or iterate until the peer closes. Cancelling the
    nursery closes the socket at once.

    ``headers`` are added to the request, ``subprotocols`` offered in this order of preference, ``origin`` sent as
    Origin. ``wss`` verifies the certificate and the host name, with ``ssl_context`` in place of the default one where
    it is given. ``stream`` is used in place of a new connection, and belongs to the transaction from then on; ``wss``
    puts TLS on it. ``options`` are those of :class:`~trio_pyjo_ws.Options`.

    Raises ValueError or TypeError before any input or output, ``stream`` untouched, for arguments that do not fit;
    OSError where there is no connection; :class:`HandshakeError` where TLS or the opening handshake fails;
    :class:`trio.TooSlowError` after ``open_timeout`` seconds. A checkpoint; whatever else it raises, and when it is
    cancelled, the socket is closed.
    """
    settings = Settings.of(options)
    target = Url.parse(url)
    handshake = ClientHandshake(
        target,
        headers=headers,
        subprotocols=subprotocols,
        origin=origin,
        deflate=settings.compression,
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
    )
    check_ssl_context(ssl_context, ssl.PROTOCOL_TLS_SERVER)
    if ssl_context is not None and not target.secure:
        raise ValueError("ssl_context is for wss://, and this is a ws:// URL")
    protocol = Protocol(
        "client",
        handshake=handshake,
        max_websocket_size=settings.max_websocket_size,
        max_empty_fragments=settings.max_empty_fragments,
    )
    with trio.fail_after(settings.open_timeout):
        if stream is None:
            stream = await trio.open_tcp_stream(target.host, target.port)
        try:
            if target.secure:
                context = ssl_context or ssl.create_default_context()
                stream = trio.SSLStream(stream, context, server_hostname=target.host, https_compatible=True)
            transport = open_transport(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        try:
            await _start_tls(transport, target.host)
            await _shake_hands(protocol, transport)
            housekeeper = Housekeeper(nursery)
            transaction = Transaction(protocol, transport, housekeeper, settings)
            housekeeper.retire()
            nursery.start_soon(housekeeper.run, name=f"housekeeper of {transaction!r}")
        except BaseException:
            transport.close()
            await transport.aclose()
            raise
    transaction._start()  # noqa: SLF001 - the engine's own start
    return transaction


async def _start_tls(transport: Transport, host: str) -> None:
    try:
        await transport.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise HandshakeError(f"TLS with {host} failed: {exc.__cause__ or exc}") from exc


async def _shake_hands(protocol: Protocol, transport: Transport) -> None:
    try:
        await transport.send_all(protocol.client_write())
        while protocol.agreement is None:
            data = await transport.receive()
            if data:
                protocol.client_read(data)
            else:
                protocol.client_close()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise HandshakeError(f"the connection was lost in the opening handshake: {exc}") from exc


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    headers: HeadersLike = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    stream: trio.abc.Stream | None = None,
    **options: Unpack[Options],
) -> AsyncIterator[Transaction]:
    """A connection as of :func:`connect`, in a nursery of its own, for ``async with``.

    Leaving the block closes the connection with 1000, as :meth:`Transaction.aclose` does. An exception of the block
    comes out as it is; only where a callback has failed as well they come in an exception group, as a nursery's do.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                transaction = await connect(
                    nursery,
                    url,
                    headers=headers,
                    subprotocols=subprotocols,
                    origin=origin,
                    ssl_context=ssl_context,
                    stream=stream,
                    **options,
                )
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
