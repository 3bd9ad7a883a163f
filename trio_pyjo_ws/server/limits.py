"""Limits on a server's clients: connections, opening handshakes, messages in a second, silence.

*Opening handshakes* wait for their clients, so they are bounded in number, in time, and in what they take of one turn:

- Each has ``open_timeout`` seconds, and FIRST_BYTE if its client sends nothing at all. They stand in the order in which
  they began, so the deadline of the oldest serves for all of them.
- If there are ``max_handshakes``, a new one takes the place of the oldest whose client has sent nothing for PATIENCE:
  silent sockets cost their owner nothing, and must not keep others out. Accepting pauses while there is none. If
  descriptors run out before that, all of these are dropped.
- TURN_OF_HANDSHAKES of them at most are answered before everybody else on the scheduler has a turn: thousands that
  arrive at once, as after a restart, must not delay the connections that are open.
"""

from __future__ import annotations

import math
from ipaddress import IPv6Address
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING, Final, Protocol

import trio
from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._engine.connection import Connection
    from .._engine.housekeeper import Deadline, Housekeeper
    from ..options import ServerSettings
    from ..wire.frames import Frame

__all__ = ["Admission", "Handshakes", "Meter", "Opening"]

AVERAGED = 10
"""Seconds over which a rate is averaged: what a network holds up for a moment arrives all at once."""

FIRST_BYTE: Final = 5.0
"""Seconds for a client's first byte, of TLS or of its request. It is a constant because there is nothing to wait for: a
client speaks first, as soon as it is connected. This covers two lost packets, sent again after 1 and 3 seconds (RFC
6298)."""

PATIENCE: Final = 0.5
"""Seconds for which a silent client is not dropped in favour of another. A program that opens thousands of connections
at once may need that long to send all its requests. A flood of silent sockets is worked off at ``max_handshakes`` in
this time."""

TURN_OF_HANDSHAKES: Final = 16
"""Opening handshakes that are begun, or answered, in one turn of the scheduler: 2 ms of work, 8 of TLS."""

IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that say whose it is: a subscriber has at least all the addresses behind them (RFC 6177)."""


class Admission:
    """Counts the connections of one server: all that are open, and those of each address."""

    def __init__(self, settings: ServerSettings) -> None:
        self._max_connections = settings.max_connections
        self._max_per_address = settings.max_connections_per_address
        self._connections = 0
        self._counts: dict[str, int] = {}

    def enter(self) -> bool:
        """Count a connection that is about to be opened; False, and count nothing, if there are too many."""
        if self._connections >= self._max_connections:
            return False
        self._connections += 1
        return True

    def leave(self) -> None:
        """A connection that had entered has ended."""
        self._connections -= 1

    def count(self, address: str) -> str | None:
        """Count a connection from ``address``, and return what to :meth:`forget`; None if there are too many."""
        client = _client(address)
        count = self._counts.get(client, 0)
        if count >= self._max_per_address:
            return None
        self._counts[client] = count + 1
        return client

    def forget(self, client: str) -> None:
        """A connection that was counted has ended."""
        self._counts[client] -= 1
        if not self._counts[client]:
            del self._counts[client]


def _client(address: str) -> str:
    """Whose the address is: in IPv6 its network's, but for the network that all hosts on a link share."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address)
    except ValueError:  # the path of a Unix socket
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return address if found.is_link_local else str(IPv6Address(int(found) >> IPV6_PREFIX << IPV6_PREFIX))


class Opening(Protocol):
    """A connection in its opening handshake."""

    began: float
    """When it was accepted, on trio's clock."""

    @property
    def silent(self) -> bool:
        """Whether its client has sent nothing so far."""
        ...

    def give_up(self) -> None:
        """Drop it."""

    def stop(self) -> None:
        """The server is closing: answer 503."""


class Handshakes:
    """The opening handshakes in one nursery, the oldest first. They are no longer here once they are given up."""

    def __init__(self, settings: ServerSettings, housekeeper: Housekeeper) -> None:
        self._max = settings.max_handshakes
        self._open_timeout = settings.open_timeout
        # Without an open_timeout the first byte has no limit either.
        self._first_byte = min(FIRST_BYTE, self._open_timeout) if self._open_timeout < math.inf else math.inf
        self.housekeeper = housekeeper
        """The housekeeper of the connections in the same nursery."""
        self._deadline: Deadline | None = None
        # Each stands in one of these, in the order in which they began. What was not silent when it was looked at goes
        # from the first to the second, so all in the second are older than all in the first.
        self._new: dict[Opening, None] = {}
        self._heard: dict[Opening, None] = {}
        self._room = ParkingLot()
        self._turns = TURN_OF_HANDSHAKES
        self._next_turn = ParkingLot()

    def __len__(self) -> int:
        return len(self._new) + len(self._heard)

    def __iter__(self) -> Iterator[Opening]:
        return chain(self._heard, self._new)

    def begin(self, opening: Opening) -> None:
        """Add a connection. If there are too many, the oldest whose client has been silent for long gives way."""
        if len(self) >= self._max and self._silence_deadline() <= opening.began:
            self._give_up(next(iter(self._new)))
        self._new[opening] = None
        due = opening.began + self._first_byte
        if self._deadline is None or due < self._deadline.when:
            self._arm(due)

    def end(self, opening: Opening) -> None:
        """The opening handshake has ended, in whatever way."""
        self._new.pop(opening, None)
        self._heard.pop(opening, None)
        if not (self._new or self._heard):
            self._arm(math.inf)
        if self._room:
            self._room.unpark_all()

    def drop_silent(self) -> None:
        """Descriptors or memory have run out: drop all whose clients have been silent for long."""
        while self._silence_deadline() <= trio.current_time():
            self._give_up(next(iter(self._new)))

    async def wait_room(self) -> int:
        """Wait until more may begin, and return how many. A checkpoint only if there are ``max_handshakes``."""
        while len(self) >= self._max:
            await trio.lowlevel.checkpoint()  # The newest look for the first time whether anything has come.
            deadline = self._silence_deadline()
            if deadline <= trio.current_time():
                return 1
            with trio.move_on_at(deadline):
                await self._room.park()
        return min(self._max - len(self), TURN_OF_HANDSHAKES)

    async def wait_turn(self) -> None:
        """Wait until one more may be answered in this turn of the scheduler. A checkpoint only if it has to wait."""
        if not self._turns:
            await self._next_turn.park()  # Whoever is woken has one of the next turns.
            return
        self._turns -= 1
        if not self._turns:
            self.housekeeper.soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._turns = TURN_OF_HANDSHAKES - len(self._next_turn.unpark(count=TURN_OF_HANDSHAKES))
        if not self._turns:
            self.housekeeper.soon(self._begin_turn)

    def _silence_deadline(self) -> float:
        """When the oldest silent one may be dropped."""
        silent = self._oldest_silent()
        return math.inf if silent is None else silent.began + PATIENCE

    def _oldest_silent(self) -> Opening | None:
        while self._new:
            oldest = next(iter(self._new))
            if oldest.silent:
                return oldest
            del self._new[oldest]
            self._heard[oldest] = None
        return None

    def _give_up(self, opening: Opening) -> None:
        self._new.pop(opening, None)
        self._heard.pop(opening, None)
        opening.give_up()

    def _arm(self, when: float) -> None:
        if self._deadline is not None:
            self.housekeeper.cancel(self._deadline)
        self._deadline = self.housekeeper.at(when, self._drop_overdue) if when < math.inf else None

    def _drop_overdue(self) -> None:
        """Drop those whose time is over. Called when that of the oldest is, or was before it ended."""
        now = trio.current_time()
        while (silent := self._oldest_silent()) is not None and silent.began + self._first_byte <= now:
            self._give_up(silent)
        for late in tuple(takewhile(lambda opening: opening.began + self._open_timeout <= now, self._heard)):
            self._give_up(late)
        due = [opening.began + self._first_byte for opening in islice(self._new, 1)]
        due += [opening.began + self._open_timeout for opening in islice(self._heard, 1)]
        self._arm(min(due, default=math.inf))


class Meter:
    """Watches what one open connection receives; closes it after too many messages, or none."""

    def __init__(self, connection: Connection, settings: ServerSettings) -> None:
        self._connection = connection
        self._idle_timeout = settings.idle_timeout
        self._rate = settings.max_message_rate
        self._burst = max(1.0, self._rate * AVERAGED)
        self._allowance = self._burst
        self._counted = self._heard = trio.current_time()
        self._deadline: Deadline | None = None
        connection.watch(self, frames=False)
        if self._idle_timeout < math.inf:
            self._deadline = connection.housekeeper.at(self._heard + self._idle_timeout, self._check_idle)

    def stop(self) -> None:
        """The connection has ended."""
        if self._deadline is not None:
            self._connection.housekeeper.cancel(self._deadline)

    def frame(self, frame: Frame) -> None:
        """A frame has come: it does not count."""

    def messages(self, count: int, more: bool) -> None:
        """So many messages have come, or a part of one."""
        if count or more:
            self._heard = trio.current_time()
            if self._rate < math.inf:
                self._spend(count, self._heard)

    def _spend(self, count: int, now: float) -> None:
        earned = (now - self._counted) * self._rate
        if self._connection.heartbeat.reading_since >= self._counted:
            # It was not the client who held these up: this side did not read. All of that time counts.
            self._allowance += earned
        else:
            self._allowance = max(self._allowance, min(self._burst, self._allowance + earned))
        self._counted = now
        self._allowance -= count
        if self._allowance < 0:
            self._connection.fail(1008, f"more than {self._rate:g} messages a second")

    def _check_idle(self) -> None:
        """Called when the client would have been silent for too long."""
        self._deadline = None
        connection = self._connection
        now = trio.current_time()
        if connection.inbox.messages or connection.stalled:
            self._heard = now  # What it has said has not been heard yet.
        due = self._heard + self._idle_timeout
        if due > now:
            self._deadline = connection.housekeeper.at(due, self._check_idle)
        else:
            connection.close_soon(1001, f"nothing was said for {self._idle_timeout:g} seconds")
