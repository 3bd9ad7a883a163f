"""The server that the clients are measured against: ``python -m bench.raw_echo PORT``, one connection after the other.

It speaks just enough RFC 6455, and unmasks nothing: what comes back are the bytes as the client had masked them.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import sys
from base64 import b64encode
from contextlib import suppress

from .load import HOST

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def serve(port: int) -> None:
    with socket.create_server((HOST, port)) as listener:
        while True:
            stream, _ = listener.accept()
            with stream, suppress(ConnectionError):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _serve_stream(stream)


def _serve_stream(stream: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = stream.recv(4096)
        if not data:
            return
        head += data
    key = re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", head)
    if key is None:
        return
    accept = b64encode(hashlib.sha1(key[1] + GUID).digest())  # noqa: S324 - RFC 6455, section 4.2.2
    stream.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    buffer = bytearray()
    closed = False
    while not closed and (data := stream.recv(1 << 18)):
        buffer += data
        replies, closed = echo(buffer)
        stream.sendall(replies)


def echo(buffer: bytearray) -> tuple[bytes, bool]:
    """Remove the complete frames from ``buffer``; return the answer to them, and whether a Close was among them."""
    replies: list[bytes] = []
    at = 0
    closed = False
    while not closed and len(buffer) - at >= 6:
        size = buffer[at + 1] & 0x7F
        start = at + 2
        if size >= 126:
            format_ = "!H" if size == 126 else "!Q"
            start += struct.calcsize(format_)
            if len(buffer) < start:
                break
            (size,) = struct.unpack_from(format_, buffer, at + 2)
        end = start + 4 + size
        if len(buffer) < end:
            break
        payload = bytes(buffer[start + 4 : end])
        closed = buffer[at] & 0x0F == 8
        if closed:  # the one payload that the client looks into
            payload = bytes(byte ^ buffer[start + index % 4] for index, byte in enumerate(payload))
        replies += [bytes([buffer[at], buffer[at + 1] & 0x7F]), bytes(buffer[at + 2 : start]), payload]
        at = end
    del buffer[:at]
    return b"".join(replies), closed


if __name__ == "__main__":
    serve(int(sys.argv[1]))
