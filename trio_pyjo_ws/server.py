"""The server: listeners, the opening handshake, and a handler's task for each connection."""

from __future__ import annotations

import errno
import inspect
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Union, cast

import trio
from trio.lowlevel import ParkingLot

from .errors import ConnectionClosed, HandshakeError
from .figures import ServerStatistics, Totals
from .housekeeper import Housekeeper
from .limits import Admission, Meter
from .listeners import open_tcp_listeners
from .routing import Handler, Router, Routes
from .settings import ServerOptions, ServerSettings, check_ssl_context
from .transaction import Transaction
from .transport import open_transport
from .wire import negotiate
from .wire.frames import Close, check_close
from .wire.http1 import ServerHandshake
from .wire.negotiate import Request, Response
from .wire.protocol import Protocol, State

if TYPE_CHECKING:
    import re

    from typing_extensions import Unpack

    from .transport import Transport

__all__ = ["Handlers", "OnRequest", "Server", "serve", "serve_listeners"]

logger = logging.getLogger("trio_pyjo_ws")

_OUT_OF_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_RETRY_ACCEPT = 0.1
"""Seconds until descriptors or memory may be there again; trio's own value."""

Handlers = Handler | Mapping[str, Handler] | Router
"""What handles the connections: one handler for all, a mapping of paths (see :class:`Routes`), or any router."""

OnRequest = Callable[[Transaction], Response | Awaitable[Response | None] | None]
"""Called with each transaction before its opening handshake is answered; see :func:`serve`."""

Origins = Sequence[Union[str, "re.Pattern[str]", None]]
"""The values of Origin that are accepted, exactly or by a pattern; None stands for a request without one."""


class Server:
    """A running server, as :func:`serve` gives it to ``nursery.start``."""

    def __init__(
        self,
        handler: Handler | Router,
        listeners: Sequence[trio.abc.Listener[Any]],
        settings: ServerSettings,
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
        self._router = handler if isinstance(handler, Router) else None
        self._handler = cast("Handler", handler)
        self._settings = settings
        counts = min(settings.max_connections, settings.max_connections_per_address) < math.inf
        self._admission = Admission(settings) if counts else None
        forwarding = settings.trusted_proxies
        self._forwarding = forwarding if forwarding.networks or forwarding.unix else None
        self._has_meters = min(settings.max_message_rate, settings.idle_timeout) < math.inf
        self._on_request = on_request
        self._subprotocols = subprotocols
        self._origins = origins
        self._housekeeper = Housekeeper(nursery)
        self._accepting = trio.CancelScope()
        self._stopped = trio.Event()
        self._closing = False
        self._aborted = False
        self._scopes: dict[Transaction, trio.CancelScope] = {}
        self._open: set[Transaction] = set()
        self._goodbye = Close(1001, "the server is shutting down")
        self._ended = ParkingLot()
        self._handshakes = 0
        self._totals = Totals()
        self._paused = ParkingLot()

    def __repr__(self) -> str:
        return f"<Server {self.url} connections={len(self._open)}>"

    @property
    def connections(self) -> frozenset[Transaction]:
        """The open connections."""
        return frozenset(self._open)

    def statistics(self) -> ServerStatistics:
        """How many connections there are, what waits in them, and what has gone through them since the start."""
        return self._totals.statistics([transaction.statistics() for transaction in self._open], self._handshakes)

    async def aclose(
        self, code: int = 1001, reason: str = "the server is shutting down", *, grace: float | None = None
    ) -> None:
        """Stop: close the listeners, answer 503 to those in the opening handshake, close the open with ``code``.

        Their handlers find the connection closed, and have ``grace`` seconds (``close_timeout`` where none are given)
        to end; those that have not are cancelled. Returns when the listeners are closed and all handlers have ended.

        Raises ValueError, and stops nothing, for a code or reason that may not be sent. A checkpoint; cancelled, it
        cancels the handlers at once.
        """
        check_close(code, reason)
        if not self._closing:
            self._closing = True
            self._goodbye = Close(code, reason)
        self._accepting.cancel()
        try:
            with trio.move_on_after(self._settings.close_timeout if grace is None else grace):
                for transaction, scope in tuple(self._scopes.items()):
                    if transaction in self._open:
                        transaction._close_soon(*self._goodbye)  # noqa: SLF001
                    elif transaction.res is None:
                        scope.cancel()  # Otherwise its response is on its way, and must not be torn.
                await self._stopped.wait()
                await self._wait_idle()
        finally:
            self._aborted = True
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
                while self._handshakes >= self._settings.max_handshakes:
                    await self._paused.park()
                try:
                    stream = await listener.accept()
                except OSError as exc:
                    if exc.errno not in _OUT_OF_CAPACITY:
                        raise
                    logger.error("accept failed (%s); trying again in %s seconds", exc, _RETRY_ACCEPT)  # noqa: TRY400
                    await trio.sleep(_RETRY_ACCEPT)
                else:
                    self._handshakes += 1
                    self._totals.accepted += 1
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
        if self._forwarding is not None:
            transaction._forwarding = self._forwarding  # noqa: SLF001
            transaction.reverse_proxy = self._forwarding.trusts(transaction.original_remote_address)
        handler: Handler | None = None
        meter: Meter | None = None
        try:
            with scope:
                handler = await self._shake_hands(transaction, protocol, handshake, transport)
                if handler is not None:
                    scope.deadline = math.inf
                    self._open.add(transaction)
                    self._totals.opened += 1
                    self._leave_handshake()
                    if self._has_meters:
                        meter = Meter(transaction, self._housekeeper, settings)
                    transaction._start()  # noqa: SLF001
                    if not self._closing:
                        await self._handle(handler, transaction)
            if self._aborted:
                return
            # What is still to be said is cut short by aclose(), too.
            if handler is not None and not transaction.is_finished:
                with trio.CancelScope() as self._scopes[transaction]:
                    await transaction._close(*self._goodbye if self._closing else (1000,))  # noqa: SLF001
            elif handler is None and self._closing and protocol.state is State.CONNECTING:
                with trio.move_on_after(settings.close_timeout) as self._scopes[transaction]:
                    protocol.refuse(Response(503))
                    await self._respond(transaction, protocol, transport)
        finally:
            transaction._end()  # noqa: SLF001
            if handler is None:
                self._leave_handshake()
            else:
                self._totals.add(transaction.statistics())
            self._open.discard(transaction)
            del self._scopes[transaction]
            if meter is not None:
                meter.stop()
            if self._admission is not None:
                self._admission.leave(transaction)
            self._ended.unpark_all()

    def _leave_handshake(self) -> None:
        self._handshakes -= 1
        if self._paused:
            self._paused.unpark_all()

    async def _shake_hands(
        self, transaction: Transaction, protocol: Protocol, handshake: ServerHandshake, transport: Transport
    ) -> Handler | None:
        """Answer the opening handshake; return the handler of the connection, None where that is not open."""
        handler = None
        try:
            if self._admission is not None and (refused := self._admission.arrive(transaction)) is not None:
                # It costs no more than this: neither TLS nor a request, nor the wait for the end of the stream.
                protocol.refuse(refused)
                transport.try_send(protocol.server_write())
                transport.try_receive()  # A request that is left unread would reset the connection.
                return None
            await transport.do_handshake()
            while handshake.request is None:
                data = await transport.receive()
                if not data:
                    protocol.end()
                    return None
                protocol.server_read(data)
            handler = await self._answer(transaction, protocol, handshake)
        except HandshakeError as exc:
            logger.debug("%r: %s", transaction, exc)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.debug("%r: lost in the opening handshake: %s", transaction, exc)
            protocol.end()
            return None
        return handler if await self._respond(transaction, protocol, transport) else None

    async def _respond(self, transaction: Transaction, protocol: Protocol, transport: Transport) -> bool:
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
            logger.debug("%r: the response was not taken: %s", transaction, exc)
        return False

    async def _answer(self, transaction: Transaction, protocol: Protocol, handshake: ServerHandshake) -> Handler | None:
        """Accept the request, and return what handles the connection; or refuse it."""
        request = handshake.request
        assert request is not None
        try:
            if self._origins is not None and not negotiate.is_plain(request):
                negotiate.check_origin(request, self._origins)
            negotiate.offered_subprotocols(request)  # so that with_protocols() finds nothing wrong
        except HandshakeError as exc:
            protocol.refuse(exc.response or Response(HTTPStatus.BAD_REQUEST))
            raise
        found: Handler | Response
        found = self._handler if self._router is None else self._route(self._router, handshake, request)
        if self._on_request is not None and (response := await self._ask(self._on_request, transaction)) is not None:
            found = response
        elif self._admission is not None and not isinstance(found, Response):
            found = self._admission.admit(transaction) or found
        if isinstance(found, Response):
            protocol.refuse(found)
            return None
        subprotocol = transaction.protocol
        if subprotocol is None and self._subprotocols:
            subprotocol = transaction.with_protocols(*self._subprotocols)
        protocol.accept(subprotocol=subprotocol, deflate=transaction._deflate)  # noqa: SLF001
        return found

    def _route(self, router: Router, handshake: ServerHandshake, request: Request) -> Handler | Response:
        """The handler that the router finds, or what refuses the request: 500 where the router fails."""
        try:
            found = router.route(request)
        except Exception:
            logger.exception("the router failed for %r", request)
            return Response(500)
        if isinstance(found, Response):
            return found
        if found.parameters:
            handshake.request = request.with_path_parameters(found.parameters)
        return found.handler

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

    async def _handle(self, handler: Handler, transaction: Transaction) -> None:
        try:
            await handler(transaction)
        except Exception as exc:
            if transaction.statistics().state != "open" and _is_end(exc):
                logger.info("%r: %s", transaction, exc)
            else:
                logger.exception("the handler of %r failed", transaction)
                transaction._close_soon(1011)  # noqa: SLF001


async def serve(
    handler: Handlers,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    handler_nursery: trio.Nursery | None = None,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Listen on a TCP ``port`` and call ``handler(transaction)`` in a task for each connection.

    As :func:`trio.serve_tcp`: ``server = await nursery.start(serve, handler, port)`` gives the :class:`Server`.

    In place of one handler, a mapping ``{"/chat": chat, "/feed/{room}": feed}`` routes by path, see :class:`Routes`,
    and so does any :class:`Router`; ``ws.req.path_parameters`` has the parameters, and what is not found gets 404.

    Port 0 takes a free one: see :attr:`Server.port`. ``host`` and ``backlog`` are those of
    :func:`trio.open_tcp_listeners`; ``reuse_port`` lets other processes listen on the port, too, and the kernel deals
    the connections out among them; ``ssl_context`` makes it a ``wss://`` server; the handlers run in
    ``handler_nursery``, where it is given.

    ``on_request(transaction)``, synchronous or not, sees each request (``transaction.req``) before it is answered,
    those of plain HTTP included: it returns a :class:`Response` to answer with, or None to go on; it may call
    :meth:`Transaction.with_protocols` and :meth:`Transaction.with_compression`. Of ``subprotocols`` the first is taken
    that the client offers. A WebSocket's request whose Origin is not in ``origins`` gets 403, where that is given.
    ``options``: see :class:`~trio_pyjo_ws.ServerOptions`.

    A handler that returns closes its connection with 1000; one that raises closes it with 1011, and is logged. Runs
    until :meth:`Server.aclose` or cancelled, which closes all sockets at once. Raises TypeError or ValueError for
    arguments that do not fit, before it listens, and OSError where it cannot listen.
    """
    check_ssl_context(ssl_context, ssl.PROTOCOL_TLS_CLIENT)
    ServerSettings.of(options)
    _check_lists(subprotocols, origins)
    handler = _routed(handler)
    listeners: Sequence[trio.abc.Listener[Any]]
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog, reuse_port=reuse_port)
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
    handler: Handlers,
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    handler_nursery: trio.Nursery | None = None,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """:func:`serve` for listeners of one's own, which it closes in the end: Unix sockets, memory, whatever listens.

    Raises TypeError or ValueError for arguments that do not fit, and then the listeners stay open.
    """
    settings = ServerSettings.of(options)
    _check_lists(subprotocols, origins)
    handler = _routed(handler)
    async with trio.open_nursery() as nursery:
        home = handler_nursery or nursery
        server = Server(handler, listeners, settings, home, on_request, subprotocols, origins)
        await server._run(home, task_status)  # noqa: SLF001


def _routed(handler: Handlers) -> Handler | Router:
    if isinstance(handler, Mapping):
        return Routes(handler)
    given: object = handler
    if not callable(given) and not isinstance(given, Router):
        raise TypeError(f"a handler is a callable, a mapping of paths or a Router, not {given!r:.60}")
    return handler


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
