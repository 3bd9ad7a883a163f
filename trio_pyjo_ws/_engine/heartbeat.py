"""How a connection is kept alive, and how a peer that is gone is noticed: pings, pongs, and the deadline between them.

Every ``ping_interval`` a ping goes out, and the connection is dropped if its pong has not come by ``ping_timeout``, and
nothing else has: a peer in the middle of one long frame cannot put a pong into it. While reading is stopped by back
pressure no pong can be seen, and that time does not count. What lies in the socket is read before anybody is dropped:
it may be the loop that was late, and not the peer.
"""

from __future__ import annotations

import math
from secrets import randbelow, token_bytes
from typing import TYPE_CHECKING, Protocol

import trio

from ..wire.frames import Frame, Opcode

if TYPE_CHECKING:
    from ..wire import protocol as wire
    from .housekeeper import Deadline, Housekeeper
    from .outbox import Outbox

__all__ = ["LATENCIES", "Heartbeat", "Ping"]

LATENCIES = 16
"""How many latencies are kept: five minutes' worth at the usual ``ping_interval``."""


class _Owner(Protocol):
    """What a heartbeat asks of the connection that it is of."""

    protocol: wire.Protocol
    outbox: Outbox
    housekeeper: Housekeeper
    bytes_received: int
    stalled: bool

    def is_open(self) -> bool: ...
    def pull(self) -> object: ...
    def drop(self, reason: str) -> None: ...
    def closed_error(self) -> Exception: ...


class Ping:
    """A ping whose pong has not come."""

    __slots__ = ("answered", "failure", "latency", "position", "sent")

    def __init__(self, sent: float, position: int) -> None:
        self.sent = sent
        self.position = position
        """Where it ends in all that is written."""
        self.latency = 0.0
        self.failure: Exception | None = None
        """Why no pong will come, as it was when that was known."""
        self.answered = trio.Event()


class Heartbeat:
    """The pings of a connection."""

    __slots__ = (
        "_deadline",
        "_heard",
        "_interval",
        "_next_ping",
        "_owner",
        "_payload",
        "_pings",
        "_timeout",
        "awaited",
        "latencies",
        "reading_since",
    )

    def __init__(self, owner: _Owner, interval: float, timeout: float) -> None:
        self.latencies: tuple[float, ...] = ()
        """Seconds that the last pongs took, the oldest first."""
        self.awaited = 0
        """How many callers wait for a pong."""
        self.reading_since = -math.inf
        """Since when reading is not stopped by back pressure."""
        self._owner = owner
        self._interval = interval
        self._timeout = timeout
        self._pings: dict[bytes, Ping] = {}
        self._deadline: Deadline | None = None
        self._payload = b""
        self._next_ping = 0.0
        self._heard = 0  # bytes that had come at the last look

    @property
    def pings(self) -> int:
        """Pings whose pong has not come."""
        return len(self._pings)

    def start(self) -> None:
        """The connection is open.

        The first ping falls into any part of the interval's second half, so that a crowd does not ping all at once, and
        a short connection not at all.
        """
        if self._interval < math.inf:
            self._payload = token_bytes(4)
            first = self._interval * (1025 + randbelow(1024)) / 2048
            self._deadline = self._owner.housekeeper.at(trio.current_time() + first, self._beat)

    def expect(self, payload: bytes) -> Ping:
        """Send a ping whose pong is waited for, until :meth:`forget`."""
        self.awaited += 1
        return self.send(payload)

    def send(self, payload: bytes) -> Ping:
        """Send a ping."""
        connection = self._owner
        connection.protocol.send_frame(Frame(True, False, False, False, Opcode.PING, payload))
        ping = self._pings[payload] = Ping(trio.current_time(), connection.outbox.end)
        connection.outbox.flush_or_write()
        return ping

    def reading_goes_on(self) -> None:
        """Back pressure does not stop reading any more."""
        self.reading_since = trio.current_time()

    def is_waiting(self, payload: bytes) -> bool:
        """Whether a ping with this payload waits for its pong."""
        return payload in self._pings

    def forget(self, payload: bytes, ping: Ping) -> None:
        """Nobody waits for the pong of ``ping`` any more."""
        self.awaited -= 1
        if self._pings.get(payload) is ping:  # and not one that was sent since this one was answered
            del self._pings[payload]

    def answered(self, payload: bytes) -> None:
        """A pong answers its ping, and with it those before (RFC 6455, section 5.5.3). Others are ignored."""
        while payload in self._pings:
            ping = self._pings.pop(next(iter(self._pings)))
            ping.latency = trio.current_time() - ping.sent
            ping.answered.set()
            self.latencies = (*self.latencies[1 - LATENCIES :], ping.latency)

    def end(self) -> None:
        """The peer says no more. Whoever waits for a pong is woken."""
        if self._deadline is not None:
            self._owner.housekeeper.cancel(self._deadline)
            self._deadline = None
        for ping in self._pings.values():
            ping.failure = self._owner.closed_error()
            ping.answered.set()
        self._pings = {}

    def _beat(self) -> None:
        """Called every ping_interval, and when a pong is overdue."""
        self._deadline = None
        connection = self._owner
        if not connection.is_open():
            return
        now = trio.current_time()
        due = self._due(now)
        if due is not None and due <= now:
            connection.pull()
            due = self._due(now)
            if not connection.is_open():
                return
            if due is not None and due <= now:
                connection.drop(f"no pong came within {self._timeout:g} seconds")
                return
        if due is None and now < self._next_ping:
            due = self._next_ping
        elif due is None:
            self._pings.pop(self._payload, None)
            self._payload = token_bytes(4)
            self._next_ping = now + self._interval
            due = min(self._next_ping, now + self._timeout)
            self._heard = connection.bytes_received
            self.send(self._payload)
        self._deadline = connection.housekeeper.at(due, self._beat)

    def _due(self, now: float) -> float | None:
        """When the peer has to be dropped, as far as it is known; None if no pong is owed."""
        connection = self._owner
        ping = self._pings.get(self._payload)
        if ping is None or self._timeout == math.inf:
            return None
        since = ping.sent
        if connection.outbox.sent >= ping.position:
            # The ping has left, so back pressure no longer keeps the peer from reading it. From here on, anything that
            # comes shows that the peer is alive.
            if connection.stalled or connection.bytes_received != self._heard:
                since = now
            since = max(since, self.reading_since)
        self._heard = connection.bytes_received
        return since + self._timeout
