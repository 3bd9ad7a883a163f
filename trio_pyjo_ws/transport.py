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
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import trio
from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = [
    "RECEIVE_SIZE",
    "SocketTransport",
    "StreamTransport",
    "TlsTransport",
    "Transport",
    "is_eof",
    "open_transport",
]

RECEIVE_SIZE = 122_880
"""Bytes that one read asks for, and so what a connection holds of unparsed input at the most.

Just below glibc's threshold for a mapping of its own (128 KiB). Above it, a read that brings less costs 14 us more than
its system call, for mapping, unmapping and page faults: an echo of 64 KiB took 47 us with reads of 256 KiB, and 24 with
these; of 1 MiB, 383 us and 230.
"""

MAX_PIECES = 1024
"""Pieces that one system call takes: Linux' and the BSDs' IOV_MAX."""

TLS_RECORD = 16_384
"""Bytes of a record at the most (RFC 8446, section 5.1). Asking for 256 KiB costs 12 us a message: it is allocated."""

TLS_PIECE = 65_536
"""Bytes that are encrypted at a time: what the kernel does not take of them has to be kept."""

TLS_TURN = 524_288
"""Bytes that are encrypted before others have their turn: half a millisecond, where the peer takes them at once."""

TLS_OWED = 131_072
"""Bytes of ciphertext that may wait for the kernel and grow: a piece, and what TLS itself answers meanwhile."""

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
    closes_at_once: bool = False
    """Whether :meth:`close` leaves nothing to do for :meth:`aclose`."""
    local: tuple[str | None, int | None] = _NO_ADDRESS
    remote: tuple[str | None, int | None] = _NO_ADDRESS

    async def do_handshake(self) -> None:
        """Shake hands for TLS, where there is TLS; the first thing to do with a transport."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Hand ``data`` over without blocking; return how many bytes were taken, 0 where none can be now."""
        raise NotImplementedError

    def try_send_pieces(self, pieces: list[bytes]) -> int:
        """:meth:`try_send` of all the pieces together; where that can be, without joining them."""
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
        """What has arrived, without waiting: ``b""`` at the end of the stream, None where there is nothing."""
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
    closes_at_once = True

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
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
            if self._fd != -1 and (sent := self.try_send(data)):
                return sent

    async def _wait_send(self) -> None:
        if self._fd == -1:
            await _wait_closed()
        # It is closed, which the next call tells, or interrupt() has woken this task, too.
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(self._fd)

    def interrupt(self) -> None:
        trio.lowlevel.notify_closing(self._fd)

    def try_receive(self) -> bytes | None:
        try:
            data = self._recv(RECEIVE_SIZE)
        except BlockingIOError:
            self.ready = False
            return None
        except OSError as exc:
            raise _broken(exc) from exc
        self.ready = len(data) == RECEIVE_SIZE
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


class TlsTransport(SocketTransport):
    """TLS on a socket of our own, by the standard library's ``SSLContext.wrap_bio``.

    ``trio.SSLStream`` meets the scheduler several times for each record; this meets it where a socket would. What it
    promises is what ``trio.SSLStream(https_compatible=True)`` does: certificates and host names are verified as the
    context says, and a stream that ends without close_notify has ended: that it was cut short shows where it matters,
    one layer up, by the Close that did not come. Beyond that, close_notify is sent, and not waited for.

    The theory: the TLS object turns plaintext into ciphertext and back between two buffers in memory. What it wants to
    say goes from ``_outgoing`` to ``_encrypted`` and from there to the kernel, in this order and never twice, so no
    cancellation tears a record: it is only known later that it has left. What the kernel has goes to ``_incoming`` only
    when the TLS object has used up what is there, and it is read by whole records, so it holds nothing back itself.
    """

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        super().__init__(sock)
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._more = False  # The kernel had more than was read at last.
        self._at_end = False
        # What is encrypted and not taken by the kernel yet, and how many bytes of the caller's that stands for: they
        # count as sent when all of it is gone. Until then the caller comes with them again, in portions of its own.
        self._encrypted: bytes | memoryview = b""
        self._ahead = 0
        # A handshake in the middle of the connection: nothing can be sent until more has been read.
        self._reader_first = False
        self._read = ParkingLot()

    async def do_handshake(self) -> None:
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._flush_all()
                    await self.wait_receive()
                    self._receive_encrypted()
        except ssl.SSLError as exc:
            self._flush_quietly()  # the alert that tells the peer why
            raise self._failure(exc) from exc
        if self._tls.server_side and self._tls.version() == "TLSv1.3":
            # Only session tickets are left to say. They go with the first answer, as BoringSSL and trio do it: a
            # client that just sends and closes would reset the connection (https://github.com/openssl/openssl/issues/7948).
            self._collect()
        else:
            await self._flush_all()
        self.ready = True  # What came behind the handshake may have been read with it.

    def try_send(self, data: bytes | memoryview) -> int:
        if self._ahead and not self._flush():
            return 0
        sent = min(self._ahead, len(data))
        self._ahead -= sent
        view = memoryview(data)
        end = min(len(data), sent + TLS_TURN)
        while sent < end:
            try:
                size = self._tls.write(view[sent : sent + TLS_PIECE])
            except ssl.SSLWantReadError:
                self._reader_first = True
                self._flush()
                break
            except ssl.SSLError as exc:
                raise self._failure(exc) from exc
            if not self._flush():
                self._ahead = size
                break
            sent += size
        return sent

    def try_send_pieces(self, pieces: list[bytes]) -> int:
        room = TLS_TURN  # What would be joined beyond that is not taken now.
        taken: list[memoryview] = []
        for piece in pieces:
            taken.append(memoryview(piece)[:room])
            room -= len(taken[-1])
        return self.try_send(b"".join(taken))

    async def _wait_send(self) -> None:
        if self._fd != -1 and self._reader_first and not self._encrypted:
            await self._read.park()
        else:
            await super()._wait_send()

    def try_receive(self) -> bytes | None:
        if not (self._incoming.pending or self._at_end) and self._receive_encrypted() is None:
            return None
        data: bytes | None = None
        try:
            data = self._tls.read(TLS_RECORD)
        except ssl.SSLWantReadError:
            pass  # Half a record, or nothing for the application.
        except ssl.SSLError as exc:
            if not is_eof(exc):
                raise self._failure(exc) from exc
            data = b""
        self._at_end = data == b""  # After close_notify the socket may stay open.
        self.ready = self._more or self._at_end or self._incoming.pending > 0
        if self._outgoing.pending:
            # An answer of TLS itself: to a request for a certificate, to a renegotiation.
            self._flush_quietly()
            if len(self._encrypted) > TLS_OWED:
                raise trio.BrokenResourceError("TLS: the peer wants answers and does not read them")
        if self._reader_first:
            self._reader_first = False
            self._read.unpark_all()
        return data

    def _receive_encrypted(self) -> bytes | None:
        encrypted = super().try_receive()
        self._more = self.ready
        if encrypted:
            self._incoming.write(encrypted)
        elif encrypted is not None:
            self._incoming.write_eof()
        return encrypted

    def _collect(self) -> None:
        if self._outgoing.pending:
            fresh = self._outgoing.read()
            self._encrypted = b"".join((self._encrypted, fresh)) if self._encrypted else fresh

    def _flush(self) -> bool:
        """Hand over what is encrypted, as far as the kernel takes it; return whether that was all."""
        self._collect()
        if not self._encrypted:
            return True
        sent = super().try_send(self._encrypted)
        self._encrypted = memoryview(self._encrypted)[sent:] if sent < len(self._encrypted) else b""
        return not self._encrypted

    def _flush_quietly(self) -> None:
        """Flush where a peer that is gone is no news, or comes up at the next reading or writing."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._flush()

    async def _flush_all(self) -> None:
        while not self._flush():
            await trio.lowlevel.wait_writable(self._fd)

    def _notify_close(self) -> None:
        """Send close_notify behind what is encrypted. The peer's is not waited for."""
        # unwrap() would look for it at once; anything else that it found instead would break the reading for good.
        unread = self._incoming.read()
        with suppress(ssl.SSLError):  # SSLWantReadError, where all is well
            self._tls.unwrap()
        if unread:
            self._incoming.write(unread)
        self._flush_quietly()

    def send_eof(self) -> None:
        self._notify_close()
        super().send_eof()

    def close(self) -> None:
        if self._fd != -1:
            self._notify_close()
            self._incoming.read()
            self._at_end = False
            super().close()
            self._read.unpark_all()

    def _failure(self, exc: ssl.SSLError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._fd == -1:
            return trio.ClosedResourceError("the socket is closed")
        return trio.BrokenResourceError(f"TLS: {exc}")


class StreamTransport(Transport):
    """Any trio stream: TLS, a pipe, a tunnel, a stream of a test's."""

    resumable = False

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._closed = False
        self._received: bytes | None = None
        self._waiting = trio.CancelScope()
        self.ready = False
        self.local, self.remote = _stream_addresses(stream)

    async def do_handshake(self) -> None:
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()

    def try_send(self, data: bytes | memoryview) -> int:
        return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        await self._stream.send_all(data)
        return len(data)

    async def wait_receive(self) -> None:
        with trio.CancelScope() as self._waiting:
            self._received = bytes(await self._stream.receive_some(RECEIVE_SIZE))

    def interrupt(self) -> None:
        self._waiting.cancel()

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
    """The transport over ``stream``, which belongs to the transport from now on.

    The socket of a SocketStream is taken over, also beneath an SSLStream that has not begun its handshake.
    """
    if type(stream) is trio.SocketStream:
        return SocketTransport(_take_socket(stream))
    if type(stream) is trio.SSLStream and type(stream.transport_stream) is trio.SocketStream and _is_fresh(stream):
        return _take_tls(stream)
    return StreamTransport(stream)


def _take_tls(stream: trio.SSLStream[trio.SocketStream]) -> TlsTransport:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    # Before the socket is taken, for this may raise.
    tls = stream.context.wrap_bio(
        incoming,
        outgoing,
        server_side=stream.server_side,
        server_hostname=stream.server_hostname,
        session=stream.session,
    )
    return TlsTransport(_take_socket(stream.transport_stream), tls, incoming, outgoing)


def _take_socket(stream: trio.SocketStream) -> socket.socket:
    trio_socket = stream.socket
    family, kind, protocol = trio_socket.family, trio_socket.type, trio_socket.proto
    # Options that SocketStream has set (TCP_NODELAY, TCP_NOTSENT_LOWAT) stay with the descriptor.
    sock = socket.socket(family, kind, protocol, fileno=trio_socket.detach())
    sock.setblocking(False)
    return sock


def _is_fresh(stream: trio.SSLStream[Any]) -> bool:
    try:
        stream.cipher()
    except trio.NeedHandshakeError:
        return True
    return False


def _stream_addresses(stream: Any) -> tuple[tuple[str | None, int | None], tuple[str | None, int | None]]:
    """The addresses of the socket beneath, where there is one: SSLStream's transport_stream, SocketStream's socket."""
    while hasattr(stream, "transport_stream"):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):
            return _address(stream.socket.getsockname()), _address(stream.socket.getpeername())
    return _NO_ADDRESS, _NO_ADDRESS


def is_eof(exc: ssl.SSLError) -> bool:
    """Whether the peer has ended the stream, with close_notify or without."""
    # Python 3.10 gives the plain SSLError for the end without close_notify (trio's _ssl.py knows the same).
    return isinstance(exc, (ssl.SSLZeroReturnError, ssl.SSLEOFError)) or exc.reason == "UNEXPECTED_EOF_WHILE_READING"


async def _wait_closed() -> NoReturn:
    raise trio.ClosedResourceError("the socket is closed")


def _broken(exc: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    if exc.errno == errno.EBADF:
        return trio.ClosedResourceError("the socket is closed")
    return trio.BrokenResourceError(f"socket connection broken: {exc}")
