"""What runs a transaction: who reads, who closes, and when; how it writes is in :mod:`~trio_pyjo_ws.writer`.

*Whoever receives, reads.* ``receive()`` with an empty inbox reads the socket in the caller's own task. The reading role
is the flag ``_reading``; who holds it runs :meth:`Connection._advance`. A background reader takes the role while nobody
receives for a moment (GRACE), or at once while somebody subscribes to what the peer sends, waits for a pong, or the
connection is closing. No deadline is armed per message: ``_attended`` says that the grace's deadline is armed or the
background reader runs, and only where it is not set does leaving ``receive()`` do anything.

*Closing* is the protocol's state plus one deadline. From the moment the state leaves OPEN, the connection ends within
``close_timeout``, whatever the peer does, and whoever waits wakes.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from sys import getsizeof
from time import perf_counter
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import ParkingLot, checkpoint_if_cancelled

from .errors import ConnectionClosed
from .events import Emitter
from .keepalive import KeepAlive
from .objects import UndecodedJson
from .wire.frames import Frame
from .wire.protocol import Piece, Pong, Protocol, State, size_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .housekeeper import Deadline, Housekeeper
    from .settings import Settings
    from .streaming import MessageStream
    from .transport import Transport
    from .wire.protocol import Event

__all__ = ["Connection"]

GRACE = 0.1
"""Seconds without a receiver after which the background reader takes the role; twice that at the most."""

TURN = 0.001
"""Seconds that a task may go on without yielding to the scheduler (trio's issue 1757 reasons the same way)."""

NORMAL_CODES = frozenset({1000, 1001, 1005})
"""Close codes after which iteration simply ends: done, going away, and none given (RFC 6455, section 7.4.1)."""

LISTENING = frozenset({State.OPEN, State.CLOSING})
"""The states in which what the peer sends has a meaning."""


def _ends_message(event: Event) -> bool:
    return event.final if isinstance(event, Piece) else isinstance(event, (str, bytes))


class Connection(KeepAlive):
    """The engine of a :class:`~trio_pyjo_ws.transaction.Transaction`; nothing of it is public.

    ``crash`` is told of an exception that a callback or a background task let out, where no caller can be told.
    """

    __slots__ = (
        "_active",
        "_attended",
        "_bytes_received",
        "_channel_receivers",
        "_claimed",
        "_close_deadline",
        "_closed_here",
        "_crash",
        "_delivery",
        "_discarding",
        "_ended",
        "_events",
        "_grace",
        "_inbox",
        "_interrupted",
        "_messages_received",
        "_read",
        "_readers",
        "_reading",
        "_receiving",
        "_stream",
        "_streamed",
        "_unclaimed",
        "_watched",
    )

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        settings: Settings,
        crash: Callable[[Exception], None] | None = None,
    ) -> None:
        emitter = Emitter(self, self._start_soon, self._subscriptions_changed, self._look_again)
        super().__init__(protocol, transport, housekeeper, emitter, settings)
        self._crash = crash or self._crash_nursery
        self._read = protocol.client_read if protocol.role == "client" else protocol.server_read
        self._inbox: list[str | bytes] = []  # An empty deque takes 600 bytes more, and is no faster at this length.
        self._events: list[Event] = []  # read, and not yet told to anybody
        self._watched = False  # frames are logged
        self._bytes_received = 0
        self._messages_received = 0
        self._ended = False
        # Reading
        self._reading = False
        self._receiving = False
        self._channel_receivers = 0
        self._interrupted = False
        self._attended = True  # Until _start(): the opening handshake does its own reading.
        self._active = False  # somebody has read since the grace began
        self._grace: Deadline | None = None
        self._readers: ParkingLot | None = None
        self._delivery: trio.CancelScope | None = None
        self._discarding = False
        self._stream: MessageStream | None = None  # who receives a message in pieces
        self._streamed = False  # somebody has
        self._claimed = False  # somebody has begun to, and its last piece has not come
        self._unclaimed = bytearray()  # of a message whose reader was cancelled before he had begun
        # Closing
        self._closed_here = False
        self._close_deadline: Deadline | None = None
        housekeeper.join(self._end)

    def _start(self) -> None:
        """The connection is open, and its user gets it now."""
        self._begin_keeping_alive()
        self._attended = False
        self._wake_readers()
        if self._emitter.carrying:
            self._start_reader()
        else:
            self._attend()
        self._guard(partial(self._emitter.remember, "connection"))

    def _crash_nursery(self, exc: Exception) -> None:
        async def crash() -> None:
            raise exc

        self._housekeeper.start_soon(crash, "crash of a callback")

    def _start_soon(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        async def guarded() -> None:
            try:
                await function()
            except Exception as exc:
                self._crash(exc)

        self._housekeeper.start_soon(guarded, f"{name} of {self!r}")

    # Reading

    def _prepare_to_wait(self) -> None:
        """The inbox is empty: uncork. Raises what tells that there will be no message any more."""
        if self._protocol.outgoing:
            self._flush_or_write()
        if self._protocol.state is not State.OPEN and not self._events and not self._emitter.blocked:
            raise self._end_of_messages()

    async def _advance(self) -> None:
        """One step of the reading role: deliver what is held up, or read."""
        if self._ended:
            await self._wait_reader()  # _deliver_rest() is at it.
            return
        protocol = self._protocol
        self._reading = self._active = True
        data: bytes | None = None
        try:
            if (self._transport.ready or protocol.pending) and perf_counter() - self._housekeeper.turn_started > TURN:
                await self._yield()
                if protocol.state is State.ENDED:
                    return
            if (self._emitter.blocked or self._events) and protocol.state is State.OPEN:
                if not self._emitter.deliver_nowait():
                    await self._deliver_first()
            elif protocol.pings_owed >= self._settings.max_pings_owed and not self._flush_or_write():
                # A peer that pings and does not read its pongs is not read from either.
                await self._wait_writer()
                return
            elif not protocol.pending:
                # Once it is not open any more, the end of the stream does not wait behind a full channel.
                if self._stalled:
                    self._stalled = False
                    self._reading_since = trio.current_time()
                transport = self._transport
                if not transport.ready:
                    self._wrote = False
                    await transport.wait_receive()
                    self._housekeeper.turn_started = perf_counter()
                data = transport.try_receive()
                if data == b"":
                    self._end()
        except trio.BrokenResourceError:
            self._end()
        except trio.ClosedResourceError:
            if not self._interrupted:
                self._end()
                await checkpoint_if_cancelled()  # Where the nursery is cancelled, that is all there is to say.
            self._interrupted = False
        finally:
            self._reading = False
            self._wake_readers()
        if not self._ended:
            self._take_in(data or b"")

    async def _receive_item(self, take: Callable[[], object]) -> object:
        """``receive()`` of a channel that is empty: ``take`` takes from it, or raises WouldBlock."""
        self._channel_receivers += 1
        try:
            while True:
                if self._protocol.outgoing and not self._events:
                    self._flush_or_write()
                    if self._ended:  # by that, and the channel may be too: then nobody is left to wake this task.
                        with suppress(trio.WouldBlock):
                            return take()
                if self._reading or self._protocol.state is State.CONNECTING or self._stream_comes_first():
                    await self._wait_reader()
                else:
                    await self._advance()
                with suppress(trio.WouldBlock):
                    return take()
        finally:
            self._channel_receivers -= 1
            if not self._attended:
                self._attend()

    def _stream_comes_first(self) -> bool:
        """Whether a stream is to read itself, or to be read from before anything else is."""
        stream = self._stream
        return stream is not None and (stream._waiting or stream._is_full())  # noqa: SLF001 - one engine in two modules

    def _look_again(self) -> None:
        """Have the tasks in a channel's ``receive()`` look at it again: something else than reading has changed it."""
        self._wake_readers()
        if self._channel_receivers and self._reading and not self._ended and self._delivery is None:
            self._interrupted = True
            self._transport.interrupt()

    def _channels_changed(self) -> None:
        """A channel was closed, or is not fed any more."""
        if self._delivery is not None and not self._ended:
            self._delivery.cancel()
        self._look_again()

    async def _wait_reader(self) -> None:
        if self._readers is None:
            self._readers = ParkingLot()
        await self._readers.park()

    def _wake_readers(self) -> None:
        if self._readers is not None:
            self._readers.unpark_all()

    async def _yield(self) -> None:
        await trio.lowlevel.checkpoint()
        self._housekeeper.turn_started = perf_counter()

    async def _deliver_first(self) -> None:
        self._stalled = True
        try:
            with trio.CancelScope() as self._delivery:
                await self._deliver_one()
        finally:
            self._delivery = None

    async def _deliver_one(self) -> None:
        if self._emitter.delivering:
            await self._wait_reader()
        else:
            await self._emitter.deliver_first()

    def _take_in(self, data: bytes) -> None:
        """Read ``data``, tell what it means, and answer where the protocol has answered."""
        protocol = self._protocol
        if not self._events:
            settings = self._settings
            room, room_bytes = settings.max_queue, settings.max_queue_bytes
            if self._inbox and not self._discarding:
                room = max(1, room - len(self._inbox))
                room_bytes -= self._held()
            if self._streamed:
                self._hold()
            self._events = self._read(data, max_messages=room, max_bytes=room_bytes)
            self._count(data, self._events)
        if protocol.plain and not self._discarding:
            if self._emitter.carrying:
                if self._stream is None:
                    self._events = self._emitter.feed(self._events)
            else:
                self._inbox += self._events  # type: ignore[arg-type]  # nothing but messages
                self._events = []
        try:
            if self._events:
                self._tell_events()
        finally:
            if protocol.state is not State.OPEN:
                self._advance_closing()
        if protocol.outgoing and not self._corked:
            if self._inbox:
                self._cork()
            else:
                self._flush_or_write()

    def _count(self, data: bytes, events: list[Event]) -> None:
        self._bytes_received += len(data)
        self._messages_received += len(events) if self._protocol.plain else sum(map(_ends_message, events))

    def _hold(self) -> None:
        """See that a message which may be too large to be received whole fails where somebody wants it whole only.

        Otherwise it waits, as if the inbox were full, for ``receive()`` or ``receive_stream()``.
        """
        protocol = self._protocol
        stream = self._stream
        wanted_whole = self._emitter.carrying or (stream is None and self._receiving)
        wanted = stream is not None and stream._waiting and not stream._begun  # noqa: SLF001 - one engine in two modules
        protocol.holding = self._discarding or wanted or not wanted_whole
        if self._discarding and protocol.held:
            protocol.give_pieces()

    def _tell_events(self) -> None:
        """Tell what has been read, in order, until a full channel holds it up."""
        events = self._events
        while events and not self._emitter.blocked:
            event = events.pop(0)
            if isinstance(event, (str, bytes)):
                self._deliver(event)
            elif isinstance(event, Frame):
                self._emitter.emit("frame", event)
                if self._discarding:
                    self._emitter.blocked.clear()  # Full channels do not hold up a close.
            elif isinstance(event, Pong):
                self._answered(event.payload)
            elif isinstance(event, Piece):
                self._deliver_piece(event)

    def _deliver_piece(self, piece: Piece) -> None:
        """A piece goes to who has asked for it. A message that he has left is read past; one not begun becomes whole.

        That happens where he was cancelled while a full channel of frames held up its first piece.
        """
        if self._stream is not None and self._stream._asked and not self._discarding:  # noqa: SLF001 - one engine
            self._stream._add(piece)  # noqa: SLF001 - in two modules
            self._claimed = not piece.final
        elif self._claimed or self._discarding:
            self._claimed = not piece.final
        else:
            data = piece.data
            self._unclaimed += data.encode() if isinstance(data, str) else data
            whole, limit = self._unclaimed, self._protocol.max_websocket_size
            if len(whole) > limit and self._protocol.state is State.OPEN:
                self._unclaimed = bytearray()
                self._claimed = not piece.final
                self._protocol.fail(1009, f"a message of more than {limit} bytes")
            elif piece.final:
                self._unclaimed = bytearray()
                self._deliver(whole.decode() if isinstance(data, str) else bytes(whole))

    def _deliver(self, message: str | bytes) -> None:
        """A message goes to every subscription that matches it; where there is none, it is kept for ``receive()``."""
        if self._discarding:
            return
        if self._stream is not None and not (self._stream._begun or self._inbox):  # noqa: SLF001 - as above
            self._inbox.append(message)
            return
        emitter = self._emitter
        found = False
        if isinstance(message, bytes):
            found = emitter.emit("binary", message)
        elif emitter.has("text"):
            found = emitter.emit("text", message.encode())
        found = emitter.emit("message", message) or found
        if emitter.has("json"):
            found = emitter.emit("json", UndecodedJson(message, self._settings.json)) or found
        if not found:
            self._inbox.append(message)

    def _held(self) -> int:
        """Bytes of memory that the unread messages take: of text, up to four for each byte that came."""
        return sum(map(getsizeof, self._inbox))

    def _is_full(self) -> bool:
        settings = self._settings
        if self._protocol.held and not self._emitter.carrying:
            return True
        if self._stream is not None and self._stream._is_full():  # noqa: SLF001 - as above
            return True
        return len(self._inbox) >= settings.max_queue or self._held() >= settings.max_queue_bytes

    def _attend(self) -> None:
        """Nobody is about to read. See that somebody will."""
        if self._attended or self._reading or self._ended:
            return
        if self._emitter.calling or self._pongs_awaited or self._protocol.state is not State.OPEN:
            self._start_reader()
        else:
            self._attended = True
            self._active = False
            self._grace = self._housekeeper.at(trio.current_time() + GRACE, self._grace_is_over)

    def _attend_now(self) -> None:
        """There is a reason to read."""
        self._end_grace()
        if not (self._attended or self._reading or self._ended):
            self._start_reader()

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._housekeeper.cancel(self._grace)
            self._grace = None
            self._attended = False

    def _grace_is_over(self) -> None:
        self._grace = None
        self._attended = False
        if self._active:
            self._attend()
        else:
            self._start_reader()

    def _start_reader(self) -> None:
        if self._protocol.state is State.OPEN and self._is_full():
            self._stalled = True  # Leaving receive() comes here again.
            return
        self._attended = True
        self._start_soon(self._read_in_background, "reader")

    async def _read_in_background(self) -> None:
        try:
            while not self._reading and self._goes_on_in_background():
                await self._advance()
        finally:
            self._attended = False

    def _goes_on_in_background(self) -> bool:
        if self._protocol.state is not State.OPEN:
            return not self._ended
        stream = self._stream
        if stream is not None and stream._waiting:  # noqa: SLF001 - as above
            return False
        if ((stream is None and self._receiving) or self._channel_receivers) and not self._emitter.calling:
            return False  # What was read is handed over, and with it the role.
        if self._is_full():
            self._stalled = True
            return False
        return True

    def _subscriptions_changed(self) -> None:
        emitter = self._emitter
        self._protocol.watch_frames = self._watched or emitter.has("frame")
        self._channels_changed()
        if emitter.has("drain"):
            self._write_watched = True
        if emitter.carrying:
            self._attend_now()

    # Closing

    async def _close(self, code: int | None, reason: str | None = None) -> None:
        """Begin to close, where that has not begun, and wait for the end; whoever else waits is told who began."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._discard()
        await self._wait_ended()

    def _closing_began(self) -> None:
        """Close has been sent by somebody who does not wait for the answer."""
        self._discard()
        self._attend_now()

    def _discard(self) -> None:
        """Close is on its way. What the peer sends from now on is read past every bound, and discarded."""
        self._closed_here = True
        self._discarding = True
        self._events.clear()
        self._emitter.blocked.clear()
        if self._delivery is not None:
            self._delivery.cancel()
        self._flush_or_write()
        self._advance_closing()
        self._wake_readers()

    def _close_soon(self, code: int, reason: str | None = None) -> None:
        """Begin to close, where that has not begun; do not wait."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._closing_began()

    def _advance_closing(self) -> None:
        """The connection is not open any more: bound the time, and end it as soon as all is said."""
        if self._ended:
            return
        if self._close_deadline is None:
            when = trio.current_time() + self._settings.close_timeout
            self._close_deadline = self._housekeeper.at(when, self._end)
            self._end_grace()
        if not self._flush_or_write():
            self._write_watched = True
            return
        state = self._protocol.state
        if state is State.ENDED or state is State.CLOSING:
            return
        # Section 7.1.1: the server closes the connection first. Where the peer broke a rule it may still be sending,
        # and closing a socket that has unread data resets it, which could take the Close frame from the peer: there,
        # only this half is closed, and the peer's end is awaited.
        if self._protocol.role == "server" and (state is State.CLOSED or not self._transport.resumable):
            self._end()
        elif state is State.FAILED:
            self._transport.send_eof()

    async def _wait_ended(self) -> None:
        try:
            while not self._ended:
                if self._reading:
                    await self._wait_reader()
                else:
                    await self._advance()
        finally:
            self._attend()

    def _lose(self) -> None:
        """The peer takes nothing any more. What it sent before, its Close above all, may still be in the socket."""
        settings = self._settings
        room = settings.max_queue_bytes
        self._protocol.holding = False
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while self._transport.resumable and room > 0 and self._protocol.state in LISTENING:
                data = b"" if self._protocol.pending else self._transport.try_receive()
                if not data and not self._protocol.pending:
                    break
                events = self._read(data or b"", max_messages=settings.max_queue, max_bytes=room)
                self._count(data or b"", events)
                room -= len(data or b"") + sum(map(size_of, events))
                self._events += events
        self._end()

    def _end(self) -> None:
        """The stream is over, by whatever cause. Everybody who waits is woken."""
        if self._ended:
            return
        self._ended = True
        self._protocol.end()
        for deadline in (self._grace, self._close_deadline, self._keepalive):
            if deadline is not None:
                self._housekeeper.cancel(deadline)
        self._transport.close()
        self._unsent = b""
        self._protocol.take()
        self._drain_callbacks.clear()
        for ping in self._pings.values():
            ping.answered.set()
        self._pings.clear()
        self._wake_readers()
        self._wake_writers()
        self._housekeeper.leave(self._end, self._transport)
        if self._delivery is not None:
            self._delivery.cancel()
        if self._events or self._emitter.blocked:
            self._delivery = trio.CancelScope(deadline=trio.current_time() + self._settings.close_timeout)
            self._start_soon(partial(self._deliver_rest, self._delivery), "last deliveries")
        else:
            self._guard(self._tell_finish)

    def _abandon(self) -> None:
        """End now, and wait for no channel's reader either."""
        self._end()
        if self._delivery is not None:
            self._delivery.cancel()

    async def _deliver_rest(self, scope: trio.CancelScope) -> None:
        """What was received before the end still goes to the channels, as long as a close may take."""
        try:
            with scope:
                while self._events or self._emitter.blocked:
                    if self._emitter.blocked:
                        await self._deliver_one()
                    self._guard(self._tell_events)
                    self._wake_readers()
        finally:
            while self._events:
                self._emitter.blocked.clear()  # receive() gets what is behind it.
                self._guard(self._tell_events)
            self._wake_readers()
            self._guard(self._tell_finish)

    def _tell_finish(self) -> None:
        close = self._protocol.close
        assert close is not None
        try:
            self._emitter.emit("finish", *close)
        finally:
            self._emitter.close()

    def _end_of_messages(self) -> Exception:
        """Why there is nothing more to receive."""
        close = self._protocol.close
        if not self._closed_here and close is not None and close.code in NORMAL_CODES:
            return trio.EndOfChannel(f"the peer has closed the connection with {close.code}")
        return self._closed_error()

    def _closed_error(self) -> Exception:
        """Why nothing can be sent."""
        close = self._protocol.close
        if self._closed_here or close is None:
            return trio.ClosedResourceError("this side has closed the connection")
        return ConnectionClosed(close)
