"""A connection that is open, in either role: whatever comes gives events, never an exception, and a clean end."""

from __future__ import annotations

import sys
from typing import Any

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, parse_frame
from trio_pyjo_ws.wire.protocol import Agreement, Pong, Protocol, State

from .cutting import pieces

CLIENT, COMPRESSION, NO_TAKEOVER, SMALL_WINDOW, FRAMES, CLOSING = 1, 2, 4, 8, 16, 32
MAX_EMPTY_FRAGMENTS = 4


def connection(flags: int, max_size: int) -> Protocol:
    takeover = not flags & NO_TAKEOVER
    bits = 9 if flags & SMALL_WINDOW else 15
    wishes = Deflate(
        client_no_context_takeover=not takeover,
        server_no_context_takeover=not takeover,
        client_max_window_bits=bits,
        server_max_window_bits=bits,
    )
    client = bool(flags & CLIENT)
    protocol = Protocol(
        "client" if client else "server",
        agreement=Agreement(None, wishes.codec(client=client) if flags & COMPRESSION else None),
        max_websocket_size=max_size,
        max_empty_fragments=MAX_EMPTY_FRAGMENTS,
    )
    protocol.watch_frames = bool(flags & FRAMES)
    if flags & CLOSING:
        protocol.send_close(1000)
    return protocol


def read(protocol: Protocol, data: list[bytes], limit: int) -> list[Any]:
    """All events, read in portions of ``limit``."""
    found: list[Any] = []
    for piece in data:
        found += protocol.client_read(piece, max_messages=limit, max_bytes=100)
        while protocol.pending:
            found += protocol.client_read(max_messages=limit, max_bytes=100)
    return found


def comparable(events: list[Any]) -> list[Any]:
    return [(str(e), e.code) if isinstance(e, RemoteProtocolError) else e for e in events]


def check(data: bytes) -> None:
    if len(data) < 4:
        return
    flags, max_size, size, limit = data[:4]
    wire = data[4:]
    protocol = connection(flags, max_size)
    events = read(protocol, [wire], sys.maxsize)
    for cut in {1, size}:
        again = connection(flags, max_size)
        assert comparable(read(again, pieces(wire, cut), limit + 1)) == comparable(events)
        assert again.state is protocol.state
    for event in events:
        assert isinstance(event, (str, bytes, Frame, Pong, Close, RemoteProtocolError))
        if isinstance(event, (str, bytes)):
            assert len(event.encode() if isinstance(event, str) else event) <= max_size
    assert not any(isinstance(event, (Close, RemoteProtocolError)) for event in events[:-1])
    buffer = bytearray(protocol.take())
    answers = []
    while buffer:
        frame = parse_frame(buffer)
        assert frame is not None
        answers.append(frame)
    assert all(frame.opcode in (Opcode.PONG, Opcode.CLOSE) for frame in answers)
    assert sum(frame.opcode == Opcode.CLOSE for frame in answers) == (
        bool(flags & CLOSING) or protocol.state in (State.FAILED, State.CLOSED)
    )
    # What is kept of a message that is not whole yet is no more than a message may have.
    assert len(protocol._assembly._message) <= max_size
    protocol.read_eof()
    assert protocol.close is not None
    assert protocol.client_read(wire) == []
