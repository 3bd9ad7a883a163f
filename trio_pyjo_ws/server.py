"""The server: listeners, the opening handshake, and a handler's task for each connection."""

from __future__ import annotations

import errno
import inspect
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Union

import trio
from trio.lowlevel import ParkingLot

from .errors import ConnectionClosed, HandshakeError
from .housekeeper import Housekeeper
from .settings import Options, Settings, check_ssl_context
from .transaction import Transaction
from .transport import open_transport
from .wire import negotiate
from .wire.http1 import ServerHandshake
from .wire.negotiate import Response
from .wire.protocol import Protocol

if TYPE_CHECKING:
    import re

    from typing_extensions import Unpack

    from .transport import Transport

__all__ = ["Handler", "OnRequest", "Server", "serve", "serve_listeners"]

_GOODBYE = "the server is shutting down"

logger = logging.getLogger("trio_pyjo_ws")

_OUT_OF_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_RETRY_ACCEPT = 0.1
"""Seconds until descriptors or memory may be there again; trio's own value."""

Handler = Callable[[Transaction], Awaitable[object]]
"""Called with each transaction once it is open; the connection closes with 1000 when it returns."""

OnRequest = Callable[[Transaction], Response | Awaitable[Response | None] | None]
"""Called with each transaction before its opening handshake is answered; see :func:`serve`."""

Origins = Sequence[Union[str, "re.Pattern[str]", None]]
"""The values of Origin that are accepted, exactly or by a pattern; None stands for a request without one."""


class Server:
    """A running server, as :func:`serve` gives it to ``nursery.start``."""

    def __init__(
        self,
        handler: Handler,
        listeners: Sequence[trio.abc.Listener[Any]],
        settings: Settings,
        nursery: trio.Nursery,
        on_request: OnRequest | None,
        subprotocols: Sequence[str],
        origins: Origins | None,
    ) -> None:
        self.listeners: Sequence[trio.abc.Listener[Any]] = listeners
        """The listeners that are served."""
        addresses = [(listener, _socket_name(listener)) for listener in listeners]
        ports = [(listener, name) for listener, name in addresses if isinstance(name, tuple)]
        self.port: int | None = ports[0][1][1] if ports else None
        """The port of the first listener that has one."""
        self.url: str | None = _url(*ports[0]) if ports else None
        """A URL that reaches the server from this machine; None where no listener has a port."""
        self._handler = handler
        self._settings = settings
        self._on_request = on_request
        self._subprotocols = subprotocols
        self._origins = origins
        self._housekeeper = Housekeeper(nursery)
        self._accepting = trio.CancelScope()
        self._stopped = trio.Event()
        self._closing = False
        self._scopes: dict[Transaction, trio.CancelScope] = {}
        self._open: set[Transaction] = set()
        self._ended = ParkingLot()

    def __repr__(self) -> str:
        return f"<Server {self.url} connections={len(self._open)}>"

    @property
    def connections(self) -> frozenset[Transaction]:
        """The open connections."""
        return frozenset(self._open)

    async def aclose(self) -> None:
        """Stop: close the listeners, answer 503 to those in the opening handshake, close the open with 1001.

        Returns when the listeners are closed and all handlers have ended; those that have not after ``close_timeout``
        are cancelled. A checkpoint; cancelled, it cancels the handlers at once.
        """
        self._closing = True
        self._accepting.cancel()
        try:
            with trio.move_on_after(self._settings.close_timeout):
                for transaction, scope in tuple(self._scopes.items()):
                    if transaction in self._open:
                        transaction._close_soon(1001, _GOODBYE)  # noqa: SLF001
                    elif transaction.res is None:
                        scope.cancel()  # Otherwise its response is on its way, and must not be torn.
                await self._stopped.wait()
                await self._wait_idle()
        finally:
            for scope in self._scopes.values():
                scope.cancel()
        await self._wait_idle()

    async def _wait_idle(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._scopes:
            await self._ended.park()

    async def _run(self, nursery: trio.Nursery, task_status: trio.TaskStatus[Server]) -> None:
        nursery.start_soon(self._housekeeper.run, name=f"housekeeper of {self!r}")
        try:
            with self._accepting:
                async with trio.open_nursery() as listening:
                    for listener in self.listeners:
                        listening.start_soon(self._accept, listener, nursery)
                    task_status.started(self)
        finally:
            self._housekeeper.retire()
            self._stopped.set()

    async def _accept(self, listener: trio.abc.Listener[Any], nursery: trio.Nursery) -> None:
        """Do as :func:`trio.serve_listeners` does, but for its way to close a stream that is not there any more.

        The transport has taken the socket over, and closes it; trio would go through a cancel scope and two checkpoints
        to find that out, for a tenth of what a short connection costs.
        """
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as exc:  # noqa: PERF203 - each is tried by itself
                    if exc.errno not in _OUT_OF_CAPACITY:
                        raise
                    logger.error("accept failed (%s); trying again in %s seconds", exc, _RETRY_ACCEPT)  # noqa: TRY400
                    await trio.sleep(_RETRY_ACCEPT)
                else:
                    nursery.start_soon(self._serve_stream, stream, name=self._serve_stream)

    async def _serve_stream(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last."""
        settings = self._settings
        handshake = ServerHandshake(max_header_bytes=settings.max_header_bytes, max_headers=settings.max_headers)
        protocol = Protocol(
            "server",
            handshake=handshake,
            max_websocket_size=settings.max_websocket_size,
            max_empty_fragments=settings.max_empty_fragments,
        )
        transport = open_transport(stream)
        scope = trio.CancelScope(deadline=trio.current_time() + settings.open_timeout)

        def crash(exc: Exception) -> None:
            logger.error("a callback of %r failed", transaction, exc_info=exc)
            transaction._close_soon(1011)  # noqa: SLF001
            scope.cancel()

        transaction = Transaction(protocol, transport, self._housekeeper, settings, crash)
        self._scopes[transaction] = scope
        if self._closing:  # It was accepted, and its task had not run yet.
            scope.cancel()
        is_open = False
        try:
            with scope:
                is_open = await self._shake_hands(transaction, protocol, handshake, transport)
                if is_open:
                    scope.deadline = math.inf
                    self._open.add(transaction)
                    transaction._start()  # noqa: SLF001
                    if not self._closing:
                        await self._handle(transaction)
            if is_open and not transaction.is_finished:
                await transaction.finish(*(1001, _GOODBYE) if self._closing else (1000,))
            elif not is_open and self._closing and handshake.response is None:
                with trio.move_on_after(settings.close_timeout):
                    protocol.refuse(Response(503))
                    await self._respond(protocol, transport)
        finally:
            transaction._end()  # noqa: SLF001
            self._open.discard(transaction)
            del self._scopes[transaction]
            self._ended.unpark_all()

    async def _shake_hands(
        self, transaction: Transaction, protocol: Protocol, handshake: ServerHandshake, transport: Transport
    ) -> bool:
        """Answer the opening handshake; return whether the connection is open."""
        try:
            await transport.do_handshake()
            while handshake.request is None:
                data = await transport.receive()
                if not data:
                    return False
                protocol.server_read(data)
            await self._answer(transaction, protocol, handshake.request)
        except HandshakeError as exc:
            logger.debug("%r: %s", transaction, exc)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.debug("%r: lost in the opening handshake: %s", transaction, exc)
            return False
        return await self._respond(protocol, transport)

    async def _respond(self, protocol: Protocol, transport: Transport) -> bool:
        """Send the response; return whether the connection is open."""
        try:
            await transport.send_all(protocol.server_write())
            if protocol.agreement is not None:
                return True
            # A socket that is closed with unread data resets the connection, and could take the response along.
            transport.send_eof()
            while transport.resumable and await transport.receive():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.debug("the response was not taken: %s", exc)
        return False

    async def _answer(self, transaction: Transaction, protocol: Protocol, request: negotiate.Request) -> None:
        try:
            if self._origins is not None:
                negotiate.check_origin(request, self._origins)
            negotiate.offered_subprotocols(request)  # so that with_protocols() finds nothing wrong
        except HandshakeError as exc:
            protocol.refuse(exc.response or Response(HTTPStatus.BAD_REQUEST))
            raise
        if self._on_request is not None and (response := await self._ask(self._on_request, transaction)) is not None:
            protocol.refuse(response)
            return
        subprotocol = transaction.protocol
        if subprotocol is None and self._subprotocols:
            subprotocol = transaction.with_protocols(*self._subprotocols)
        protocol.accept(subprotocol=subprotocol, deflate=transaction._deflate)  # noqa: SLF001

    async def _ask(self, on_request: OnRequest, transaction: Transaction) -> Response | None:
        """What ``on_request`` answers; 500 where it fails."""
        try:
            response: object = on_request(transaction)
            if inspect.isawaitable(response):
                response = await response
            if response is None or (isinstance(response, Response) and response.status >= HTTPStatus.OK):
                return response
            raise TypeError(f"on_request returns None or a Response of 200 to 599, not {response!r:.60}")  # noqa: TRY301
        except Exception:
            logger.exception("on_request failed for %r", transaction)
            return Response(500)

    async def _handle(self, transaction: Transaction) -> None:
        try:
            await self._handler(transaction)
        except Exception as exc:
            if transaction.statistics().state != "open" and _is_end(exc):
                logger.info("%r: %s", transaction, exc)
            else:
                logger.exception("the handler of %r failed", transaction)
                transaction._close_soon(1011)  # noqa: SLF001


async def serve(
    handler: Handler,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    handler_nursery: trio.Nursery | None = None,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[Options],
) -> None:
    """Listen on a TCP ``port`` and call ``handler(transaction)`` in a task for each connection.

    As :func:`trio.serve_tcp`: ``server = await nursery.start(serve, handler, port)`` gives the :class:`Server`.

    Port 0 takes a free one: see :attr:`Server.port`. ``host`` and ``backlog`` are those of
    :func:`trio.open_tcp_listeners`; ``ssl_context`` makes it a ``wss://`` server; the handlers run in
    ``handler_nursery``, where it is given.

    ``on_request(transaction)``, synchronous or not, sees the request (``transaction.req``) before it is answered: it
    returns a :class:`Response` to refuse it with, or None to go on; it may call :meth:`Transaction.with_protocols` and
    :meth:`Transaction.with_compression`. Of ``subprotocols`` the first is taken that the client offers. A request whose
    Origin is not in ``origins`` gets 403, where that is given. ``options``: see :class:`~trio_pyjo_ws.Options`.

    A handler that returns closes its connection with 1000; one that raises closes it with 1011, and is logged. Runs
    until :meth:`Server.aclose` or cancelled, which closes all sockets at once. Raises OSError where it cannot listen.
    """
    check_ssl_context(ssl_context, ssl.PROTOCOL_TLS_CLIENT)
    Settings.of(options)
    _check_lists(subprotocols, origins)
    listeners: Sequence[trio.abc.Listener[Any]] = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    if ssl_context is not None:
        listeners = [trio.SSLListener(listener, ssl_context, https_compatible=True) for listener in listeners]
    await serve_listeners(
        handler,
        listeners,
        handler_nursery=handler_nursery,
        on_request=on_request,
        subprotocols=subprotocols,
        origins=origins,
        task_status=task_status,
        **options,
    )


async def serve_listeners(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    handler_nursery: trio.Nursery | None = None,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[Options],
) -> None:
    """:func:`serve` for listeners of one's own, which it closes in the end: Unix sockets, memory, whatever listens."""
    settings = Settings.of(options)
    _check_lists(subprotocols, origins)
    async with trio.open_nursery() as nursery:
        home = handler_nursery or nursery
        server = Server(handler, listeners, settings, home, on_request, subprotocols, origins)
        await server._run(home, task_status)  # noqa: SLF001


def _check_lists(subprotocols: Sequence[str], origins: Origins | None) -> None:
    for name, values in (("subprotocols", subprotocols), ("origins", origins)):
        if isinstance(values, (str, bytes)):
            raise TypeError(f"{name} is a sequence, not one {values!r:.60}")
    for subprotocol in subprotocols:
        if not negotiate.is_token(subprotocol):
            raise ValueError(f"a subprotocol is a token, not {subprotocol!r:.60}")


def _is_end(exc: BaseException) -> bool:
    """Whether this says that a connection ended under its handler, which is no fault of the handler's."""
    if isinstance(exc, (ConnectionClosed, trio.ClosedResourceError, trio.EndOfChannel)):
        return True
    return bool(parts := getattr(exc, "exceptions", ())) and all(map(_is_end, parts))


def _url(listener: trio.abc.Listener[Any], name: tuple[Any, ...]) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0])  # noqa: S104 - compared, not bound
    scheme = "wss" if isinstance(listener, trio.SSLListener) else "ws"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{name[1]}/"


def _socket_name(listener: trio.abc.Listener[Any]) -> object:
    if isinstance(listener, trio.SSLListener):
        listener = listener.transport_listener
    return listener.socket.getsockname() if isinstance(listener, trio.SocketListener) else None
