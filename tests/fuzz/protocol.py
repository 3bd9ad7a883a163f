"""A connection that is open, in either role: whatever comes gives events, never an exception, and a clean end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.deflate import Agreement, Deflate
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, parse_frame
from trio_pyjo_ws.wire.states import State

from .cutting import pieces
from .pure import IMPLEMENTATIONS

if TYPE_CHECKING:
    from .pure import Wire

CLIENT, COMPRESSION, NO_TAKEOVER, SMALL_WINDOW, FRAMES, CLOSING, PIECES = 1, 2, 4, 8, 16, 32, 64
MAX_EMPTY_FRAGMENTS = 4
SOURCES = IMPLEMENTATIONS["pure Python"]


def connection(implementation: Wire, flags: int, max_size: int) -> Any:
    takeover = not flags & NO_TAKEOVER
    bits = 9 if flags & SMALL_WINDOW else 15
    wishes = Deflate(
        client_no_context_takeover=not takeover,
        server_no_context_takeover=not takeover,
        client_max_window_bits=bits,
        server_max_window_bits=bits,
    )
    client = bool(flags & CLIENT)
    protocol = implementation.protocol.Protocol(
        "client" if client else "server",
        agreement=Agreement(None, wishes.codec(client=client) if flags & COMPRESSION else None),
        max_websocket_size=max_size,
        max_empty_fragments=MAX_EMPTY_FRAGMENTS,
    )
    protocol.watch_frames = bool(flags & FRAMES)
    if flags & CLOSING:
        protocol.send_close(1000)
    return protocol


def read(protocol: Any, data: list[bytes], limit: int) -> list[Any]:
    """All events, read in portions of ``limit``."""
    found: list[Any] = []
    for piece in data:
        found += protocol.client_read(piece, max_messages=limit, max_bytes=100)
        while protocol.pending:
            found += protocol.client_read(max_messages=limit, max_bytes=100)
    return found


def read_in_pieces(protocol: Any, data: list[bytes], limit: int) -> list[Any]:
    """All messages, each of them put together of pieces, and the end."""
    found: list[Any] = []
    parts: list[Any] = []
    for arrived in data:
        rest, more = arrived, True
        while more:
            arriving = protocol.arriving
            arriving.claim()
            events = protocol.client_read(rest, max_messages=min(limit, 1), max_bytes=100)
            if arriving.held:
                parts.append(arriving.take())
            if arriving.ended:
                found.append("".join(parts) if arriving.is_text else b"".join(parts))
                parts.clear()
            found += events
            rest, more = b"", protocol.pending
    return [event for event in found if is_message_or_end(event)]


def is_message_or_end(event: Any) -> bool:
    return isinstance(event, (str, bytes, Close, RemoteProtocolError))


def comparable(events: list[Any], flags: int) -> list[Any]:
    """The events but for frames: of those that hold a breach it depends on the cuts whether they are shown.

    Of a message that is both corrupt and too large, which of the two zlib sees first depends on the cuts, too.
    """
    codes = {1007: 1009} if flags & COMPRESSION else {}
    return [
        codes.get(event.code, event.code) if isinstance(event, RemoteProtocolError) else event
        for event in events
        if not isinstance(event, Frame)
    ]


def check_pieces(whole: list[Any], found: list[Any]) -> None:
    """The messages are the same. The breach may be another: some limits are, and payloads are seen before their end."""
    whole = [event for event in whole if is_message_or_end(event)]
    if whole and isinstance(whole[-1], RemoteProtocolError):
        if whole[-1].code not in (1008, 1009):
            assert isinstance(found[-1], RemoteProtocolError)
            assert len([event for event in found if event != ""]) == len([event for event in whole if event != ""])
        whole = whole[:-1]
    assert found[: len(whole)] == whole


def check(data: bytes) -> None:
    if len(data) < 4:
        return
    flags, max_size, size, limit = data[:4]
    wire = data[4:]
    protocol = connection(SOURCES, flags, max_size)
    events = read(protocol, [wire], sys.maxsize)
    for cut in {1, size}:
        for implementation in IMPLEMENTATIONS.values():
            again = connection(implementation, flags, max_size)
            assert comparable(read(again, pieces(wire, cut), limit + 1), flags) == comparable(events, flags)
            assert again.state is protocol.state
            assert again.close.__class__ is protocol.close.__class__
            assert (again.pings_owed, again.cut) == (protocol.pings_owed, protocol.cut)
    if flags & PIECES and not flags & (FRAMES | SMALL_WINDOW):  # For the windows, see the inflater.
        for implementation in IMPLEMENTATIONS.values():
            again = connection(implementation, flags, max_size)
            check_pieces(events, read_in_pieces(again, pieces(wire, size), limit + 1))
    for event in events:
        assert is_message_or_end(event) or isinstance(event, Frame) or type(event).__name__ == "Pong"
        if isinstance(event, (str, bytes)):
            assert len(event.encode() if isinstance(event, str) else event) <= max_size
    assert not any(isinstance(event, (Close, RemoteProtocolError)) for event in events[:-1])
    check_answers(protocol, bool(flags & CLOSING))
    # What is kept of a message that is not whole yet is no more than a message may have, and the byte that told so.
    assert protocol.arriving.held <= max_size + 1
    protocol.read_eof()
    assert protocol.close is not None
    assert protocol.client_read(wire) == []


def check_answers(protocol: Any, closing: bool) -> None:
    buffer = bytearray(protocol.take())
    answers = []
    while buffer:
        frame = parse_frame(buffer)
        assert frame is not None
        answers.append(frame)
    assert all(frame.opcode in (Opcode.PONG, Opcode.CLOSE) for frame in answers)
    assert sum(frame.opcode == Opcode.CLOSE for frame in answers) == (
        closing or protocol.state in (State.FAILED, State.CLOSED)
    )
