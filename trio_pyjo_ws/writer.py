"""How a connection writes.

*Write through, cork while there is more to handle.* What is to be sent collects in the protocol's ``outgoing``, and
``_flush`` hands it to the kernel without blocking. Where the kernel takes only a part, the rest is ``_unsent``, and a
writer goes on with it: the sender itself while it waits, or a task. A frame is whole in ``outgoing`` before its first
byte leaves, and what has left is never forgotten, so no cancellation can tear it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import ParkingLot, checkpoint_if_cancelled

from .wire.protocol import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from .events import Emitter
    from .housekeeper import Housekeeper
    from .transport import Transport
    from .wire.protocol import Protocol

__all__ = ["CORK_SIZE", "Writer"]

CORK_SIZE = 65_536
"""Bytes at which corked frames are written although there are more messages to handle."""


class Writer:
    """The writing half of a :class:`~trio_pyjo_ws.connection.Connection`, which says what happens when it fails."""

    __slots__ = (  # Beyond thirty attributes a dictionary takes 1.1 KiB more: a tenth of an idle connection.
        "_callbacks_running",
        "_corked",
        "_drain_callbacks",
        "_emitter",
        "_fragmenting",
        "_housekeeper",
        "_protocol",
        "_sent",
        "_transport",
        "_unsent",
        "_write_limit",
        "_write_watched",
        "_writer_runs",
        "_writers",
        "_writing",
        "_wrote",
    )

    _ended: bool
    _crash: Callable[[Exception], None]

    if TYPE_CHECKING:

        def _lose(self) -> None: ...
        def _end(self) -> None: ...
        def _advance_closing(self) -> None: ...
        def _closed_error(self) -> Exception: ...
        def _start_soon(self, function: Callable[[], Awaitable[None]], name: str) -> None: ...

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        emitter: Emitter,
        write_limit: int,
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._housekeeper = housekeeper
        self._emitter = emitter
        self._write_limit = write_limit
        self._sent = 0  # bytes handed over since the beginning
        self._unsent: bytes | memoryview = b""
        self._writing = False
        self._corked = False
        self._wrote = False  # since somebody last waited for the peer, and in this turn of the scheduler
        self._writer_runs = False
        self._writers: ParkingLot | None = None
        self._fragmenting = False  # A message is being sent in fragments, and no other may come between them.
        self._write_watched = False
        self._drain_callbacks: list[tuple[int, Callable[[], None]]] = []
        self._callbacks_running: list[Coroutine[Any, Any, object]] = []  # the asynchronous ones of these

    def _flush(self) -> bool:
        """Hand over what can be without waiting; return whether that was all."""
        if self._unsent or self._writing:
            return False
        protocol = self._protocol
        if not protocol.outgoing:
            return True
        try:
            if protocol.in_pieces:
                self._send_pieces(protocol.take_pieces())
            else:
                data = protocol.take()
                sent = self._transport.try_send(data)
                self._sent += sent
                if sent < len(data):
                    self._unsent = memoryview(data)[sent:]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lose()
            return False
        self._wrote = True
        if self._unsent:
            return False
        if self._write_watched:
            self._guard(self._tell_progress)
        return True

    def _send_pieces(self, pieces: list[bytes]) -> None:
        sent = self._transport.try_send_pieces(pieces)
        self._sent += sent
        for index, piece in enumerate(pieces):
            if sent < len(piece):
                self._unsent = memoryview(piece)[sent:]
                self._protocol.put_back(pieces[index + 1 :])
                return
            sent -= len(piece)

    def _flush_or_write(self) -> bool:
        """Hand over what can be, and have a task write the rest; return whether there is none."""
        if self._flush() or self._ended:
            return True
        if not self._writer_runs and not self._writing:
            self._writer_runs = True
            self._start_soon(self._write_in_background, "writer")
        return False

    def _cork(self) -> None:
        """Let more frames collect, for this turn of the scheduler at the most."""
        if not self._corked:
            self._corked = True
            self._housekeeper.cork(self._uncork)

    def _uncork(self) -> None:
        self._corked = False
        self._flush_or_write()
        self._wrote = False

    def _write_soon(self) -> None:
        """Write what is queued: now, or together with what else is sent in this turn of the scheduler."""
        if self._wrote and not self._unsent and self._protocol.outgoing_size < CORK_SIZE:
            self._cork()
        else:
            self._flush_or_write()

    def _queued(self) -> int:
        """Bytes that wait to be written."""
        return len(self._unsent) + self._protocol.outgoing_size

    async def _write_some(self) -> None:
        self._writing = True
        data = self._unsent or self._protocol.take()
        self._unsent = data
        try:
            sent = await self._transport.send_some(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lose()
            return
        except BaseException:
            if not self._transport.resumable:
                self._end()  # How much of the frame has left is not known.
            raise
        finally:
            self._writing = False
        self._sent += sent
        self._unsent = memoryview(data)[sent:] if sent < len(data) else b""
        self._tell_progress()

    async def _write_in_background(self) -> None:
        try:
            while self._queued() and not self._writing and not self._ended:
                await self._write_some()
        finally:
            self._writer_runs = False

    async def _wait_written(self, position: int) -> None:
        """Wait until the bytes up to ``position`` are handed over, and meanwhile be the writer where that is safe."""
        try:
            while self._sent < position:
                if self._ended:
                    await checkpoint_if_cancelled()  # Where the nursery is cancelled, that is all there is to say.
                    raise self._closed_error()
                if self._writing or not self._transport.resumable:
                    self._flush_or_write()
                    await self._wait_writer()
                else:
                    await self._write_some()
        finally:
            if self._queued():
                self._flush_or_write()

    async def _wait_turn(self) -> None:
        """Wait until the message that is being sent in pieces has ended, or the connection is not open any more."""
        while self._fragmenting and self._protocol.state is State.OPEN:
            await self._wait_writer()

    async def _wait_room(self) -> None:
        """Wait until less than the write limit is queued, or the connection is not open any more."""
        while self._queued() >= self._write_limit and self._protocol.state is State.OPEN:
            await self._wait_written(self._sent + 1)

    def _tell_progress(self) -> None:
        """The completion of a write: the one place that fires callbacks, the drain event and the waiters."""
        callbacks = self._drain_callbacks
        self._wake_writers()
        try:
            while callbacks and callbacks[0][0] <= self._sent:
                callbacks.pop(0)[1]()
            if not self._queued():
                self._emitter.emit("drain")
        finally:
            closing = self._protocol.state is not State.OPEN
            if closing and not self._queued():
                self._advance_closing()
            self._write_watched = closing or bool(callbacks) or self._emitter.has("drain")

    def _guard(self, call: Callable[[], None]) -> None:
        """Run callbacks where an exception has no caller to go to, or would tear something on its way."""
        try:
            call()
        except Exception as exc:
            self._crash(exc)

    async def _wait_writer(self) -> None:
        if self._writers is None:
            self._writers = ParkingLot()
        await self._writers.park()

    def _wake_writers(self) -> None:
        if self._writers is not None:
            self._writers.unpark_all()
