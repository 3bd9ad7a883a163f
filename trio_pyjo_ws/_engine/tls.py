"""TLS on a socket of our own; and which transport a stream gets.

A ``trio.SSLStream`` over TCP that has not begun its handshake gives its socket away, and TLS runs in the turns of the
connection.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import ParkingLot

from .tls_info import describe
from .transport import SocketTransport, StreamTransport, take_socket

if TYPE_CHECKING:
    import socket

    from .transport import Transport

__all__ = ["TlsTransport", "is_eof", "open_transport"]

TLS_RECORD = 16_384
"""Bytes of a record at the most (RFC 8446, section 5.1). Asking for 256 KiB would cost 12 us a message, because
that much is allocated."""

TLS_HEADER = 5
"""Bytes of a record's header, of which the last two give the length of what follows."""

TLS_RECORDS = 32
"""Records that TLS is given at a time. One call takes all of them that say nothing to the application, such as key
updates, and each of these takes up to 20 us."""

TLS_PIECE = 65_536
"""Bytes that are encrypted at a time: what the kernel does not take of them has to be kept."""

TLS_TURN = 524_288
"""Bytes that are encrypted before others have their turn: half a millisecond, if the peer takes them at once."""

TLS_OWED = 131_072
"""Bytes of ciphertext that may wait for the kernel and grow: a piece, and what TLS itself answers meanwhile."""


class TlsTransport(SocketTransport):
    """TLS on a socket of our own, by the standard library's ``SSLContext.wrap_bio``.

    ``trio.SSLStream`` meets the scheduler several times for each record; this meets it as often as a socket does. It
    promises what ``trio.SSLStream(https_compatible=True)`` does: certificates and host names are verified as the
    context says, and a stream that ends without close_notify has ended. One layer up, the Close that did not come shows
    that it was cut short. Beyond that, close_notify is sent, and not waited for.

    The theory: the TLS object turns plaintext into ciphertext and back between two buffers in memory. What it wants to
    say goes from ``_outgoing`` to ``_encrypted`` and from there to the kernel, in this order and never twice, so no
    cancellation tears a record: it is only known later that it has left. What was read goes to ``_received``, and from
    there to ``_incoming``, a few records at a time, when the TLS object has used up what is there. It is read by whole
    records, so it holds nothing back itself.
    """

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        super().__init__(sock)
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._more = False  # The kernel had more than was read at last.
        self._received = b""
        self._position = 0  # from where on it is not in ``_incoming``
        self._missing = 0  # bytes that are still to come of the record that ``_incoming`` has last
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
                    if self._has_records():
                        await trio.lowlevel.checkpoint()
                    else:
                        await self.wait_receive()
                    self._receive_encrypted()
        except ssl.SSLError as exc:
            self._flush_quietly()  # the alert that tells the peer why
            raise self._failure(exc) from exc
        self.tls_info = describe(self._tls)
        if self._tls.server_side and self.tls_info.version == "TLSv1.3":
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
        if self.fd != -1 and self._reader_first and not self._encrypted:
            await self._read.park()
        else:
            await super()._wait_send()

    def try_receive(self) -> bytes | None:
        if not (self._incoming.pending or self._at_end or self._receive_encrypted()):
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
        self.ready = self._more or self._at_end or self._incoming.pending > 0 or self._has_records()
        if self._outgoing.pending:
            # An answer of TLS itself: to a request for a certificate, to a renegotiation.
            self._flush_quietly()
            if len(self._encrypted) > TLS_OWED:
                raise trio.BrokenResourceError("TLS: the peer wants answers and does not read them")
        if self._reader_first:
            self._reader_first = False
            self._read.unpark_all()
        return data

    def _receive_encrypted(self) -> bool:
        """Give TLS more of what the peer has sent, or the end of it; return whether there was either."""
        if not self._has_records():
            encrypted = super().try_receive()
            self._more = self.ready
            if encrypted is None:
                return False
            self._received = self._received[self._position :] + encrypted
            self._position = 0
            if not encrypted:
                self._incoming.write(self._received)
                self._incoming.write_eof()
                return True
        self._feed()
        return True

    def _has_records(self) -> bool:
        left = len(self._received) - self._position
        return left >= TLS_HEADER or 0 < left <= self._missing

    def _feed(self) -> None:
        received = self._received
        start = self._position
        end = min(start + self._missing, len(received))
        self._missing -= end - start
        for _ in range(TLS_RECORDS):
            if len(received) - end < TLS_HEADER:
                break  # Perhaps it is in the middle of a record.
            body = end + TLS_HEADER
            record = body + int.from_bytes(received[body - 2 : body], "big")
            end = min(record, len(received))
            self._missing = record - end
        self._incoming.write(received[start:end])
        self._position = end

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
        """Flush, and ignore a peer that is gone: the next read or write reports it."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._flush()

    async def _flush_all(self) -> None:
        while not self._flush():
            await trio.lowlevel.wait_writable(self.fd)

    def _notify_close(self) -> None:
        """Send close_notify behind what is encrypted. The peer's is not waited for."""
        # unwrap() would look for it at once; anything else that it found instead would break the reading for good.
        unread = self._incoming.read()
        with suppress(ssl.SSLError):  # SSLWantReadError if all is well
            self._tls.unwrap()
        if unread:
            self._incoming.write(unread)
        self._flush_quietly()

    def send_eof(self) -> None:
        self._notify_close()
        super().send_eof()

    def close(self) -> None:
        if self.fd != -1:
            self._notify_close()
            self._incoming.read()
            self._received = b""
            self._position = 0
            self._at_end = False
            super().close()
            self._read.unpark_all()

    def _failure(self, exc: ssl.SSLError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self.fd == -1:
            return trio.ClosedResourceError("the socket is closed")
        return trio.BrokenResourceError(f"TLS: {exc}")


def open_transport(stream: trio.abc.Stream) -> Transport:
    """The transport over ``stream``, which belongs to the transport from now on.

    The socket of a SocketStream is taken over, also beneath an SSLStream that has not begun its handshake.
    """
    if type(stream) is trio.SocketStream:
        return SocketTransport(take_socket(stream))
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
    return TlsTransport(take_socket(stream.transport_stream), tls, incoming, outgoing)


def _is_fresh(stream: trio.SSLStream[Any]) -> bool:
    try:
        stream.cipher()
    except trio.NeedHandshakeError:
        return True
    return False


def is_eof(exc: ssl.SSLError) -> bool:
    """Whether the peer has ended the stream, with close_notify or without."""
    # Python 3.10 gives the plain SSLError for the end without close_notify (trio's _ssl.py knows the same).
    return isinstance(exc, (ssl.SSLZeroReturnError, ssl.SSLEOFError)) or exc.reason == "UNEXPECTED_EOF_WHILE_READING"
