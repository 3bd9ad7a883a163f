"""The request and response of a session: over HTTP/1.1 on a transport, or as the messages of a host.

An :class:`Exchange` only carries them; the session decides the answer.
"""

from __future__ import annotations

import logging
import typing
from typing import TYPE_CHECKING

import trio

from ..escaping import escape
from ..handshake.forwarded import PROXY
from ..handshake.http1 import ServerHandshake
from ..handshake.proxy_protocol import ProxyHeader
from ..wire.protocol import Protocol

if TYPE_CHECKING:
    from .._engine.transport import Transport
    from ..handshake.forwarded import Forwarding
    from ..handshake.messages import Request, Response
    from ..options import ServerSettings
    from .limits import Handshakes

__all__ = ["Exchange", "Handshake", "Http1Exchange"]


logger = logging.getLogger("trio_pyjo_ws")


class Handshake(typing.Protocol):
    """The server's side of an opening handshake."""

    request: Request | None
    """The request, once it has come."""
    response: Response | None
    """The response, once there is one to send."""


class Exchange(typing.Protocol):
    """The request and the response of one session."""

    protocol: Protocol
    """The state machine, which is connecting."""
    transport: Transport
    """The way of the frames."""
    silent: bool
    """Whether the client has sent nothing so far."""
    client: str | None
    """The client's address, if a proxy has named it ahead of the request."""

    @property
    def handshake(self) -> Handshake:
        """The opening handshake."""
        ...

    @property
    def can_respond(self) -> bool:
        """Whether a response would reach the client."""
        ...

    async def receive(self) -> Request | None:
        """Wait for the request, and return it; None if the client has left instead."""
        ...

    async def respond(self) -> None:
        """Send the response that the protocol has to send. What refuses the request ends the exchange."""
        ...

    async def refuse_at_once(self) -> None:
        """Send the response, which refuses whatever request comes."""
        ...


class Http1Exchange:
    """HTTP/1.1 over a transport of this server's own."""

    __slots__ = ("_handshakes", "_in_tls", "_is_announced", "client", "handshake", "protocol", "silent", "transport")

    def __init__(
        self,
        transport: Transport,
        is_tls: bool,
        settings: ServerSettings,
        handshakes: Handshakes,
        forwarding: Forwarding | None,
    ) -> None:
        self.transport = transport
        self.silent = True
        self.client: str | None = None
        self._handshakes = handshakes
        # Whether a proxy sends the header of the PROXY protocol before anything else.
        self._is_announced = (
            forwarding is not None and forwarding.header == PROXY and forwarding.trusts(transport.remote[0])
        )
        self._in_tls = is_tls  # until TLS has shaken hands
        self.handshake = ServerHandshake(
            max_header_bytes=settings.max_header_bytes,
            max_request_line=settings.max_request_line,
        )
        self.protocol = Protocol("server", handshake=self.handshake, max_websocket_size=settings.max_websocket_size)

    @property
    def can_respond(self) -> bool:
        """Whether TLS, if there is any, has shaken hands."""
        return not self._in_tls

    async def receive(self) -> Request | None:
        """Wait for the request, and return it; None if the client has left instead.

        Raises :class:`HandshakeError`, with a response queued, for what is not HTTP/1.1.
        """
        transport = self.transport
        if self._is_announced:
            await self._read_proxy_header()
        if self._in_tls:
            if transport.resumable:  # a socket, which shows that something has come before TLS takes it
                await transport.wait_receive()
            self.silent = False
            await self._handshakes.wait_turn()
            await transport.do_handshake()
            self._in_tls = False
        # The request may be there already, and the task has just begun: no checkpoint before looking.
        data = transport.try_receive() if transport.ready else None
        if data is None:
            data = await transport.receive()
        self.silent = False
        await self._handshakes.wait_turn()
        while data:
            self.protocol.server_read(data)
            if self.handshake.request is not None:
                return self.handshake.request
            data = await transport.receive()
        self.protocol.end()
        return None

    async def _read_proxy_header(self) -> None:
        """What a trusted proxy sends before anything else of the client's. Raises BrokenResourceError without it."""
        header = ProxyHeader()
        try:
            while not header.complete:
                data = await self.transport.receive_before_tls(header.wanted)
                if not data:
                    raise trio.BrokenResourceError("it ended before the header of the PROXY protocol was complete")
                header.read(data)
        except ValueError as exc:
            logger.warning("%s: %s (proxy_header is 'PROXY')", self.transport.remote[0], escape(str(exc)))
            raise trio.BrokenResourceError(str(exc)) from exc
        self.client = header.client

    async def respond(self) -> None:
        """Send the response. If it refuses, wait until the client has left."""
        transport = self.transport
        await transport.send_all(self.protocol.server_write())
        if self.protocol.agreement is None:
            # A socket that is closed with unread data resets the connection, and could take the response along.
            transport.send_eof()
            while transport.resumable and await transport.receive():
                pass

    async def refuse_at_once(self) -> None:
        """Send the response if that takes no wait. It costs no more than this: neither TLS nor a request."""
        self.transport.try_send(self.protocol.server_write())
        self.transport.try_receive()  # A request that is left unread would reset the connection.
