"""The client: from a URL to a transaction in a nursery."""

from __future__ import annotations

import inspect
import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from .._engine.housekeeper import Housekeeper
from .._engine.nursery import HiddenNursery, check_runs_on_trio
from .._engine.tls import open_transport
from ..errors import HandshakeError
from ..handshake.http1 import ClientHandshake
from ..handshake.messages import hide_secrets
from ..handshake.redirect import REDIRECTS, redirected
from ..handshake.url import PORTS, Url
from ..options import ClientOptions, ClientSettings, Settings
from ..signatures import shows
from ..transaction import Transaction
from ..wire.protocol import Protocol
from .dialing import dial, wrap_tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from typing_extensions import Never, Unpack

    from .._engine.transport import Transport

__all__ = ["OpenStream", "Target", "check_positional", "connect", "open_websocket", "transaction_in"]

BODY_TIMEOUT = 1.0
"""Seconds in which the body of a refusing response is read: enough for what is on its way. Some servers neither send
its length nor close the connection, and the status says more than the body."""

OpenStream = Callable[[], trio.abc.Stream | Awaitable[trio.abc.Stream]]
"""Returns the stream of a new connection to the server, in place of TCP: ``open_stream`` of :func:`connect`."""


def transaction_in(nursery: trio.Nursery, protocol: Protocol, transport: Transport, settings: Settings) -> Transaction:
    """Make a transaction with a housekeeper of its own in ``nursery``. RuntimeError if that is closed."""
    housekeeper = Housekeeper(nursery)
    transaction = Transaction(protocol, transport, housekeeper, settings)
    housekeeper.retire()
    nursery.start_soon(housekeeper.run, name=f"housekeeper of {transaction!r}")
    return transaction


class Target:
    """A URL and the options for it, checked: what can be connected to, any number of times.

    Raises ValueError or TypeError for wrong arguments, before any input or output.
    """

    def __init__(
        self,
        url: str,
        options: ClientOptions,
        stream: trio.abc.Stream | None = None,
        open_stream: OpenStream | None = None,
    ) -> None:
        self.settings = settings = ClientSettings.of(options)
        self.url = Url.parse(url)
        # The first connection takes it; another needs another key.
        self._checked: ClientHandshake | None = _handshake(self.url, settings)
        ways = {
            "unix": settings.unix,
            "proxy": None if settings.proxy is True else settings.proxy,
            "local_address": settings.local_address,
            "stream": stream,
            "open_stream": open_stream,
        }
        given = [name for name, way in ways.items() if way is not None]
        if "proxy" in given and "local_address" in given:
            given.remove("local_address")  # The way to the proxy begins there.
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} cannot both lead to the server: give one of them")
        if stream is not None and not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"stream must be a trio.abc.Stream, not {stream!r:.60}")
        if open_stream is not None and not callable(open_stream):
            raise TypeError(f"open_stream must be an async function that returns a stream, not {open_stream!r:.60}")
        self._stream = stream
        self._open_stream = open_stream
        self._url = self.url
        self._awaited = ""

    async def connect(self, nursery: trio.Nursery) -> Transaction:
        """Connect as :func:`connect` does."""
        settings = self.settings
        self._url, self._awaited = self.url, "a connection"
        with trio.move_on_after(settings.open_timeout) as scope:
            stream = self._stream if self._open_stream is None else await _open(self._open_stream)
            try:
                protocol, transport = await self._follow(stream)
            except HandshakeError as exc:
                exc.args = (f"{self._name()}: {exc}{_guess(self._url, exc)}",)
                raise
            try:
                transaction = transaction_in(nursery, protocol, transport, settings)
            except BaseException:
                await _close(transport)
                raise
        if scope.cancelled_caught:
            limit = f"{settings.open_timeout:g} seconds (open_timeout)"
            raise trio.TooSlowError(f"{self._name()} was not open after {limit}: still waiting for {self._awaited}")
        transaction.__connection__.start()
        return transaction

    def _name(self) -> str:
        """The URL that is being opened, for a message."""
        url, first = (hide_secrets(f"{url.origin}{url.target}") for url in (self._url, self.url))
        return url if self._url is self.url else f"{url}, redirected from {first}"

    async def _follow(self, stream: trio.abc.Stream | None) -> tuple[Protocol, Transport]:
        """Open where the URL leads to, redirect by redirect."""
        url, settings = self.url, self.settings
        handshake, self._checked = self._checked, None
        redirects = 0
        while True:
            handshake = handshake or _handshake(url, settings)
            protocol = Protocol(
                "client",
                handshake=handshake,
                max_websocket_size=settings.max_websocket_size,
            )
            self._url, self._awaited = url, "a connection"
            reached = await dial(url, settings) if stream is None else stream
            self._awaited = "TLS"
            transport = await _secure(url, settings, reached)
            self._awaited = "the response"
            try:
                await _shake_hands(protocol, handshake, transport)
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
                # Any of these may be a secret, and none was meant for another origin.
                settings = replace(settings, additional_headers=())
            if target.host != url.host:
                settings = replace(settings, server_hostname=None)
            url, handshake = target, None


def check_positional(function: str, url: object, misplaced: tuple[object, ...]) -> None:
    """Raise TypeError unless ``function`` was called with a URL alone: without a nursery, a host or a port."""
    if any(isinstance(given, trio.Nursery) for given in (url, *misplaced)):
        raise TypeError(f"{function} opens its own nursery: write {function}(url), or connect(nursery, url)")
    if misplaced:
        example = f'{function}("ws://localhost:8000/chat", subprotocols=["chat"])'
        raise TypeError(f"{function} takes a URL, and options by name, as in {example}; not {misplaced[0]!r:.60}")


def _handshake(url: Url, settings: ClientSettings) -> ClientHandshake:
    return ClientHandshake(
        url,
        headers=settings.additional_headers,
        subprotocols=settings.subprotocols,
        require_subprotocol=settings.require_subprotocol,
        origin=settings.origin,
        deflate=settings.compression,
        user_agent=settings.user_agent,
        max_header_bytes=settings.max_header_bytes,
    )


async def _open(open_stream: OpenStream) -> trio.abc.Stream:
    opened = open_stream()
    stream: object = await opened if inspect.isawaitable(opened) else opened
    if not isinstance(stream, trio.abc.Stream):
        raise TypeError(f"open_stream must return a trio.abc.Stream, not {stream!r:.60}")
    return stream


async def _secure(url: Url, settings: ClientSettings, stream: trio.abc.Stream) -> Transport:
    """A transport to the server of ``url`` over ``stream``, with its TLS. Closes the stream if that fails."""
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
            cause = exc.__cause__ or exc
            hint = " (is it ws://?)" if getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER" else ""
            raise HandshakeError(f"TLS with {host} failed: {cause}{hint}") from exc
        raise
    return transport


async def _shake_hands(protocol: Protocol, handshake: ClientHandshake, transport: Transport) -> None:
    """The opening handshake. The transport is closed if it fails.

    A response other than 101 fails it with what there is of its body after :data:`BODY_TIMEOUT`, or when the connection
    is lost; a redirect, which leads on whatever its body says, at once.
    """
    try:
        await transport.send_all(protocol.client_write())
        with trio.CancelScope() as reading:
            while protocol.agreement is None:
                data = await _receive(handshake, transport)
                if not data:
                    break
                protocol.client_read(data)
                response = handshake.response
                if response is None or protocol.agreement is not None:
                    continue
                if response.status in REDIRECTS:
                    break
                if reading.deadline == math.inf:
                    # Never all the time that is left: the caller gets the status, and not that it was too slow.
                    left = trio.current_effective_deadline() - trio.current_time()
                    reading.deadline = trio.current_time() + min(BODY_TIMEOUT, left / 2)
        if protocol.agreement is None:
            protocol.client_close()
    except BaseException as exc:
        await _close(transport)
        if isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError)):
            raise HandshakeError(f"the connection was lost in the opening handshake: {exc}") from exc
        raise


async def _receive(handshake: ClientHandshake, transport: Transport) -> bytes:
    """What the server sends next; nothing if the connection is lost behind the head of a response."""
    try:
        return await transport.receive()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        if handshake.response is None:
            raise
        return b""


def _guess(url: Url, exc: HandshakeError) -> str:
    """What to ask if a server of the other scheme, ``ws`` or ``wss``, would answer like this."""
    response = exc.response
    if "(is it ws" in str(exc) or (response is not None and response.status != HTTPStatus.BAD_REQUEST):
        return ""
    # nginx, Apache and Go say in the body of a 400 that they expect TLS.
    tells = response is not None and not url.secure and any(word in response.body for word in (b"HTTPS", b"TLS"))
    scheme = "ws" if url.secure else "wss"
    return f" (is it {scheme}://?)" if tells or url.port == PORTS[scheme] else ""


async def _close(transport: Transport) -> None:
    transport.close()
    await transport.aclose()


@shows(ClientOptions, defaults=ClientSettings.defaults())
async def connect(
    nursery: trio.Nursery,
    url: str,
    *,
    stream: trio.abc.Stream | None = None,
    open_stream: OpenStream | None = None,
    **options: Unpack[ClientOptions],
) -> Transaction:
    """Open a connection to ``url`` (``ws://`` or ``wss://``) that lives in ``nursery``, and return its transaction.

    The nursery does not end before the connection does: close it, or iterate until the peer closes. Cancelling the
    nursery closes the socket at once.

    The common options are ``additional_headers``, ``subprotocols``, ``compression=True``, ``ssl_context``, ``proxy``,
    ``max_websocket_size`` in bytes, and in seconds ``open_timeout``, ``close_timeout`` and ``ping_interval``; all are
    in :class:`~trio_pyjo_ws.ClientOptions`.

    ``stream`` is used in place of a new connection, and belongs to the transaction from then on. So does the stream
    that ``open_stream()`` returns, or an awaitable of it; it is called within ``open_timeout``. ``wss`` puts TLS on
    either, and no redirect is followed.

    Raises ValueError or TypeError before any input or output, ``stream`` untouched, for wrong arguments;
    OSError if there is no connection; :class:`HandshakeError`, which names the URL, if TLS, a proxy or the opening
    handshake fails; ImportError for SOCKS without the extra ``proxy``; :class:`trio.TooSlowError` after
    ``open_timeout`` seconds; RuntimeError on any event loop but trio's; and what ``open_stream`` raises.
    A checkpoint. If it fails or is cancelled, the socket is closed.
    """
    check_runs_on_trio()
    given: object = nursery
    if not isinstance(given, trio.Nursery):
        raise TypeError(f"the first argument must be a nursery, as in connect(nursery, url), not {given!r:.60}")
    return await Target(url, options, stream, open_stream).connect(nursery)


@asynccontextmanager
@shows(ClientOptions, defaults=ClientSettings.defaults())
async def open_websocket(
    url: str,
    *misplaced: Never,
    stream: trio.abc.Stream | None = None,
    open_stream: OpenStream | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncIterator[Transaction]:
    """Open a connection as :func:`connect` does, in its own nursery, for ``async with``.

    Raises what :func:`connect` raises. Leaving the block closes the connection with 1000, as
    :meth:`Transaction.aclose` does; if the block is cancelled, the socket is closed at once.

    An exception of the block comes out as it is, and so does its Cancelled. A callback that fails cancels the block,
    and its exception comes out in a group, as from any nursery; if the block fails, too, both are in the group.
    """
    check_positional("open_websocket", url, misplaced)
    async with (
        HiddenNursery() as nursery,
        await connect(nursery, url, stream=stream, open_stream=open_stream, **options) as transaction,
    ):
        yield transaction
