# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""What a connection has to send, and how far it is.

*Write through, cork while there is more to handle.* What is to be sent collects in the protocol's ``outgoing``, and
:meth:`Outbox.flush` hands it to the kernel without blocking. What the kernel does not take at once is ``unsent``, and
a writer goes on with it: the sender itself while it waits, or a task.

The invariants:

- A byte is in exactly one place: in the protocol, in ``unsent``, or in the kernel (then ``sent`` counts it).
- A frame is whole in the protocol before its first byte leaves, and what has left is never forgotten. So no
  cancellation tears a frame.
- While a message is sent in pieces (``open_message``) nothing but a control frame goes between them (RFC 6455, section
  5.4): whoever else sends asks :meth:`Outbox.must_wait`, and asks again after each wait.

This module never waits; :mod:`~trio_pyjo_ws._engine.sending` does.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import ParkingLot

from ..wire.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..wire import protocol as wire
    from .housekeeper import Housekeeper
    from .transport import Transport

__all__ = ["Outbox"]

CORK_SIZE = 65_536
"""Bytes at which corked frames are written although there are more messages to handle."""

_OPEN = State.OPEN


class _Owner(typing.Protocol):
    """What an outbox tells the connection that it is of."""

    def lost(self) -> None: ...
    def written(self) -> None: ...
    def write_on(self) -> None: ...
    def end(self) -> None: ...
    def is_open(self) -> bool: ...
    def closed_error(self) -> Exception: ...


class Outbox:
    """The sending half of a connection."""

    __slots__ = (
        "_callbacks",
        "_housekeeper",
        "_limit",
        "_protocol",
        "_waiting",
        "_wrote",
        "broken",
        "corked",
        "in_background",
        "open_message",
        "owner",
        "sent",
        "transport",
        "unsent",
        "watched",
        "writing",
    )

    def __init__(
        self,
        protocol: wire.Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        limit: int,
        owner: _Owner,
    ) -> None:
        self._protocol = protocol
        self.transport = transport
        self._housekeeper = housekeeper
        self._limit = limit
        self.owner = owner
        self.sent = 0
        """Bytes that the kernel has taken since the beginning."""
        self.unsent: bytes | memoryview = b""
        """What was taken from the protocol, and not by the kernel."""
        self.writing = False
        """Whether a task waits with ``unsent`` for the kernel."""
        self.open_message = False
        """Whether a message is being sent in pieces."""
        self.broken = False
        """Whether nothing can be sent any more."""
        self.in_background = False
        """Whether a task in the background writes."""
        self.watched = False
        """Whether ``written()`` is to be called."""
        self.corked = False
        """Whether what is queued is written at the end of this turn of the scheduler."""
        self._wrote = False  # since the peer was last waited for, and in this turn of the scheduler
        self._callbacks: list[tuple[int, Callable[[], None]]] = []
        self._waiting: ParkingLot | None = None

    # What is queued

    @property
    def queued(self) -> int:
        """Bytes that wait to be written."""
        return len(self.unsent) + self._protocol.outgoing_size

    @property
    def end(self) -> int:
        """Where what is queued ends, in all that is ever written."""
        return self.sent + len(self.unsent) + self._protocol.outgoing_size

    def is_full(self) -> bool:
        """Whether as much is queued as ``write_limit`` allows."""
        return len(self.unsent) + self._protocol.outgoing_size >= self._limit

    def must_wait(self, control: bool) -> bool:
        """Whether to wait before something is queued: for room, or for the end of a message that goes in pieces.

        ``control``: it is a control frame, which may go between the pieces.
        """
        if self._protocol.state is not _OPEN or self.broken:
            return False
        if self.open_message and not control:
            return True
        return len(self.unsent) != 0 and len(self.unsent) + self._protocol.outgoing_size >= self._limit

    def send_message(self, message: str | bytes, compress: bool | None, more: bool) -> bool:
        """Queue a message, and write it: at once, or together with what else this turn of the scheduler sends.

        ``more``: there are more received messages to handle first. Return False if it is neither written nor corked:
        its sender has to wait.
        """
        self._protocol.send_message(message, compress)
        if (more or self._wrote) and not self.unsent and self._protocol.outgoing_size < CORK_SIZE:
            self.cork()
            return True
        return self.flush()

    def begin_message(self) -> None:
        """A message begins that is not queued at once: no other may come in between."""
        self.open_message = True

    def end_message(self) -> None:
        """It has ended, one way or another."""
        self.open_message = False
        self.wake()

    def call_back(self, call: Callable[[], None]) -> None:
        """Have ``call``, which must not raise, called once all that is queued now has been handed to the kernel."""
        self._callbacks.append((self.end, call))
        self.watched = True

    def watch(self) -> None:
        """Have the owner told when all that is queued has left."""
        self.watched = True

    # Writing

    def flush(self) -> bool:
        """Hand over what can be without waiting; return whether that was all."""
        if self.writing or self.broken or self.unsent:
            return False
        protocol = self._protocol
        if not protocol.outgoing_size:
            return True
        try:
            if protocol.in_pieces:
                self._send_pieces(protocol.take_pieces())
            else:
                data = protocol.take()
                size = len(data)
                sent = self.transport.try_send(data)
                self.sent += sent
                if sent < size:
                    self.unsent = memoryview(data)[sent:]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.give_up()
            return False
        self._wrote = True
        if self.unsent:
            return False
        if self.watched:
            self.progress()
        return True

    def _send_pieces(self, pieces: list[bytes]) -> None:
        sent = self.transport.try_send_pieces(pieces)
        self.sent += sent
        for index, piece in enumerate(pieces):
            if sent < len(piece):
                self.unsent = memoryview(piece)[sent:]
                self._protocol.put_back(pieces[index + 1 :])
                return
            sent -= len(piece)

    def flush_or_write(self) -> bool:
        """Hand over what can be, and have a task write the rest; return whether there is none."""
        if self.flush() or self.broken:
            return True
        if not self.writing and not self.in_background:
            self.in_background = True
            self.owner.write_on()
        return False

    def cork(self) -> None:
        """Let more frames collect, for this turn of the scheduler at the most."""
        if not self.corked:
            self.corked = True
            self._housekeeper.cork(self)

    def uncork(self) -> None:
        """The turn is over."""
        self.corked = False
        self.flush_or_write()
        self._wrote = False

    def write_soon(self) -> None:
        """Write what is queued: now, or together with what else is sent in this turn of the scheduler."""
        if self._wrote and not self.unsent and self._protocol.outgoing_size < CORK_SIZE:
            self.cork()
        else:
            self.flush_or_write()

    def write_later(self) -> None:
        """Write what is queued in the next turn of the scheduler, or now if the write limit is reached."""
        if self.unsent or self.writing or self.is_full():
            self.flush_or_write()
        else:
            self.cork()

    def wait_for_peer(self) -> None:
        """The peer is about to be waited for, so it has to have all: uncork."""
        self._wrote = False
        if self._protocol.outgoing_size:
            self.flush_or_write()
            self._wrote = False

    def begin_write(self) -> bytes | memoryview:
        """What a writer has to write next: it stays ``unsent`` until :meth:`note_sent`."""
        self.writing = True
        if not self.unsent:
            self.unsent = self._protocol.take()
        return self.unsent

    def end_write(self) -> None:
        """The writer is back, whatever it has written."""
        self.writing = False

    def end_background(self) -> None:
        """The task that wrote has ended."""
        self.in_background = False

    def note_sent(self, size: int) -> None:
        """The kernel has taken so much of ``unsent``."""
        self.sent += size
        self.unsent = memoryview(self.unsent)[size:] if size < len(self.unsent) else b""
        self.progress()

    def progress(self) -> None:
        """A write was completed: the one place that wakes the waiters and fires the callbacks."""
        self.wake()
        callbacks = self._callbacks
        while callbacks and callbacks[0][0] <= self.sent:
            callbacks.pop(0)[1]()
        if self.watched and not self.queued:
            self.watched = bool(callbacks)
            self.owner.written()

    # The end

    def give_up(self) -> None:
        """The peer takes nothing any more."""
        if not self.broken:
            self.clear()
            self.owner.lost()

    def clear(self) -> None:
        """Nothing can be sent any more. Whoever waits is woken."""
        self.broken = True
        self.unsent = b""
        self._protocol.forget()
        self._callbacks.clear()
        self.wake()

    # Waiting

    @property
    def tasks_waiting(self) -> int:
        """Tasks that wait in :meth:`wait_progress`."""
        return len(self._waiting) if self._waiting is not None else 0

    def waiting(self) -> ParkingLot:
        """Where to park until something was written, or a message that goes in pieces has ended."""
        if self._waiting is None:
            self._waiting = ParkingLot()
        return self._waiting

    def wake(self) -> None:
        """Have those who wait look again."""
        if self._waiting is not None:
            self._waiting.unpark_all()
