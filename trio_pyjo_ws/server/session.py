"""One connection of a server, from its first byte to its last.

A session is two halves. The first goes from a request to an open connection: the router, the hook ``on_request``, the
response. Its :class:`~.exchange.Exchange` carries both. The second half goes from there to the end of the handler, and
closes.

*A fault ends one connection.* Whatever a handler or a hook raises is caught at its call, and taken apart. An
:class:`Exception`, alone or in a group, is a failure of this connection: it is logged, and answered with 500 or 1011.
Anything else goes on to the nursery, as everywhere in trio: KeyboardInterrupt, SystemExit, and the Cancelled of a scope
around this point. A nursery that fails while it is cancelled raises both kinds in one group, so groups are split.

*One scope cancels a session*: if its opening takes too long, if a callback has failed, and when the server is closing.
If the peer is still owed a Close or a 503, it is sent in a second scope, which can be cancelled as well.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from types import CoroutineType
from typing import TYPE_CHECKING, NoReturn, Union, cast

import trio
from trio.lowlevel import ParkingLot

from .._engine.failures import separate
from .._engine.receiving import finish
from ..errors import ConnectionClosed, HandshakeError
from ..handshake import negotiate
from ..handshake.messages import HeadersLike, Response
from ..handshake.negotiate import Terms
from ..options import UNBOUNDED
from ..statistics import ServerStatistics, Totals
from ..transaction import Transaction
from ..wire.protocol import State
from .limits import Admission, Meter
from .routing import Route, Router

if TYPE_CHECKING:
    import re

    from ..handshake.messages import Request
    from ..options import ServerSettings
    from ..wire.frames import Close
    from .exchange import Exchange
    from .limits import Handshakes
    from .routing import Handler

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["OnRequest", "Origins", "Service", "Session"]

logger = logging.getLogger("trio_pyjo_ws")

OnRequest = Callable[[Transaction], Response | Awaitable[Response | None] | None]
"""Called with each transaction before its opening handshake is answered; see :func:`~trio_pyjo_ws.serve`."""

Origins = Sequence[Union[str, "re.Pattern[str]", None]]
"""The values of Origin that are accepted, exactly or by a pattern; None stands for a request without one."""


class Service:
    """What the sessions of one server have in common: how requests are answered, the limits, and who is there."""

    def __init__(
        self,
        handler: Handler | Router,
        settings: ServerSettings,
        on_request: OnRequest | None,
        subprotocols: Sequence[str],
        origins: Origins | None,
    ) -> None:
        self.settings = settings
        self.router = handler if isinstance(handler, Router) else None
        self.handler = cast("Handler", handler)
        self.on_request = on_request
        self.subprotocols = subprotocols
        self.origins = origins
        forwarding = replace(settings.trusted_proxies, header=settings.proxy_header)
        self.forwarding = forwarding if forwarding.networks or forwarding.unix else None
        counts = min(settings.max_connections, settings.max_connections_per_address) < UNBOUNDED
        self.admission = Admission(settings) if counts else None
        self.has_meters = min(settings.max_message_rate, settings.idle_timeout) < math.inf
        self.totals = Totals()
        self.connections: dict[Transaction, Session] = {}
        """The sessions in their second half; those in their first are in the :class:`Handshakes` of their nursery."""
        self.sessions = 0
        """How many there are, those among them that were given up and have not ended yet."""
        self.ended = ParkingLot()
        self.shutdown_close: Close | None = None
        """What the connections are closed with, once the server is closing."""
        self.aborted = False
        """Whether the time for closing is over, too."""

    def statistics(self, opening: int) -> ServerStatistics:
        """What waits in the connections, and what has gone through them; ``opening`` are not open yet."""
        connections = [transaction.statistics() for transaction in self.connections]
        return self.totals.statistics(connections, opening)


class Session:
    """One connection. Whoever makes one has to :meth:`run` it."""

    __slots__ = (
        "_admitted",
        "_client",
        "_connection",
        "_exchange",
        "_handshakes",
        "_is_open",
        "_meter",
        "_protocol",
        "_scope",
        "_service",
        "_shut_out",
        "_terms",
        "_transaction",
        "began",
    )

    def __init__(self, service: Service, handshakes: Handshakes, exchange: Exchange) -> None:
        settings = service.settings
        self._service = service
        self._handshakes = handshakes
        self._exchange = exchange
        self._protocol = exchange.protocol
        self._terms = Terms(settings.compression)
        self._transaction = Transaction(
            exchange.protocol, exchange.transport, handshakes.housekeeper, settings, self._crash, self._terms
        )
        self._connection = self._transaction.__connection__
        if service.forwarding is not None:
            self._terms.forwarding = service.forwarding
            self._transaction.reverse_proxy = service.forwarding.trusts(self._transaction.original_remote_address)
        self._scope = trio.CancelScope()
        self._is_open = False
        self._shut_out = False
        self._admitted = False
        self._client: str | None = None  # under which it is counted
        self._meter: Meter | None = None
        self.began = trio.current_time()
        service.sessions += 1
        service.totals.accepted += 1
        handshakes.begin(self)

    @property
    def silent(self) -> bool:
        """Whether the client has sent nothing so far."""
        return self._exchange.silent

    async def run(self) -> None:
        """Open the connection, call its handler, close it. A fault of this connection alone is logged, not raised."""
        try:
            with self._scope:
                handler = await self._open()
                if handler is not None:
                    await self._serve(handler)
            if self._scope.cancel_called and not self._service.aborted:
                await self._close_cancelled()
        except BaseException as exc:
            self._report(exc, "%r failed")
        finally:
            self._end()

    def give_up(self) -> None:
        """Cancel the handler, or the opening handshake."""
        self._scope.cancel()

    def stop(self) -> None:
        """The server is closing: close with its code, or answer 503 if no response has begun."""
        if self._is_open:
            self._connection.close_soon(*self._service.shutdown_close or (1001,))
        elif self._exchange.handshake.response is None:
            self._shut_out = True
            self._scope.cancel()

    def _end(self) -> None:
        """The connection has ended, or ends here at once."""
        service = self._service
        try:
            self._connection.end()
        finally:
            if self._is_open:
                del service.connections[self._transaction]
                service.totals.add(self._transaction.statistics())
            else:
                self._handshakes.end(self)
            if self._meter is not None:
                self._meter.stop()
            if service.admission is not None:
                if self._admitted:
                    service.admission.leave()
                if self._client is not None:
                    service.admission.forget(self._client)
            service.sessions -= 1
            service.ended.unpark_all()

    # The opening handshake

    async def _open(self) -> Handler | None:
        """The first half. Return what handles the connection; None if it is not open."""
        protocol = self._protocol
        handler = None
        if self._service.shutdown_close is not None:  # Accepted at the last moment.
            self.stop()
            return None
        try:
            refused = self._count()
            if refused is not None:
                protocol.refuse(refused)
                await self._exchange.refuse_at_once()
                return None
            request = await self._exchange.receive()
            self._terms.proxied = self._exchange.client
            if request is None:
                return None
            handler = await self._answer(request)
        except HandshakeError as exc:
            logger.debug("%r: %s", self._transaction, exc)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.debug("%r: lost in the opening handshake: %s", self._transaction, exc)
            protocol.end()
            return None
        return handler if await self._respond() else None

    async def _answer(self, request: Request) -> Handler | None:
        """Accept the request, and return what handles the connection; or refuse it."""
        service = self._service
        transaction = self._transaction
        protocol = self._protocol
        try:
            if service.origins is not None and not negotiate.is_plain(request):
                negotiate.check_origin(request, service.origins)
            negotiate.offered_subprotocols(request)  # so that with_protocols() finds nothing wrong
        except HandshakeError as exc:
            self._refuse(exc)
        found: Handler | Response = service.handler if service.router is None else self._route(service.router, request)
        headers: HeadersLike = ()
        if service.on_request is not None and (response := await self._ask(service.on_request)) is not None:
            if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
                headers = response.headers
            else:
                found = response
        if service.admission is not None and not isinstance(found, Response):
            found = self._admit(service.admission) or found
        if isinstance(found, Response):
            protocol.refuse(found)
            return None
        subprotocol = transaction.protocol
        if subprotocol is None and service.subprotocols:
            subprotocol = transaction.with_protocols(*service.subprotocols)
        if subprotocol is None and service.settings.require_subprotocol and not negotiate.is_plain(request):
            self._refuse(negotiate.without_subprotocol(request, service.subprotocols))
        try:
            protocol.accept(subprotocol=subprotocol, deflate=self._terms.deflate, headers=headers)
        except ValueError as exc:  # headers that are not the caller's to set
            self._report(exc, "the response of on_request to %r cannot be sent")
            protocol.refuse(Response(HTTPStatus.INTERNAL_SERVER_ERROR))
            return None
        return found

    def _refuse(self, exc: HandshakeError) -> NoReturn:
        self._protocol.refuse(exc.response or Response(HTTPStatus.BAD_REQUEST))
        raise exc

    def _route(self, router: Router, request: Request) -> Handler | Response:
        """The handler that the router finds, or what refuses the request: 500 if the router fails."""
        try:
            found = _check_found(router.route(request))
        except BaseException as exc:
            self._report(exc, "the router failed for %r")
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR)
        if isinstance(found, Response):
            return found
        if found.parameters:
            self._exchange.handshake.request = request.with_path_parameters(found.parameters)
        return found.handler

    async def _ask(self, on_request: OnRequest) -> Response | None:
        """What ``on_request`` answers; 500 if it fails."""
        try:
            response: object = on_request(self._transaction)
            answer = _check_answer(await response if inspect.isawaitable(response) else response)
        except BaseException as exc:
            self._report(exc, "on_request failed for %r")
            answer = Response(HTTPStatus.INTERNAL_SERVER_ERROR)
        await trio.lowlevel.checkpoint_if_cancelled()  # It may have taken longer than it might, behind a shield.
        return answer

    async def _respond(self) -> bool:
        """Send the response; return whether the connection is open."""
        try:
            await self._exchange.respond()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.debug("%r: the response was not taken: %s", self._transaction, exc)
            return False
        return self._protocol.agreement is not None

    # Admission

    def _count(self) -> Response | None:
        """Count the connection under its client's address, or return what refuses it.

        The address of a client behind a proxy is known only from its request, and is counted by :meth:`_admit`.
        """
        admission = self._service.admission
        transaction = self._transaction
        address = transaction.original_remote_address
        if admission is None or address is None or transaction.reverse_proxy or transaction.remote_port is None:
            return None
        return self._count_under(admission, address)

    def _count_under(self, admission: Admission, address: str) -> Response | None:
        self._client = admission.count(address)
        return Response(429, body="too many connections from this address\n") if self._client is None else None

    def _admit(self, admission: Admission) -> Response | None:
        """Count the connection, which is about to be opened, or return what refuses it."""
        if self._transaction.reverse_proxy and (address := self._transaction.remote_address) is not None:
            refused = self._count_under(admission, address)
            if refused is not None:
                return refused
        self._admitted = admission.enter()
        return None if self._admitted else Response(503, body="too many connections\n")

    # The handler

    async def _serve(self, handler: Handler) -> None:
        """The second half: call the handler, and close."""
        service = self._service
        transaction = self._transaction
        self._handshakes.end(self)
        service.connections[transaction] = self
        service.totals.opened += 1
        self._is_open = True
        if service.has_meters:
            self._meter = Meter(self._connection, service.settings)
        self._connection.start()
        if service.shutdown_close is None:
            await self._handle(handler)
        await self._close()

    async def _handle(self, handler: Handler) -> None:
        try:
            await _check_called(handler, handler(self._transaction))
        except BaseException as exc:
            self._report(exc, "the handler of %r failed")

    async def _close(self) -> None:
        if not self._transaction.is_finished:
            await finish(self._connection, *self._service.shutdown_close or (1000, None))

    async def _close_cancelled(self) -> None:
        """The session was cancelled. Send the Close or 503 that the peer is still owed; this can be cancelled, too."""
        with trio.move_on_after(self._service.settings.close_timeout) as self._scope:
            if self._is_open:
                await self._close()
            elif self._shut_out and self._exchange.can_respond and self._protocol.state is State.CONNECTING:
                self._protocol.refuse(Response(HTTPStatus.SERVICE_UNAVAILABLE))
                await self._respond()

    # Faults

    def _report(self, exc: BaseException, message: str) -> None:
        """Log what is a failure of this connection, which closes with 1011, and raise again what is not."""
        failure, passing = separate(exc)
        if failure is not None:
            if self._is_open and self._protocol.state is not State.OPEN and _is_end(failure):
                logger.info("%r: %s", self._transaction, failure)
            else:
                logger.error(message, self._transaction, exc_info=failure)
                self._connection.close_soon(1011)
        if passing is not None:
            raise passing

    def _crash(self, exc: BaseException) -> None:
        """A callback, or a background task of the transaction's, has failed: cancel the handler."""
        logger.error("a callback of %r failed", self._transaction, exc_info=exc)
        self._connection.close_soon(1011)
        self._scope.cancel()


def _is_end(exc: BaseException) -> bool:
    """Whether this says that a connection ended under its handler, which is no fault of the handler's."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_end, exc.exceptions))
    return isinstance(exc, (ConnectionClosed, trio.ClosedResourceError, trio.EndOfChannel))


# What the caller's functions return


def _check_called(handler: Handler, called: object) -> Awaitable[object]:
    if isinstance(called, CoroutineType) or inspect.isawaitable(called):
        return called
    name = getattr(handler, "__qualname__", None) or f"{handler!r:.60}"
    raise TypeError(f"handler {name} is not async: it returned {called!r:.60}")


def _check_found(found: object) -> Route | Response:
    if callable(found):
        return Route(found, {})
    if isinstance(found, Route) and callable(found.handler):
        return found
    if isinstance(found, Response) and found.status >= HTTPStatus.OK:
        return found
    raise TypeError(f"a router must return a Route, a handler, or a Response of 200 to 599, not {found!r:.60}")


def _check_answer(response: object) -> Response | None:
    if response is None:
        return None
    if isinstance(response, Response):
        if response.status >= HTTPStatus.OK:
            return response
        if response.status == HTTPStatus.SWITCHING_PROTOCOLS and not (response.body or response.reason):
            return response
    accepted = "None, Response(101, headers), or a Response of 200 to 599"
    raise TypeError(f"on_request must return {accepted}, not {response!r:.60}")
