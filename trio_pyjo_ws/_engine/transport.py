# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
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
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from .sockets import RECEIVE_SIZE, Socket
from .tls_info import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .tls_info import TlsInfo

__all__ = ["SocketTransport", "StreamTransport", "Transport", "take_socket"]

MAX_PIECES = 1024
"""Pieces that one system call takes: Linux' and the BSDs' IOV_MAX."""

_NO_ADDRESS: tuple[str | None, int | None] = (None, None)


def _address(name: object) -> tuple[str | None, int | None]:
    """Host and port of a socket's name; the path and no port of a Unix socket's."""
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    return (name if isinstance(name, str) and name else None), None


class Transport:
    """What the runtime needs of the bytes' way to the peer. All errors are :class:`trio.BrokenResourceError`."""

    ready = False
    """Whether :meth:`try_receive` is worth a try before :meth:`wait_receive`."""
    resumable = False
    """Whether a cancelled :meth:`send_some` leaves it known how much was sent."""
    fd = -1
    """The socket's descriptor, if the bytes go by a socket of our own."""
    gone = False
    """Whether the end of the stream may be behind what there is to receive."""
    closes_at_once = False
    """Whether :meth:`close` leaves nothing to do for :meth:`aclose`."""
    local = _NO_ADDRESS
    remote = _NO_ADDRESS
    tls_info: TlsInfo | None = None
    """What TLS has agreed on, once it has shaken hands."""

    def note_edge(self, gone: bool) -> None:
        """There may be something to receive; if the peer is ``gone``, the end behind it."""
        self.ready = True
        self.gone = self.gone or gone

    def check_frames(self, what: str) -> None:
        """Raise RuntimeError, which names ``what``, unless frames go by here as they are."""

    async def do_handshake(self) -> None:
        """Shake hands for TLS, if there is TLS; the first thing to do with a transport."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Hand ``data`` over without blocking; return how many bytes were taken, 0 if none can be now."""
        raise NotImplementedError

    def try_send_pieces(self, pieces: list[bytes]) -> int:
        """:meth:`try_send` of all the pieces together, without joining them if possible."""
        return self.try_send(b"".join(pieces))

    async def send_some(self, data: bytes | memoryview) -> int:
        """Wait until something can be sent, send it, return how many bytes were taken. Always a checkpoint."""
        raise NotImplementedError

    def wait_receive(self) -> Awaitable[object]:
        """Wait until there is something for :meth:`try_receive`. Always a checkpoint. Cancelling it loses nothing."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Have the task in :meth:`wait_receive` return, or raise :class:`trio.ClosedResourceError`."""
        raise NotImplementedError

    def try_receive(self) -> bytes | None:
        """What has arrived, without waiting: ``b""`` at the end of the stream, None if there is nothing."""
        raise NotImplementedError

    async def receive_before_tls(self, size: int) -> bytes:
        """Wait for bytes that come before TLS, if there is TLS, and return at most ``size``; ``b""`` at the end.

        The first thing to do with a transport. A checkpoint if it has to wait.
        """
        raise NotImplementedError

    async def receive(self) -> bytes:
        """Wait for bytes and return them; ``b""`` at the end of the stream. Always a checkpoint."""
        while True:
            if self.ready:
                await trio.lowlevel.checkpoint()
            else:
                await self.wait_receive()
            data = self.try_receive()
            if data is not None:
                return data

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``. A checkpoint if it has to wait."""
        sent = self.try_send(data)
        while sent < len(data):
            sent += await self.send_some(memoryview(data)[sent:])

    def send_eof(self) -> None:
        """Tell the peer that nothing more comes, if that can be done without waiting."""
        raise NotImplementedError

    def close(self) -> None:
        """Close at once. Whoever waits in this transport wakes with :class:`trio.ClosedResourceError`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Finish what :meth:`close` could not do without waiting; a checkpoint only if there is something left."""
        raise NotImplementedError


class SocketTransport(Transport):
    """A connected, non-blocking stream socket of our own."""

    resumable = True
    closes_at_once = True

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._socket = Socket(sock)
        self.fd = sock.fileno()
        # A read that came back short has emptied the socket's buffer: asking again before the kernel says so would
        # cost a system call for EAGAIN, in the most common case of all (one message in flight).
        self.ready = True
        self.local = self.remote = _NO_ADDRESS
        with suppress(OSError):
            self.local = _address(sock.getsockname())
            self.remote = _address(sock.getpeername())

    def try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except OSError as exc:
            raise _broken(exc) from exc

    def try_send_pieces(self, pieces: list[bytes]) -> int:
        try:
            return self._sock.sendmsg(pieces[:MAX_PIECES])
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _broken(exc) from exc

    async def send_some(self, data: bytes | memoryview) -> int:
        while True:
            await self._wait_send()
            if self.fd != -1 and (sent := self.try_send(data)):
                return sent

    async def _wait_send(self) -> None:
        if self.fd == -1:
            await _wait_closed()
        # It is closed, which the next call tells, or interrupt() has woken this task, too.
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(self.fd)

    def wait_receive(self) -> Awaitable[object]:
        # The caller awaits it: no coroutine of our own around it, for each costs 0.15 us a message.
        return _wait_closed() if self.fd == -1 else trio.lowlevel.wait_readable(self.fd)  # noqa: ASYNC105

    def interrupt(self) -> None:
        trio.lowlevel.notify_closing(self.fd)

    def try_receive(self) -> bytes | None:
        try:
            data = self._socket.receive()
        except OSError as exc:
            raise _broken(exc) from exc
        # The peer's end is reported only once, so read on until it is found.
        self.ready = data is not None and (len(data) == RECEIVE_SIZE or self.gone)
        return data

    async def receive_before_tls(self, size: int) -> bytes:
        while (data := self._receive_some(size)) is None:
            await trio.lowlevel.wait_readable(self.fd)
        return data

    def _receive_some(self, size: int) -> bytes | None:
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise _broken(exc) from exc

    def send_eof(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self.fd != -1:
            trio.lowlevel.notify_closing(self.fd)
            self._socket.close()
            # Whoever opens something next is given the number: never wait on it again.
            self.fd = -1

    async def aclose(self) -> None:
        self.close()


class StreamTransport(Transport):
    """Any trio stream: TLS, a pipe, a tunnel, a stream of a test's."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._closed = False
        self._received: bytes | None = None
        self._waiting = trio.CancelScope()
        self.local, self.remote = _stream_addresses(stream)

    async def do_handshake(self) -> None:
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()
            self.tls_info = describe(self._stream)  # now: the stream forgets it when it is closed

    def try_send(self, data: bytes | memoryview) -> int:
        return 0

    def try_send_pieces(self, pieces: list[bytes]) -> int:
        return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        await self._stream.send_all(data)
        return len(data)

    async def receive_before_tls(self, size: int) -> bytes:
        stream = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return bytes(await stream.receive_some(size))

    async def wait_receive(self) -> None:
        with trio.CancelScope() as self._waiting:
            self._received = bytes(await self._stream.receive_some(RECEIVE_SIZE))
            self.ready = True  # There may be no room for it now: it is here until it is taken.

    def interrupt(self) -> None:
        self._waiting.cancel()

    def try_receive(self) -> bytes | None:
        data, self._received = self._received, None
        self.ready = False
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


def take_socket(stream: trio.SocketStream) -> socket.socket:
    trio_socket = stream.socket
    family, kind, protocol = trio_socket.family, trio_socket.type, trio_socket.proto
    # Options that SocketStream has set (TCP_NODELAY, TCP_NOTSENT_LOWAT) stay with the descriptor.
    sock = socket.socket(family, kind, protocol, fileno=trio_socket.detach())
    sock.setblocking(False)
    return sock


def _stream_addresses(stream: Any) -> tuple[tuple[str | None, int | None], tuple[str | None, int | None]]:
    """The addresses of the socket beneath, if there is one: SSLStream's transport_stream, SocketStream's socket."""
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
