"""What the load on a server is made of: raw sockets that speak just enough RFC 6455, and the cost to the server.

The cost is the CPU time of all the server's threads, as the kernel counts it in ``/proc/PID/task/*/schedstat``. Load
and server share one core, so that the figures do not depend on how fast an idle core wakes up; what the load itself
costs is not in them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
TIMEOUT = 20
WARM_UP = 3  # times
MASK = b"\x12\x34\x56\x78"
BLOCKING_SIZE = 100_000  # what the kernel's buffers hold for certain, so that both sides may write before they read

_buffer = memoryview(bytearray(1 << 20))


def cpu_ns(pid: int) -> int:
    """Nanoseconds that all threads of a process have spent on the CPU."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def resident_kib(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def masked_frame(payload: bytes, opcode: int = 2, fin: bool = True, rsv1: bool = False) -> bytes:
    first, size = fin << 7 | rsv1 << 6 | opcode, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    key = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return head + MASK + masked.to_bytes(size, "little")


def message_in_fragments(payload: bytes, count: int) -> bytes:
    """A binary message in so many frames, of one size."""
    size = len(payload) // count
    pieces = [payload[start : start + size] for start in range(0, size * count, size)]
    return b"".join(
        masked_frame(piece, opcode=0 if number else 2, fin=number == count - 1) for number, piece in enumerate(pieces)
    )


def unmasked_size(size: int) -> int:
    """Bytes of the frame that a server sends for a message."""
    return size + (2 if size < 126 else 4 if size < 1 << 16 else 10)


def connect(port: int) -> socket.socket:
    stream = socket.create_connection((HOST, port), TIMEOUT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def opening_request(port: int, *headers: str) -> bytes:
    key = b64encode(os.urandom(16)).decode()
    lines = [f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade", *headers]
    lines += [f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13", "", ""]
    return "\r\n".join(lines).encode()


def read_response(receive: Callable[[int], bytes]) -> bytes:
    """Read the response to the opening request, which has to accept it."""
    response = b""
    while b"\r\n\r\n" not in response:
        data = receive(4096)
        if not data:
            raise ConnectionError(f"closed in the opening handshake, after {response!r:.60}")
        response += data
    if not response.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"refused: {response!r:.60}")
    return response


def open_websocket(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    stream = connect(port)
    if context is not None:
        stream = context.wrap_socket(stream, server_hostname=HOST)
    stream.sendall(opening_request(port))
    read_response(stream.recv)
    return stream


@contextmanager
def many(port: int, count: int, context: ssl.SSLContext | None = None) -> Iterator[list[socket.socket]]:
    """So many connections, closed in the end."""
    streams: list[socket.socket] = []
    try:
        for _ in range(count):
            streams.append(open_websocket(port, context))  # noqa: PERF401 - those opened before an error are closed
        yield streams
    finally:
        for stream in streams:
            stream.close()


def slice_of(once: Callable[[], object], messages: int, pid: int, seconds: float) -> float:
    """CPU time of a message, in microseconds, over one short slice of time; ``once`` exchanges so many messages."""
    for _ in range(WARM_UP):
        once()
    before, times, end = cpu_ns(pid), 0, time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        once()
        times += 1
    return (cpu_ns(pid) - before) / (times * messages) / 1000


def receive_exactly(stream: socket.socket, size: int) -> None:
    while size:
        got = stream.recv_into(_buffer, min(size, len(_buffer)))
        if not got:
            raise ConnectionError("the server has closed")
        size -= got


def receive_frame(stream: socket.socket) -> bytes:
    """Read a frame of any size; return its payload."""
    size = _read(stream, 2)[1]
    if size >= 126:
        size = int.from_bytes(_read(stream, 2 if size == 126 else 8), "big")
    return _read(stream, size)


def _read(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = stream.recv(size - len(data))
        if not received:
            raise ConnectionError("the server has closed")
        data += received
    return data


def exchange(stream: socket.socket, blob: bytes, expected: int) -> None:
    if len(blob) < BLOCKING_SIZE:
        stream.sendall(blob)
        receive_exactly(stream, expected)
        return
    unsent = memoryview(blob)
    while expected:
        readable, writable, _ = select.select([stream], [stream] if unsent else [], [], TIMEOUT)
        if not readable and not writable:
            raise TimeoutError("the server does not answer")
        if writable:
            unsent = unsent[stream.send(unsent) :]
        if readable:
            got = stream.recv_into(_buffer, min(expected, len(_buffer)))
            if not got:
                raise ConnectionError("the server has closed")
            expected -= got


def settle(pid: int) -> None:
    """Wait until the server has nothing left to do."""
    end = time.perf_counter() + TIMEOUT
    spent, before = cpu_ns(pid), 0
    while spent - before > 1_000_000 and time.perf_counter() < end:
        time.sleep(0.1)
        before, spent = spent, cpu_ns(pid)
