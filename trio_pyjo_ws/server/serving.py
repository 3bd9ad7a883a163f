"""The server: listeners, and the sessions of what they accept."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from .._engine.housekeeper import Housekeeper
from .._engine.nursery import check_runs_on_trio
from .._engine.tls import open_transport
from .._engine.transport import SocketTransport
from ..handshake.messages import is_token
from ..handshake.url import Url, authority_of
from ..options import ServerOptions, ServerSettings, check_ssl_context
from ..signatures import shows
from ..wire.frames import Close, check_close
from .exchange import Http1Exchange
from .limits import Handshakes
from .listeners import OUT_OF_CAPACITY, accept, open_tcp_listeners
from .routing import Handler, Router, Routes
from .session import OnRequest, Origins, Service, Session

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Never, Unpack

    from .._engine.transport import Transport
    from ..statistics import ServerStatistics
    from ..transaction import Transaction
    from .limits import Opening

__all__ = ["Handlers", "OnRequest", "Origins", "Server", "serve", "serve_listeners", "service_of"]

logger = logging.getLogger("trio_pyjo_ws")

MAX_PORT: Final = 65_535

RETRY_ACCEPT: Final = 0.1
"""Seconds until descriptors or memory may be there again; trio's own value."""

Handlers = Handler | Mapping[str, Handler] | Router
"""What handles connections: one handler for all, a mapping of paths (see :class:`Routes`), or any router."""


class _Accepting:
    """What accepts connections, and begins a session for each."""

    def __init__(self, listeners: Sequence[trio.abc.Listener[Any]], service: Service, handshakes: Handshakes) -> None:
        self.listeners = listeners
        self.service = service
        self.handshakes = handshakes
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        """Whether the listeners are closed."""

    async def run(self, nursery: trio.Nursery, server: Server, task_status: trio.TaskStatus[Server]) -> None:
        """Accept for ``server``, until the scope is cancelled. The sessions run in ``nursery``."""
        housekeeper = self.handshakes.housekeeper
        try:
            nursery.start_soon(housekeeper.run, name=f"housekeeper of {server!r}")
        except RuntimeError:  # The handlers' nursery is closed.
            # It does not wait; but a Cancelled out of it would leave the other listeners open.
            with trio.CancelScope(shield=True):
                for listener in self.listeners:
                    await trio.aclose_forcefully(listener)
            raise
        try:
            with self.scope:
                async with trio.open_nursery() as listening:
                    for listener in self.listeners:
                        listening.start_soon(self._accept, listener, nursery)
                    task_status.started(server)
        finally:
            housekeeper.retire()
            self.stopped.set()

    async def _accept(self, listener: trio.abc.Listener[Any], nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                for accepted in await self._accept_some(listener):
                    await self._begin(accepted, nursery)

    async def _accept_some(self, listener: trio.abc.Listener[Any]) -> list[socket.socket | trio.abc.Stream]:
        handshakes = self.handshakes
        try:
            return await accept(listener, await handshakes.wait_room())
        except OSError as exc:
            if exc.errno not in OUT_OF_CAPACITY:
                raise
            logger.error("accept failed (%s); trying again in %s seconds", exc, RETRY_ACCEPT)  # noqa: TRY400
        handshakes.drop_silent()
        await trio.sleep(RETRY_ACCEPT)
        return []

    async def _begin(self, accepted: socket.socket | trio.abc.Stream, nursery: trio.Nursery) -> None:
        """Start the session of a connection. The transport takes it over, and closes it."""
        if isinstance(accepted, socket.socket):
            transport: Transport = SocketTransport(accepted)
        else:
            try:
                transport = open_transport(accepted)
            except Exception:  # A TLS context that is not fit for a server, for example.
                logger.exception("cannot serve a connection")
                await trio.aclose_forcefully(accepted)
                return
        is_tls = isinstance(accepted, trio.SSLStream)
        exchange = Http1Exchange(transport, is_tls, self.service.settings, self.handshakes, self.service.forwarding)
        nursery.start_soon(Session(self.service, self.handshakes, exchange).run, name="session")


class Server:
    """A running server: what ``nursery.start(serve, ...)`` returns."""

    def __init__(self, accepting: _Accepting) -> None:
        self.listeners: Sequence[trio.abc.Listener[Any]] = accepting.listeners
        """The listeners that are served."""
        addresses = [(listener, _socket_name(listener)) for listener in self.listeners]
        ports = [(listener, name) for listener, name in addresses if isinstance(name, tuple)]
        self.port: int | None = ports[0][1][1] if ports else None
        """The port of the first listener that has one."""
        self.url: str | None = _url(*ports[0]) if ports else None
        """A URL that reaches the server from this machine; None if no listener has a port."""
        self._service = accepting.service
        self._handshakes = accepting.handshakes
        self._accepting = accepting

    def __repr__(self) -> str:
        return f"<Server {self.url} connections={len(self._service.connections)}>"

    @property
    def connections(self) -> frozenset[Transaction]:
        """The open connections."""
        return frozenset(self._service.connections)

    def statistics(self) -> ServerStatistics:
        """Return the number of connections, what waits in them, and how much has gone through them since the start."""
        return self._service.statistics(len(self._handshakes))

    async def aclose(
        self, code: int = 1001, reason: str = "the server is shutting down", *, grace: float | None = None
    ) -> None:
        """Stop: close the listeners, answer 503 to opening handshakes, close the open connections with ``code``.

        Their handlers find the connection closed, and have ``grace`` seconds (by default ``close_timeout``) to end;
        those that have not are cancelled. Returns when the listeners are closed and all handlers have ended.

        Raises ValueError, and stops nothing, for a code or reason that must not be sent. A checkpoint; cancelled, it
        cancels the handlers at once.
        """
        check_close(code, reason)
        service = self._service
        service.shutdown_close = service.shutdown_close or Close(code, reason)
        self._accepting.scope.cancel()
        try:
            with trio.move_on_after(service.settings.close_timeout if grace is None else grace):
                for session in self._sessions():
                    session.stop()
                await self._accepting.stopped.wait()
                await self._wait_idle()
        finally:
            service.aborted = True
            for session in self._sessions():
                session.give_up()
        await self._wait_idle()

    def _sessions(self) -> list[Opening]:
        return [*self._handshakes, *self._service.connections.values()]

    async def _wait_idle(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._service.sessions:
            await self._service.ended.park()


@shows(ServerOptions, defaults=ServerSettings.defaults())
async def serve(
    handler: Handlers,
    port: int,
    *misplaced: Never,
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

    Like :func:`trio.serve_tcp`: ``server = await nursery.start(serve, handler, port)`` returns the :class:`Server`.

    In place of one handler, a mapping ``{"/chat": chat, "/feed/{room}": feed}`` routes by path (see :class:`Routes`),
    and so does any :class:`Router`; ``ws.req.path_parameters`` has the parameters. A path without a route gets 404.

    Port 0 takes a free one: see :attr:`Server.port`. ``host`` and ``backlog`` are those of
    :func:`trio.open_tcp_listeners`; with ``reuse_port`` other processes may listen on the same port, and the kernel
    distributes connections among them; with ``ssl_context`` it is a ``wss://`` server; the handlers run in
    ``handler_nursery`` if that is given.

    ``on_request(transaction)``, synchronous or not, sees each request (``transaction.req``) before it is answered,
    those of plain HTTP included. It returns None to go on, ``Response(101, headers)`` to go on and add headers to the
    response that opens the connection, or any other :class:`Response` to answer with. It may call
    :meth:`Transaction.with_protocols` and :meth:`Transaction.with_compression`. Of ``subprotocols`` the first that the
    client offers is chosen. With ``origins``, a WebSocket's request from any other Origin gets 403.
    The common options are ``compression=True``, ``max_websocket_size`` in bytes, ``max_connections``,
    ``trusted_proxies``, and in seconds ``ping_interval`` and ``idle_timeout``; all are in
    :class:`~trio_pyjo_ws.ServerOptions`.

    A handler that returns closes its connection with 1000. If it raises, that is logged and closes its connection with
    1011; an exception in ``on_request`` or a router is logged and answered with 500. None of this ends the server:
    only what is not an :class:`Exception`, such as KeyboardInterrupt, comes out of ``serve``, as from any nursery.

    Runs until :meth:`Server.aclose`, or until it is cancelled, which closes all sockets at once. Raises TypeError or
    ValueError for wrong arguments, before it listens, and OSError if it cannot listen, or accept any more.
    """
    check_runs_on_trio()
    _check_positional("serve", "handler, 8000", 'host="localhost"', (handler, port, *misplaced))
    check_ssl_context(ssl_context, "server")
    given: object = port
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(f"port must be an int, as in serve(handler, 8000), not {given!r:.60}")
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"port must be 0 to {MAX_PORT}, not {port}")
    service = service_of(handler, on_request, subprotocols, origins, options)
    listeners: Sequence[trio.abc.Listener[Any]]
    try:
        listeners = await open_tcp_listeners(port, host=host, backlog=backlog, reuse_port=reuse_port)
    except OSError as exc:
        # Shown behind the reason: "Address already in use: '127.0.0.1:8000'".
        exc.filename = None if exc.errno is None else f"{os.fsdecode(host or '*')}:{port}"
        raise
    if ssl_context is not None:
        listeners = [trio.SSLListener(listener, ssl_context, https_compatible=True) for listener in listeners]
    await _run(service, listeners, handler_nursery, task_status)


@shows(ServerOptions, defaults=ServerSettings.defaults())
async def serve_listeners(
    handler: Handlers,
    listeners: Sequence[trio.abc.Listener[Any]],
    *misplaced: Never,
    handler_nursery: trio.Nursery | None = None,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Do as :func:`serve` does, with the caller's listeners of any kind, and close them in the end.

    Raises TypeError or ValueError for wrong arguments; the listeners stay open then.
    """
    check_runs_on_trio()
    _check_positional(
        "serve_listeners", "handler, listeners", 'subprotocols=["chat"]', (handler, listeners, *misplaced)
    )
    checked = _check_listeners(listeners)
    service = service_of(handler, on_request, subprotocols, origins, options)
    await _run(service, checked, handler_nursery, task_status)


def _check_positional(function: str, arguments: str, option: str, given: tuple[object, ...]) -> None:
    """Raise TypeError unless a function is given its two ``arguments`` by position: without a nursery or a host."""
    if any(isinstance(each, trio.Nursery) for each in given):
        raise TypeError(f"{function} is started in a nursery: write await nursery.start({function}, {arguments})")
    if given[2:]:
        example = f"{function}({arguments}, {option})"
        raise TypeError(f"{function} takes options by name, as in {example}; not {given[2]!r:.60}")


def _check_listeners(listeners: Any) -> Sequence[trio.abc.Listener[Any]]:
    if isinstance(listeners, trio.abc.Listener):
        raise TypeError(f"listeners must be a sequence of listeners, not one: write [{listeners!r:.60}]")
    checked = [] if isinstance(listeners, (str, bytes)) or not hasattr(listeners, "__iter__") else list(listeners)
    if not all(isinstance(listener, trio.abc.Listener) for listener in checked):
        raise TypeError(f"listeners must hold only listeners, not {checked!r:.60}")
    if not checked:
        raise ValueError(f"listeners must be a sequence of at least one listener, not {listeners!r:.60}")
    return checked


async def _run(
    service: Service,
    listeners: Sequence[trio.abc.Listener[Any]],
    handler_nursery: trio.Nursery | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    async with trio.open_nursery() as nursery:
        home = handler_nursery or nursery
        handshakes = Handshakes(service.settings, Housekeeper(home))
        accepting = _Accepting(listeners, service, handshakes)
        await accepting.run(home, Server(accepting), task_status)


def service_of(
    handler: Handlers,
    on_request: OnRequest | None,
    subprotocols: Sequence[str],
    origins: Origins | None,
    options: Mapping[str, object],
) -> Service:
    """Check the arguments of :func:`serve`, and return the service that they ask for.

    Raises TypeError and ValueError.
    """
    given: Any = handler
    if isinstance(given, Coroutine):
        given.close()
        name = getattr(given, "__qualname__", "handler")
        raise TypeError(f"handler must be an async function, not a call of it: write {name} in place of {name}(...)")
    if isinstance(given, Mapping):
        given = Routes(given)
    is_router = isinstance(given, Router)
    if not (callable(given) or is_router) or (isinstance(given, type) and is_router):
        raise TypeError(f"handler must be an async function, a mapping of paths or a Router, not {given!r:.60}")
    if on_request is not None and not callable(on_request):
        raise TypeError(f"on_request must be a function, not {on_request!r:.60}")
    if isinstance(subprotocols, (str, bytes)):
        raise TypeError(f"subprotocols must be a sequence of str, not {subprotocols!r:.60}")
    subprotocols = tuple(subprotocols)
    for subprotocol in subprotocols:
        if not is_token(subprotocol):
            raise ValueError(f"a subprotocol must be a token (RFC 6455, section 4.1), not {subprotocol!r:.60}")
    origins = None if origins is None else _checked_origins(origins)
    settings = ServerSettings.of(options)
    if settings.require_subprotocol and not subprotocols and on_request is None:
        raise ValueError("require_subprotocol needs subprotocols to choose from, or an on_request that chooses")
    return Service(given, settings, on_request, subprotocols, origins)


def _checked_origins(origins: Origins) -> Origins:
    """Check that a browser can send each of these: an origin that none can would refuse everybody, silently."""
    if isinstance(origins, (str, bytes)):
        raise TypeError(f"origins must be a sequence of str, patterns and None, not {origins!r:.60}")
    checked = tuple(origins)
    if not checked:
        raise ValueError("origins must not be empty: it would refuse everybody (without it, any origin is accepted)")
    for origin in checked:
        if isinstance(origin, str):
            if origin != "null":  # which browsers send for what has no origin, such as a file
                _check_origin(origin)
        elif origin is not None and not isinstance(getattr(origin, "pattern", None), str):
            raise TypeError(f"origins must hold str, patterns of str and None, not {origin!r:.60}")
    return checked


def _check_origin(origin: str) -> None:
    """See that this is what a browser sends (RFC 6454, section 6.2): scheme, host and port in their shortest form."""
    if origin == "*":
        raise ValueError("origins must not hold '*', which no browser sends (without origins, any is accepted)")
    scheme, _, rest = origin.rpartition("://")
    scheme = {"ws": "http", "wss": "https", "": "https"}.get(scheme.lower(), scheme.lower())
    authority = re.split(r"[/?#]", rest)[0].rpartition("@")[2]
    sent = f"{scheme}://{authority}"
    if "*" in sent:
        pattern = re.escape(sent).replace(r"\*", r"[^.]+")
        raise ValueError(f"origins holds {origin!r:.60}, but has no wildcards (write re.compile(r'{pattern}'))")
    if scheme in ("http", "https"):
        try:
            sent = f"{scheme}://{Url.parse(sent.replace('http', 'ws')).authority}"
        except ValueError as exc:
            raise ValueError(f"origins holds {origin!r:.60}, which no browser sends: {exc}") from exc
    if origin != sent:
        raise ValueError(f"origins holds {origin!r:.60}, which no browser sends (write {sent!r})")


def _url(listener: trio.abc.Listener[Any], name: tuple[Any, ...]) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0])  # noqa: S104 - compared, not bound
    scheme = "wss" if isinstance(listener, trio.SSLListener) else "ws"
    return f"{scheme}://{authority_of(host, name[1])}/"


def _socket_name(listener: trio.abc.Listener[Any]) -> object:
    if isinstance(listener, trio.SSLListener):
        listener = listener.transport_listener
    return listener.socket.getsockname() if isinstance(listener, trio.SocketListener) else None
