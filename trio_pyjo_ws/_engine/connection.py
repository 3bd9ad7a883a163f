# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""The life of one connection, from the end of its opening handshake: it holds the parts, and is told what they find.

=========  ============================================================================
part       what it owns
=========  ============================================================================
protocol   the state; what was received and is not parsed; what is to be sent, as frames
transport  the bytes' way to the peer
outbox     what is not taken by the kernel yet; who waits to send
inbox      the messages that are kept, and whose they are
emitter    the subscriptions
reading    who reads
heartbeat  pings, pongs, and the deadline between them
=========  ============================================================================

:meth:`Connection.pull` reads once, parses what there is room for, and delivers it. Nothing here waits.

*Closing* is the protocol's state plus one deadline. From the moment the state leaves OPEN, the connection ends within
``close_timeout``, whatever the peer does. What the peer sends until its own Close is received still, as far as there is
room; the rest is dropped, counted and logged. The invariant: not open and not ended means that the deadline is armed.

*Losing* is not ending: when the peer takes nothing any more, what it sent before may still be in the socket, its Close
above all. So it is read on until that, too, is over.
"""

from __future__ import annotations

import logging
import typing
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import reschedule

from ..errors import ConnectionClosed
from ..wire.frames import NORMAL_CODES, Close, Frame, is_control
from ..wire.protocol import Pong
from ..wire.states import State
from .events import CARRYING, Emitter
from .failures import call_and_report, raise_in_nursery, separate
from .heartbeat import Heartbeat
from .inbox import Inbox
from .outbox import Outbox
from .reading import WOKEN, reading_of
from .writing import write_in_background

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..json_codec import JsonCodec
    from ..options import Settings
    from ..wire.protocol import Protocol
    from .events import Subscription
    from .housekeeper import Deadline, Housekeeper
    from .transport import Transport

__all__ = ["COMPRESSED_AT_ONCE", "MAX_PINGS_OWED", "Connection", "Tap"]

logger = logging.getLogger("trio_pyjo_ws")

COMPRESSED_AT_ONCE = 131_072
"""Bytes that are compressed without letting others run: some 2 ms at the usual level."""

SOME = 64
"""Messages that are parsed at a time behind this side's Close, if there is no room for them."""

MAX_PINGS_OWED = 64
"""Pongs that wait to be written before reading from the network stops."""

_OPEN = State.OPEN
_CLOSING = State.CLOSING


class Tap(typing.Protocol):
    """An observer of what a connection receives."""

    def frame(self, frame: Frame) -> None:
        """A frame has come. Called only if the connection's frames are watched."""
        ...

    def messages(self, count: int, more: bool) -> None:
        """``count`` messages have come, and a part of another if ``more``."""
        ...


class Connection:
    """One connection, whose callbacks are given ``source``: the transaction.

    ``crash`` is told of an exception in a callback if no caller can be told. Without it, such an exception comes
    out of the nursery.
    """

    __slots__ = (
        "__weakref__",
        "_close_deadline",
        "_crash",
        "_resuming",
        "_taking",
        "_watched",
        "bytes_received",
        "close_timeout",
        "closed_here",
        "closers",
        "emitter",
        "ended",
        "heartbeat",
        "housekeeper",
        "inbox",
        "json",
        "messages_received",
        "name",
        "outbox",
        "parked",
        "protocol",
        "reading",
        "stalled",
        "taps",
        "transport",
        "turn",
    )

    def __init__(
        self,
        name: str,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        settings: Settings,
        source: object,
        crash: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.name = name
        """What it is called in logs."""
        self.protocol = protocol
        self.transport = transport
        self.housekeeper = housekeeper
        self.turn = housekeeper.turn
        self.json: JsonCodec | None = settings.json
        self.close_timeout = settings.close_timeout
        self._crash = crash
        self.emitter = Emitter(self, source)
        self.inbox = Inbox(self, protocol, self.emitter, settings.max_queue, settings.max_queue_bytes)
        self.outbox = Outbox(protocol, transport, housekeeper, settings.write_limit, self)
        self.heartbeat = Heartbeat(self, settings.ping_interval, settings.ping_timeout)
        self.reading = reading_of(housekeeper, transport)
        self.taps: list[Tap] = []
        """The observers of what comes, besides its recipients."""
        self.bytes_received = 0
        self.messages_received = 0
        self.stalled = False
        """Whether reading has stopped, as there was no room."""
        self.closed_here = False
        """Whether this side has begun to close."""
        self.ended = False
        """Whether the stream is over."""
        self.parked: list[trio.lowlevel.Task] = []
        """The tasks that wait for news, and do not read."""
        self.closers: set[trio.lowlevel.Task] = set()
        """The tasks that wait for the end."""
        self._watched = False  # some tap observes frames
        self._taking = False  # what was read is being delivered
        self._resuming = False  # reading goes on in the next turn
        self._close_deadline: Deadline | None = None
        housekeeper.join(self)

    def __repr__(self) -> str:
        return f"<Connection {self.name} {self.protocol.state.value}>"

    def start(self) -> None:
        """The opening handshake has succeeded, and whoever wants the connection gets it now."""
        logger.debug("%r: open", self.emitter.source)
        self.heartbeat.start()
        self.reading = self.reading.join(self)
        self.emitter.remember("connection")

    def watch(self, tap: Tap, *, frames: bool) -> None:
        """Have ``tap`` notified of what comes; of every frame, if ``frames``."""
        self.taps.append(tap)
        if frames:
            self._watched = self.protocol.watch_frames = True

    # Reading

    def may_pull(self) -> bool:
        """Whether there may be something to read, or to parse, and room for it. If only room is missing, it stalls."""
        if self.ended or self._taking or not (self.transport.ready or self.protocol.pending):
            return False
        return self._find_room() > 0

    def note_edge(self, gone: bool) -> None:
        """The socket may have something to read; if the peer is ``gone``, the end behind it."""
        self.transport.note_edge(gone)

    def pull(self) -> None:
        """Read once, without waiting, and do what that means. Raises nothing: whoever reads, reads for others, too."""
        if self.ended or self._taking:
            return
        try:
            room = self._find_room()
            if room <= 0:
                return
            data = b""
            if not self.protocol.pending:
                found = self.transport.try_receive()
                if found is None:
                    return
                if not found:
                    self.end()
                    return
                data = found
                self.bytes_received += len(data)
            self._take_in(data, room)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.end()
        except Exception:  # a fault of this library, which ends one connection and not those beside it
            logger.exception("%r has failed", self.emitter.source)
            self.end()

    def _find_room(self) -> int:
        """Messages that may be parsed. Without any, reading stops; and from now on it goes on, if it had stopped."""
        room = self._room()
        if room <= 0:
            self.stalled = True
        elif self.stalled:
            self.stalled = False
            self.heartbeat.reading_goes_on()
        return room

    def _room(self) -> int:
        protocol = self.protocol
        inbox = self.inbox
        if protocol.pings_owed >= MAX_PINGS_OWED and not self.outbox.flush_or_write():
            # A peer that pings and does not read its pongs is not read from either.
            self.outbox.watch()
            return 0
        room = inbox.room()
        if protocol.state is _OPEN:
            if inbox.streamed:
                # It has received in pieces, and may yet want to receive that way what is too large to be whole.
                protocol.holding = not inbox.wants_whole()
                if protocol.held and protocol.holding and not protocol.arriving.claimed:
                    return 0
        elif room <= 0 and not inbox.streaming:
            return SOME  # A close does not wait behind what nobody takes.
        return room

    def _take_in(self, data: bytes, room: int) -> None:
        """Parse ``data``, deliver what that gives, and answer if the protocol has answered."""
        protocol = self.protocol
        inbox = self.inbox
        outbox = self.outbox
        # Behind a message that was dropped nothing is kept: what can be received has no hole.
        keep = protocol.state is _OPEN or (not inbox.dropped and inbox.room() > 0)
        arriving = protocol.arriving
        self._taking = True
        try:
            events = protocol.read(data, room, inbox.room_bytes())
            if protocol.plain:
                count = len(events)
                if count:
                    inbox.add(events, keep)  # type: ignore[arg-type]  # nothing but messages
            else:
                count = self._interpret(events, keep)
            if arriving.ended:
                count += 1
            self.messages_received += count
            if protocol.held and protocol.state is _CLOSING:
                self._skip()
            for tap in self.taps:
                tap.messages(count, protocol.arriving.begun)
            if inbox.streaming:
                inbox.notify()
        finally:
            self._taking = False
        if protocol.state is not _OPEN:
            self._advance_closing()
        if outbox.broken:
            if self._close_deadline is None and not self.ended:
                self._read_what_is_left()
        elif protocol.outgoing_size and not outbox.corked:
            if inbox.messages:
                outbox.cork()
            else:
                outbox.flush_or_write()

    def _interpret(self, events: list[Any], keep: bool) -> int:
        """Deliver what is not messages alone; return how many of them are messages."""
        count = 0
        for event in events:
            if event.__class__ is str or event.__class__ is bytes:
                count += 1
                self.inbox.add_one(event, keep)
            elif event.__class__ is Frame:
                if self._watched:
                    for tap in self.taps:
                        tap.frame(event)
                if keep:
                    self.emitter.emit("frame", event, guarded=True)
            elif event.__class__ is Pong:
                self.heartbeat.answered(event.payload)
        return count

    def _skip(self) -> None:
        """Behind this side's Close nobody claims a message any more: read past one that is too large."""
        arriving = self.protocol.arriving
        arriving.claim()
        arriving.discard()
        self.inbox.drop()

    def _read_what_is_left(self) -> None:
        """The peer takes nothing any more; what it sent before may still be here, and tell why."""
        if self.transport.fd >= 0:
            self.note_edge(True)
        while self.may_pull():
            self.pull()
        if not self.ended:
            if self._close_deadline is None:
                self._arm_close_deadline()
            self.reading.attend_now()

    def is_urgent(self) -> bool:
        """Whether it has to be read from although nobody waits for what that brings."""
        return (
            self.emitter.calling > 0
            or self.heartbeat.awaited > 0
            or self.outbox.broken
            or self.protocol.state is not _OPEN
        )

    def take_message(self) -> str | bytes | None:
        """The first message that is kept; None if there is none, or others have to have their turn first.

        Raises BusyResourceError if a task receives.
        """
        inbox = self.inbox
        if inbox.receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        if not inbox.messages or self.turn.is_over():
            return None
        return self.take_kept()

    def lacks_message(self) -> bool:
        """Whether a message has to be waited for. Raises the error that explains why none will come."""
        if not self.inbox.messages and self.has_ended_messages():
            raise self.end_of_messages()
        return not self.inbox.messages

    def take_nowait(self) -> str | bytes:
        """The first message that is kept. Raises WouldBlock if there is none, or why none will come."""
        inbox = self.inbox
        if inbox.receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        if self.lacks_message():
            raise trio.WouldBlock
        return self.take_kept()

    def take_kept(self) -> str | bytes:
        """The first message that is kept."""
        message = self.inbox.messages.pop(0)
        if self.stalled:
            self.room_was_made()
        if not self.reading.attended:
            self.reading.attend()
        return message

    def room_was_made(self) -> None:
        """A message was taken, or a reader is gone: read on, if reading has stopped."""
        if self.stalled and not self._resuming:
            self._resuming = True
            self.housekeeper.soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if self.stalled and not self.ended and self._find_room() > 0:
            self.pull()
            self.reading.attend_now()

    def has_to_wait(self) -> bool:
        """Whether there is nothing to read. Whoever waits for the peer has sent all: uncork."""
        if self.may_pull():
            return False
        broken = self.outbox.broken
        self.outbox.wait_for_peer()
        # If that has found the peer lost, what was left has been read, and the caller was not woken: it looks again.
        return not self.ended and self.outbox.broken is broken

    def wake(self, task: trio.lowlevel.Task) -> None:
        """Wake ``task``, which waits for news, so that it looks again."""
        if task in self.parked:
            self.parked.remove(task)
            reschedule(task, WOKEN)
        else:
            self.reading.interrupt(task)

    # Subscriptions

    def subscribed(self, subscription: Subscription) -> None:
        """Somebody subscribes to an event."""
        if subscription.event == "frame":
            self.protocol.watch_frames = True
        elif subscription.event == "drain":
            self.outbox.watch()
        self.inbox.subscribed(subscription)
        if subscription.event in CARRYING:
            self.reading.attend_now()
        if self.stalled:
            self.room_was_made()  # What waits for somebody who wants it in pieces may be wanted whole now.

    def unsubscribed(self) -> None:
        """Somebody does not subscribe any more."""
        self.protocol.watch_frames = self._watched or self.emitter.has("frame")
        self.inbox.unsubscribed()

    # Callbacks

    def crash(self, exc: BaseException) -> None:
        """A callback has raised, and no caller can be told. Cancelled, and what ends the program, is raised here."""
        failure, passing = separate(exc)
        if failure is not None:
            if self._crash is not None:
                self._crash(failure)
            else:
                self.housekeeper.start_soon(partial(raise_in_nursery, failure), "crash of a callback")
        if passing is not None:
            raise passing

    def start_callback(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task that calls a callback. If there is somebody to be told of its exceptions, they are."""
        if self._crash is not None:
            function = partial(call_and_report, function, self.crash)
        self.housekeeper.start_soon(function, f"{name} of {self.name}")

    # What the outbox tells

    def lost(self) -> None:
        """The peer takes nothing any more."""
        if not self.ended and not self._taking:
            self._read_what_is_left()

    def written(self) -> None:
        """All that was queued has left."""
        self.emitter.emit("drain", guarded=True)
        if self.protocol.state is not _OPEN:
            self._advance_closing()
        if self.emitter.has("drain") or self.protocol.state is not _OPEN:
            self.outbox.watch()
        if self.stalled:
            self.room_was_made()

    def write_on(self) -> None:
        """What is queued has to be written in the background."""
        self.housekeeper.start_soon(partial(write_in_background, self.outbox), f"writer of {self.name}")

    def is_open(self) -> bool:
        """Whether messages may be sent, so far as it is known."""
        return self.protocol.state is _OPEN and not self.outbox.broken

    # Sending

    def send_at_once(self, message: object) -> bool | None:
        """Send a ``str`` or ``bytes``, if that takes no more than queueing it; None if it does, and nothing is done.

        Return whether its sender may go on: it need not wait until the message is written, and its turn is not over.
        Raises the error that explains why nothing can be sent.
        """
        if message.__class__ is not bytes and message.__class__ is not str:
            return None
        outbox = self.outbox
        if self.protocol.state is not _OPEN or outbox.broken:
            raise self.closed_error()
        if outbox.must_wait(False) or self.takes_long(message, None):
            return None
        return outbox.send_message(message, None, len(self.inbox.messages) != 0) and not self.turn.is_over()

    def takes_long(self, message: str | bytes, compress: bool | None) -> bool:
        """Whether others have to run while this message is compressed."""
        return len(message) > COMPRESSED_AT_ONCE and (self.protocol.compressed if compress is None else compress)

    def send_nowait(self, payload: str | bytes | Frame, compress: bool | None, sent: Callable[[], None] | None) -> None:
        """Queue a message or a frame, and have it written soon. Raises WouldBlock if there is no room for it."""
        outbox = self.outbox
        if isinstance(payload, Frame):
            self.transport.check_frames("frames")
        if self.is_open() and (outbox.is_full() or (outbox.open_message and not is_control(payload))):
            raise trio.WouldBlock
        self.queue(payload, compress, sent)
        self.write_queued()

    def queue(
        self, payload: str | bytes | Frame, compress: bool | None = None, sent: Callable[[], None] | None = None
    ) -> None:
        """Queue a message or a frame, and have ``sent`` called once all that is queued has been handed over.

        Raises the error that explains why nothing can be sent.
        """
        protocol = self.protocol
        if protocol.state is not _OPEN or self.outbox.broken:
            raise self.closed_error()
        if isinstance(payload, Frame):
            protocol.send_frame(payload)
        else:
            protocol.send_message(payload, compress)
        if sent is not None:
            self.outbox.call_back(sent)
        if protocol.state is not _OPEN:  # That was a Close frame.
            self.closing_began()

    def write_queued(self) -> None:
        """Have what is queued written: behind what is being read, or in the next turn of the scheduler."""
        if not self._taking or self.outbox.is_full():
            self.outbox.write_later()

    # Closing

    def close_soon(self, code: int | None, reason: str | None = None) -> None:
        """Begin to close, if that has not begun; do not wait."""
        if self.protocol.state is _OPEN and not self.ended:
            self.protocol.send_close(code, reason)
            self.closing_began()

    def begin_close(self, code: int | None, reason: str | None = None) -> None:
        """Begin to close, if that has not begun. The caller waits for the end, and reads on for that."""
        if self.protocol.state is _OPEN and not self.ended:
            self.protocol.send_close(code, reason)
            self._began_to_close()
        self.closed_here = True

    def closing_began(self) -> None:
        """This side has sent Close, and nobody waits for the end."""
        self._began_to_close()
        if not self.ended:
            self.reading.attend_now()

    def _began_to_close(self) -> None:
        self.closed_here = True
        self.stalled = False  # A close does not wait behind what nobody takes.
        if self._close_deadline is None:
            self._arm_close_deadline()
        self._advance_closing()
        self.outbox.wake()
        self.inbox.notify()

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection, as the peer is to blame: called by a tap, while what has come is being delivered."""
        if self.protocol.state is _OPEN:
            self.protocol.fail(code, reason)

    def drop(self, reason: str) -> None:
        """The peer is gone: notify it if possible, without waiting."""
        self.protocol.fail(1011, reason, Close(1006, reason))
        self.outbox.flush()
        self.end()

    def _advance_closing(self) -> None:
        """The connection is not open any more: bound the time, and end it as soon as all is said."""
        if self.ended:
            return
        begins = self._close_deadline is None
        if begins:
            self._arm_close_deadline()
            self.heartbeat.end()
            self.inbox.notify()
        if self.outbox.flush_or_write():
            # Section 7.1.1: the server closes the connection first. If the peer broke a rule it may still be sending,
            # and closing a socket that has unread data resets it, which could take the Close frame from the peer:
            # there, only this half is closed, and the peer's end is awaited.
            state = self.protocol.state
            failed = state is State.FAILED
            if self.protocol.role == "server" and (state is State.CLOSED or (failed and not self.transport.resumable)):
                self.end()
            elif failed:
                self.transport.send_eof()
        else:
            self.outbox.watch()
        if begins and not self.ended:  # Last: for what has ended by now no task has to read.
            self.reading.attend_now()

    def _arm_close_deadline(self) -> None:
        when = trio.current_time() + self.close_timeout
        self._close_deadline = self.housekeeper.at(when, self._close_is_due)

    def _close_is_due(self) -> None:
        if self.protocol.state is _OPEN and self.stalled:
            # The peer is lost, and what it has left is being read as fast as its reader takes it.
            self._arm_close_deadline()
        else:
            self.end()

    def abandon(self) -> None:
        """Close the socket, whatever has not been said."""
        self.closed_here = True
        self.end()

    def end(self) -> None:
        """The stream has ended, for any reason. Wake every waiter."""
        if self.ended:
            return
        self.ended = True
        self.protocol.end()
        logger.debug("%r: %s", self.emitter.source, self.protocol.close)
        if self._close_deadline is not None:
            self.housekeeper.cancel(self._close_deadline)
        self.reading.leave(self)
        self.transport.close()
        self.outbox.clear()
        self.heartbeat.end()
        self.inbox.notify()
        for task in self.closers:
            self.wake(task)
        self.housekeeper.leave(self, self.transport)
        if self.inbox.dropped:
            text = "%r: %d messages came behind this side's Close, and found no room"
            logger.info(text, self.emitter.source, self.inbox.dropped)
        close = self.protocol.close
        assert close is not None
        self.emitter.emit("finish", *close, guarded=True)
        self.emitter.close()

    # How it ended

    def has_ended_messages(self) -> bool:
        """Whether no message will come any more but those that are kept."""
        return self.closed_here or self.ended or self.protocol.state is not _OPEN

    def error(self) -> ConnectionClosed | None:
        """How the connection was closed, unless that is not known yet, or was normal."""
        close, cut = self.protocol.close, self.protocol.cut
        return None if close is None or (close.code in NORMAL_CODES and not cut) else ConnectionClosed(close, cut)

    def end_of_messages(self) -> Exception:
        """Why there is nothing more to receive."""
        close = self.protocol.close
        if not self.closed_here and close is not None and self.error() is None:
            return trio.EndOfChannel(f"the peer has closed the connection with {close.code}")
        return self.closed_error()

    def end_of_channel(self) -> Exception:
        """What the end of a channel says: it just ends if this side closed, or the peer normally."""
        return (None if self.closed_here else self.error()) or trio.EndOfChannel()

    def closed_error(self) -> Exception:
        """Why nothing can be sent."""
        close = self.protocol.close
        if self.closed_here:
            return trio.ClosedResourceError("this side has closed the connection")
        if close is None:
            close = Close(1006, "the connection was lost")
        return ConnectionClosed(close, self.protocol.cut)
