"""What a connection asks of its socket: take some bytes, give some, without waiting.

It exists twice, with the same names and the same tests: this one, by Python's own socket methods, and
``sockets.pyx``, which calls the kernel itself. The latter saves a tenth of what a small message costs: it receives into
one buffer for all connections, so that nothing is allocated before its size is known, and does not let go of the
interpreter for a call that cannot block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

__all__ = ["RECEIVE_SIZE", "Socket"]

RECEIVE_SIZE = 122_880
"""Bytes that one read asks for, and so what a connection holds of unparsed input at the most.

Just below glibc's threshold for a mapping of its own (128 KiB). Above it, a read that brings less costs 14 us more than
its system call, for mapping, unmapping and page faults: an echo of 64 KiB took 47 us with reads of 256 KiB, and 24 with
these; of 1 MiB, 383 us and 230.
"""


class Socket:
    """A connected socket that does not block. Nobody else may close it: another would get its number."""

    __slots__ = ("_receive", "_send", "close")

    def __init__(self, sock: socket.socket) -> None:
        self._receive = sock.recv
        self._send = sock.send
        self.close = sock.close

    def send(self, data: bytes | memoryview) -> int:
        """Hand ``data`` over; return how many bytes were taken, 0 if none can be now. Raises OSError."""
        try:
            return self._send(data)
        except BlockingIOError:
            return 0

    def receive(self) -> bytes | None:
        """What has come; ``b""`` at the end of the stream, None if there is nothing. Raises OSError."""
        try:
            return self._receive(RECEIVE_SIZE)
        except BlockingIOError:
            return None
