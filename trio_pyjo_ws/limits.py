"""What a server's clients may take of it: connections in all and from one address, messages in a second, silence.

Nothing here exists for a server whose options ask for none of it, nor for its connections.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from .wire.fragments import Piece
from .wire.negotiate import Response
from .wire.protocol import State

if TYPE_CHECKING:
    from .housekeeper import Deadline, Housekeeper
    from .settings import ServerSettings
    from .transaction import Transaction
    from .wire.protocol import Event

__all__ = ["Admission", "Meter"]

AVERAGED = 10
"""Seconds over which a rate is averaged: what a network holds up for a moment arrives all at once."""


class Admission:
    """Counts the connections of one server, in all and by the address of the client."""

    def __init__(self, settings: ServerSettings) -> None:
        self._max_connections = settings.max_connections
        self._max_per_address = settings.max_connections_per_address
        self._admitted: set[Transaction] = set()
        self._addresses: dict[Transaction, str] = {}
        self._counts: dict[str, int] = {}

    def arrive(self, transaction: Transaction) -> Response | None:
        """A connection was accepted: count it, or give the response that refuses it.

        Who comes through a proxy is known by the request only, and counted by :meth:`admit`.
        """
        address = transaction.original_remote_address
        if address is None or transaction.reverse_proxy or transaction.remote_port is None:  # a Unix socket's path
            return None
        return self._count(transaction, address)

    def admit(self, transaction: Transaction) -> Response | None:
        """A connection is about to be opened: count it, or give the response that refuses it."""
        if len(self._admitted) >= self._max_connections:
            return Response(503, body="too many connections\n")
        if transaction.reverse_proxy and (address := transaction.remote_address) is not None:
            refused = self._count(transaction, address)
            if refused is not None:
                return refused
        self._admitted.add(transaction)
        return None

    def leave(self, transaction: Transaction) -> None:
        """A connection has ended, or was never opened."""
        self._admitted.discard(transaction)
        address = self._addresses.pop(transaction, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    def _count(self, transaction: Transaction, address: str) -> Response | None:
        count = self._counts.get(address, 0)
        if count >= self._max_per_address:
            return Response(429, body="too many connections from this address\n")
        self._counts[address] = count + 1
        self._addresses[transaction] = address
        return None


class Meter:
    """Stands in the reading of one open connection, and closes it where too many messages come, or none."""

    def __init__(self, transaction: Transaction, housekeeper: Housekeeper, settings: ServerSettings) -> None:
        self._transaction = transaction
        self._housekeeper = housekeeper
        self._idle_timeout = settings.idle_timeout
        self._rate = settings.max_message_rate
        self._burst = max(1.0, self._rate * AVERAGED)
        self._allowance = self._burst
        self._counted = self._heard = trio.current_time()
        self._deadline: Deadline | None = None
        self._read = transaction._read
        transaction._read = self._count
        if self._idle_timeout < math.inf:
            self._deadline = housekeeper.at(self._heard + self._idle_timeout, self._check_idle)

    def stop(self) -> None:
        """The connection has ended."""
        if self._deadline is not None:
            self._housekeeper.cancel(self._deadline)

    def _count(self, data: bytes = b"", **bounds: Any) -> list[Event]:
        events = self._read(data, **bounds)
        messages = [event for event in events if isinstance(event, (str, bytes, Piece))]
        if messages:
            self._heard = trio.current_time()
            if self._rate < math.inf:
                self._spend(sum(not isinstance(event, Piece) or event.final for event in messages), self._heard)
        return events

    def _spend(self, count: int, now: float) -> None:
        earned = (now - self._counted) * self._rate
        if self._transaction._reading_since >= self._counted:
            # It was not the client who held these up: this side did not read. All of that time counts.
            self._allowance += earned
        else:
            self._allowance = max(self._allowance, min(self._burst, self._allowance + earned))
        self._counted = now
        self._allowance -= count
        if self._allowance < 0 and self._transaction._protocol.state is State.OPEN:
            self._transaction._protocol.fail(1008, f"more than {self._rate:g} messages a second")

    def _check_idle(self) -> None:
        """Called when the client would have been silent for too long."""
        self._deadline = None
        transaction = self._transaction
        now = trio.current_time()
        if transaction._inbox or transaction._stalled:
            self._heard = now  # What it has said has not been heard yet.
        due = self._heard + self._idle_timeout
        if due > now:
            self._deadline = self._housekeeper.at(due, self._check_idle)
        else:
            transaction._close_soon(1001, f"nothing was said for {self._idle_timeout:g} seconds")
