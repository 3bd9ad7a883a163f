"""The load on a server: raw sockets that speak just enough RFC 6455, and the reading of what it costs the server.

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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from .plan import Scenario

HOST = "127.0.0.1"
TIMEOUT = 20
WARM_UP = 0.15
MASK = b"\x12\x34\x56\x78"
BLOCKING_SIZE = 100_000  # what the kernel's buffers hold for certain, so that both sides may write before they read
WARM_CONNECTIONS = 20  # before memory is counted: the first ones pay for what all share

_buffer = memoryview(bytearray(1 << 20))


def cpu_ns(pid: int | str) -> int:
    """Nanoseconds that all threads of a process have spent on the CPU."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def resident_kib(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def masked_frame(payload: bytes, opcode: int = 2) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    key = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return head + MASK + masked.to_bytes(size, "little")


def unmasked_size(size: int) -> int:
    """Bytes of the frame that a server sends for a message."""
    return size + (2 if size < 126 else 4 if size < 1 << 16 else 10)


def open_websocket(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    stream = socket.create_connection((HOST, port), TIMEOUT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        stream = context.wrap_socket(stream, server_hostname=HOST)
    key = b64encode(os.urandom(16)).decode()
    stream.sendall(
        f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    reply = b""
    while b"\r\n\r\n" not in reply:
        data = stream.recv(4096)
        if not data:
            raise ConnectionError(f"closed in the opening handshake, after {reply!r:.60}")
        reply += data
    if not reply.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"refused: {reply!r:.60}")
    return stream


def measure(scenario: Scenario, port: int, pid: int, seconds: float, context: ssl.SSLContext | None = None) -> float:
    """The figure of one scenario: CPU time for a message in microseconds, or memory for a connection in KiB."""
    if scenario.kind == "idle":
        return _idle(scenario.amount, port, pid)
    if scenario.kind == "conn":
        return _cost(lambda: _connect_once(port), 1, pid, seconds)
    if scenario.kind == "room":
        return _broadcast(scenario, port, pid, seconds)
    blob = masked_frame(os.urandom(scenario.size)) * scenario.amount
    expected = unmasked_size(scenario.size) * scenario.amount
    with open_websocket(port, context) as stream:
        return _cost(lambda: _exchange(stream, blob, expected), scenario.amount, pid, seconds)


def _cost(once: Callable[[], object], messages: int, pid: int, seconds: float) -> float:
    _repeat(once, WARM_UP)
    before = cpu_ns(pid)
    times = _repeat(once, seconds)
    return (cpu_ns(pid) - before) / (times * messages) / 1000


def _repeat(once: Callable[[], object], seconds: float) -> int:
    times, end = 0, time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        once()
        times += 1
    return times


def _read_exactly(stream: socket.socket, size: int) -> None:
    while size:
        got = stream.recv_into(_buffer, min(size, len(_buffer)))
        if not got:
            raise ConnectionError("the server has closed")
        size -= got


def _exchange(stream: socket.socket, blob: bytes, expected: int) -> None:
    if len(blob) < BLOCKING_SIZE:
        stream.sendall(blob)
        _read_exactly(stream, expected)
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


def _connect_once(port: int) -> None:
    with open_websocket(port) as stream:
        stream.sendall(masked_frame(b"hello"))
        _read_exactly(stream, unmasked_size(5))
        stream.sendall(masked_frame(struct.pack("!H", 1000), opcode=8))
        while stream.recv(4096):
            pass


def _settle(pid: int) -> None:
    """Wait until the server has nothing left to do."""
    end = time.perf_counter() + TIMEOUT
    spent, before = cpu_ns(pid), 0
    while spent - before > 1_000_000 and time.perf_counter() < end:
        time.sleep(0.1)
        before, spent = spent, cpu_ns(pid)


def _idle(count: int, port: int, pid: int) -> float:
    streams = [open_websocket(port) for _ in range(WARM_CONNECTIONS)]
    try:
        _settle(pid)
        before = resident_kib(pid)
        streams += [open_websocket(port) for _ in range(count)]
        _settle(pid)
        return (resident_kib(pid) - before) / count
    finally:
        for stream in streams:
            stream.close()
        _settle(pid)


def _broadcast(scenario: Scenario, port: int, pid: int, seconds: float) -> float:
    """The cost of a delivery. Whatever a reader says, the server broadcasts: here always the first one speaks."""
    readers: list[socket.socket] = []
    try:
        readers += [open_websocket(port) for _ in range(scenario.amount)]
        _settle(pid)
        blob, expected = masked_frame(os.urandom(scenario.size)), unmasked_size(scenario.size)

        def once() -> None:
            readers[0].sendall(blob)
            for reader in readers:
                _read_exactly(reader, expected)

        return _cost(once, scenario.amount, pid, seconds)
    finally:
        for reader in readers:
            reader.close()
