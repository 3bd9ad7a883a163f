"""The server: listeners, the opening handshake, and a handler's task for each connection."""

from __future__ import annotations

import inspect
import logging
import math
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Union

import trio

from .errors import ConnectionClosed, HandshakeError
from .housekeeper import Housekeeper
from .settings import Options, Settings
from .transaction import Transaction
from .transport import open_transport
from .wire import negotiate
from .wire.http1 import ServerHandshake
from .wire.negotiate import Response
from .wire.protocol import Protocol, State

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .transport import Transport

__all__ = ["Handler", "OnRequest", "Server", "serve", "serve_listeners"]

logger = logging.getLogger("trio_pyjo_ws")

Handler = Callable[[Transaction], Awaitable[object]]
"""Called with each transaction once it is open; the connection closes with 1000 when it returns."""

OnRequest = Callable[[Transaction], Union[Response, None, Awaitable[Union[Response, None]]]]
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
        self._handler = handler
        self._settings = settings
        self._on_request = on_request
        self._subprotocols = subprotocols
        self._origins = origins
        self._housekeeper = Housekeeper(nursery)
        self._accepting = trio.CancelScope()
        self._closing = False
        self._scopes: dict[Transaction, trio.CancelScope] = {}
        self._open: set[Transaction] = set()
        self._idle = trio.Event()

    def __repr__(self) -> str:
        return f"<Server {self.url} connections={len(self._open)}>"

    @property
    def port(self) -> int | None:
        """The port of the first listener that has one."""
        return next((name[1] for name in map(_socket_name, self.listeners) if isinstance(name, tuple)), None)

    @property
    def url(self) -> str | None:
        """A URL that reaches the server from this machine; None where no listener has a port."""
        for listener in self.listeners:
            name = _socket_name(listener)
            if isinstance(name, tuple):
                host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(  # noqa: S104 - compared, not bound
                    name[0], f"[{name[0]}]" if ":" in name[0] else name[0]
                )
                return f"{'wss' if isinstance(listener, trio.SSLListener) else 'ws'}://{host}:{name[1]}/"
        return None

    @property
    def connections(self) -> frozenset[Transaction]:
        """The open connections."""
        return frozenset(self._open)

    async def aclose(self) -> None:
        """Stop: close the listeners, answer 503 to those in the opening handshake, close the open with 1001.

        Returns when all handlers have ended; those that have not after ``close_timeout`` are cancelled. A checkpoint;
        cancelled, it cancels the handlers at once.
        """
        self._closing = True
        self._accepting.cancel()
        try:
            with trio.move_on_after(self._settings.close_timeout):
                for transaction, scope in tuple(self._scopes.items()):
                    if transaction.established:
                        transaction._close_soon(1001, "the server is shutting down")  # noqa: SLF001
                    else:
                        scope.cancel()
                await self._wait_idle()
        finally:
            for scope in self._scopes.values():
                scope.cancel()
        await self._wait_idle()

    async def _wait_idle(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._scopes:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _run(self, nursery: trio.Nursery, task_status: trio.TaskStatus[Server]) -> None:
        nursery.start_soon(self._housekeeper.run, name=f"housekeeper of {self!r}")
        try:
            with self._accepting:
                task_status.started(self)
                await trio.serve_listeners(self._serve_stream, list(self.listeners), handler_nursery=nursery)
        finally:
            self._housekeeper.retire()

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
        try:
            with scope:
                if await self._shake_hands(transaction, protocol, handshake, transport):
                    scope.deadline = math.inf
                    self._open.add(transaction)
                    transaction._start()  # noqa: SLF001
                    await self._handle(transaction)
            if transaction.established:
                await transaction.finish(1000)
            elif self._closing and handshake.response is None:
                handshake.refuse(Response(503))
                with trio.move_on_after(settings.close_timeout):
                    await transport.send_all(handshake.write())
        finally:
            transaction._end()  # noqa: SLF001
            self._open.discard(transaction)
            del self._scopes[transaction]
            self._idle.set()

    async def _shake_hands(
        self, transaction: Transaction, protocol: Protocol, handshake: ServerHandshake, transport: Transport
    ) -> bool:
        """Answer the opening handshake; return whether the connection is open."""
        try:
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
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await transport.send_all(protocol.server_write())
            if not protocol.agreement:
                # A socket that is closed with unread data resets the connection, and could take the response along.
                transport.send_eof()
                while transport.resumable and await transport.receive():
                    pass
        return protocol.agreement is not None

    async def _answer(self, transaction: Transaction, protocol: Protocol, request: negotiate.Request) -> None:
        response: object = None
        if self._origins is not None:
            try:
                negotiate.check_origin(request, self._origins)
            except HandshakeError as exc:
                protocol.refuse(exc.response or Response(403))
                raise
        if self._on_request is not None:
            try:
                response = self._on_request(transaction)
                if inspect.isawaitable(response):
                    response = await response
                if response is not None and not isinstance(response, Response):
                    raise TypeError(f"on_request returns a Response or None, not {response!r:.60}")  # noqa: TRY301
            except Exception:
                logger.exception("on_request failed for %r", transaction)
                response = Response(500)
        if isinstance(response, Response):
            protocol.refuse(response)
            return
        subprotocol = transaction.protocol
        if subprotocol is None and self._subprotocols:
            subprotocol = transaction.with_protocols(*self._subprotocols)
        protocol.accept(subprotocol=subprotocol, deflate=transaction._deflate)  # noqa: SLF001

    async def _handle(self, transaction: Transaction) -> None:
        try:
            await self._handler(transaction)
        except (ConnectionClosed, trio.ClosedResourceError, trio.EndOfChannel) as exc:
            # The connection ended under the handler, which is no fault of its.
            if transaction.close is None and not transaction.is_finished:
                self._failed(transaction)
            else:
                logger.info("%r: %s", transaction, exc)
        except Exception:
            self._failed(transaction)

    def _failed(self, transaction: Transaction) -> None:
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
    """Listen on a TCP ``port`` and call ``handler(transaction)`` in a task for each connection; as
    :func:`trio.serve_tcp`: ``server = await nursery.start(serve, handler, port)``.

    Port 0 takes a free one: see :attr:`Server.port`. ``host`` and ``backlog`` are those of
    :func:`trio.open_tcp_listeners`; ``ssl_context`` makes it a ``wss://`` server; the handlers run in ``handler_nursery``,
    where it is given.

    ``on_request(transaction)``, synchronous or not, sees the request (``transaction.req``) before it is answered: it
    returns a :class:`Response` to refuse it with, or None to go on; it may call
    :meth:`Transaction.with_protocols` and :meth:`Transaction.with_compression`. Of ``subprotocols`` the first is taken that the
    client offers. A request whose Origin is not in ``origins`` gets 403, where that is given. ``options`` are those of
    :class:`~trio_pyjo_ws.Options`.

    A handler that returns closes its connection with 1000; one that raises closes it with 1011, and is logged. Runs until
    :meth:`Server.aclose` or cancelled, which closes all sockets at once. Raises OSError where it cannot listen.
    """
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(ssl_context).__name__}")
    Settings.of(options)
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
    async with trio.open_nursery() as nursery:
        home = handler_nursery or nursery
        server = Server(handler, listeners, settings, home, on_request, subprotocols, origins)
        await server._run(home, task_status)  # noqa: SLF001


def _socket_name(listener: trio.abc.Listener[Any]) -> object:
    if isinstance(listener, trio.SSLListener):
        listener = listener.transport_listener
    return listener.socket.getsockname() if isinstance(listener, trio.SocketListener) else None
