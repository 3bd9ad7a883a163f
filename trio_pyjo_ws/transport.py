"""A socket, or any trio stream, behind one small interface.

A checkpoint in trio costs about 3 us, a trip through ``SocketStream`` several times its two system calls. So over plain
TCP (and Unix sockets) the transport takes the descriptor over from the stream and calls the kernel itself, without
blocking: a message that fits into the socket's buffer is written by one system call in the caller's task, and reading
waits in the scheduler only when there is nothing to read. Every other stream is used through its own methods, so a
transport over it is never ready at once: ``try_send`` takes nothing and ``try_receive`` has nothing.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["RECEIVE_SIZE", "SocketTransport", "StreamTransport", "Transport", "open_transport"]

RECEIVE_SIZE = 65_536
"""Bytes that one read asks for, and so what a connection holds of unparsed input at the most."""

LARGE_RECEIVE_SIZE = 262_144
"""Bytes that one read asks for once a read came back full: large messages want few, large pieces."""

_NO_ADDRESS: tuple[str | None, int | None] = (None, None)


def _address(name: object) -> tuple[str | None, int | None]:
    """Host and port of a socket's name; the path and no port of a Unix socket's."""
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    return (name if isinstance(name, str) and name else None), None


class Transport:
    """What the runtime needs of the bytes' way to the peer. All errors are :class:`trio.BrokenResourceError`."""

    ready: bool
    """Whether :meth:`try_receive` is worth a try before :meth:`wait_receive`."""
    resumable: bool
    """Whether a cancelled :meth:`send_some` leaves it known how much was sent."""
    local: tuple[str | None, int | None] = _NO_ADDRESS
    remote: tuple[str | None, int | None] = _NO_ADDRESS

    def try_send(self, data: bytes | memoryview) -> int:
        """Hand ``data`` over without blocking; return how many bytes were taken, 0 where none can be now."""
        raise NotImplementedError

    async def send_some(self, data: bytes | memoryview) -> int:
        """Wait until something can be sent, send it, return how many bytes were taken. Always a checkpoint."""
        raise NotImplementedError

    def wait_receive(self) -> Awaitable[object]:
        """Wait until there is something for :meth:`try_receive`. Always a checkpoint. Cancelling it loses nothing."""
        raise NotImplementedError

    def try_receive(self) -> bytes | None:
        """What has arrived, without waiting: ``b""`` at the end of the stream, None where there is nothing."""
        raise NotImplementedError

    async def receive(self) -> bytes:
        """Wait for bytes and return them; ``b""`` at the end of the stream. Always a checkpoint."""
        while True:
            await self.wait_receive()
            data = self.try_receive()
            if data is not None:
                return data

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``. A checkpoint where it has to wait."""
        sent = self.try_send(data)
        while sent < len(data):
            sent += await self.send_some(memoryview(data)[sent:])

    def send_eof(self) -> None:
        """Tell the peer that nothing more comes, where that can be done without waiting."""
        raise NotImplementedError

    def close(self) -> None:
        """Close at once. Whoever waits in this transport wakes with :class:`trio.ClosedResourceError`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Finish what :meth:`close` could not do without waiting; a checkpoint only where there is such a thing."""
        raise NotImplementedError


class SocketTransport(Transport):
    """A connected, non-blocking stream socket of our own."""

    resumable = True

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._size = RECEIVE_SIZE
        # A read that came back short has emptied the socket's buffer: asking again before the kernel says so would
        # cost a system call for EAGAIN, in the most common case of all (one message in flight).
        self.ready = True
        # No coroutine of our own around it: each costs 0.15 us a message.
        self.wait_receive = partial(trio.lowlevel.wait_readable, self._fd)  # type: ignore[method-assign]
        with suppress(OSError):
            self.local = _address(sock.getsockname())
            self.remote = _address(sock.getpeername())

    def try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _broken(exc) from exc

    async def send_some(self, data: bytes | memoryview) -> int:
        while True:
            if self._fd == -1:
                await _wait_closed()
            await trio.lowlevel.wait_writable(self._fd)
            if sent := self.try_send(data):
                return sent

    def try_receive(self) -> bytes | None:
        try:
            data = self._recv(self._size)
        except BlockingIOError:
            self.ready = False
            return None
        except OSError as exc:
            raise _broken(exc) from exc
        size = len(data)
        self.ready = size == self._size
        self._size = RECEIVE_SIZE if size < RECEIVE_SIZE else LARGE_RECEIVE_SIZE
        return data

    def send_eof(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._fd != -1:
            trio.lowlevel.notify_closing(self._fd)
            self._sock.close()
            # Whoever opens something next is given the number: never wait on it again.
            self._fd = -1
            self.wait_receive = _wait_closed  # type: ignore[method-assign]

    async def aclose(self) -> None:
        self.close()


class StreamTransport(Transport):
    """Any trio stream: TLS, a pipe, a tunnel, a stream of a test's."""

    resumable = False

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._closed = False
        self._received: bytes | None = None
        self.ready = False
        self.local, self.remote = _stream_addresses(stream)

    def try_send(self, data: bytes | memoryview) -> int:
        return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        await self._stream.send_all(data)
        return len(data)

    async def wait_receive(self) -> None:
        self._received = bytes(await self._stream.receive_some(RECEIVE_SIZE))

    def try_receive(self) -> bytes | None:
        data, self._received = self._received, None
        return data

    def send_eof(self) -> None:
        pass  # send_eof() of a stream is a checkpoint; the stream is closed as a whole instead.

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            # It does not wait; but a Cancelled out of it would keep the caller from closing the next.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)


def open_transport(stream: trio.abc.Stream) -> Transport:
    """The transport over ``stream``, which belongs to the transport from now on."""
    if type(stream) is trio.SocketStream:
        trio_socket = stream.socket
        family, kind, protocol = trio_socket.family, trio_socket.type, trio_socket.proto
        # Options that SocketStream has set (TCP_NODELAY, TCP_NOTSENT_LOWAT) stay with the descriptor.
        sock = socket.socket(family, kind, protocol, fileno=trio_socket.detach())
        sock.setblocking(False)
        return SocketTransport(sock)
    return StreamTransport(stream)


def _stream_addresses(stream: Any) -> tuple[tuple[str | None, int | None], tuple[str | None, int | None]]:
    """The addresses of the socket beneath, where there is one: SSLStream's transport_stream, SocketStream's socket."""
    while hasattr(stream, "transport_stream"):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):
            return _address(stream.socket.getsockname()), _address(stream.socket.getpeername())
    return _NO_ADDRESS, _NO_ADDRESS


async def _wait_closed() -> NoReturn:
    raise trio.ClosedResourceError("the socket is closed")


def _broken(exc: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    if exc.errno == errno.EBADF:
        return trio.ClosedResourceError("the socket is closed")
    return trio.BrokenResourceError(f"socket connection broken: {exc}")
