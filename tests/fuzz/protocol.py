"""A connection that is open, in either role: whatever comes gives events, never an exception, and a clean end."""

from __future__ import annotations

import sys
from typing import Any

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, parse_frame
from trio_pyjo_ws.wire.protocol import Agreement, Piece, Pong, Protocol, State

from .cutting import pieces

CLIENT, COMPRESSION, NO_TAKEOVER, SMALL_WINDOW, FRAMES, CLOSING, PIECES = 1, 2, 4, 8, 16, 32, 64
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


def read_in_pieces(protocol: Protocol, data: list[bytes], limit: int) -> list[Any]:
    """All events, with each message put together of the pieces that it was asked for in."""
    found: list[Any] = []
    parts: list[Any] = []
    for arrived in data:
        rest, more = arrived, True
        while more:
            if protocol.state is State.OPEN and not protocol.giving_pieces:
                protocol.give_pieces()
            for event in protocol.client_read(rest, max_messages=limit, max_bytes=100):
                if isinstance(event, Piece):
                    parts.append(event.data)
                    if event.final:
                        found.append(parts[0][:0].join(parts))
                        parts.clear()
                else:
                    found.append(event)
            rest, more = b"", protocol.pending
    return found


def comparable(events: list[Any]) -> list[Any]:
    return [(str(e), e.code) if isinstance(e, RemoteProtocolError) else e for e in events]


def check_pieces(whole: list[Any], found: list[Any]) -> None:
    """The messages are the same. The breach may be another: some limits are, and payloads are seen before their end."""
    if whole and isinstance(whole[-1], RemoteProtocolError):
        if whole[-1].code not in (1008, 1009):
            assert isinstance(found[-1], RemoteProtocolError)
            assert len(found) == len(whole)
        whole = whole[:-1]
    assert found[: len(whole)] == whole


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
    if flags & PIECES and not flags & (FRAMES | SMALL_WINDOW):  # For the windows, see the inflater.
        check_pieces(events, read_in_pieces(connection(flags, max_size), pieces(wire, size), limit + 1))
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
