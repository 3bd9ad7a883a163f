"""How a connection is kept alive, and how a peer that is gone is noticed: pings, pongs, and the deadline between them.

Every ``ping_interval`` a ping goes out, and the connection is dropped where its pong has not come by ``ping_timeout``.
While reading is stopped by back pressure no pong can be seen, and that time does not count.
"""

from __future__ import annotations

import math
from secrets import token_bytes
from typing import TYPE_CHECKING

import trio

from .wire.frames import Close, Frame, Opcode
from .wire.protocol import State
from .writer import Writer

if TYPE_CHECKING:
    from .events import Emitter
    from .housekeeper import Deadline, Housekeeper
    from .settings import Settings
    from .transport import Transport
    from .wire.protocol import Protocol

__all__ = ["LATENCIES", "KeepAlive", "Ping"]

LATENCIES = 16
"""Of how many pongs it is remembered how long they took: at the usual ``ping_interval``, five minutes."""


class Ping:
    """A ping whose pong has not come."""

    __slots__ = ("answered", "latency", "position", "sent")

    def __init__(self, sent: float, position: int) -> None:
        self.sent = sent
        self.position = position
        """Where it ends in all that is written."""
        self.latency: float | None = None
        self.answered = trio.Event()


class KeepAlive(Writer):
    """The pings of a :class:`~trio_pyjo_ws.connection.Connection`."""

    __slots__ = (
        "_keepalive",
        "_keepalive_payload",
        "_latencies",
        "_next_ping",
        "_pings",
        "_pongs_awaited",
        "_reading_since",
        "_settings",
        "_stalled",
    )

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        emitter: Emitter,
        settings: Settings,
    ) -> None:
        super().__init__(protocol, transport, housekeeper, emitter, settings.write_limit)
        self._settings = settings
        self._pings: dict[bytes, Ping] = {}
        self._latencies: list[float] = []
        self._keepalive: Deadline | None = None
        self._keepalive_payload = b""
        self._next_ping = 0.0
        self._pongs_awaited = 0
        self._stalled = False  # reading has stopped by back pressure
        self._reading_since = -math.inf

    def _begin_keeping_alive(self) -> None:
        if self._settings.ping_interval < math.inf:
            self._keepalive_payload = token_bytes(4)
            self._keepalive = self._housekeeper.at(trio.current_time() + self._settings.ping_interval, self._keep_alive)

    def _send_ping(self, payload: bytes) -> Ping:
        self._protocol.send_frame(Frame(True, False, False, False, Opcode.PING, payload))
        ping = self._pings[payload] = Ping(trio.current_time(), self._sent + self._queued())
        self._flush_or_write()
        return ping

    def _answered(self, payload: bytes) -> None:
        """A pong answers its ping, and with it those before (RFC 6455, section 5.5.3). Others are ignored."""
        while payload in self._pings:
            ping = self._pings.pop(next(iter(self._pings)))
            ping.latency = trio.current_time() - ping.sent
            ping.answered.set()
            self._latencies.append(ping.latency)
            del self._latencies[:-LATENCIES]

    def _keep_alive(self) -> None:
        """Called every ping_interval, and when a pong is overdue."""
        self._keepalive = None
        if self._protocol.state is not State.OPEN:
            return
        now = trio.current_time()
        settings = self._settings
        ping = self._pings.get(self._keepalive_payload)
        if ping is not None and settings.ping_timeout < math.inf:
            since = ping.sent
            if self._sent >= ping.position:
                # While reading is stopped by back pressure no pong can be seen, and the time does not count. But no
                # back pressure keeps the peer from reading the ping.
                since = now if self._stalled else max(since, self._reading_since)
            due = since + settings.ping_timeout
            if due <= now:
                self._drop(f"no pong came within {settings.ping_timeout:g} seconds")
                return
        elif now < self._next_ping:
            due = self._next_ping
        else:
            self._pings.pop(self._keepalive_payload, None)
            self._keepalive_payload = token_bytes(4)
            self._next_ping = now + settings.ping_interval
            due = min(self._next_ping, now + settings.ping_timeout)
            self._send_ping(self._keepalive_payload)
        self._keepalive = self._housekeeper.at(due, self._keep_alive)

    def _drop(self, reason: str) -> None:
        """The peer is gone: tell it, in case, and do not wait."""
        self._protocol.fail(1011, reason)
        self._protocol.close = Close(1006, reason)
        self._flush()
        self._end()
