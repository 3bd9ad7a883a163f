"""What a transaction tells of itself and its opening handshake: the attributes of the seed and of what it inherits."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, Literal

from . import debugging
from .connection import NORMAL_CODES, Connection
from .errors import ConnectionClosed
from .figures import TransactionStatistics
from .wire import negotiate
from .wire.deflate import Deflate
from .wire.forwarded import Forwarding

if TYPE_CHECKING:
    from collections.abc import Callable

    from .housekeeper import Housekeeper
    from .settings import Settings
    from .transport import Transport
    from .wire.negotiate import Request, Response
    from .wire.protocol import Handshake, Protocol

__all__ = ["Attributes"]

logger = logging.getLogger("trio_pyjo_ws")

_numbers = itertools.count(1)


class Attributes(Connection):
    """The attributes of a :class:`~trio_pyjo_ws.Transaction`."""

    __slots__ = ("__dict__", "__weakref__", "_deflate", "_subprotocol", "connection", "reverse_proxy")

    user: Any = None
    """Who the client is, as ``on_request`` has found out; the library only keeps it."""

    _forwarding = Forwarding()

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        settings: Settings,
        crash: Callable[[Exception], None] | None = None,
    ) -> None:
        super().__init__(protocol, transport, housekeeper, settings, crash)
        self.connection: str = f"{protocol.role}-{next(_numbers)}"
        """An identifier of the connection, of this side and process."""
        self._subprotocol: str | None = None
        self._deflate = settings.compression
        self.reverse_proxy = False
        """Whether the request came through a reverse proxy that is trusted to name the client, see
        :attr:`remote_address`. Settable, on a server; its option ``trusted_proxies`` sets it."""

    def _start(self) -> None:
        if debugging.is_wanted():
            self._watched = True
            debugging.log_frames(self)
        logger.debug("%r: open", self)
        super()._start()

    def _tell_finish(self) -> None:
        logger.debug("%r: %s", self, self._protocol.close)
        super()._tell_finish()

    def __repr__(self) -> str:
        host, port = self._transport.remote
        peer = f" {host}" + (f":{port}" if port is not None else "") if host else ""
        return f"<Transaction {self.connection} {self._protocol.state.value}{peer}>"

    @property
    def compressed(self) -> bool:
        """Whether messages are sent compressed, but for those under the threshold of :class:`Deflate`.

        Settable; to true only where the opening handshake has agreed on it.
        """
        return self._protocol.compressed

    @compressed.setter
    def compressed(self, compressed: bool) -> None:
        if compressed:
            self._protocol.check_can_compress()
        self._protocol.compressed = bool(compressed)

    @property
    def masked(self) -> bool:
        """Whether frames are sent masked: on a client. Settable, for tests: RFC 6455, section 5.1, leaves no choice."""
        return self._protocol.masked

    @masked.setter
    def masked(self, masked: bool) -> None:
        self._protocol.masked = bool(masked)

    @property
    def max_websocket_size(self) -> int:
        """Bytes of the largest message that is accepted, before and after inflation.

        Settable, at any time; ValueError for what is no number of bytes.
        """
        return self._protocol.max_websocket_size

    @max_websocket_size.setter
    def max_websocket_size(self, size: int) -> None:
        given: object = size
        if not isinstance(given, int) or isinstance(given, bool) or given < 0:
            raise ValueError(f"max_websocket_size is a number of bytes, not {size!r}")
        self._protocol.max_websocket_size = size

    @property
    def handshake(self) -> Handshake | None:
        """The opening handshake, with its ``request`` and ``response``; None where there was none."""
        return self._protocol.handshake

    @property
    def req(self) -> Request | None:
        """The request of the opening handshake."""
        return None if self.handshake is None else self.handshake.request

    @property
    def res(self) -> Response | None:
        """The response of the opening handshake."""
        return None if self.handshake is None else self.handshake.response

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the opening handshake has agreed on; None for none."""
        agreement = self._protocol.agreement
        return self._subprotocol if agreement is None else agreement.subprotocol

    @property
    def established(self) -> bool:
        """Whether the opening handshake has succeeded."""
        return self._protocol.agreement is not None

    is_websocket: Literal[True] = True
    """True."""

    kept_alive: Literal[False] = False
    """Whether the connection has served another request before: never."""

    @property
    def is_finished(self) -> bool:
        """Whether the connection has ended."""
        return self._ended

    @property
    def is_writing(self) -> bool:
        """Whether something waits to be written."""
        return self._queued() > 0

    @property
    def error(self) -> Exception | None:
        """Why the connection ended, where it ended otherwise than by a normal close."""
        close = self._protocol.close
        return None if close is None or close.code in NORMAL_CODES else ConnectionClosed(close)

    @property
    def success(self) -> Response | None:
        """The response of the opening handshake, unless there was an :attr:`error`."""
        return self.res if self.error is None else None

    @property
    def local_address(self) -> str | None:
        """This side's IP address, or the path of a Unix socket; None over a stream that has none."""
        return self._transport.local[0]

    @property
    def local_port(self) -> int | None:
        """This side's port; None over a stream that has none."""
        return self._transport.local[1]

    @property
    def remote_address(self) -> str | None:
        """The peer's IP address: where :attr:`reverse_proxy` is set, the client's as the proxy names it.

        That is the last address of X-Forwarded-For (or of the server's ``proxy_header``) that is no trusted proxy.
        """
        client = self._forwarding.client(self.req.headers) if self.reverse_proxy and self.req else None
        return client or self.original_remote_address

    @property
    def original_remote_address(self) -> str | None:
        """The IP address that the connection comes from: the peer's, or its proxy's."""
        return self._transport.remote[0]

    @property
    def remote_port(self) -> int | None:
        """The peer's port; None over a stream that has none."""
        return self._transport.remote[1]

    def statistics(self) -> TransactionStatistics:
        """The state of the connection, what waits in it and for it, and what has gone through it."""
        deflate = None if self._protocol.agreement is None else self._protocol.agreement.deflate
        stream = self._stream
        return TransactionStatistics(
            state=self._protocol.state.value,
            messages_waiting=len(self._inbox),
            bytes_unsent=self._queued(),
            tasks_waiting_receive=int(self._receiving if stream is None else stream._waiting),  # noqa: SLF001
            tasks_waiting_send=len(self._writers or ()) + (self._writing and not self._writer_runs),
            pings_waiting=len(self._pings),
            latency=self._latencies[-1] if self._latencies else None,
            latencies=tuple(self._latencies),
            messages_received=self._messages_received,
            messages_sent=self._protocol.messages_sent,
            bytes_received=self._bytes_received,
            bytes_sent=self._sent,
            compression_received=(0, 0) if deflate is None else deflate.decompressed,
            compression_sent=(0, 0) if deflate is None else deflate.compressed,
        )

    # The opening handshake, in a server's on_request

    def with_compression(self, deflate: Deflate | None = None) -> None:
        """Compress messages if the client offers permessage-deflate, whatever the server's own option says.

        Raises RuntimeError anywhere but in ``on_request``, and TypeError for what is no :class:`Deflate`.
        """
        self._check_connecting()
        if not isinstance(deflate, (Deflate, type(None))):
            raise TypeError(f"with_compression() takes a Deflate, not {type(deflate).__name__}")
        self._deflate = Deflate() if deflate is None else deflate

    def with_protocols(self, *names: str) -> str | None:
        """Choose the first of the subprotocols ``names`` that the client offers, and return it; None for none.

        Raises RuntimeError anywhere but in ``on_request``.
        """
        request = self._check_connecting()
        self._subprotocol = negotiate.choose_subprotocol(request, names)
        return self._subprotocol

    def _check_connecting(self) -> Request:
        if self.established or self.req is None:
            raise RuntimeError("this is for the server's on_request, before the opening handshake is answered")
        return self.req
