"""Streams that fault on purpose: in small pieces, stalled, ended or reset at the byte that the test says.

A stream has two directions, and each has its own :class:`Faults`. Their places are counted in bytes that have passed
in that direction since the stream was made, so a test can walk through a session and break it at every byte.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from operator import index
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Faults", "FaultyStream"]


class Faults:
    """What goes wrong in one direction of a :class:`FaultyStream`.

    ``chunk_size``: the most bytes that pass at a time. ``stall_at``: after so many bytes nothing passes until
    :meth:`release`. ``eof_at``: after so many bytes the stream ends. ``reset_at``: after so many bytes the connection
    breaks, in both directions. None: never. If a stall is at the same byte as another, it comes first.
    """

    def __init__(
        self,
        *,
        chunk_size: int | None = None,
        stall_at: int | None = None,
        eof_at: int | None = None,
        reset_at: int | None = None,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, not {chunk_size!r}")
        for name, position in (("stall_at", stall_at), ("eof_at", eof_at), ("reset_at", reset_at)):
            if position is not None and position < 0:
                raise ValueError(f"{name} must be a number of bytes, at least 0, not {position!r}")
        self.passed = 0
        """Bytes that have passed."""
        self._chunk_size = chunk_size
        self._stall_at = stall_at
        self._eof_at = eof_at
        self._reset_at = reset_at
        self._waiting = ParkingLot()
        self._busy = False

    def __repr__(self) -> str:
        return f"<Faults: {self.passed} bytes have passed{', stalled' if self.stalled else ''}>"

    @property
    def stalled(self) -> bool:
        """Whether nothing passes now."""
        return self._has_reached(self._stall_at)

    def stall(self) -> None:
        """Let nothing pass from now on."""
        self._stall_at = self.passed

    def release(self) -> None:
        """End the stall, or cancel the coming one."""
        self._stall_at = None
        self._waiting.unpark_all()

    def _has_reached(self, position: int | None) -> bool:
        return position is not None and self.passed >= position

    def _room(self) -> int:
        """Bytes that may pass at a time; none at the end."""
        positions = (self._stall_at, self._eof_at, self._reset_at)
        room = min((position - self.passed for position in positions if position is not None), default=sys.maxsize)
        return min(room, self._chunk_size or room)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if self._busy:
            raise trio.BusyResourceError("another task is using this direction of the stream")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


class FaultyStream(trio.abc.HalfCloseableStream):
    """A stream that passes everything on to ``stream`` and back, and faults as ``send`` and ``receive`` say.

    Use it wherever a stream goes: in ``connect(stream=)``, ``open_memory_pair(streams=)``, ``serve_memory``'s
    connections. To have TLS meet the faults, put the :class:`trio.SSLStream` around it. Closing it closes ``stream``.

    A send that stalls in the middle, or is cancelled there, has passed on what came before. If the connection is
    reset, both directions raise :class:`trio.BrokenResourceError`, and ``stream`` is closed. If the sending
    direction ends, the peer gets the end of the stream, and sending raises :class:`trio.BrokenResourceError`.
    """

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, *, send: Faults | None = None, receive: Faults | None = None
    ) -> None:
        self.stream: trio.abc.HalfCloseableStream = stream
        """The stream beneath."""
        self.sending: Faults = send or Faults()
        """The faults of what is sent."""
        self.receiving: Faults = receive or Faults()
        """The faults of what is received."""
        self._received: memoryview | None = None  # from the stream beneath, and not passed yet; empty at its end
        self._send_ended = False
        self._broken = False
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``, in the pieces that the faults allow."""
        faults = self.sending
        with faults._exclusively(), self._translated():
            await trio.lowlevel.checkpoint()
            left = memoryview(data)
            await self._pass_stall(faults)
            while left:
                if self._send_ended:
                    raise trio.BrokenResourceError(f"the stream was ended after {faults.passed} bytes")
                piece = left[: faults._room()]
                await self.stream.send_all(piece)
                await self._note(faults, len(piece))
                left = left[len(piece) :]
                if left:
                    await self._pass_stall(faults)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a send might pass."""
        with self.sending._exclusively(), self._translated():
            await self._pass_stall(self.sending)
            await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """End the sending direction, after the stall if there is one."""
        with self.sending._exclusively(), self._translated():
            await self._pass_stall(self.sending)
            await self.stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive some bytes, as many as the faults allow; ``b""`` at the end. Cancelling it loses nothing."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}")
        faults = self.receiving
        with faults._exclusively(), self._translated():
            await trio.lowlevel.checkpoint()
            await self._pass_stall(faults)
            if not faults._room():
                return b""
            if self._received is None:
                self._received = memoryview(await self.stream.receive_some())
                await self._pass_stall(faults)  # It may have begun in the meantime.
            received = self._received
            size = min(len(received), faults._room(), max_bytes or sys.maxsize)
            if received:
                self._received = received[size:] or None
            await self._note(faults, size)
            return bytes(received[:size])

    async def aclose(self) -> None:
        """Close this stream and the one beneath; no fault holds that up."""
        self._closed = True
        self._wake()
        await self.stream.aclose()

    async def _pass_stall(self, faults: Faults) -> None:
        while not self._closed and not self._broken and faults.stalled:
            await faults._waiting.park()
        await self._note(faults, 0)
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._broken:
            raise trio.BrokenResourceError("the connection is reset")

    async def _note(self, faults: Faults, size: int) -> None:
        """So many bytes have passed: end the stream, or break it, if that is due."""
        faults.passed += size
        if faults.stalled or self._closed or self._broken:
            return
        if faults._has_reached(faults._reset_at):
            self._broken = True
            self._wake()
            with trio.CancelScope(shield=True):  # It does not wait; and what has been received is not lost here.
                await trio.aclose_forcefully(self.stream)
        elif faults is self.sending and not self._send_ended and faults._has_reached(faults._eof_at):
            self._send_ended = True
            with trio.CancelScope(shield=True):
                await self.stream.send_eof()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """A reset has closed the stream beneath, and is not this side's closing."""
        try:
            yield
        except trio.ClosedResourceError:
            if self._closed or not self._broken:
                raise
            raise trio.BrokenResourceError("the connection is reset") from None

    def _wake(self) -> None:
        self.sending._waiting.unpark_all()
        self.receiving._waiting.unpark_all()
